//! The small values that arguments, changes and the wire share: digests, contents, modes, owners.

use std::borrow::Cow;
use std::cell::Cell;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest. Files are compared by nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Returns the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the digest of everything `reader` yields, and how many bytes that was, holding 64 KiB at a time.
    pub fn of_reader(reader: &mut dyn std::io::Read) -> std::io::Result<(Self, u64)> {
        thread_local! {
            /// One for all files: memory that is new for each costs more than hashing a small one.
            static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        let mut buffer = BUFFER.take();
        buffer.resize(64 << 10, 0);
        let mut hasher = Sha256::new();
        let mut size = 0;
        let result = loop {
            match reader.read(&mut buffer) {
                Ok(0) => break Ok((Self(hasher.finalize().into()), size)),
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    size += count as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        BUFFER.set(buffer);
        result
    }

    /// Returns the 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut digest = [0; 32];
        for (slot, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            *slot = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
        }
        Some(Self(digest))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.hex())
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.serialize_str(&self.hex()) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("expected 64 hexadecimal digits of a SHA-256"))
        } else {
            Ok(Self(<[u8; 32]>::deserialize(deserializer)?))
        }
    }
}

/// Content that the controller holds and a host may ask for by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// SHA-256 of the content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Whether the content is secret: never cached on a host's disk, never shown in a diff.
    pub secret: bool,
}

/// What a file shall contain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Content that travels from the controller, and only when the host lacks it.
    Blob(Blob),
    /// Content that a module made on the host from what it found there (an edited line, say).
    Inline(Vec<u8>),
}

impl Content {
    /// Returns the SHA-256 of the content.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Blob(blob) => blob.digest,
            Self::Inline(bytes) => Digest::of(bytes),
        }
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Blob(blob) => blob.size,
            Self::Inline(bytes) => bytes.len() as u64,
        }
    }
}

/// A file mode as users write it: `"0644"` or `"u+x,go-w"`. A number is refused, since YAML and Lua lose its base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
pub struct Mode(String);

impl Mode {
    /// Reads a mode; the error says what a mode looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        if octal && (3..=4).contains(&text.len()) || !octal && Self::symbolic(text, 0, false).is_some() {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{text}` is not a file mode; write \"0644\" or \"u+x,go-w\""))
        }
    }

    /// Returns the twelve permission bits that the mode gives to an entry which now has `current`.
    pub fn apply(&self, current: u32, directory: bool) -> u32 {
        u32::from_str_radix(&self.0, 8)
            .ok()
            .map(|bits| bits & 0o7777)
            .or_else(|| Self::symbolic(&self.0, current, directory))
            .unwrap_or(current)
    }

    /// Follows chmod(1): clauses separated by commas, each `[ugoa]*` then one or more of `[+-=][rwxXst]*`.
    fn symbolic(text: &str, current: u32, directory: bool) -> Option<u32> {
        let mut mode = current & 0o7777;
        for clause in text.split(',') {
            let split = clause.find(['+', '-', '='])?;
            let (who, mut rest) = clause.split_at(split);
            let mut mask = 0;
            for letter in who.chars() {
                mask |= match letter {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    'a' => 0o7777,
                    _ => return None,
                };
            }
            if who.is_empty() {
                mask = 0o7777;
            }
            while !rest.is_empty() {
                let operator = rest.chars().next()?;
                let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |found| found + 1);
                let mut bits = 0;
                for letter in rest[1..end].chars() {
                    bits |= match letter {
                        'r' => 0o444,
                        'w' => 0o222,
                        'x' => 0o111,
                        'X' if directory || mode & 0o111 != 0 => 0o111,
                        'X' => 0,
                        's' => 0o6000,
                        't' => 0o1000,
                        _ => return None,
                    };
                }
                bits &= mask;
                match operator {
                    '+' => mode |= bits,
                    '-' => mode &= !bits,
                    // As chmod(1) does, a directory keeps the setuid and setgid bits that are not named.
                    _ if directory => mode = mode & !(mask & 0o1777) | bits,
                    _ => mode = mode & !mask | bits,
                }
                rest = &rest[end..];
            }
        }
        Some(mode)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Mode;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a mode as a string, such as \"0644\" or \"u+x\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Mode, E> {
                Mode::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// One string or a list of them, as users write `inputs = "/a"` and `inputs = { "/a", "/b" }` alike. Lua cannot tell an empty
/// list from an empty map, so that an empty map is an empty list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct OneOrMany(pub Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = OneOrMany;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut sequence: A) -> Result<OneOrMany, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = sequence.next_element()? {
                    items.push(item);
                }
                Ok(OneOrMany(items))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<OneOrMany, A::Error> {
                match map.next_key::<String>()? {
                    None => Ok(OneOrMany::default()),
                    Some(key) => Err(serde::de::Error::custom(format!("expected a list of strings, found the key `{key}`"))),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A string, or a whole number as users write ports, sizes and kernel parameters. A boolean is refused: nobody can tell whether
/// `true`, `1` or `yes` is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Word {
    /// A string.
    Text(String),
    /// A whole number.
    Number(i64),
}

impl Word {
    /// Returns the word as a program gets it.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => Cow::Owned(number.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Word;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a whole number")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Word, E> {
                Ok(Word::Text(text.to_owned()))
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Word, E> {
                Ok(Word::Number(number))
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Word, E> {
                i64::try_from(number).map(Word::Number).map_err(|_| E::custom(format!("the number {number} is too large")))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Who owns an entry. A user that an earlier task of the same run creates has no number yet in a forecast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// A user or group number.
    Id(u32),
    /// A name that gets its number when an earlier change of the same run is performed.
    Named(String),
}

/// Mode and owners of an entry, complete: what an entry has, or shall have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// The twelve permission bits.
    pub mode: u32,
    /// Owning user.
    pub owner: Owner,
    /// Owning group.
    pub group: Owner,
}

/// What a path is, seen without following a link at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// File, directory, link or something else.
    pub kind: EntryKind,
    /// Mode and owners.
    pub attributes: Attributes,
    /// Bytes, for a file.
    pub size: u64,
    /// Last change of content, nanoseconds since 1970.
    pub mtime: i64,
    /// Last change of content or attributes, nanoseconds since 1970.
    pub ctime: i64,
}

/// The kinds of entries that modules tell apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and what it holds.
    Symlink(PathBuf),
    /// A device, socket or pipe.
    Other,
}

impl EntryKind {
    /// Returns the word users know the kind by.
    pub fn word(&self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink(_) => "link",
            Self::Other => "special file",
        }
    }
}

/// Returns whether `path` lies at or below `folder`, by components.
pub fn is_below(path: &Path, folder: &Path) -> bool {
    path.starts_with(folder)
}

#[cfg(test)]
mod tests;
