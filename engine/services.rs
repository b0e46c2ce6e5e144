//! What tasks may ask of the controller beyond its own disk: authorities, and downloads kept in a cache.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kplay_modules::api::error::plain;
use kplay_modules::api::http::Transfer;
use kplay_modules::api::{Checksum, ModuleError, http};

use crate::controller::Services;
use crate::diagnostic::Diagnostic;
use crate::pki::Authorities;

/// The services of one run.
pub struct Provided {
    authorities: Arc<Authorities>,
    downloads: PathBuf,
    check: bool,
}

impl Provided {
    /// Creates the services of a run; with `check`, no authority is made. Downloads are kept in `downloads` by their digest.
    pub fn new(authorities: Arc<Authorities>, downloads: PathBuf, check: bool) -> Self {
        Self { authorities, downloads, check }
    }
}

impl Services for Provided {
    fn authority(&self, folder: &Path) -> Result<Option<String>, ModuleError> {
        let authority = if self.check { self.authorities.open(folder) } else { self.authorities.open_or_make(folder).map(Some) };
        authority.map(|authority| authority.map(|authority| authority.certificate_pem().to_owned())).map_err(|error| as_argument(*error))
    }

    fn commit(&self) -> Result<Vec<PathBuf>, Box<Diagnostic>> {
        self.authorities.save()
    }

    fn download(&self, url: &str, checksum: &Checksum, ca: Option<&Path>, timeout: u64) -> Result<PathBuf, ModuleError> {
        let kept = self.downloads.join(checksum.hex());
        if kept.is_file() {
            return Ok(kept);
        }
        let failed = |error: &std::io::Error| {
            ModuleError::argument(format!("cannot keep `{url}` in `{}`: {}", self.downloads.display(), plain(error))).at("url")
        };
        create_folder(&self.downloads).map_err(|error| failed(&error))?;
        let mut content = match url.strip_prefix("file://") {
            Some(path) => {
                let file =
                    open(path).map_err(|error| ModuleError::argument(format!("cannot read `{path}`: {}", plain(&error))).at("url"))?;
                Transfer::new(url, Box::new(file))
            }
            None => http::get(url, trusted(ca)?, timeout)?,
        };
        let mut file = tempfile::NamedTempFile::new_in(&self.downloads).map_err(|error| failed(&error))?;
        let copied = std::io::copy(&mut content, &mut file).and_then(|_| file.flush());
        copied.map_err(|error| content.broken().unwrap_or_else(|| failed(&error)))?;
        let found = file.reopen().and_then(|mut file| checksum.of_same_kind(&mut file)).map_err(|error| failed(&error))?;
        if found != *checksum {
            return Err(http::mismatch(url, checksum, &found));
        }
        file.persist(&kept).map_err(|error| failed(&error.error))?;
        Ok(kept)
    }

    fn remembered(&self, key: &str) -> Option<Vec<u8>> {
        read(&self.downloads.join(key)).ok()
    }

    /// What cannot be kept is found out again the next time.
    fn remember(&self, key: &str, value: &[u8]) {
        let kept = create_folder(&self.downloads).and_then(|()| tempfile::NamedTempFile::new_in(&self.downloads));
        if let Ok(mut file) = kept
            && file.write_all(value).is_ok()
        {
            let _ = file.persist(self.downloads.join(key));
        }
    }
}

/// Returns the authorities to trust: those of `ca`, else this machine's, else Mozilla's.
fn trusted(ca: Option<&Path>) -> Result<ureq::tls::RootCerts, ModuleError> {
    if let Some(ca) = ca {
        let pem = read(ca).map_err(|error| ModuleError::argument(format!("cannot read `{}`: {}", ca.display(), plain(&error))).at("ca"))?;
        return http::authorities(&pem)
            .ok_or_else(|| ModuleError::argument(format!("`{}` holds no certificate in PEM form", ca.display())).at("ca"));
    }
    let bundles = http::BUNDLES.iter().filter_map(|path| read(Path::new(path)).ok());
    Ok(bundles.filter_map(|pem| http::authorities(&pem)).next().unwrap_or(ureq::tls::RootCerts::WebPki))
}

#[expect(clippy::disallowed_methods, reason = "authorities to trust are files of this machine")]
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    std::fs::read(path)
}

#[expect(clippy::disallowed_methods, reason = "a `file://` address names a file of this machine")]
fn open(path: &str) -> std::io::Result<std::fs::File> {
    std::fs::File::open(path)
}

#[expect(clippy::disallowed_methods, reason = "the cache of downloads belongs to the controller")]
fn create_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)
}

/// Turns an error of the controller's own into one of the task that asked.
fn as_argument(error: Diagnostic) -> ModuleError {
    let mut made = ModuleError::argument(error.message).details(error.details);
    made.hint = error.hints.into_iter().next();
    made
}

#[cfg(test)]
mod tests {
    use kplay_modules::api::Digest;

    use super::*;

    fn sha256(content: &[u8]) -> Checksum {
        Checksum::Sha256(Digest::of(content))
    }

    fn provided(folder: &Path) -> Provided {
        Provided::new(Arc::new(Authorities::new(Default::default())), folder.join("downloads"), false)
    }

    #[test]
    fn what_is_remembered_is_there_in_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(provided(folder.path()).remembered("manifest"), None);
        provided(folder.path()).remember("manifest", b"first");
        provided(folder.path()).remember("manifest", b"second");
        assert_eq!(provided(folder.path()).remembered("manifest").as_deref(), Some(b"second".as_slice()));
    }

    #[test]
    fn a_download_is_verified_and_then_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tool");
        std::fs::write(&file, "binary").unwrap();
        let url = format!("file://{}", file.display());
        let services = provided(folder.path());
        let wrong = services.download(&url, &sha256(b"another"), None, 5).unwrap_err();
        let said = wrong.details.join(" ");
        assert!(said.contains(&Digest::of(b"another").hex()) && said.contains(&Digest::of(b"binary").hex()), "{wrong:?}");
        let kept = services.download(&url, &sha256(b"binary"), None, 5).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(services.download(&url, &sha256(b"binary"), None, 5).unwrap(), kept);
        assert_eq!(std::fs::read(kept).unwrap(), b"binary");
    }
}
