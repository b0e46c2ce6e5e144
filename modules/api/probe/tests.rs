//! Probes against real sockets on the loopback interface.

use std::io::Write as _;
use std::net::TcpListener;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::api::http;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn ports_are_open_or_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(connect("127.0.0.1", port, SECOND), Ok(()));
    drop(listener);
    assert_eq!(connect("127.0.0.1", port, SECOND), Err(Unconnected::Closed("connection refused".to_owned())));
    assert_eq!(connect("no such host", port, SECOND), Err(Unconnected::Unresolved("`no such host` cannot be resolved".to_owned())));
}

#[test]
fn listening_sockets_are_read_from_the_kernels_tables() {
    let four = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
        \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n\
        \x20  1: 15070 4:192B\n\
        \x20  2: 1507040A:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n\
        \x20  3: 1507040A:192B 1607040A:8AE2 01 00000000:00000000 00:00000000 00000000     0\n";
    let six = "  sl  local_address\n\
        \x20  0: 00000000000000000000000000000000:192B 00000000000000000000000000000000:0000 0A 0\n\
        \x20  1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0\n";
    let shown = |port| listeners(&[four, six], port).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(8080), ["127.0.0.1", "::1"]);
    assert_eq!(shown(6443), ["10.4.7.21", "::"]);
    assert_eq!(shown(443), [""; 0]);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let found = listeners(&tables.each_ref().map(String::as_str), listener.local_addr().unwrap().port());
    assert_eq!(found, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn addresses_are_covered_by_themselves_and_by_all() {
    let case = |listening: &str, wanted: &str| covers(listening.parse().unwrap(), wanted.parse().unwrap());
    assert!(case("10.0.0.1", "10.0.0.1") && case("0.0.0.0", "10.0.0.1") && case("::", "10.0.0.1") && case("::", "fe80::1"));
    assert!(case("::ffff:10.0.0.1", "10.0.0.1"));
    assert!(!case("10.0.0.2", "10.0.0.1") && !case("0.0.0.0", "::1") && !case("10.0.0.1", "0.0.0.0") && !case("::1", "127.0.0.1"));
}

/// Answers one request of each connection with `answer`.
fn serve(answer: &'static str, tls: Option<Arc<ServerConfig>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            let mut request = [0; 4096];
            match &tls {
                Some(config) => {
                    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream);
                    if matches!(stream.read(&mut request), Ok(1..)) {
                        let _ = stream.write_all(answer.as_bytes());
                        stream.conn.send_close_notify();
                        let _ = stream.flush();
                    }
                }
                None => {
                    let _ = stream.read(&mut request);
                    let _ = stream.write_all(answer.as_bytes());
                }
            }
        }
    });
    port
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

fn plain_request(url: &str) -> Result<Answer, String> {
    ask(Request { url, authorities: RootCerts::WebPki, client: None, patience: SECOND })
}

#[test]
fn an_answer_has_status_and_body_whatever_the_status() {
    let ask = |answer| plain_request(&format!("http://127.0.0.1:{}/readyz", serve(answer, None)));
    assert_eq!(ask(OK), Ok(Answer { status: 200, body: "ok".into() }));
    let failing = "HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\n\r\n[-]etcd failed\nreadyz check failed\n";
    assert_eq!(ask(failing), Ok(Answer { status: 500, body: "[-]etcd failed\nreadyz check failed\n".into() }));
    let elsewhere = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(ask(elsewhere).unwrap().status, 302, "a redirect is an answer");
    assert!(ask("nonsense\r\n\r\n").is_err());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(plain_request(&format!("http://127.0.0.1:{port}/")), Err("connection refused".to_owned()));
}

#[test]
fn a_server_that_wants_a_client_certificate_gets_one() {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&ca.pem(), ca_key).unwrap();
    let issue = |name: &str, usage| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let (server, server_key) = issue("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth);
    let (own, own_key) = issue("client", ExtendedKeyUsagePurpose::ClientAuth);

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let chain = vec![CertificateDer::from(server.der().to_vec())];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    let url = format!("https://127.0.0.1:{}/readyz", serve(OK, Some(Arc::new(config))));

    let shown = client(own.pem().as_bytes(), own_key.serialize_pem().as_bytes()).unwrap();
    let request = |client, authorities| ask(Request { url: &url, authorities, client, patience: SECOND * 5 });
    let trusted = || http::authorities(ca.pem().as_bytes()).unwrap();
    assert_eq!(request(Some(shown.clone()), trusted()), Ok(Answer { status: 200, body: "ok".into() }));
    let refused = request(None, trusted()).unwrap_err();
    assert!(refused.contains("CertificateRequired"), "{refused}");
    let unknown = request(Some(shown), RootCerts::WebPki).unwrap_err();
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
}

#[test]
fn a_client_certificate_that_is_none_is_said() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap().pem();
    assert_eq!(client(b"x", key.serialize_pem().as_bytes()).err().unwrap(), "there is no certificate in PEM form in it");
    assert_eq!(client(certificate.as_bytes(), b"x").err().unwrap(), "its key is not a private key in PEM form");
}
