//! What the command line, the environment and the terminal mean. Nothing after this looks at any of them.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::{self, Forks, Policy};
use crate::diagnostic::{Diagnostic, Place, Result};
use crate::inventory::{Defaults, Host, Inventory, LONGEST_TIME, Settings, Sources, Variable, Variables, read_variables};
use crate::lab;
use crate::transport::HostKeyPolicy;
use crate::vault::{Keys, Vault};
use crate::yaml;

/// Where `KPLAY_…` variables are looked up.
pub type Environment = BTreeMap<String, String>;

/// How things are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Whether progress can be drawn: standard output and standard error are terminals.
    pub interactive: bool,
    /// Whether standard output takes colors.
    pub color: bool,
    /// Whether standard error takes colors.
    pub error_color: bool,
    /// How often `-v` was given.
    pub verbose: u8,
}

/// Which hosts, how they are reached, and what is known of them.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// What `-i` or `KPLAY_INVENTORY` name.
    pub inventories: Vec<String>,
    /// Variables of `-e`, with their origin.
    pub extra: Variables,
    /// A pattern that narrows down every other; `@failed` and `@FILE` are read already.
    pub limit: Option<String>,
    /// What holds for hosts whose variables do not say otherwise.
    pub defaults: Defaults,
    /// How many hosts connect at a time; `None` is for kplay to decide.
    pub forks: Option<usize>,
    /// Where agents are looked for first.
    pub agent_folder: Option<PathBuf>,
    /// How long an inventory program may take.
    pub inventory_timeout: Duration,
    /// What opens encrypted files.
    pub vault: Vault,
    /// Where kplay keeps what it remembers between runs.
    pub state: PathBuf,
}

/// A run of a playbook.
#[derive(Debug, Clone)]
pub struct Play {
    /// The playbook.
    pub playbook: PathBuf,
    /// Its hosts.
    pub hosts: Hosts,
    /// What is done.
    pub mode: Mode,
    /// Only tasks with one of these; empty means all.
    pub tags: Vec<String>,
    /// No tasks with one of these.
    pub skip_tags: Vec<String>,
    /// The first task to do.
    pub start_at_task: Option<String>,
    /// What to do instead of running.
    pub instead: Option<Instead>,
    /// Where events are written as JSON Lines.
    pub events: Option<PathBuf>,
    /// What opens the keys of certificate authorities, and encrypts those of new ones.
    pub ca_passphrase: Option<String>,
}

/// What is done with the hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mode {
    /// Nothing is to be changed.
    pub check: bool,
    /// Contents are shown before and after.
    pub diff: bool,
    /// Changes in a forecast are told by the exit code.
    pub exit_code: bool,
}

/// What a playbook is loaded for instead of being run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// To show the hosts of each play.
    ListHosts,
    /// To show its tasks.
    ListTasks,
    /// To see whether it loads.
    SyntaxCheck,
}

impl Screen {
    /// Looks at the terminal and at `NO_COLOR`, `CLICOLOR_FORCE` and `TERM`.
    pub fn detect(environment: &Environment, verbose: u8) -> Self {
        let set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
        let dumb = environment.get("TERM").is_some_and(|term| term == "dumb");
        let (output, error) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let color = |terminal: bool| !set("NO_COLOR") && (terminal && !dumb || set("CLICOLOR_FORCE"));
        Self { interactive: output && error && !dumb, color: color(output), error_color: color(error), verbose }
    }
}

impl Hosts {
    /// Makes sense of the options about hosts and connections. Asks for the password of sudo when `-K` says so.
    pub fn new(hosts: &cli::Hosts, connection: &cli::Connection, environment: &Environment) -> Result<Self> {
        let state = state_folder(environment);
        let inventories = match environment.get("KPLAY_INVENTORY") {
            Some(path) if hosts.inventory.is_empty() && !path.is_empty() => vec![path.clone()],
            _ => hosts.inventory.clone(),
        };
        let mut extra = Variables::new();
        for argument in &hosts.extra_vars {
            extra.extend(extra_variables(argument)?);
        }
        let defaults = Defaults {
            user: connection.user.clone(),
            private_keys: connection.private_key.clone(),
            host_keys: host_keys(connection, environment)?,
            timeout: match connection.timeout {
                Some(seconds) => time("--timeout", seconds)?,
                None => time("KPLAY_TIMEOUT", number(environment, "KPLAY_TIMEOUT")?.unwrap_or(15))?,
            },
            become_user: become_user(connection),
            become_password: connection.ask_become_pass.then(|| crate::vault::ask("password of sudo: ")).transpose()?,
        };
        let forks = match (connection.forks, environment.get("KPLAY_FORKS").map(String::as_str)) {
            (Some(Forks::Auto), _) | (None, Some("auto")) => None,
            (Some(Forks::Number(forks)), _) => Some(u64::from(forks)),
            (None, _) => number(environment, "KPLAY_FORKS")?,
        };
        Ok(Self {
            inventories,
            extra,
            limit: hosts.limit.as_deref().map(|limit| read_limit(limit, &state)).transpose()?,
            defaults,
            forks: forks.map(|forks| usize::try_from(forks).unwrap_or(usize::MAX)),
            agent_folder: connection.agent_dir.clone().or_else(|| environment.get("KPLAY_AGENT_DIR").map(PathBuf::from)),
            inventory_timeout: time("KPLAY_INVENTORY_TIMEOUT", number(environment, "KPLAY_INVENTORY_TIMEOUT")?.unwrap_or(60))?,
            vault: Vault::new(vault_keys(hosts.vault_password_file.as_deref(), &hosts.vault_identity, environment)),
            state,
        })
    }

