//! Downloads from servers of this test's own.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::super::tests::{Bench, attributes};
use super::*;
use crate::api::change::Change;
use crate::api::types::Digest;

/// Answers one request.
fn answer(mut stream: impl std::io::Read + Write, status: &str, body: &[u8]) {
    let mut lines = BufReader::new(&mut stream).lines();
    while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(body);
    let _ = stream.flush();
}

/// Serves as many connections as are told, and returns the port.
fn serve(connections: usize, handle: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().take(connections).flatten().for_each(handle));
    port
}

fn download(url: String, content: &[u8], ca: Option<&str>) -> Change {
    Change::Download(Download {
        url,
        digest: Digest::of(content),
        path: "/dest".into(),
        attributes: attributes(0o755),
        before: None,
        ca: ca.map(Into::into),
        timeout: 10,
    })
}

#[test]
fn a_file_comes_by_http() {
    let mut bench = Bench::new();
    let body = vec![b'x'; 3 << 20];
    let sent = body.clone();
    let port = serve(1, move |stream| answer(stream, "200 OK", &sent));
    bench.perform(&download(format!("http://127.0.0.1:{port}/a"), &body, None)).unwrap();
    assert_eq!(bench.text("/dest").len(), body.len());
}

#[test]
fn a_server_that_refuses_is_quoted() {
    let mut bench = Bench::new();
    let port = serve(1, |stream| answer(stream, "404 Not Found", b"no"));
    let error = bench.perform(&download(format!("http://127.0.0.1:{port}/a"), b"x", None)).unwrap_err();
    assert!(error.message.ends_with("the server answers with status 404"), "{error}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = bench.perform(&download(format!("http://127.0.0.1:{closed}/a"), b"x", None)).unwrap_err();
    assert!(error.message.contains("connection refused"), "{error}");
    assert!(!bench.real("/dest").exists());
}

#[test]
fn a_server_is_trusted_by_the_authority_that_is_named() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&server_key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let port = serve(2, move |stream| {
        let connection = rustls::ServerConnection::new(config.clone()).unwrap();
        answer(rustls::StreamOwned::new(connection, stream), "200 OK", b"trusted");
    });
    let mut bench = Bench::new();
    bench.write("/ca.pem", &authority).write("/none.pem", "nothing");
    let url = format!("https://localhost:{port}/a");
    let error = bench.perform(&download(url.clone(), b"trusted", None)).unwrap_err();
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("`ca`")), "{error:?}");
    bench.perform(&download(url.clone(), b"trusted", Some("/ca.pem"))).unwrap();
    assert_eq!(bench.text("/dest"), "trusted");
    assert!(bench.perform(&download(url, b"trusted", Some("/none.pem"))).unwrap_err().message.contains("no certificate"));
}
