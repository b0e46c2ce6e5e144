//! The lab's network: one namespace with a bridge, one namespace per host, a cable between each. The machine's own
//! namespace gets neither an interface nor an address.

use std::path::Path;

use super::layout::{Locked, namespace_path};
use super::state::{HostState, Network};
use crate::diagnostic::{Diagnostic, Result};

/// Name of the bridge in the lab's namespace.
const BRIDGE: &str = "hosts";

/// Makes the lab's namespace with its bridge.
///
/// # Errors
/// The kernel lacks a feature.
pub fn make(lab: &Locked<'_>, network: &Network) -> Result<()> {
    let name = lab.namespace();
    let address = format!("{}/{}", network.gateway, network.prefix);
    ip(lab, &["netns", "add", &name])?;
    ip(lab, &["-n", &name, "link", "set", "lo", "up"])?;
    ip(lab, &["-n", &name, "link", "add", BRIDGE, "type", "bridge"])?;
    ip(lab, &["-n", &name, "addr", "add", &address, "dev", BRIDGE])?;
    ip(lab, &["-n", &name, "link", "set", BRIDGE, "up"])
}

/// Makes a host's namespace, and the cable from it to the bridge.
///
/// # Errors
/// The kernel lacks a feature.
pub fn connect(lab: &Locked<'_>, network: &Network, plan: &HostState) -> Result<()> {
    let (ours, theirs) = (lab.namespace(), plan.namespace.as_str());
    let port = format!("host{}", plan.number);
    let interface = plan.host.settings.interface.as_str();
    let address = format!("{}/{}", plan.host.address, network.prefix);
    // A killed run may have left its end of the cable; the other end went with the host's namespace.
    let _ = ip(lab, &["-n", &ours, "link", "del", &port]);
    ip(lab, &["netns", "add", theirs])?;
    ip(lab, &["-n", &ours, "link", "add", &port, "type", "veth", "peer", "name", interface, "netns", theirs])?;
    ip(lab, &["-n", &ours, "link", "set", &port, "master", BRIDGE, "up"])?;
    ip(lab, &["-n", theirs, "link", "set", "lo", "up"])?;
    ip(lab, &["-n", theirs, "addr", "add", &address, "dev", interface])?;
    ip(lab, &["-n", theirs, "link", "set", interface, "up"])?;
    ip(lab, &["-n", theirs, "route", "add", "default", "via", &network.gateway.to_string()])
}

/// Removes a namespace, if it is there.
///
/// # Errors
/// It is there and stays.
pub fn remove(lab: &Locked<'_>, name: &str) -> Result<()> {
    let path = namespace_path(name);
    if !path.exists() {
        return Ok(());
    }
    // A name that a killed `ip` has left without a namespace behind it is a plain file.
    ip(lab, &["netns", "del", name]).or_else(|error| std::fs::remove_file(&path).map_err(|_| error))
}

/// Removes the folder of all namespaces' names when nobody else uses it.
pub fn remove_folder() {
    let folder = Path::new("/run/netns");
    if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()) {
        // `ip` mounts the folder over itself. Whoever has begun to use it meanwhile makes one of these fail, which is right.
        let _ = rustix::mount::unmount(folder, rustix::mount::UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(folder);
    }
}

fn ip(lab: &Locked<'_>, arguments: &[&str]) -> Result<()> {
    lab.run("ip", arguments).map(|_| ()).map_err(|error| {
        let seen = error.details.join(" ");
        if seen.contains("not supported") || seen.contains("Unknown device type") {
            error.hint("the kernel needs network namespaces, bridges and veth: `modprobe bridge veth`")
        } else {
            error
        }
    })
}

/// Connects to an address from inside a namespace and returns the first line that is sent from there.
///
/// # Errors
/// Nobody answers within a second.
pub fn greeting(namespace: &str, address: std::net::SocketAddr) -> Result<String> {
    use std::io::{BufRead as _, Read as _};
    let path = namespace_path(namespace);
    let ask = move || -> std::io::Result<String> {
        let file = std::fs::File::open(path)?;
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(rustix::thread::LinkNameSpaceType::Network))?;
        let limit = std::time::Duration::from_secs(1);
        let stream = std::net::TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        let mut line = String::new();
        std::io::BufReader::new(stream.take(256)).read_line(&mut line)?;
        Ok(line)
    };
    // The thread keeps the namespace it has entered, so it is one made for this.
    let answer = std::thread::spawn(ask).join().map_err(|_| Diagnostic::internal("a thread of the lab panicked"))?;
    answer.map_err(|error| Diagnostic::host(format!("`{address}` does not answer: {error}")))
}
