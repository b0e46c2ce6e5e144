//! What tasks may ask of the controller beyond its own disk: authorities, and downloads kept in a cache.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kplay_modules::api::error::plain;
use kplay_modules::api::{Digest, ModuleError, http};

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
        let authority = if self.check { self.authorities.open(folder) } else { self.authorities.open_or_create(folder).map(Some) };
        authority.map(|authority| authority.map(|authority| authority.certificate_pem().to_owned())).map_err(|error| as_argument(*error))
    }

    fn download(&self, url: &str, digest: &Digest, ca: Option<&Path>, timeout: u64) -> Result<PathBuf, ModuleError> {
        let kept = self.downloads.join(digest.hex());
        if kept.is_file() {
            return Ok(kept);
        }
        let failed = |error: &std::io::Error| {
            ModuleError::argument(format!("cannot keep `{url}` in `{}`: {}", self.downloads.display(), plain(error))).at("url")
        };
        create_folder(&self.downloads).map_err(|error| failed(&error))?;
        let mut content: Box<dyn std::io::Read> = match url.strip_prefix("file://") {
            Some(path) => Box::new(
                std::fs::File::open(path)
                    .map_err(|error| ModuleError::argument(format!("cannot read `{path}`: {}", plain(&error))).at("url"))?,
            ),
            None => http::get(url, trusted(ca)?, timeout)?,
        };
        let mut file = tempfile::NamedTempFile::new_in(&self.downloads).map_err(|error| failed(&error))?;
        std::io::copy(&mut content, &mut file).and_then(|_| file.flush()).map_err(|error| failed(&error))?;
        let (found, _) = file.reopen().and_then(|mut file| Digest::of_reader(&mut file)).map_err(|error| failed(&error))?;
        if found != *digest {
            return Err(http::mismatch(url, digest, &found));
        }
        file.persist(&kept).map_err(|error| failed(&error.error))?;
        Ok(kept)
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
