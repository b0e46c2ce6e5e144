//! Puts a file in place that is rendered from a template.
//!
//! The template is found in the role's `templates/` folder, else beside the playbook, and is rendered on the controller: the
//! host needs nothing for it. Its language is Jinja2's. It sees the host's variables, the role's parameters and `vars`, of
//! which `vars` win; a variable that does not exist is an error with the place in the template, before any host is touched.
//!
//! The file is compared by content, owner and mode, and written only where they differ: beside the destination first, then
//! renamed over it. With `validate`, a command judges a private copy of the new content before anything is written, in a
//! forecast, too; `%s` stands for that copy. A link at `dest` is replaced by the file, what it points to is left alone.
//!
//! A result that holds a private key or a value that is declared secret is never shown, and its file gets mode 0600 unless
//! `mode` says otherwise.
//!
//! ```lua
//! host:template({ src = "nginx.conf.j2", dest = "/etc/nginx/nginx.conf", mode = "0644", vars = { port = 8443 } })
//! ```

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::place::{self, Placement};
use crate::api::{Blob, Content, Controller, Inspect, Mode, Module, ModuleError, Proposal};

/// Arguments of `template`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The template: absolute, or in the role's `templates/` folder or beside the playbook.
    src: String,
    /// The file on the host, absolute.
    dest: PathBuf,
    /// Variables for this template alone; they win over all others.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    vars: Map<String, Value>,
    /// Mode, as "0640" or "u+x,go-w". Default: what the file has, else 0644, or 0600 for a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    /// Owning user, by name or number. Default: what the file has, else the user the task runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// Owning group, by name or number. Default: what the file has, else that of the user the task runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Command that must succeed on the new content; %s stands for a private copy of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validate: Option<String>,
    /// Make missing folders above the file, with mode 0755.
    #[serde(default)]
    parents: bool,
    /// Never show the content.
    #[serde(default)]
    secret: bool,
    /// What the template came to.
    #[schemars(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rendered: Option<Blob>,
}

impl Module for Template {
    const NAME: &'static str = "template";

    fn prepare(&mut self, controller: &dyn Controller) -> Result<(), ModuleError> {
        self.dest = place::absolute_file(&self.dest, "dest")?;
        place::check_validate(self.validate.as_deref())?;
        let source = controller.find(&self.src, "templates").map_err(|error| error.at("src"))?;
        let text = controller.render(&source, &self.vars)?;
        self.secret = place::is_secret(controller, self.secret, &text);
        self.rendered = Some(controller.blob(text, self.secret));
        // They have done their work, and may be secret.
        self.vars.clear();
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let rendered = self.rendered.clone().ok_or_else(|| ModuleError::argument("the template was not rendered"))?;
        Placement {
            path: &self.dest,
            argument: "dest",
            content: Content::Blob(rendered),
            asked: (&self.mode, &self.owner, &self.group),
            default_mode: place::default_mode(self.secret),
            validate: self.validate.as_deref(),
            parents: self.parents,
            secret: self.secret,
        }
        .changes(host)
        .map(Proposal::new)
    }

    #[cfg(test)]
    fn examples() -> Vec<crate::api::conformance::Example> {
        tests::examples()
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.dest.clone()]
    }
}

#[cfg(test)]
mod tests;
