//! The files of authorities on the controller: modes, locks, replacement in one step, encryption.
#![expect(clippy::disallowed_methods, reason = "the store keeps keys and certificates on disk")]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use age::secrecy::SecretString;
use kplay_modules::api::error::plain;

use crate::diagnostic::{Diagnostic, Result};

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca-key.pem";
const ENCRYPTED_KEY: &str = "ca-key.pem.age";
const LOCK: &str = ".lock";

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
fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
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

/// Reads a text file; `None` when it is not there.
fn read_text_if_there(path: &Path) -> Result<Option<String>> {
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
