//! What the agent writes down for later runs: which contents a unit was started with, or a command last succeeded with.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use super::Machine;
use crate::api::change::{Record, Recorded};
use crate::api::error::ModuleError;
use crate::api::inspect::Fingerprint;

impl Machine {
    pub(super) fn recorded(&self, key: &str) -> Result<Option<Vec<u8>>, ModuleError> {
        let path = self.record_path(key)?;
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if super::files::is_missing(&error) => Ok(None),
            Err(error) => Err(ModuleError::io("read", &path, &error)),
        }
    }

    /// Takes the digests that `record` asks for, as they are now.
    pub(super) fn take(&self, record: &Record) -> Result<Recorded, ModuleError> {
        let mut recorded = Recorded::default();
        for path in &record.paths {
            let digest = match self.digest(path)? {
                Some(Fingerprint::Known(digest)) => Some(digest),
                Some(Fingerprint::New) | None => None,
            };
            recorded.digests.insert(path.clone(), digest);
        }
        Ok(recorded)
    }

    pub(super) fn keep_record(&self, key: &str, recorded: &Recorded) -> Result<(), ModuleError> {
        let bytes =
            serde_json::to_vec(recorded).map_err(|error| ModuleError::host(format!("cannot write the record of `{key}`: {error}")))?;
        put(&self.record_path(key)?, &bytes)
    }

    fn record_path(&self, key: &str) -> Result<PathBuf, ModuleError> {
        let plain = Path::new(key).components().all(|component| matches!(component, Component::Normal(_)));
        if !plain || key.is_empty() {
            return Err(ModuleError::argument(format!("`{key}` cannot be the name of a record")));
        }
        Ok(self.state.join("records").join(format!("{key}.json")))
    }
}

/// Makes a folder that only its owner may enter, and its parents likewise.
pub(crate) fn private_folder(path: &Path) -> Result<(), ModuleError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| ModuleError::io("make the folder", path, &error))
}

/// Puts a small file of the agent's own in place atomically, readable by its owner alone.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<(), ModuleError> {
    if let Some(parent) = path.parent() {
        private_folder(parent)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        ModuleError::io("write", path, &error)
    })
}
