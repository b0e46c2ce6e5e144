//! Keeps a kubeconfig on a host, made there from the certificate and key of one of its clients, or from a token.
//!
//! The file has one cluster, one user and one context, which is the current one. Certificates and keys are files of the host,
//! where `cert` put them: the kubeconfig names them, or with `embed = true` holds their content. A key therefore never travels,
//! and neither key nor token is ever shown.
//!
//! An embedded certificate has to belong to its key, and the file is written again when one of them has changed. `token` is what
//! a kubelet begins with that has no certificate yet.
//!
//! The file is compared as a whole: what was added to it by hand goes when kplay next looks. A link at `path` is replaced.
//!
//! ```lua
//! host:kubeconfig({
//!   path = "/etc/kubernetes/scheduler.kubeconfig",
//!   server = "https://127.0.0.1:6443", certificate_authority = "/etc/kubernetes/cert/ca.pem",
//!   user = "system:kube-scheduler",
//!   certificate = "/etc/kubernetes/cert/kube-scheduler.pem", key = "/etc/kubernetes/cert/kube-scheduler-key.pem",
//! })
//! host:kubeconfig({
//!   path = "/etc/kubernetes/bootstrap.kubeconfig",
//!   server = "https://10.4.7.10:7443", certificate_authority = "/etc/kubernetes/cert/ca.pem", embed = true,
//!   user = "kubelet-bootstrap", token = host.vars.bootstrap_token,
//! })
//! ```

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use x509_parser::pem::parse_x509_pem;

use crate::api::place::{self, Placement};
use crate::api::{Content, Controller, Inspect, Mode, Module, ModuleError, Proposal, base64, issue};

/// Largest certificate or key that is read, bytes.
const LIMIT: u64 = 1 << 20;

/// Arguments of `kubeconfig`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kubeconfig {
    /// The file on the host, absolute.
    path: PathBuf,
    /// Where the apiserver is: `https://127.0.0.1:6443`.
    server: String,
    /// What the cluster is called.
    #[serde(default = "kubernetes")]
    cluster: String,
    /// What the user is called here. Who it is, the certificate or the token says.
    user: String,
    /// What the context is called. Default: as the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    /// The authority's certificate on the host.
    certificate_authority: PathBuf,
    /// The client's certificate on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<PathBuf>,
    /// The certificate's key on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    /// A token, instead of certificate and key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Hold the content of certificates and key, instead of naming their files.
    #[serde(default)]
    embed: bool,
    /// Mode, as "0600". Default: what the file has, else 0600.
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
}

fn kubernetes() -> String {
    "kubernetes".to_owned()
}

impl Module for Kubeconfig {
    const NAME: &'static str = "kubeconfig";

    fn prepare(&mut self, _: &dyn Controller) -> Result<(), ModuleError> {
        self.path = place::absolute_file(&self.path, "path")?;
        self.certificate_authority = place::absolute_file(&self.certificate_authority, "certificate_authority")?;
        for (argument, file) in [("certificate", &mut self.certificate), ("key", &mut self.key)] {
            if let Some(file) = file {
                *file = place::absolute_file(file, argument)?;
            }
        }
        if !self.server.starts_with("https://") {
            return Err(ModuleError::argument(format!("`server` is not the address of an apiserver: `{}`", self.server))
                .at("server")
                .hint("write for instance \"https://127.0.0.1:6443\": nobody shows a certificate or a token without TLS"));
        }
        for (argument, text) in [("cluster", &self.cluster), ("user", &self.user)] {
            if text.trim().is_empty() {
                return Err(ModuleError::argument(format!("`{argument}` is empty")).at(argument));
            }
        }
        match (&self.certificate, &self.key, &self.token) {
            (Some(_), Some(_), None) => Ok(()),
            (None, None, Some(token)) if token.trim().is_empty() => Err(ModuleError::argument("`token` is empty").at("token")),
            (None, None, Some(_)) => Ok(()),
            (Some(_), None, None) => Err(ModuleError::argument("`certificate` is given without its `key`").at("certificate")),
            (None, Some(_), None) => Err(ModuleError::argument("`key` is given without its `certificate`").at("key")),
            (None, None, None) => {
                Err(ModuleError::argument("it is not said how the user proves who it is").hint("give `certificate` and `key`, or `token`"))
            }
            (_, _, Some(_)) => Err(ModuleError::argument("`token` and a certificate exclude each other").at("token")),
        }
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let secret = self.embed && self.key.is_some() || self.token.is_some();
        Placement {
            path: &self.path,
            argument: "path",
            content: Content::Inline(self.text(host)?.into_bytes()),
            asked: (&self.mode, &self.owner, &self.group),
            default_mode: place::SECRET_MODE,
            validate: None,
            parents: self.parents,
            secret,
        }
        .changes(host)
        .map(Proposal::new)
    }

