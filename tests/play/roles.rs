//! Roles of the control plane on folders: what they write, what they keep on the controller, and what they refuse.

use std::path::{Path, PathBuf};

use crate::hosts;
use crate::support::kplay::{Kplay, Ran};

const PUBLISHED: &str = "lU9S9JnBJuVEqj6F7OyMAChw3T7cZwl16KmJ8gQtOnw=";
const CONFIG: &str = "etc/kubernetes/encryption-config.yaml";
const KEYS: &str = "pki/encryption-keys.yaml";

/// Hosts a and b, and the repository's roles; each host runs `body`.
fn masters(body: &str) -> Kplay {
    let kplay = hosts(&["a", "b"]).playbook(&playbook(body));
    std::os::unix::fs::symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("roles"), kplay.folder().join("roles")).unwrap();
    kplay
}

fn playbook(body: &str) -> String {
    format!("play {{ name = \"masters\", hosts = \"all\", vars = {{ master_owner = \"\" }}, run = function(host)\n{body}\nend }}\n")
}

const ENCRYPTION: &str =
    r#"host:role("encryption-at-rest", { encryption_keys = "pki/encryption-keys.yaml", encryption_peers = { "a", "b" } })"#;

/// A configuration with these keys, as document 000 writes it.
fn config(keys: &[(&str, &str)]) -> String {
    let keys: String = keys.iter().map(|(name, secret)| format!("            - name: {name}\n              secret: {secret}\n")).collect();
    format!(
        "kind: EncryptionConfig\napiVersion: v1\nresources:\n  - resources:\n      - secrets\n    providers:\n      - aescbc:\n          \
         keys:\n{keys}      - identity: {{}}\n"
    )
}

/// The controller's file with these keys.
fn kept(keys: &[(&str, &str)], dropped: &str) -> String {
    let keys: String = keys.iter().map(|(name, secret)| format!("  - name: {name}\n    secret: {secret}\n")).collect();
    format!("keys:\n{keys}dropped: [{dropped}]\n")
}

const ONE: (&str, &str) = ("key1", "b25lIG9uZSBvbmUgb25lIG9uZSBvbmUgb25lIG9uZSE=");
const TWO: (&str, &str) = ("key2", "dHdvIHR3byB0d28gdHdvIHR3byB0d28gdHdvIHR3byE=");

#[test]
fn a_key_is_made_once_and_shared() {
    let forecast = masters(ENCRYPTION).args(["--check", "--diff"]).any_stdout().run();
    assert!(!forecast.path("pki").exists() && !forecast.path("a/etc").exists());
    let made = forecast.then().args(["play.lua", "--diff", "--events", "events.jsonl"]).any_stdout().run();
    let config = made.text(&format!("a/{CONFIG}"));
    assert_eq!(config, made.text(&format!("b/{CONFIG}")));
    let key = config.split("secret: ").nth(1).unwrap().lines().next().unwrap().to_owned();
    assert!(key.len() == 44 && made.text(KEYS).contains(&key), "{config}");
    for shown in [&made.stdout, &made.stderr, &made.text("events.jsonl")] {
        assert!(!shown.contains(&key), "{shown}");
    }
    assert_eq!(mode(&made.path(&format!("a/{CONFIG}"))), 0o600);
    // Looking at it shows it as little as writing it.
    let again = made.then().args(["play.lua", "-v", "--events", "events.jsonl"]).stdout_has("changed=0").run();
    assert_eq!(again.text(&format!("a/{CONFIG}")), config);
    for shown in [&again.stdout, &again.stderr, &again.text("events.jsonl")] {
        assert!(!shown.contains(&key), "{shown}");
    }
    // A master that lost its file gets the same; so does the controller from any master.
    std::fs::remove_file(again.path(&format!("a/{CONFIG}"))).unwrap();
    std::fs::remove_dir_all(again.path("pki")).unwrap();
    let adopted = again.then().args(["play.lua"]).any_stdout().run();
    assert_eq!(adopted.text(&format!("a/{CONFIG}")), config);
    assert!(adopted.text(KEYS).contains(&key));
}

