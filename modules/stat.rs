//! Looks at a path and says what is there, changing nothing.
//!
//! Results: `exists`; `kind`, one of "file", "directory", "link", "other"; `size` in bytes, of a file; `mode`, as "0644"; `owner` and
//! `group`, by name, or by number where there is no name; `digest`, the SHA-256 of a file's content; `content`, a file's text, if it
//! is asked for; `target`, what a link holds; `mtime`, when the content last changed, in seconds since 1970. What does not apply is
//! nil; if nothing is there, that is all but `exists`. Give the option `sensitive = true` to look at a secret.
//!
//! A link is looked at itself, unless `follow = true`: then it is what the link leads to, and a link that leads nowhere does not
//! exist.
//!
//! ```lua
//! local conf = host:stat({ path = "/etc/hosts" })
//! if conf.exists and conf.mode ~= "0644" then
//!   host:file({ path = "/etc/hosts", mode = "0644" })
//! end
//! ```

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{Controller, EntryKind, Fingerprint, Inspect, Module, ModuleError, Owner, Proposal, place};

/// Largest file whose text is returned, bytes.
const CONTENT_LIMIT: u64 = 1 << 20;

/// Arguments of `stat`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stat {
    /// The path, absolute.
    path: PathBuf,
    /// Look at what a link leads to, instead of the link.
    #[serde(default)]
    follow: bool,
    /// Whether a file is read for its `digest`; reading a large one takes time.
    #[serde(default = "yes")]
    digest: bool,
    /// Whether the text of a file is returned, which may have 1 MiB.
    #[serde(default)]
    content: bool,
}

fn yes() -> bool {
    true
}

impl Module for Stat {
    const NAME: &'static str = "stat";

    fn prepare(&mut self, _: &dyn Controller) -> Result<(), ModuleError> {
        self.path = place::absolute(&self.path, "path")?;
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let entry = if self.follow { host.target(&self.path)? } else { host.entry(&self.path)? };
        let Some(entry) = entry else {
            let nothing = Proposal::default().with("exists", false);
            return Ok(["kind", "size", "mode", "owner", "group", "digest", "content", "target", "mtime"]
                .into_iter()
                .fold(nothing, |proposal, field| proposal.with(field, Value::Null)));
        };
        let is_file = entry.kind == EntryKind::File;
        let kind = if entry.kind == EntryKind::Other { "other" } else { entry.kind.word() };
        let target = match &entry.kind {
            EntryKind::Symlink(target) => Some(target.display().to_string()),
            _ => None,
        };
        let user = |name: &str| Ok(host.user(name)?.map(|user| user.name));
        let group = |name: &str| Ok(host.group(name)?.map(|group| group.name));
        Ok(Proposal::default()
            .with("exists", true)
            .with("kind", kind)
            .with("size", is_file.then_some(entry.size))
            .with("mode", format!("{:04o}", entry.attributes.mode))
            .with("owner", shown(&entry.attributes.owner, user)?)
            .with("group", shown(&entry.attributes.group, group)?)
            .with("digest", if is_file && self.digest { self.fingerprint(host)? } else { None })
            .with("content", if is_file && self.content { Some(self.text(host)?) } else { None })
            .with("target", target)
            .with("mtime", entry.mtime.div_euclid(1_000_000_000)))
    }

    #[cfg(test)]
    fn examples() -> Vec<crate::api::conformance::Example> {
        tests::examples()
    }
}

impl Stat {
    fn text(&self, host: &dyn Inspect) -> Result<String, ModuleError> {
        let bytes = host.read(&self.path, CONTENT_LIMIT)?;
        String::from_utf8(bytes).map_err(|_| ModuleError::host(format!("`{}` is no UTF-8 text", self.path.display())).at("content"))
    }

    fn fingerprint(&self, host: &dyn Inspect) -> Result<Option<String>, ModuleError> {
        match host.fingerprint(&self.path)? {
            Some(Fingerprint::Known(digest)) => Ok(Some(digest.hex())),
            Some(Fingerprint::New) => Err(ModuleError::unknown(format!("`{}` is made anew by an earlier task", self.path.display()))),
            None => Ok(None),
        }
    }
}

/// Returns an owner's name, or its number where there is no name.
fn shown(owner: &Owner, name: impl Fn(&str) -> Result<Option<String>, ModuleError>) -> Result<String, ModuleError> {
    match owner {
        Owner::Id(id) => Ok(name(&id.to_string())?.unwrap_or_else(|| id.to_string())),
        Owner::Named(name) => Ok(name.clone()),
    }
}

#[cfg(test)]
mod tests;
