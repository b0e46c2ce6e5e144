//! Copies a file of the host to the controller.
//!
//! The file goes below the folder `dest`, to `dest/HOST/path`: HOST is the name in the inventory, so that the files of many hosts
//! stay apart. With `flat = true` it goes to `dest` itself, or, when that ends with a slash, into that folder under its own name;
//! then mind that each host needs a place of its own. A relative `dest` lies below the folder that kplay was started in.
//!
//! The file is sent only when it differs from what the controller has. A link is followed. A missing file is an error, unless
//! `optional = true`. Result: `dest`, where the file lies on the controller, nil when there was none to fetch.
//!
//! ```lua
//! host:fetch({ path = "/etc/hosts", dest = "fetched" })
//! ```

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::change::MemberKind;
use crate::api::{Blob, Change, Controller, Digest, EntryKind, Fingerprint, Inspect, Module, ModuleError, Proposal, place};

/// Arguments of `fetch`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// The file on the host, absolute.
    path: PathBuf,
    /// The folder on the controller, or with `flat` the file.
    dest: String,
    /// Put the file at `dest` itself, without host and folders.
    #[serde(default)]
    flat: bool,
    /// A file that is missing is no error.
    #[serde(default)]
    optional: bool,
    /// Never show the content.
    #[serde(default)]
    secret: bool,
    /// Where the file goes on the controller, and what is there.
    #[schemars(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    local: Option<Local>,
}

/// A place on the controller.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Local {
    path: PathBuf,
    digest: Option<Digest>,
}

impl Module for Fetch {
    const NAME: &'static str = "fetch";

    fn prepare(&mut self, controller: &dyn Controller) -> Result<(), ModuleError> {
        self.path = place::absolute_file(&self.path, "path")?;
        let path = self.local_path(controller)?;
        let digest = match controller.entry(&path)?.map(|entry| entry.kind) {
            Some(MemberKind::File(digest, _)) => Some(digest),
            Some(MemberKind::Directory) => {
                let error = ModuleError::argument(format!("`{}` on the controller is a directory", path.display())).at("dest");
                return Err(if self.flat { error.hint("end `dest` with a slash to put the file into it") } else { error });
            }
            Some(MemberKind::Symlink(_)) | None => None,
        };
        controller.expect_file(&path);
        self.local = Some(Local { path, digest });
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let local = self.local.as_ref().ok_or_else(|| ModuleError::argument("the place on the controller was not looked up"))?;
        let shown = self.path.display();
        let entry = match host.target(&self.path)? {
            Some(entry) if entry.kind == EntryKind::File => entry,
            Some(entry) => {
                let error = ModuleError::host(format!("`{shown}` is a {}, and only files can be fetched", entry.kind.word()));
                return Err(error
                    .at("path")
                    .hint("fetch its files one by one, or pack it first, with `command` and tar, and fetch the archive"));
            }
            None if self.optional => return Ok(Proposal::default().with("dest", Value::Null)),
            None => return Err(place::in_the_way(&self.path, None, "path").hint("add `optional = true` if it may be missing")),
        };
        let digest = match host.fingerprint(&self.path)? {
            Some(Fingerprint::Known(digest)) => digest,
            Some(Fingerprint::New) | None => return Err(ModuleError::unknown(format!("`{shown}` is made anew by an earlier task"))),
        };
        let content = Blob { digest, size: entry.size, secret: self.secret };
        let change = Change::Fetch { path: self.path.clone(), dest: local.path.clone(), content };
        let changes = if local.digest == Some(digest) { Vec::new() } else { vec![change] };
        // What the controller has is looked up once, by `prepare`: asking the host again would say the same again.
        Ok(Proposal::new(changes).repeating().with("dest", local.path.display().to_string()))
    }

    #[cfg(test)]
    fn examples() -> Vec<crate::api::conformance::Example> {
        tests::examples()
    }
}

impl Fetch {
    /// Returns where the file goes.
    fn local_path(&self, controller: &dyn Controller) -> Result<PathBuf, ModuleError> {
        if self.dest.is_empty() {
            return Err(ModuleError::argument("`dest` is empty").at("dest"));
        }
        let dest = controller.destination(&self.dest);
        let below = self.path.strip_prefix("/").unwrap_or(&self.path);
        match self.path.file_name() {
            None => Err(ModuleError::argument("`path` names no file").at("path")),
            Some(name) if self.flat && self.dest.ends_with('/') => Ok(dest.join(name)),
            Some(_) if self.flat => Ok(dest),
            // A name out of an inventory is no path of several parts.
            Some(_) if Path::new(controller.host()).components().count() != 1 || controller.host().starts_with('.') => {
                Err(ModuleError::argument(format!("the host's name `{}` cannot be the name of a folder", controller.host()))
                    .at("dest")
                    .hint("use `flat = true`"))
            }
            Some(_) => Ok(dest.join(controller.host()).join(below)),
        }
    }
}

#[cfg(test)]
mod tests;
