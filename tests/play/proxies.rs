//! Roles of the proxies on folders: what they write, what they refuse, and what nobody gets to see.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::hosts;
use crate::support::kplay::Kplay;

/// Hosts a and b as proxies, and the repository's roles; `proxy` and `shared` are further parameters of the two roles.
fn proxies(proxy: &str, shared: &str) -> Kplay {
    let play = format!(
        r#"
        local other = {{ a = {{ address = "10.4.7.12", priority = 90 }}, b = {{ address = "10.4.7.11", priority = 100 }} }}
        play {{ name = "proxies", hosts = "all", run = function(host)
          local own = other[host.name == "a" and "b" or "a"]
          host:role("apiserver-proxy", {{ upstreams = {{ "10.4.7.21:6443", "10.4.7.22:6443" }}, {proxy} }})
          host:role("keepalived", {{
            vip = "10.4.7.10", interface = "ens32", virtual_router_id = 251, auth_pass = "moonbeam",
            address = own.address, priority = own.priority, peers = {{ other[host.name] }}, {shared}
          }})
        end }}
    "#
    );
    let kplay = hosts(&["a", "b"]).playbook(&play);
    std::os::unix::fs::symlink(repository().join("roles"), kplay.folder().join("roles")).unwrap();
    kplay
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

const FILES: [&str; 3] = ["etc/nginx/nginx.conf", "etc/keepalived/keepalived.conf", "etc/keepalived/check_port.sh"];
const SKIP: [&str; 2] = ["--skip-tags", "system"];

#[test]
fn files_are_written_once_and_passwords_never_shown() {
    let forecast = proxies("", "").args(SKIP).args(["--check", "--diff"]).stdout_has("auth_pass ********").run();
    assert!(!forecast.path("a/etc").exists(), "{}", forecast.stdout);
    let made = forecast.then().args(["play.lua", "--diff", "--events", "events.jsonl"]).args(SKIP).any_stdout().run();
    for (host, mode) in FILES.iter().flat_map(|file| ["a", "b"].map(|host| (format!("{host}/{file}"), file))).map(|(path, file)| {
        (
            path,
            if file.ends_with(".sh") {
                0o755
            } else if file.ends_with("keepalived.conf") {
                0o600
            } else {
                0o644
            },
        )
    }) {
        assert_eq!(made.path(&host).metadata().unwrap().permissions().mode() & 0o7777, mode, "{host}");
    }
    let (a, b) = (made.text("a/etc/keepalived/keepalived.conf"), made.text("b/etc/keepalived/keepalived.conf"));
    for text in [&a, &b] {
        assert!(text.contains("    state BACKUP\n") && text.contains("    nopreempt\n") && !text.contains("weight"), "{text}");
        assert!(text.contains("    auth_pass moonbeam\n"), "{text}");
    }
    assert!(a.contains("mcast_src_ip 10.4.7.11\n") && b.contains("mcast_src_ip 10.4.7.12\n"), "{a}{b}");
    for shown in [&made.stdout, &made.stderr, &made.text("events.jsonl")] {
        assert!(!shown.contains("moonbeam"), "{shown}");
    }
    made.then().args(["play.lua"]).args(SKIP).stdout_has("nothing changed").run();
}

#[test]
fn automatic_failback_has_a_master_and_enough_weight() {
    let made = proxies("", r#"failback = "automatic""#).args(SKIP).any_stdout().run();
    let (a, b) = (made.text("a/etc/keepalived/keepalived.conf"), made.text("b/etc/keepalived/keepalived.conf"));
    assert!(a.contains("    state MASTER\n") && b.contains("    state BACKUP\n"), "{a}{b}");
    for text in [&a, &b] {
        assert!(text.contains("    weight -20\n") && !text.contains("nopreempt"), "{text}");
    }
}

#[test]
fn a_proxy_listens_where_it_is_told_and_drains_whom_it_is_told() {
    let parameters = r#"proxy_address = "127.0.0.1", proxy_port = 8443, drained = { "10.4.7.22:6443" }, http = true"#;
    let made = proxies(parameters, "proxy_port = 8443").args(SKIP).any_stdout().run();
    let nginx = made.text("a/etc/nginx/nginx.conf");
    for line in [
        "server 10.4.7.21:6443     max_fails=3 fail_timeout=30s;",
        "server 10.4.7.22:6443     max_fails=3 fail_timeout=30s down;",
        "listen 127.0.0.1:8443 so_keepalive=60s:15s:4;",
        "proxy_timeout 1h;",
        "include /etc/nginx/sites-enabled/*;",
    ] {
        assert!(nginx.lines().any(|have| have.trim() == line), "{line}\n{nginx}");
    }
    assert!(made.text("a/etc/keepalived/keepalived.conf").contains("check_port.sh 8443\""));
}

#[test]
fn what_clients_would_suffer_from_is_refused_before_anything_is_written() {
    for (proxy, shared, told) in [
        (r#"proxy_timeout = "10s""#, "", "`proxy_timeout` has to be 600s or more, not `10s`"),
        (r#"proxy_timeout = "soon""#, "", "`proxy_timeout` has to be 600s or more, not `soon`"),
        (r#"drained = { "10.4.7.23:6443" }"#, "", "`drained` names `10.4.7.23:6443`, which is none of the upstreams"),
        (r#"drained = { "10.4.7.21:6443", "10.4.7.22:6443" }"#, "", "leaves no apiserver"),
        (r#"upstreams = { "10.4.7.21" }"#, "", "`upstreams` lists ADDRESS:PORT"),
        ("", "virtual_router_id = 0", "`virtual_router_id` is 0, and has to be between 1 and 255"),
        ("", "virtual_router_id = 256", "`virtual_router_id` is 256"),
        ("", "proxy_port = 0", "is given `0`, which is no port"),
        ("", r#"auth_pass = "123456789""#, "`auth_pass` has 9 characters"),
        ("", r#"vip = "10.4.7.11""#, "so that it cannot move"),
        ("", r#"failback = "automatic", weight = -10"#, "the weight -10 is not enough: priority 100 minus 10 is not below 90"),
        ("", r#"failback = "sometimes""#, "cannot be the string \"sometimes\""),
    ] {
        let ran = proxies(proxy, shared).args(SKIP).any_stdout().stderr_has(told).status(1).run();
        assert!(!ran.path("a/etc").exists() && !ran.path("b/etc").exists(), "{proxy} {shared}");
    }
}

#[test]
fn the_port_check_wants_a_port() {
    let check = |arguments: &[&str]| {
        let script = repository().join("roles/keepalived/files/check_port.sh");
        Command::new("sh").arg(script).args(arguments).output().unwrap().status.code()
    };
    for arguments in [&[][..], &[""], &["x"], &["-1"], &["7443x"], &["74 43"]] {
        assert_eq!(check(arguments), Some(2), "{arguments:?}");
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    if Command::new("ss").arg("-V").output().is_ok() {
        assert_eq!(check(&[&port]), Some(0));
        drop(listener);
        assert_eq!(check(&[&port]), Some(1));
    }
}
