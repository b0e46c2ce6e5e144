//! Looks at what a host does: open ports, listening sockets, answers to requests. Each look is one look and changes nothing.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig};

use super::error::plain;

/// Largest part of an answer's body that is kept, bytes.
const BODY: u64 = 64 << 10;
/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// Why there is no connection to a port, in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unconnected {
    /// Nothing takes one there.
    Closed(String),
    /// It is not known where that would be.
    Unresolved(String),
}

/// Connects to a port and closes the connection.
pub fn connect(host: &str, port: u16, patience: Duration) -> Result<(), Unconnected> {
    let unresolved = || Unconnected::Unresolved(format!("`{host}` cannot be resolved"));
    let mut met = None;
    for address in (host, port).to_socket_addrs().map_err(|_| unresolved())? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(_) => return Ok(()),
            Err(error) => met = Some(Unconnected::Closed(plain(&error))),
        }
    }
    Err(met.unwrap_or_else(unresolved))
}

/// Returns the addresses on which a port is listened on, sorted. The tables are the texts of `/proc/net/tcp` and `tcp6`.
pub fn listeners(tables: &[&str], port: u16) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = tables.iter().flat_map(|table| table.lines()).filter_map(|line| listener(line, port)).collect();
    found.sort();
    found.dedup();
    found
}

fn listener(line: &str, port: u16) -> Option<IpAddr> {
    let mut fields = line.split_whitespace().skip(1);
    let (address, found) = fields.next()?.split_once(':')?;
    if fields.nth(1)? != LISTENING || u16::from_str_radix(found, 16).ok()? != port {
        return None;
    }
    // Words of 32 bits, each in the processor's order of bytes.
    let words: Option<Vec<[u8; 4]>> = address
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok().map(u32::to_ne_bytes))
        .collect();
    match words?.as_slice() {
        [word] => Some(IpAddr::V4(Ipv4Addr::from(*word))),
        words => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?))),
    }
}

/// Returns whether a socket that listens on `listening` is reached at `wanted`.
pub fn covers(listening: IpAddr, wanted: IpAddr) -> bool {
    match (listening, wanted) {
        _ if listening == wanted => true,
        (IpAddr::V4(listening), IpAddr::V4(_)) => listening.is_unspecified(),
        // A socket for all addresses of version 6 takes those of version 4, unless its program forbids it.
        (IpAddr::V6(listening), _) => {
            listening.is_unspecified() || matches!(wanted, IpAddr::V4(wanted) if listening.to_ipv4_mapped() == Some(wanted))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    }
}

/// A request to be made.
pub struct Request<'a> {
    /// `https://` or `http://`.
    pub url: &'a str,
    /// Authorities to trust, for `https`.
    pub authorities: RootCerts,
    /// Certificate with its chain and key to show, for `https`.
    pub client: Option<ClientCert>,
    /// How long all of it may take.
    pub patience: Duration,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The first 64 KiB of its body.
    pub body: String,
}

/// Makes a request, without a proxy and without following it elsewhere; the error says what was met instead of an answer.
pub fn ask(request: Request<'_>) -> Result<Answer, String> {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(request.authorities)
        .client_cert(request.client)
        .build();
    let agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(request.patience))
        .build()
        .new_agent();
    let response = agent.get(request.url).call().map_err(|error| said(&error))?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    // A body that breaks off does not make the status wrong.
    let _ = response.into_body().into_reader().take(BODY).read_to_end(&mut body);
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

/// Takes a client's certificate, with its chain if there is one, and its key from PEM texts.
pub fn client(certificate: &[u8], key: &[u8]) -> Result<ClientCert, String> {
    let chain: Vec<Certificate<'static>> = ureq::tls::parse_pem(certificate)
        .filter_map(|item| if let Ok(PemItem::Certificate(certificate)) = item { Some(certificate) } else { None })
        .collect();
    if chain.is_empty() {
        return Err("there is no certificate in PEM form in it".to_owned());
    }
    let key = PrivateKey::from_pem(key).map_err(|_| "its key is not a private key in PEM form".to_owned())?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn said(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => plain(error),
        ureq::Error::HostNotFound => "its host name cannot be resolved".to_owned(),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::ConnectionFailed => "no connection".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