#[test]
fn a_key_is_rotated_in_steps_and_no_step_is_left_out() {
    let run = |ran: Ran, keys: &str| ran.then().file(KEYS, keys).args(["play.lua"]).any_stdout().run();
    let first = masters(ENCRYPTION).file(KEYS, &kept(&[ONE], "")).any_stdout().run();
    let refused = first.then().file(KEYS, &kept(&[TWO, ONE], "")).args(["play.lua"]).stdout_has("List it second").status(2).run();
    assert_eq!(refused.text(&format!("a/{CONFIG}")), config(&[ONE]));
    let added = run(refused, &kept(&[ONE, TWO], ""));
    let moved = run(added, &kept(&[TWO, ONE], ""));
    assert_eq!(moved.text(&format!("b/{CONFIG}")), config(&[TWO, ONE]));
    let refused = moved.then().file(KEYS, &kept(&[TWO], "")).args(["play.lua"]).stdout_has("list its name in `dropped`").status(2);
    let dropped = run(refused.run(), &kept(&[TWO], "key1"));
    assert_eq!(dropped.text(&format!("a/{CONFIG}")), config(&[TWO]));
}

/// As in the first of two passes over masters that serve: what others could not read yet is not encrypted.
#[test]
fn what_others_cannot_read_is_not_encrypted() {
    let role = |only_read: &str| {
        ENCRYPTION.replace(
            "encryption_keys",
            &format!("encrypted_resources = {{ \"secrets\", \"configmaps\" }}, only_read = {{ {only_read} }}, encryption_keys"),
        )
    };
    let first = masters(&role("\"configmaps\"")).file(KEYS, &kept(&[ONE], "")).any_stdout().run();
    let key = format!("      - aescbc:\n          keys:\n            - name: key1\n              secret: {}\n", ONE.1);
    let only_read = format!("  - resources:\n      - configmaps\n    providers:\n      - identity: {{}}\n{key}");
    assert_eq!(first.text(&format!("a/{CONFIG}")), config(&[ONE]) + &only_read);
    // The keys of both entries are the same ones, also where they are adopted.
    std::fs::remove_dir_all(first.path("pki")).unwrap();
    let all = first.then().file("play.lua", &playbook(&role(""))).args(["play.lua"]).any_stdout().run();
    assert_eq!(all.text(&format!("a/{CONFIG}")), config(&[ONE]).replace("      - secrets\n", "      - secrets\n      - configmaps\n"));
}

#[test]
fn keys_that_differ_or_are_no_secret_are_refused() {
    let on = |a: &str, b: &str| masters(ENCRYPTION).file(&format!("a/{CONFIG}"), a).file(&format!("b/{CONFIG}"), b).status(2);
    let differ = on(&config(&[ONE]), &config(&[TWO])).stdout_has("differs between a and b").run();
    assert!(!differ.path("pki").exists() && !differ.stdout.contains(ONE.1));
    let published = config(&[("key1", PUBLISHED)]);
    let refused = on(&published, &published).stdout_has("is the key that document 000 publishes").run();
    assert!(!refused.path("pki").exists());
    // The way out: the published one stays readable while a new one takes over.
    let on_the_way = kept(&[("key1", PUBLISHED), TWO], "");
    let added = refused.then().file(KEYS, &on_the_way).args(["play.lua"]).any_stdout().run();
    assert_eq!(added.text(&format!("a/{CONFIG}")), config(&[("key1", PUBLISHED), TWO]));
    // Of another kind.
    let other = config(&[ONE]).replace("aescbc", "secretbox");
    on(&other, &other).stdout_has("which this role does not manage").run();
}

