//! How builds that do not understand each other say which they are: every session begins with the version, whatever follows.

use std::io;

use super::VERSION;

/// What the other side is when it begins with another [`VERSION`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Its version.
    pub version: String,
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "another build: it speaks protocol {}, this one {VERSION}", self.version)
    }
}

impl std::error::Error for Foreign {}

/// Returns what an error says of the other side's build.
pub fn foreign(error: &io::Error) -> Option<&Foreign> {
    error.get_ref()?.downcast_ref()
}

/// Returns the beginning of a greeting, framed: all that a side of another build can read.
pub fn introduction() -> Vec<u8> {
    let mut bytes = vec![0, VERSION_LENGTH as u8];
    bytes.extend_from_slice(VERSION.as_bytes());
    [&(bytes.len() as u32).to_le_bytes(), bytes.as_slice()].concat()
}

/// Digits of [`VERSION`].
const VERSION_LENGTH: usize = 16;

/// Fails when a message is a greeting of another build.
pub(super) fn familiar(message: &[u8]) -> io::Result<()> {
    let version = message.strip_prefix(&[0, VERSION_LENGTH as u8]).and_then(|rest| rest.get(..VERSION_LENGTH));
    match version.and_then(|version| std::str::from_utf8(version).ok()) {
        Some(version) if version != VERSION && version.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, Foreign { version: version.to_owned() }))
        }
        _ => Ok(()),
    }
}
