//! What a file is known by before it is there: the SHA-256 or SHA-512 that its publisher gives.

use std::fmt;
use std::io::Read;

use sha2::{Digest as _, Sha512};

use super::types::Digest;

/// See the file's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// Its SHA-256.
    Sha256(Digest),
    /// Its SHA-512, in lower-case hexadecimal digits.
    Sha512(String),
}

impl Checksum {
    /// Reads a checksum: digits whose number tells the kind, the kind's name before them or not. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, digits) = text.split_once(':').map_or((None, text), |(kind, digits)| (Some(kind), digits));
        let is_sha512 = digits.len() == 128 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        match (kind, Digest::from_hex(digits)) {
            (None | Some("sha256"), Some(digest)) => Some(Self::Sha256(digest)),
            (None | Some("sha512"), None) if is_sha512 => Some(Self::Sha512(digits.to_ascii_lowercase())),
            _ => None,
        }
    }

    /// Returns the checksum of the same kind of all that `reader` yields, holding 64 KiB at a time.
    pub fn of_same_kind(&self, reader: &mut dyn Read) -> std::io::Result<Self> {
        if let Self::Sha256(_) = self {
            return Digest::of_reader(reader).map(|(digest, _)| Self::Sha256(digest));
        }
        let mut hasher = Sha512::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(Self::Sha512(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())),
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the hexadecimal digits, 64 or 128.
    pub fn hex(&self) -> String {
        match self {
            Self::Sha256(digest) => digest.hex(),
            Self::Sha512(digits) => digits.clone(),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if matches!(self, Self::Sha256(_)) { "SHA-256" } else { "SHA-512" }, self.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::Checksum;

    #[test]
    fn digits_tell_the_kind() {
        let content = || std::io::Cursor::new(b"abc");
        let long = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        let short = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (text, digits) in [(format!("sha512:{}", long.to_uppercase()), long), (short.to_owned(), short)] {
            let checksum = Checksum::parse(&text).unwrap();
            assert_eq!(checksum.hex(), digits);
            assert_eq!(checksum.of_same_kind(&mut content()).unwrap(), checksum);
        }
        for text in ["", "sha512:", "abc", &format!("sha256:{long}"), &format!("sha1:{short}"), &long.replace('d', "g")] {
            assert_eq!(Checksum::parse(text), None, "{text}");
        }
    }
}
