//! The cases of `wait_for`, on a host in memory and with real sockets on the loopback interface.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::json;

use super::*;
use crate::api::AnyModule;
use crate::api::fake::{Desk, Fake};

pub(super) fn examples() -> Vec<Example> {
    vec![
        Example::new("a path that is there", json!({ "path": "/etc" })),
        Example::new("a path that is gone", json!({ "path": "/etc/none", "state": "absent", "consecutive": 2, "interval": 0.05 })),
        Example::new("a unit", json!({ "unit": "app" })).on(Fake::new().unit("app", |unit| unit.active_state = "active".into())),
        Example::new("a closed port", json!({ "port": 1, "state": "closed" })),
        Example::new("a port that is listened on", json!({ "port": 6443, "address": "10.4.7.21", "timeout": 1 })).on(listening()),
    ]
}

/// Returns a host that listens on 10.4.7.21:6443 and on port 8080 of all addresses.
fn listening() -> Fake {
    Fake::new().file(
        "/proc/net/tcp",
        "  sl  local_address rem_address   st\n 0: 1507040A:192B 00000000:0000 0A x\n 1: 00000000:1F90 00000000:0000 0A x\n",
    )
}

fn module(arguments: Value) -> Result<Box<dyn AnyModule>, ModuleError> {
    let mut module = (crate::find("wait_for").unwrap().parse)(arguments)?;
    module.prepare(&Desk::new())?;
    Ok(module)
}

/// Waits for no time at all.
fn look(mut arguments: Value, host: &Fake) -> Result<Proposal, ModuleError> {
    arguments["timeout"] = json!(0);
    module(arguments).unwrap().check(host)
}

fn said(arguments: Value, host: &Fake) -> String {
    look(arguments, host).unwrap_err().message
}

#[test]
fn ports() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = Fake::new();
    look(json!({ "port": port }), &host).unwrap();
    assert_eq!(
        said(json!({ "port": port, "state": "closed" }), &host),
        format!("port {port} of 127.0.0.1 is not closed within 0 s: connections are taken")
    );
    drop(listener);
    look(json!({ "port": port, "state": "closed" }), &host).unwrap();
    assert_eq!(said(json!({ "port": port }), &host), format!("port {port} of 127.0.0.1 is not open within 0 s: connection refused"));
    let unknown = json!({ "port": port, "host": "no such host", "state": "closed" });
    assert_eq!(said(unknown, &host), format!("port {port} of no such host is not closed within 0 s: `no such host` cannot be resolved"));
}

#[test]
fn listening_sockets() {
    let proposal = look(json!({ "port": 8080, "address": "192.0.2.1" }), &listening()).unwrap();
    assert_eq!(proposal.output["addresses"], json!(["0.0.0.0"]));
    look(json!({ "port": 6443, "address": "127.0.0.1", "state": "closed" }), &listening()).unwrap();
    assert_eq!(
        said(json!({ "port": 6443, "address": "127.0.0.1" }), &listening()),
        "port 6443 is not listened on at 127.0.0.1 within 0 s: it is listened on at 10.4.7.21"
    );
    assert_eq!(
        said(json!({ "port": 443, "address": "0.0.0.0" }), &listening()),
        "port 443 is not listened on at 0.0.0.0 within 0 s: nothing listens on it"
    );
    assert_eq!(
        said(json!({ "port": 8080, "address": "10.4.7.21", "state": "closed" }), &listening()),
        "port 8080 is not closed at 10.4.7.21 within 0 s: it is listened on at 0.0.0.0"
    );
}

#[test]
fn paths_and_units() {
    let unit = |active: &'static str, sub: &'static str| {
        Fake::new().unit("app", move |unit| {
            (unit.active_state, unit.sub_state, unit.result) = (active.into(), sub.into(), "exit-code".into());
        })
    };
    assert_eq!(said(json!({ "path": "/none" }), &Fake::new()), "`/none` is not present within 0 s: there is nothing");
    assert_eq!(said(json!({ "path": "/etc", "state": "absent" }), &Fake::new()), "`/etc` is not absent within 0 s: it is still there");
    look(json!({ "unit": "app" }), &unit("active", "running")).unwrap();
    look(json!({ "unit": "app", "state": "inactive" }), &unit("failed", "failed")).unwrap();
    assert_eq!(
        said(json!({ "unit": "app" }), &unit("activating", "auto-restart")),
        "the unit `app` is not active within 0 s: it is activating (auto-restart)"
    );
    assert_eq!(
        said(json!({ "unit": "app" }), &unit("failed", "failed")),
        "the unit `app` is not active: it is failed (failed), result: exit-code"
    );
    assert_eq!(said(json!({ "unit": "none" }), &Fake::new()), "the unit `none` is not active: there is no such unit");
}