    /// Reads the inventory, with the variables beside `playbook` when there is one.
    pub fn read(&self, playbook: Option<&Path>) -> Result<Inventory> {
        let folder = playbook.map(|playbook| playbook.parent().unwrap_or(Path::new("")));
        Inventory::load(&Sources {
            inventories: &self.inventories,
            playbook_folder: folder,
            extra: &self.extra,
            timeout: self.inventory_timeout,
            decrypt: &self.vault,
        })
    }

    /// Returns how each of `hosts` is reached, in their order; those of a lab that is up are reached there.
    pub fn settings<'i>(&self, inventory: &Inventory, hosts: impl IntoIterator<Item = &'i Host>) -> Result<Vec<Settings>> {
        let labs: Vec<_> = self.inventories.iter().filter_map(|path| lab::connection_settings(Path::new(path))).collect();
        hosts
            .into_iter()
            .map(|host| {
                let mut settings = inventory.settings(host, &self.defaults)?;
                labs.iter().for_each(|lab| lab.apply(&mut settings.target));
                Ok(settings)
            })
            .collect()
    }

    /// Remembers which hosts failed, for `--limit @failed`. That it cannot be written harms nobody.
    #[expect(clippy::disallowed_methods, reason = "the configuration owns kplay's own state")]
    pub fn remember_failed(&self, failed: &[String]) {
        let text = failed.iter().fold(String::new(), |text, name| text + name + "\n");
        let _ = std::fs::create_dir_all(&self.state).and_then(|()| std::fs::write(self.state.join("failed"), text));
    }
}

impl Play {
    /// Makes sense of the options of a run.
    pub fn new(play: &cli::Play, environment: &Environment) -> Result<Self> {
        let Some(playbook) = play.playbook.clone() else { return Err(Diagnostic::user("no playbook is named")) };
        if !playbook.is_file() {
            let message = if playbook.exists() { "is not a file" } else { "does not exist" };
            let error = Diagnostic::user(format!("the playbook `{}` {message}", playbook.display()));
            let commands = ["exec", "inventory", "vars", "doc", "lab", "undo", "runs", "vault", "host-keys", "new", "completions"];
            return Err(match crate::diagnostic::nearest(&playbook.to_string_lossy(), commands) {
                Some(near) => error.hint(format!("did you mean the command `kplay {near}`?")),
                None => error,
            });
        }
        Ok(Self {
            playbook,
            hosts: Hosts::new(&play.hosts, &play.connection, environment)?,
            mode: Mode::new(&play.mode),
            tags: play.tags.clone(),
            skip_tags: play.skip_tags.clone(),
            start_at_task: play.start_at_task.clone(),
            instead: match (play.list_hosts, play.list_tasks, play.syntax_check) {
                (true, _, _) => Some(Instead::ListHosts),
                (_, true, _) => Some(Instead::ListTasks),
                (_, _, true) => Some(Instead::SyntaxCheck),
                _ => None,
            },
            events: play.output.events.clone(),
            ca_passphrase: environment.get("KPLAY_CA_PASSPHRASE").filter(|passphrase| !passphrase.is_empty()).cloned(),
        })
    }
}

impl Mode {
    /// Makes sense of `--check`, `--diff` and `--exit-code`.
    pub fn new(mode: &cli::Mode) -> Self {
        Self { check: mode.check, diff: mode.diff, exit_code: mode.exit_code }
    }
}

/// Finds what opens encrypted files: options first, then the environment.
pub fn vault_keys(password_file: Option<&Path>, identities: &[PathBuf], environment: &Environment) -> Keys {
    let path = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let identities = if identities.is_empty() { path("KPLAY_VAULT_IDENTITY").into_iter().collect() } else { identities.to_vec() };
    Keys {
        password: environment.get("KPLAY_VAULT_PASSWORD").filter(|_| password_file.is_none()).cloned(),
        password_file: password_file.map(Path::to_path_buf).or_else(|| path("KPLAY_VAULT_PASSWORD_FILE")),
        identities,
    }
}