    #[cfg(test)]
    fn examples() -> Vec<crate::api::conformance::Example> {
        tests::examples()
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }
}

impl Kubeconfig {
    /// Returns what the file shall contain.
    fn text(&self, host: &dyn Inspect) -> Result<String, ModuleError> {
        let context = self.context.as_ref().unwrap_or(&self.user);
        let authority = self.file(host, "certificate-authority", &self.certificate_authority, "certificate_authority")?;
        let mut proof = Vec::new();
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            if self.embed {
                matches(&read(host, certificate, "certificate")?, certificate, &read(host, key, "key")?, key)?;
            }
            proof.push(self.file(host, "client-certificate", certificate, "certificate")?);
            proof.push(self.file(host, "client-key", key, "key")?);
        }
        if let Some(token) = &self.token {
            proof.push(format!("token: {}", scalar(token)));
        }
        Ok([
            "# Written by kplay.".to_owned(),
            "apiVersion: v1".to_owned(),
            "kind: Config".to_owned(),
            "clusters:".to_owned(),
            format!("  - name: {}", scalar(&self.cluster)),
            "    cluster:".to_owned(),
            format!("      server: {}", scalar(&self.server)),
            format!("      {authority}"),
            "users:".to_owned(),
            format!("  - name: {}", scalar(&self.user)),
            "    user:".to_owned(),
        ]
        .into_iter()
        .chain(proof.into_iter().map(|line| format!("      {line}")))
        .chain([
            "contexts:".to_owned(),
            format!("  - name: {}", scalar(context)),
            "    context:".to_owned(),
            format!("      cluster: {}", scalar(&self.cluster)),
            format!("      user: {}", scalar(&self.user)),
            format!("current-context: {}", scalar(context)),
        ])
        .map(|line| line + "\n")
        .collect())
    }

    /// Returns the line that names a file, or holds what is in it.
    fn file(&self, host: &dyn Inspect, key: &str, path: &Path, argument: &str) -> Result<String, ModuleError> {
        if self.embed {
            return Ok(format!("{key}-data: {}", base64::encode(read(host, path, argument)?.as_bytes())));
        }
        // A forecast need not know a file to name it; who acts finds out here and not from a client that does not start.
        if !host.forecasting() && host.target(path)?.is_none() {
            return Err(missing(path, argument));
        }
        let name = path.to_str().ok_or_else(|| ModuleError::argument(format!("`{}` is not UTF-8", path.display())).at(argument))?;
        Ok(format!("{key}: {}", scalar(name)))
    }
}

fn missing(path: &Path, argument: &str) -> ModuleError {
    place::in_the_way(path, None, argument).hint("issue it first, with the module `cert`")
}

/// Reads a certificate or key, which has to be text.
fn read(host: &dyn Inspect, path: &Path, argument: &str) -> Result<String, ModuleError> {
    if host.target(path)?.is_none() {
        return Err(missing(path, argument));
    }
    let bytes = host.read(path, LIMIT).map_err(|error| error.at(argument))?;
    String::from_utf8(bytes).map_err(|_| ModuleError::host(format!("`{}` is not in PEM form", path.display())).at(argument))
}

/// Refuses a certificate that is not for this key.
fn matches(certificate: &str, certificate_path: &Path, key: &str, key_path: &Path) -> Result<(), ModuleError> {
    let shown = certificate_path.display();
    let unreadable = || ModuleError::host(format!("`{shown}` is not a certificate that kplay can read")).at("certificate");
    let (_, block) = parse_x509_pem(certificate.as_bytes()).map_err(|_| unreadable())?;
    let parsed = block.parse_x509().map_err(|_| unreadable())?;
    let key = issue::read_key(key).map_err(|error| error.at("key"))?;
    if parsed.public_key().raw == issue::public_key(&key) {
        return Ok(());
    }
    Err(ModuleError::host(format!("the certificate `{shown}` does not belong to the key `{}`", key_path.display()))
        .at("key")
        .hint("keep both with the module `cert`, which issues a certificate again that is not its key's"))
}

/// Writes a text as YAML: plain where no reader can take it for anything else, else in quotes.
fn scalar(text: &str) -> String {
    let word = text.to_ascii_lowercase();
    let plain = text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '/')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "._/@:-".contains(letter))
        && !text.ends_with(':')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&word.as_str());
    // Every JSON string is one of YAML, too.
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests;
