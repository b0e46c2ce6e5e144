//! Kernel parameters: files below `/proc/sys`.

use std::path::{Path, PathBuf};

use super::Machine;
use crate::api::error::{ModuleError, plain};

/// Bytes of the longest value: a list of all ports, each by itself.
const LONGEST: usize = 512 << 10;

impl Machine {
    pub(super) fn find_parameter(&self, key: &str) -> Result<Option<String>, ModuleError> {
        if let Some(assumed) = self.assumed.borrow().parameters.get(key) {
            return Ok(Some(assumed.clone()));
        }
        let path = file_of(key)?;
        match read_at_once(&path) {
            Ok(bytes) => Ok(Some(normal(&String::from_utf8_lossy(&bytes)))),
            Err(error) if super::files::is_missing(&error) => Ok(None),
            Err(error) => Err(ModuleError::io("read", &path, &error)),
        }
    }

    pub(super) fn set_parameter(&self, key: &str, value: &str) -> Result<(), ModuleError> {
        // Below a root the kernel is not the root's own.
        if self.root.is_some() {
            return self.assume(|assumed| drop(assumed.parameters.insert(key.to_owned(), normal(value))));
        }
        let path = file_of(key)?;
        std::fs::write(&path, format!("{value}\n")).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => {
                ModuleError::host(format!("the kernel refuses `{value}` for `{key}`: {}", plain(&error))).at("value")
            }
            std::io::ErrorKind::NotFound => ModuleError::host(format!("the kernel has no parameter `{key}`"))
                .at("name")
                .hint("its kernel module may have to be loaded first"),
            _ => ModuleError::io("set the kernel parameter", &path, &error),
        })
    }
}

/// Reads a parameter in one go: of lists such as `net.ipv4.ip_local_reserved_ports` the kernel gives only what fits into the first
/// read.
fn read_at_once(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = vec![0; LONGEST];
    let length = std::fs::File::open(path)?.read(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Returns the file of a parameter. As in sysctl(8), whichever of `.` and `/` comes first separates; the other is part of a
/// name then (`net/ipv4/conf/eth0.100/forwarding`, `net.ipv4.conf.eth0/100.forwarding`).
fn file_of(key: &str) -> Result<PathBuf, ModuleError> {
    let dotted = match key.find(['.', '/']) {
        Some(first) => key[first..].starts_with('.'),
        None => true,
    };
    let swapped = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if dotted { key.chars().map(swapped).collect() } else { key.to_owned() };
    let strange = path.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    if strange || path.contains('\0') {
        return Err(ModuleError::argument(format!("`{key}` is not the name of a kernel parameter")).at("name"));
    }
    Ok(Path::new("/proc/sys").join(path))
}

/// The kernel separates values by tabs where people write spaces.
fn normal(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_files() {
        assert_eq!(file_of("net.ipv4.ip_forward").unwrap(), Path::new("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(file_of("net.ipv4.conf.eth0/100.forwarding").unwrap(), Path::new("/proc/sys/net/ipv4/conf/eth0.100/forwarding"));
        assert_eq!(file_of("net/ipv4/conf/eth0.100/forwarding").unwrap(), Path::new("/proc/sys/net/ipv4/conf/eth0.100/forwarding"));
        assert!(file_of("net....ipv4").is_err());
        assert!(file_of("/etc/passwd").is_err());
    }
}
