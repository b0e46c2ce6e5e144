//! Downloads a file whose content is known by its SHA-256.
//!
//! The digest is the file's identity: a file on the host that has it is never downloaded again, and one that differs is replaced.
//! `url` may begin with `https://`, `http://` or `file://`.
//!
//! By default the controller downloads, once for all hosts and runs, keeps the file in its cache, and sends it to the hosts that
//! lack it; a `file://` is a file of the controller. With `on = "host"` each host downloads for itself; a `file://` is then one of
//! the host's. A download that does not have the digest is never put in place, and the error says both digests.
//!
//! A link at `dest` is replaced by the file, what it points to is left alone. To unpack what was downloaded, see `archive`, which
//! takes a `url`, too.
//!
//! ```lua
//! host:download({
//!   url = "file:///dev/null",
//!   sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
//!   dest = "/opt/empty",
//!   on = "host",
//! })
//! ```

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::change::Download as DownloadChange;
use crate::api::inspect::wanted_attributes;
use crate::api::place::{self, Placement};
use crate::api::{
    Blob, Change, Checksum, Content, Controller, Digest, EntryKind, Fingerprint, Inspect, Mode, Module, ModuleError, Proposal,
};

/// Arguments of `download`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// Where from: https://, http:// or file://.
    url: String,
    /// SHA-256 of the file, 64 hexadecimal digits.
    sha256: String,
    /// The file on the host, absolute.
    dest: PathBuf,
    /// Who downloads: "controller", once for all, or "host".
    #[serde(default)]
    on: Side,
    /// PEM file with the authorities to trust instead of the usual ones, on the side that downloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    /// Seconds that the download may take.
    #[serde(default = "ten_minutes")]
    timeout: u64,
    /// Mode, as "0640" or "u+x,go-w". Default: what the file has, else 0644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    /// Owning user, by name or number. Default: what the file has, else the user the task runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// Owning group, by name or number. Default: what the file has, else that of the user the task runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Make missing folders above the file, with mode 0755.
    #[serde(default)]
    parents: bool,
    /// What the controller has downloaded.
    #[schemars(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Blob>,
}

/// Who downloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Side {
    /// The controller, once for all hosts.
    #[default]
    Controller,
    /// Each host for itself.
    Host,
}

fn ten_minutes() -> u64 {
    600
}

impl Module for Download {
    const NAME: &'static str = "download";

    fn prepare(&mut self, controller: &dyn Controller) -> Result<(), ModuleError> {
        self.dest = place::absolute_file(&self.dest, "dest")?;
        check_url(&self.url)?;
        let digest = self.digest()?;
        if self.timeout == 0 {
            return Err(ModuleError::argument("`timeout` is 0: the download could never end").at("timeout"));
        }
        self.content = match (self.on, &self.ca) {
            (Side::Controller, ca) => {
                let ca =
                    ca.as_ref().map(|ca| controller.find(&ca.to_string_lossy(), "files").map_err(|error| error.at("ca"))).transpose()?;
                let cached = controller.download(&self.url, &Checksum::Sha256(digest), ca.as_deref(), self.timeout)?;
                Some(controller.blob_of_file(&cached, false)?)
            }
            (Side::Host, ca) => {
                self.ca = ca.as_deref().map(|ca| place::absolute_file(ca, "ca")).transpose()?;
                None
            }
        };
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let asked = (&self.mode, &self.owner, &self.group);
        match &self.content {
            Some(blob) => Placement {
                path: &self.dest,
                argument: "dest",
                content: Content::Blob(blob.clone()),
                asked,
                default_mode: place::FILE_MODE,
                validate: None,
                parents: self.parents,
                secret: false,
            }
            .changes(host)
            .map(Proposal::new),
            None => self.check_download(host).map(Proposal::new),
        }
    }

    #[cfg(test)]
    fn examples() -> Vec<crate::api::conformance::Example> {
        tests::examples()
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.dest.clone()]
    }
}

impl Download {
    /// Returns the changes when the host downloads for itself.
    fn check_download(&self, host: &dyn Inspect) -> Result<Vec<Change>, ModuleError> {
        let digest = self.digest()?;
        let mut changes = place::missing_parents(host, &self.dest, self.parents, "dest")?;
        let before = host.entry(&self.dest)?;
        let file = match before.as_ref().map(|entry| &entry.kind) {
            Some(EntryKind::Directory | EntryKind::Other) => return Err(place::in_the_way(&self.dest, before.as_ref(), "dest")),
            Some(EntryKind::File) => before.as_ref().map(|entry| &entry.attributes),
            Some(EntryKind::Symlink(_)) | None => None,
        };
        let attributes = wanted_attributes(host, file, (&self.mode, &self.owner, &self.group), place::FILE_MODE, false)?;
        if let Some(now) = file
            && host.fingerprint(&self.dest)? == Some(Fingerprint::Known(digest))
        {
            return Ok(place::attributes_change(&self.dest, now, attributes).into_iter().collect());
        }
        changes.push(Change::Download(DownloadChange {
            url: self.url.clone(),
            digest,
            path: self.dest.clone(),
            attributes,
            before,
            ca: self.ca.clone(),
            timeout: self.timeout,
        }));
        Ok(changes)
    }

    fn digest(&self) -> Result<Digest, ModuleError> {
        let digits = self.sha256.strip_prefix("sha256:").unwrap_or(&self.sha256);
        Digest::from_hex(digits).ok_or_else(|| {
            ModuleError::argument(format!("`{}` is not a SHA-256: 64 hexadecimal digits are", self.sha256))
                .at("sha256")
                .hint("`sha256sum FILE` prints it")
        })
    }
}

/// Refuses what is no address that can be downloaded from.
pub(crate) fn check_url(url: &str) -> Result<(), ModuleError> {
    let refuse = |message: String| Err(ModuleError::argument(message).at("url").hint("write https://…, http://… or file:///…"));
    match url.split_once("://") {
        Some(("http" | "https", rest)) if !rest.is_empty() && !rest.starts_with('/') => Ok(()),
        Some(("file", path)) if Path::new(path).is_absolute() => Ok(()),
        Some(("file", _)) => refuse(format!("`{url}` does not name an absolute path")),
        Some(("http" | "https", _)) => refuse(format!("`{url}` names no server")),
        _ => refuse(format!("`{url}` is no address that can be downloaded from")),
    }
}

#[cfg(test)]
mod tests;
