//! The files of authorities and shared keys on the controller: modes, locks, replacement in one step, encryption.
#![expect(clippy::disallowed_methods, reason = "the store keeps keys and certificates on disk")]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use kplay_modules::api::error::plain;
use kplay_modules::api::issue::{KeyType, read_key, type_of};

use crate::diagnostic::{Diagnostic, Result};

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca-key.pem";
const ENCRYPTED_KEY: &str = "ca-key.pem.age";
const LOCK: &str = ".lock";

/// Two files that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The private key, mode 0600.
    pub private: PathBuf,
    /// The public key or certificate, mode 0644.
    pub public: PathBuf,
}

/// Keeps a key pair that several hosts share, made once on the controller: `NAME.key` (0600, PKCS#8) and `NAME.pub` (0644) in
/// `folder`. A private key that is there already is kept, whatever its type.
pub fn shared_key_pair(folder: &Path, name: &str, key_type: KeyType) -> Result<Pair> {
    check_name(name)?;
    let store = Folder::create(folder)?;
    let _lock = store.lock()?;
    let pair = Pair { private: folder.join(format!("{name}.key")), public: folder.join(format!("{name}.pub")) };
    let key = match read_text_if_there(&pair.private)? {
        Some(text) => read_key(&text).map_err(|error| {
            let made = Diagnostic::user(format!("the shared key `{}` cannot be used: {error}", pair.private.display()));
            error.hint.iter().fold(made, Diagnostic::hint)
        })?,
        None => {
            let key = key_type.generate()?;
            write(&pair.private, key.serialize_pem().as_bytes(), 0o600)?;
            key
        }
    };
    if type_of(&key).is_none() {
        return Err(Diagnostic::user(format!("the shared key `{}` is of a type that kplay does not know", pair.private.display())));
    }
    let public = key.public_key_pem();
    if read_text_if_there(&pair.public)?.as_deref() != Some(public.as_str()) {
        write(&pair.public, public.as_bytes(), 0o644)?;
    }
    Ok(pair)
}

/// Refuses a name that would lead out of its folder.
pub(super) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(Diagnostic::user(format!("`{name}` cannot be the name of a key pair")));
    }
    Ok(())
}

/// A folder for keys.
pub(super) struct Folder<'a>(&'a Path);

impl<'a> Folder<'a> {
    /// Makes the folder with mode 0700 if it is missing.
    pub(super) fn create(path: &'a Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed("make the folder", path, &error))?;
        Ok(Self(path))
    }

    /// Keeps other processes out as long as the returned file lives.
    pub(super) fn lock(&self) -> Result<File> {
        let path = self.0.join(LOCK);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|error| failed("open", &path, &error))?;
        file.lock().map_err(|error| failed("lock", &path, &error))?;
        Ok(file)
    }

    /// Writes an authority's files. The certificate comes last: with it the authority is there.
    pub(super) fn write_authority(&self, certificate: &str, key: &str, passphrase: Option<&str>) -> Result<()> {
        match passphrase {
            Some(passphrase) => {
                let path = self.0.join(ENCRYPTED_KEY);
                let recipient = age::scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
                let sealed = age::encrypt(&recipient, key.as_bytes())
                    .map_err(|error| Diagnostic::internal(format!("cannot encrypt `{}`: {error}", path.display())))?;
                write(&path, &sealed, 0o600)?;
            }
            None => write(&self.0.join(KEY), key.as_bytes(), 0o600)?,
        }
        write(&self.0.join(CERTIFICATE), certificate.as_bytes(), 0o644)
    }
}

/// Waits until nobody is writing into a folder for keys.
pub(super) fn wait(folder: &Path) -> Result<()> {
    let path = folder.join(LOCK);
    match File::open(&path) {
        Ok(file) => file.lock_shared().map_err(|error| failed("lock", &path, &error)),
        Err(_) => Ok(()),
    }
}

/// Returns certificate and key of the authority in `folder`; `None` when neither is there.
pub(super) fn read_authority(folder: &Path, passphrase: Option<&str>) -> Result<Option<(String, String)>> {
    let certificate = read_text_if_there(&folder.join(CERTIFICATE))?;
    let (plain_path, sealed_path) = (folder.join(KEY), folder.join(ENCRYPTED_KEY));
    let key = match (read_text_if_there(&plain_path)?, read_if_there(&sealed_path)?) {
        (Some(_), Some(_)) => {
            return Err(Diagnostic::user(format!("both `{}` and `{}` are there", plain_path.display(), sealed_path.display()))
                .hint("remove the one that is out of date"));
        }
        (Some(key), None) => Some(key),
        (None, Some(sealed)) => Some(unseal(&sealed_path, &sealed, passphrase)?),
        (None, None) => None,
    };
    let missing = |present: &str, absent: &str| {
        Diagnostic::user(format!("the authority `{}` has `{present}`, but no `{absent}`", folder.display()))
            .hint(format!("put `{absent}` back, or move `{present}` away to have a new authority made"))
    };
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(missing(CERTIFICATE, KEY)),
        (None, Some(_)) => Err(missing(KEY, CERTIFICATE)),
    }
}

fn unseal(path: &Path, sealed: &[u8], passphrase: Option<&str>) -> Result<String> {
    let Some(passphrase) = passphrase else {
        return Err(Diagnostic::user(format!("`{}` is encrypted, and no passphrase was given", path.display()))
            .hint("put the passphrase into `KPLAY_CA_PASSPHRASE`"));
    };
    let identity = age::scrypt::Identity::new(SecretString::from(passphrase.to_owned()));
    let opened = age::decrypt(&identity, sealed).map_err(|error| {
        Diagnostic::user(format!("cannot decrypt `{}`: {error}", path.display())).hint("check the passphrase in `KPLAY_CA_PASSPHRASE`")
    })?;
    String::from_utf8(opened).map_err(|_| Diagnostic::user(format!("`{}` does not hold a key in PEM form", path.display())))
}

/// Writes a file beside its place and renames it, so that nobody ever sees half of it.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let beside = path.with_file_name(format!(".{}.{}", path.file_name().unwrap_or_default().to_string_lossy(), std::process::id()));
    let put = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&beside)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    put().map_err(|error: io::Error| {
        let _ = fs::remove_file(&beside);
        failed("write", path, &error)
    })
}

/// Reads a text file.
pub(super) fn read_text(path: &Path) -> Result<String> {
    read_text_if_there(path)?.ok_or_else(|| Diagnostic::user(format!("there is no file `{}`", path.display())))
}

/// Reads a text file; `None` when it is not there.
pub(super) fn read_text_if_there(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read_if_there(path)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| Diagnostic::user(format!("`{}` is not a text", path.display())))
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}

fn failed(action: &str, path: &Path, error: &io::Error) -> Box<Diagnostic> {
    Diagnostic::user(format!("cannot {action} `{}`: {}", path.display(), plain(error)))
}