/// Returns where kplay keeps what it remembers between runs.
fn state_folder(environment: &Environment) -> PathBuf {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("KPLAY_STATE")
        .or_else(|| set("XDG_STATE_HOME").map(|folder| folder.join("kplay")))
        .or_else(|| set("HOME").map(|folder| folder.join(".local/state/kplay")))
        .unwrap_or_else(|| PathBuf::from("/var/lib/kplay/controller"))
}

fn become_user(connection: &cli::Connection) -> Option<String> {
    let wanted = connection.r#become || connection.become_user.is_some();
    wanted.then(|| connection.become_user.clone().unwrap_or_else(|| "root".to_owned()))
}

fn host_keys(connection: &cli::Connection, environment: &Environment) -> Result<HostKeyPolicy> {
    let policy = match (connection.host_keys, environment.get("KPLAY_HOST_KEYS").map(String::as_str)) {
        (Some(policy), _) => policy,
        (None, None | Some("" | "strict")) => Policy::Strict,
        (None, Some("accept-new")) => Policy::AcceptNew,
        (None, Some("off")) => Policy::Off,
        (None, Some(other)) => {
            return Err(
                Diagnostic::user(format!("`KPLAY_HOST_KEYS` cannot be `{other}`")).hint("it is one of `strict`, `accept-new`, `off`")
            );
        }
    };
    Ok(match policy {
        Policy::Strict => HostKeyPolicy::Strict,
        Policy::AcceptNew => HostKeyPolicy::AcceptNew,
        Policy::Off => HostKeyPolicy::Off,
    })
}

fn number(environment: &Environment, name: &str) -> Result<Option<u64>> {
    let Some(text) = environment.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .map(Some)
        .ok_or_else(|| Diagnostic::user(format!("`{name}` has to be a number above 0, not `{text}`")))
}

/// Returns a number of seconds as a time, which no clock may be too small for.
fn time(name: &str, seconds: u64) -> Result<Duration> {
    let time = Duration::from_secs(seconds);
    let longest = LONGEST_TIME.as_secs();
    if time <= LONGEST_TIME { Ok(time) } else { Err(Diagnostic::user(format!("`{name}` can be {longest} seconds at most, not {seconds}"))) }
}

/// Reads `name=text`, `{name: value}` or `@FILE`.
fn extra_variables(argument: &str) -> Result<Variables> {
    if let Some(file) = argument.strip_prefix('@') {
        let file = Path::new(file);
        return read_variables(file, &read_text(file)?);
    }
    let here = Path::new("-e");
    if argument.trim_start().starts_with('{') {
        let mut variables = read_variables(here, argument)?;
        variables.values_mut().for_each(|variable| variable.line = 0);
        return Ok(variables);
    }
    let Some((name, text)) = argument.split_once('=') else {
        return Err(
            Diagnostic::user(format!("`-e {argument}` gives no value")).hint("write `-e name=text`, `-e '{name: value}'` or `-e @FILE`")
        );
    };
    let valid = |name: &str| !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    if !valid(name) {
        return Err(Diagnostic::user(format!("`{name}` in `-e {argument}` is no name of a variable")));
    }
    let value = yaml::Value::String(text.to_owned());
    let document = yaml::Document { file: here.into(), root: yaml::Node { value, span: yaml::Span::default(), literal: false } };
    Ok(Variables::from([(name.to_owned(), Variable::new(&document, 0, &document.root))]))
}

/// Replaces `@failed` and `@FILE` by the hosts that they name.
fn read_limit(limit: &str, state: &Path) -> Result<String> {
    let parts: Vec<_> = limit
        .split(',')
        .map(|part| match part.trim().strip_prefix('@') {
            None => Ok(part.trim().to_owned()),
            Some(name) => {
                let failed = state.join("failed");
                let file = if name == "failed" { failed.as_path() } else { Path::new(name) };
                if name == "failed" && !file.exists() {
                    return Err(Diagnostic::user("there is no earlier run whose failed hosts `--limit @failed` could mean"));
                }
                let text = read_text(file)?;
                let names: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
                if names.is_empty() {
                    let message =
                        if name == "failed" { "no host failed in the last run".to_owned() } else { format!("`{name}` names no host") };
                    return Err(Diagnostic::user(message));
                }
                Ok(names.join(","))
            }
        })
        .collect::<Result<_>>()?;
    Ok(parts.join(","))
}

#[expect(clippy::disallowed_methods, reason = "the configuration reads the files that options name")]
fn read_text(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|error| {
        Diagnostic::user(format!("cannot read the file: {}", kplay_modules::api::error::plain(&error))).at(Place::line(file, 0))
    })
}
