//! The addresses of the interfaces, asked of the kernel over netlink.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Message: list all addresses.
const GET_ADDRESS: u16 = 22;
/// Message: one address.
const NEW_ADDRESS: u16 = 20;
/// Message: that was all.
const DONE: u16 = 3;
/// Message: it cannot be done.
const ERROR: u16 = 2;
/// Flags of a request for a whole list.
const REQUEST_LIST: u16 = 0x301;
/// Bytes of a message's head, of an address's head after it.
const HEAD: usize = 16;
const ADDRESS_HEAD: usize = 8;
/// Attribute: the address; of a point-to-point link, that of the other end.
const ADDRESS: u16 = 1;
/// Attribute: the address of this end.
const LOCAL: u16 = 2;
/// Addresses beyond this scope are valid on one link or machine only.
const SCOPE_SITE: u8 = 200;

/// Returns the addresses of each interface, IPv4 first, without the loopback's and those valid on one link only. Empty when
/// the kernel does not answer.
pub(super) fn by_interface() -> BTreeMap<String, Vec<String>> {
    let Ok(socket) = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None) else {
        return BTreeMap::new();
    };
    let mut found = ask(&socket).unwrap_or_default();
    found.sort_by_key(|(_, address)| address.is_ipv6());
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (index, address) in found {
        if let Ok(name) = rustix::net::netdevice::index_to_name(&socket, index)
            && !address.is_loopback()
        {
            by_name.entry(name).or_default().push(address.to_string());
        }
    }
    by_name
}

fn ask(socket: &impl std::os::fd::AsFd) -> rustix::io::Result<Vec<(u32, IpAddr)>> {
    let mut request = Vec::with_capacity(HEAD + ADDRESS_HEAD);
    request.extend_from_slice(&((HEAD + ADDRESS_HEAD) as u32).to_ne_bytes());
    request.extend_from_slice(&GET_ADDRESS.to_ne_bytes());
    request.extend_from_slice(&REQUEST_LIST.to_ne_bytes());
    request.resize(HEAD + ADDRESS_HEAD, 0);
    rustix::net::send(socket, &request, SendFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 32 << 10];
    loop {
        let (count, _) = rustix::net::recv(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = buffer.get(..count).unwrap_or_default();
        if rest.is_empty() {
            return Ok(found);
        }
        while let Some((kind, body, after)) = message(rest) {
            match kind {
                DONE | ERROR => return Ok(found),
                NEW_ADDRESS => found.extend(address(body)),
                _ => {}
            }
            rest = after;
        }
    }
}

/// Splits off the first message: its kind and its body.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    Some((kind, bytes.get(HEAD..length)?, bytes.get(aligned(length)..).unwrap_or_default()))
}

/// Reads one address and the index of its interface.
fn address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let [_, _, _, scope, index @ ..] = *body.first_chunk::<ADDRESS_HEAD>()?;
    if scope > SCOPE_SITE {
        return None;
    }
    let mut attributes = body.get(ADDRESS_HEAD..)?;
    let mut found = None;
    while let Some(length) = attributes.first_chunk().map(|bytes| usize::from(u16::from_ne_bytes(*bytes))) {
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        let value = attributes.get(4..length)?;
        if kind == LOCAL || kind == ADDRESS && found.is_none() {
            found = ip(value);
        }
        attributes = attributes.get(aligned(length)..).unwrap_or_default();
    }
    Some((u32::from_ne_bytes(index), found?))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into());
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into());
    v4().or_else(v6)
}

/// Netlink pads everything to four bytes.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}