#[test]
fn answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap_or(0);
            let good = String::from_utf8_lossy(&request[..count]).contains("/good");
            let status = if good { "200 OK" } else { "500 Internal Server Error" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\n\r\n[+]ping ok\n[-]etcd failed\n");
        }
    });
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let host = Fake::new();
    let good = look(json!({ "url": url("/good"), "body": "ping +ok" }), &host).unwrap();
    assert_eq!((good.output["status"].as_u64(), good.output["body"].as_str()), (Some(200), Some("[+]ping ok\n[-]etcd failed\n")));
    look(json!({ "url": url("/bad"), "status": [200, 500] }), &host).unwrap();
    let error = look(json!({ "url": url("/bad") }), &host).unwrap_err();
    assert_eq!(error.message, format!("`{}` does not answer as expected within 0 s: status 500", url("/bad")));
    assert_eq!(error.details, ["[+]ping ok", "[-]etcd failed"]);
    let error = look(json!({ "url": url("/good"), "body": "healthy" }), &host).unwrap_err();
    assert!(error.message.ends_with("status 200, but the body does not match"));
    let error = look(json!({ "url": "https://127.0.0.1:1/", "ca": "/etc/none.pem" }), &host).unwrap_err();
    assert!(error.message.ends_with("cannot read `/etc/none.pem`: no such file or directory"), "{error}");
}

#[test]
fn what_comes_late_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let opens_late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        TcpListener::bind(("127.0.0.1", port)).unwrap()
    });
    module(json!({ "port": port, "timeout": 20, "interval": 0.05, "consecutive": 3 })).unwrap().check(&Fake::new()).unwrap();
    opens_late.join().unwrap();
}

#[test]
fn a_forecast_looks_once() {
    let since = Instant::now();
    let host = Fake::new().forecasting();
    let error = module(json!({ "path": "/none", "timeout": 600 })).unwrap().check(&host).unwrap_err();
    assert_eq!(error.message, "`/none` is not present: there is nothing");
    module(json!({ "path": "/etc", "consecutive": 100 })).unwrap().check(&host).unwrap();
    assert!(since.elapsed() < Duration::from_secs(60));
}

#[test]
fn arguments_that_do_not_go_together_are_refused() {
    let cases = [
        (json!({}), "nothing is waited for", None),
        (json!({ "port": 1, "path": "/a" }), "`port` and `path` cannot be waited for by one task", Some("path")),
        (json!({ "path": "/a", "host": "b" }), "`host` belongs to `port` and means nothing for `path`", Some("host")),
        (json!({ "unit": "a", "status": 200 }), "`status` belongs to `url` and means nothing for `unit`", Some("status")),
        (json!({ "port": 0 }), "0 is not a port", Some("port")),
        (json!({ "port": 1, "state": "active" }), "`active` is neither `open` nor `closed`", Some("state")),
        (json!({ "port": 1, "address": "a" }), "`a` is not an IP address", Some("address")),
        (
            json!({ "port": 1, "address": "::1", "host": "b" }),
            "`address` is one of the host's own, and `host` names another",
            Some("address"),
        ),
        (json!({ "path": "a" }), "`path` is not an absolute path: `a`", Some("path")),
        (json!({ "unit": "" }), "`unit` is empty", Some("unit")),
        (json!({ "url": "ftp://a" }), "`ftp://a` is not the address of a server", Some("url")),
        (json!({ "url": "https://" }), "`https://` is not the address of a server", Some("url")),
        (json!({ "url": "http://a", "ca": "/a" }), "`ca` means something for `https://` alone", Some("ca")),
        (json!({ "url": "https://a", "cert": "/a" }), "`cert` is given, but not its `key`", Some("cert")),
        (json!({ "url": "https://a", "status": [] }), "a status is between 100 and 599", Some("status")),
        (json!({ "url": "https://a", "state": "open" }), "a server is waited for by `status` and `body`, not by `state`", Some("state")),
        (json!({ "path": "/a", "interval": 0 }), "`interval` is not between 0.05 and 3600 seconds", Some("interval")),
        (json!({ "path": "/a", "consecutive": 0 }), "`consecutive` is 0: nothing would be waited for", Some("consecutive")),
    ];
    for (arguments, message, argument) in cases {
        let error = module(arguments).err().unwrap();
        assert_eq!((error.message.as_str(), error.argument.as_deref()), (message, argument));
    }
    assert!(module(json!({ "url": "https://a", "body": "(" })).err().unwrap().message.starts_with("`body` is not a regular expression"));
    assert!(module(json!({ "port": 65536 })).is_err());
}

#[test]
fn what_serves_explains_itself() {
    let crashing = |state: &'static str| {
        let host = Fake::new().unit("app", move |unit| (unit.active_state, unit.result) = (state.into(), "exit-code".into()));
        host.unit_says("app.service", "panic: no such flag\nMain process exited")
    };
    let task = json!({ "port": 1, "served_by": "app", "interval": 0.05, "timeout": 3600 });
    let error = module(task.clone()).unwrap().check(&crashing("failed")).unwrap_err();
    assert_eq!(error.message, "port 1 of 127.0.0.1 is not open: connection refused", "a unit that has failed is not waited for");
    let told = ["the unit is failed (dead), result: exit-code", "panic: no such flag", "Main process exited"];
    assert_eq!(error.details, told);
    let error = look(task, &crashing("activating")).unwrap_err();
    assert!(error.message.contains("within 0 s") && error.details[1] == "panic: no such flag", "{error:?}");
    let error = look(json!({ "unit": "app" }), &crashing("failed")).unwrap_err();
    assert_eq!(error.details, &told[1..]);
    let refused = module(json!({ "path": "/etc", "served_by": "app" })).err().unwrap();
    assert_eq!(refused.message, "`served_by` means nothing for `path`: ports and servers are served");
}