#[test]
fn tokens_are_made_once_and_shared() {
    let body = r#"
        host:file({ path = "/etc/kubernetes/server/ssl", state = "directory", parents = true })
        host:copy({ dest = "/etc/kubernetes/server/ssl/ca.pem", content = "an authority\n" })
        host:role("token-file", { tokens = "pki/token.csv", token_peers = { "a", "b" }, bootstrap_kubeconfig = "/bootstrap" })
    "#;
    let made = masters(body).args(["--diff", "--events", "events.jsonl"]).any_stdout().run();
    let text = made.text("pki/token.csv");
    let token = text.strip_suffix(",kubelet-bootstrap,10001,\"system:kubelet-bootstrap\"\n").unwrap().to_owned();
    assert!(token.len() == 32 && made.text("a/bootstrap").contains(&token));
    assert_eq!((made.text("a/etc/kubernetes/token.csv"), made.text("b/etc/kubernetes/token.csv")), (text.clone(), text.clone()));
    for shown in [&made.stdout, &made.stderr, &made.text("events.jsonl")] {
        assert!(!shown.contains(&token), "{shown}");
    }
    let again = made.then().args(["play.lua", "-v", "--events", "events.jsonl"]).stdout_has("changed=0").run();
    assert!(!again.stdout.contains(&token) && !again.text("events.jsonl").contains(&token));
    std::fs::remove_dir_all(again.path("pki")).unwrap();
    let adopted = again.then().args(["play.lua"]).stdout_has("changed=0").run();
    assert_eq!(adopted.text("pki/token.csv"), text);
    let more = format!("{text}abcdefgh,somebody,1,\"\"\n");
    let refused = adopted.then().file("b/etc/kubernetes/token.csv", &more).args(["play.lua"]).status(2);
    refused.stdout_has("has a token for `somebody`").run();
}

