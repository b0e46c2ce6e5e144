//! What `kubeconfig` writes, and what it refuses.

use serde_json::{Value, json};

use super::{Kubeconfig, scalar};
use crate::api::base64;
use crate::api::conformance::Example;
use crate::api::fake::{Desk, Fake};
use crate::api::issue::make_request;
use crate::api::trial::{error_of, trial};

const PATH: &str = "/etc/kubernetes/admin.kubeconfig";

/// A key and a certificate for it.
fn pair() -> (String, String) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn host(certificate: &str, key: &str) -> Fake {
    Fake::new().file("/etc/ssl/ca.pem", "the authority\n").file("/etc/ssl/admin.pem", certificate).file("/etc/ssl/admin-key.pem", key)
}

/// Arguments with `more` in their place.
fn arguments(more: &Value) -> Value {
    let mut arguments = json!({
        "path": PATH, "server": "https://127.0.0.1:6443", "certificate_authority": "/etc/ssl/ca.pem", "user": "admin",
        "certificate": "/etc/ssl/admin.pem", "key": "/etc/ssl/admin-key.pem", "parents": true,
    });
    for (name, value) in more.as_object().unwrap() {
        if value.is_null() {
            arguments.as_object_mut().unwrap().remove(name)
        } else {
            arguments.as_object_mut().unwrap().insert(name.clone(), value.clone())
        };
    }
    arguments
}

fn token() -> Value {
    arguments(&json!({ "user": "kubelet-bootstrap", "certificate": null, "key": null, "token": "0123456789abcdef", "embed": true }))
}

pub(super) fn examples() -> Vec<Example> {
    let (certificate, key) = pair();
    let host = host(&certificate, &key);
    vec![
        Example::new("names the files", arguments(&json!({}))).on(host.clone()),
        Example::new("holds the files", arguments(&json!({ "embed": true }))).on(host.clone()),
        Example::new("mends mode and content", arguments(&json!({ "mode": "0600" }))).on(host.clone().file(PATH, "old")),
        Example::new("holds a token", token()).on(host),
    ]
}

#[test]
fn the_files_are_named() {
    let done = trial::<Kubeconfig>(arguments(&json!({ "context": "admin@here" })), &Desk::new(), host("c", "k")).unwrap();
    let expected = "# Written by kplay.\napiVersion: v1\nkind: Config\nclusters:\n  - name: kubernetes\n    cluster:\n      \
                    server: https://127.0.0.1:6443\n      certificate-authority: /etc/ssl/ca.pem\nusers:\n  - name: admin\n    user:\n      \
                    client-certificate: /etc/ssl/admin.pem\n      client-key: /etc/ssl/admin-key.pem\ncontexts:\n  - name: admin@here\n    \
                    context:\n      cluster: kubernetes\n      user: admin\ncurrent-context: admin@here\n";
    assert_eq!(done.host.text(PATH).unwrap(), expected);
    assert!(done.host.state()[PATH].contains("0600"), "{}", done.host.state()[PATH]);
}

#[test]
fn the_files_are_held_and_written_again_when_they_change() {
    let (certificate, key) = pair();
    let embedded = arguments(&json!({ "embed": true }));
    let done = trial::<Kubeconfig>(embedded.clone(), &Desk::new(), host(&certificate, &key)).unwrap();
    let text = done.host.text(PATH).unwrap();
    for (name, content) in
        [("certificate-authority-data", "the authority\n"), ("client-certificate-data", &certificate), ("client-key-data", &key)]
    {
        assert!(text.contains(&format!("{name}: {}\n", base64::encode(content.as_bytes()))), "{name} in {text}");
    }
    let (certificate, key) = pair();
    let renewed = done.host.file("/etc/ssl/admin.pem", &certificate).file("/etc/ssl/admin-key.pem", &key);
    let again = trial::<Kubeconfig>(embedded, &Desk::new(), renewed).unwrap();
    assert_eq!(again.log.len(), 1, "{:?}", again.log);
    assert!(again.host.text(PATH).unwrap().contains(&base64::encode(key.as_bytes())));
}

#[test]
fn a_token_stands_in_quotes_where_it_looks_like_a_number() {
    let done = trial::<Kubeconfig>(token(), &Desk::new(), host("c", "k")).unwrap();
    assert!(done.host.text(PATH).unwrap().contains("      token: \"0123456789abcdef\"\n"));
    for (text, yaml) in [("a.b", "a.b"), ("no", "\"no\""), ("a: b", "\"a: b\""), ("1e3", "\"1e3\""), ("x:", "\"x:\""), ("a\"", "\"a\\\"\"")]
    {
        assert_eq!(scalar(text), yaml);
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let (certificate, key) = pair();
    let (other, _) = make_request(None, "ecdsa:p256").unwrap();
    let said = |more: Value, host: Fake| error_of::<Kubeconfig>(arguments(&more), &Desk::new(), host);
    let cases = [
        (json!({ "server": "http://127.0.0.1:8080" }), "server: `server` is not the address of an apiserver: `http://127.0.0.1:8080`"),
        (json!({ "key": null }), "certificate: `certificate` is given without its `key`"),
        (json!({ "certificate": null }), "key: `key` is given without its `certificate`"),
        (json!({ "key": null, "certificate": null }), "it is not said how the user proves who it is"),
        (json!({ "token": "t" }), "token: `token` and a certificate exclude each other"),
        (json!({ "user": " " }), "user: `user` is empty"),
        (json!({ "key": "/etc/ssl/none.pem" }), "key: `/etc/ssl/none.pem` does not exist (issue it first, with the module `cert`)"),
    ];
    for (more, error) in cases {
        let seen = said(more.clone(), host(&certificate, &key));
        assert!(seen.starts_with(error), "{more}: {seen}");
    }
    let seen = said(json!({ "embed": true }), host(&certificate, &other));
    assert!(seen.starts_with("key: the certificate `/etc/ssl/admin.pem` does not belong to the key `/etc/ssl/admin-key.pem`"), "{seen}");
    let seen = said(json!({ "embed": true }), host("no certificate", &key));
    assert!(seen.starts_with("certificate: `/etc/ssl/admin.pem` is not a certificate"), "{seen}");
}