#[test]
fn flags_are_translated_for_the_release_that_reads_them() {
    let role = |version: &str, more: &str| {
        format!(
            r#"host:role("kube-apiserver", {{ address = "10.0.0.1", apiserver_count = 2, etcd_servers = {{ "https://10.0.0.1:2379" }},
                 kubernetes_version = "{version}", target_ram_mb = 512, steps = {{ "configure" }}, {more} }})"#
        )
    };
    let unit = |version: &str, more: &str| {
        masters(&role(version, more)).args(["--limit", "a"]).any_stdout().run().text("a/usr/lib/systemd/system/kube-apiserver.service")
    };
    let old = unit("v1.20.2", r#"extra_flags = { "--experimental-bootstrap-token-auth", "--event-ttl=1h" }"#);
    assert!(old.contains("  --target-ram-mb=512 \\\n") && old.contains("  --log-dir /var/logs/kubernetes/kube-apiserver \\\n"), "{old}");
    assert!(old.contains("# --experimental-bootstrap-token-auth is --enable-bootstrap-token-auth here: "), "{old}");
    assert!(old.contains("  --enable-bootstrap-token-auth \\\n  --event-ttl=1h \\\n"), "{old}");
    let new = unit("v1.27.0", "insecure_port = 0");
    for flag in ["--target-ram-mb=512", "--log-dir=/var/logs/kubernetes/kube-apiserver", "--insecure-port=0"] {
        assert!(
            new.contains(&format!("# {flag} is left out: ")) && !new.contains(&format!("  {}", flag.split('=').next().unwrap())),
            "{flag}: {new}"
        );
    }
    let refused = |more: &str, why: &str| _ = masters(&role("v1.20.2", more)).any_stdout().stderr_has(why).status(1).run();
    refused(r#"extra_flags = { "--admission-control=LimitRanger" }"#, "--admission-control has to contain ServiceAccount");
    refused(r#"bind_address = "127.0.0.1""#, "must not be 127.0.0.1: no other machine would reach it");
    refused(r#"extra_flags = { "--disable-admission-plugins=ServiceAccount" }"#, "must not contain ServiceAccount");
    refused(r#"extra_flags = { "event-ttl=1h" }"#, "a flag begins with two dashes");
    refused("insecure_port = 8080", "parameter `insecure_port` of role `kube-apiserver` cannot be the number 8080");
}

/// The manual names every flag that the role translates, with the release and what it becomes.
#[test]
fn the_manual_lists_the_translated_flags() {
    let roles = Path::new(env!("CARGO_MANIFEST_DIR")).join("roles/kube-apiserver");
    let read = |name: &str| std::fs::read_to_string(roles.join(name)).unwrap();
    let (source, manual) = (read("flags.lua"), read("README.md"));
    let mut expected = Vec::new();
    for line in source.lines().filter(|line| line.starts_with("  [\"")) {
        let part = |begin: &str, end: &str| line.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map(|(part, _)| part);
        let becomes = part("becomes = \"", "\"").map_or_else(|| "nothing".to_owned(), |flag| format!("`--{flag}`"));
        expected.push(format!("| `--{}` | v1.{} | {becomes} |", part("[\"", "\"]").unwrap(), part("from = ", ",").unwrap()));
    }
    assert!(expected.len() > 5, "{expected:?}");
    assert_eq!(manual.lines().filter(|line| line.starts_with("| `--")).collect::<Vec<_>>(), expected);
}

#[test]
fn the_audit_policy_is_written_for_the_release_or_is_ones_own() {
    let policy = |more: &str| {
        let kplay = masters(&format!(r#"host:role("audit-policy", {{ audit_policy = "/etc/audit.yml", {more} }})"#));
        kplay.file("own.yaml", "kind: Policy\n").args(["--limit", "a"]).any_stdout().run().text("a/etc/audit.yml")
    };
    assert_eq!(policy(""), include_str!("../lab/documents/001-audit.yml"));
    assert!(policy("kubernetes_version = \"v1.24.0\"").starts_with("apiVersion: audit.k8s.io/v1 #"));
    assert_eq!(policy("audit_policy_source = \"own.yaml\""), "kind: Policy\n");
}

#[test]
fn a_client_has_certificate_and_kubeconfig() {
    let body = r#"
        host:file({ path = "/ssl", state = "directory" })
        host:copy({ dest = "/ssl/ca.pem", content = authority("pki") })
        for _, embed in ipairs({ false, true }) do
          local name = embed and "held" or "named"
          host:role("kube-client", { client = name, user = name, user_group = "viewers", kubeconfig = "/" .. name, embed = embed,
            pki_folder = "pki", ssl_folder = "/ssl" })
        end
    "#;
    let ran = masters(body).args(["--limit", "a"]).any_stdout().run();
    assert!(ran.text("a/named").contains("client-key: /ssl/named-key.pem\n"));
    assert!(ran.text("a/held").contains("client-key-data: LS0tLS1CRUdJTi"));
    assert_eq!(
        (mode(&ran.path("a/held")), mode(&ran.path("a/ssl/held-key.pem")), mode(&ran.path("a/ssl/held.pem"))),
        (0o600, 0o600, 0o644)
    );
    ran.then().args(["play.lua", "--limit", "a"]).stdout_has("changed=0").run();
}

#[test]
fn the_units_of_controllers_have_their_flags_where_they_shall() {
    let body = r#"
        host:file({ path = "/etc/kubernetes/server/ssl", state = "directory", parents = true })
        host:copy({ dest = "/etc/kubernetes/server/ssl/ca.pem", content = authority("pki") })
        for _, name in ipairs({ "kube-controller-manager", "kube-scheduler" }) do
          host:role(name, { pki_folder = "pki", steps = { "configure" }, flags_in = host.name == "a" and "unit" or "environment" })
        end
    "#;
    let ran = masters(body).any_stdout().run();
    for (name, file, port) in [("kube-controller-manager", "controller-manager", "10257"), ("kube-scheduler", "scheduler", "10259")] {
        let unit = ran.text(&format!("a/usr/lib/systemd/system/{name}.service"));
        assert!(unit.contains("  --leader-elect=true \\\n") && unit.contains(&format!("  --secure-port={port} \\\n")), "{unit}");
        assert!(
            unit.contains("  --port=0 \\\n") && unit.contains(&format!("--kubeconfig=/etc/kubernetes/server/conf/{name}.kubeconfig")),
            "{unit}"
        );
        let unit = ran.text(&format!("b/usr/lib/systemd/system/{name}.service"));
        assert!(unit.contains("EnvironmentFile=-/etc/kubernetes/config\n") && !unit.contains("--leader-elect"), "{unit}");
        assert!(ran.text(&format!("b/etc/kubernetes/{file}")).contains("--leader-elect=true "));
        assert!(ran.path(&format!("b/etc/kubernetes/server/conf/{name}.kubeconfig")).exists());
    }
    ran.then().args(["play.lua"]).stdout_has("changed=0").run();
}

fn mode(path: &PathBuf) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
