//! What a module may ask a host. There is no way to write here: that a check changes nothing holds by type.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::ModuleError;
use super::types::{Attributes, Digest, Entry, Owner};

/// The answer of a host, of a forecast laid over it, or of a host in memory.
///
/// A forecast answers with what earlier tasks of the run *would have* made. Where it cannot know, the method fails with
/// [`ModuleError::unknown`]: modules pass that on with `?`. Where it can only assume (a package, a guarded command), it
/// answers and remembers, and the task's certainty drops to `assumed`.
pub trait Inspect {
    /// Returns what `path` is, not following a link at its end; `None` when there is nothing.
    fn entry(&self, path: &Path) -> Result<Option<Entry>, ModuleError>;
    /// Returns what `path` leads to, following links; `None` when there is nothing.
    fn target(&self, path: &Path) -> Result<Option<Entry>, ModuleError>;
    /// Returns a file's content, following links. Fails when there is none or it is larger than `limit` bytes.
    fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, ModuleError>;
    /// Returns the digest of a file's content, following links; `None` when there is no file.
    fn fingerprint(&self, path: &Path) -> Result<Option<Fingerprint>, ModuleError>;
    /// Returns whether there is anything at `path`, not following a link at its end. After a guarded command (`creates`) a
    /// forecast can assume that much, though not what it is.
    fn exists(&self, path: &Path) -> Result<bool, ModuleError> {
        Ok(self.entry(path)?.is_some())
    }
    /// Returns the names in a directory, sorted.
    fn list(&self, path: &Path) -> Result<Vec<String>, ModuleError>;

    /// Returns the user by name or number; `None` when there is none.
    fn user(&self, name: &str) -> Result<Option<UserEntry>, ModuleError>;
    /// Returns the group by name or number; `None` when there is none.
    fn group(&self, name: &str) -> Result<Option<GroupEntry>, ModuleError>;

    /// Returns the users whose primary group has this number, by their names.
    fn primary_members(&self, group: &Owner) -> Result<Vec<String>, ModuleError> {
        let path = Path::new("/etc/passwd");
        if self.target(path)?.is_none() {
            return Ok(Vec::new());
        }
        let text = self.read(path, super::place::TEXT_LIMIT)?;
        let mut found = Vec::new();
        for name in String::from_utf8_lossy(&text).lines().filter_map(|line| line.split(':').next()) {
            // The file tells who there is; earlier tasks may have moved them.
            if self.user(name)?.is_some_and(|user| user.name == name && user.group == *group) {
                found.push(name.to_owned());
            }
        }
        Ok(found)
    }

    /// Returns what systemd knows of a unit (`kube-apiserver` and `kube-apiserver.service` alike).
    fn unit(&self, name: &str) -> Result<Unit, ModuleError>;
    /// Returns what a unit last said in its log, a few lines for a message; none where there is no log.
    fn unit_log(&self, name: &str) -> Vec<String>;
    /// Returns a kernel parameter's live value, white space trimmed; `None` when the kernel has no such parameter.
    fn kernel_parameter(&self, key: &str) -> Result<Option<String>, ModuleError>;
    /// Returns the installed version of each package of `names` (package manager's names); absent ones are left out.
    fn packages(&self, names: &[String]) -> Result<BTreeMap<String, String>, ModuleError>;

    /// Runs a command that its user declares to change nothing (guards, `reads_only`, `validate`), and returns how it ended.
    /// A forecast refuses with `unknown` once an earlier task would have changed anything that the command might see.
    fn run(&self, command: &Command) -> Result<CommandOutput, ModuleError>;
    /// Runs `command` with `%s` replaced by a private copy of `content`, as it would be written to `path`.
    fn validate(&self, command: &str, path: &Path, content: &super::types::Content) -> Result<CommandOutput, ModuleError>;

    /// Returns what the agent recorded under `key` when it performed an earlier change (see [`super::change::Record`]).
    fn record(&self, key: &str) -> Result<Option<Vec<u8>>, ModuleError>;
    /// Returns what is known of the host as a whole.
    fn facts(&self) -> &Facts;
    /// Returns the host's clock, seconds since 1970.
    fn now(&self) -> i64;
    /// Returns whether this is a forecast: probes then look once instead of waiting.
    fn forecasting(&self) -> bool;
    /// Asks what an earlier task of this run may have changed about something outside the methods above (an open port, a
    /// server's answer): fails with `unknown` when a command, package or unit change would have come first.
    fn live(&self, what: &str) -> Result<(), ModuleError>;
    /// Returns whether a user, group or the like that is not there (`user \`etcd\``) may come with a package that an earlier
    /// task would have installed. The task is then an assumption.
    fn may_come(&self, what: &str) -> bool {
        let _ = what;
        false
    }
    /// Waits between two looks at something that is to change; fails when the task's time is over or the run is stopped.
    fn pause(&self, time: std::time::Duration) -> Result<(), ModuleError> {
        std::thread::sleep(time);
        self.refresh();
        Ok(())
    }
    /// Forgets what was remembered of things that change by themselves, or by another agent.
    fn refresh(&self) {}
}

/// What is known of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fingerprint {
    /// Its SHA-256.
    Known(Digest),
    /// It would be new: no digest yet, but certainly none that is on record (a certificate to be issued, say).
    New,
}

/// A line of the user database. Not serializable: the hash of a password leaves its host in no report, and shows in no message.
#[derive(Clone, PartialEq, Eq)]
pub struct UserEntry {
    /// Login name.
    pub name: String,
    /// Number; `Owner::Named` when an earlier task of the run would create the user without naming one.
    pub id: Owner,
    /// Number of the primary group, likewise.
    pub group: Owner,
    /// Comment field.
    pub comment: String,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: String,
    /// Names of the groups that list the user as a member, sorted.
    pub groups: Vec<String>,
    /// Password hash as the host has it, lock included; `None` where it cannot be read.
    pub password: Option<String>,
}

impl std::fmt::Debug for UserEntry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, id, group, comment, home, shell, groups, password } = self;
        write!(formatter, "UserEntry {{ {name:?} {id:?} {group:?} {comment:?} {home:?} {shell:?} {groups:?}")?;
        write!(formatter, "{} }}", if password.is_some() { " with a password" } else { "" })
    }
}

impl UserEntry {
    /// Returns whether logging in by password is forbidden, as far as that can be seen: `!` or `*` at the head of the hash.
    pub fn locked(&self) -> bool {
        self.password.as_ref().is_none_or(|hash| hash.starts_with(['!', '*']))
    }
}

/// A line of the group database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// Name.
    pub name: String,
    /// Number.
    pub id: Owner,
    /// Listed members.
    pub members: Vec<String>,
}

/// What systemd says of a unit. Words are systemd's own (`systemctl show`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `loaded`, `not-found`, `masked`, `bad-setting` …
    pub load_state: String,
    /// `active`, `inactive`, `failed`, `activating` …
    pub active_state: String,
    /// `running`, `exited`, `dead` …
    pub sub_state: String,
    /// `enabled`, `disabled`, `static`, `masked`, … or empty.
    pub unit_file_state: String,
    /// `simple`, `notify`, `oneshot` …
    pub kind: String,
    /// `success`, `exit-code`, `timeout` …
    pub result: String,
    /// Whether unit files changed on disk since systemd read them.
    pub need_daemon_reload: bool,
    /// Identifies one start of the unit; empty when it never ran.
    pub invocation: String,
    /// When the main process started, nanoseconds since 1970; 0 when it does not run.
    pub started: i64,
    /// When its state last changed, which a reload does, too, nanoseconds since 1970; 0 when that is not known.
    #[serde(default)]
    pub state_changed: i64,
    /// Main process; 0 when there is none.
    pub main_pid: u32,
    /// Executable of the running main process, links resolved.
    pub executable: Option<PathBuf>,
    /// The unit file.
    pub fragment: Option<PathBuf>,
    /// Drop-in files.
    pub drop_ins: Vec<PathBuf>,
    /// Environment files that the unit names (a leading `-` removed).
    pub environment_files: Vec<PathBuf>,
    /// The command line that the unit starts.
    pub exec_start: String,
}

impl Unit {
    /// Returns the state that it is in, in systemd's words, for a message.
    pub fn condition(&self) -> String {
        format!("state: {} ({}), result: {}", self.active_state, self.sub_state, self.result)
    }

    /// Returns whether the unit does its work: active, or a oneshot unit that ended well.
    pub fn is_up(&self) -> bool {
        matches!(self.active_state.as_str(), "active" | "reloading")
            || self.kind == "oneshot" && self.active_state == "inactive" && self.result == "success" && !self.invocation.is_empty()
    }
}

/// A program to run on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Program and arguments; nothing is expanded.
    pub argv: Vec<String>,
    /// Working directory; `/` when none is named.
    pub directory: Option<PathBuf>,
    /// Variables added to a small, fixed environment.
    pub environment: BTreeMap<String, String>,
    /// Text for its standard input.
    pub input: Option<String>,
    /// Seconds after which its process group is killed.
    pub timeout: u64,
}

impl Command {
    /// Creates a command with the default time limit of 60 s.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), directory: None, environment: BTreeMap::new(), input: None, timeout: 60 }
    }

    /// Returns the command as one would type it.
    pub fn shown(&self) -> String {
        let quoted = |word: &String| {
            let safe = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./=:,+@%^".contains(&byte));
            if safe { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
        };
        self.argv.iter().map(quoted).collect::<Vec<_>>().join(" ")
    }
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandOutput {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Name of that signal (`KILL`), or `timeout`.
    pub signal: Option<String>,
    /// Standard output, at most 1 MiB, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// Whether either stream was cut.
    pub truncated: bool,
}

impl CommandOutput {
    /// Returns whether the command ended with exit code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Returns how it ended, in words: `exit code 2`, `killed by signal KILL`.
    pub fn ending(&self) -> String {
        match (&self.signal, self.code) {
            (Some(signal), _) if signal == "timeout" => "timed out".to_owned(),
            (Some(signal), _) => format!("killed by signal {signal}"),
            (None, Some(code)) => format!("exit code {code}"),
            (None, None) => "ended without an exit code".to_owned(),
        }
    }
}

/// What is known of a host as a whole; playbooks read it as `host.facts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Host name without domain.
    pub hostname: String,
    /// `x86_64`, `aarch64` …
    pub architecture: String,
    /// Kernel release.
    pub kernel: String,
    /// `ID` of os-release (`debian`), or empty.
    pub os: String,
    /// `VERSION_ID` of os-release, or empty.
    pub os_version: String,
    /// `VERSION_CODENAME` of os-release, or empty.
    pub os_codename: String,
    /// `debian`, `redhat`, `suse`, `alpine`, `arch` or empty: from `ID` and `ID_LIKE`.
    pub os_family: String,
    /// `apt`, `dnf`, `yum` or empty.
    pub package_manager: String,
    /// `systemd` or empty.
    pub init: String,
    /// Processors.
    pub processors: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Addresses by interface, without the loopback's.
    pub addresses: BTreeMap<String, Vec<String>>,
    /// Interface of the default route, or empty.
    pub default_interface: String,
    /// Address of the interface of the default route, or empty.
    pub default_address: String,
    /// User that the tasks run as.
    pub user: String,
    /// That user's home directory.
    pub home: PathBuf,
    /// `/etc/machine-id`, or empty.
    pub machine_id: String,
    /// The host's clock when the facts were taken, seconds since 1970.
    pub time: i64,
}

/// Returns the owner number of a user that a task names, or an error that says who is missing.
pub fn owner_id(host: &dyn Inspect, name: &str) -> Result<Owner, ModuleError> {
    match host.user(name)? {
        Some(user) => Ok(user.id),
        None => match number(name) {
            Some(number) => Ok(Owner::Id(number)),
            None if host.may_come(&format!("user `{name}`")) => Ok(Owner::Named(name.to_owned())),
            None => Err(ModuleError::host(format!("there is no user `{name}` on this host"))
                .at("owner")
                .hint("create it first with the `user` module")),
        },
    }
}

/// Returns the group number of a group that a task names, or an error that says which is missing.
pub fn group_id(host: &dyn Inspect, name: &str) -> Result<Owner, ModuleError> {
    match host.group(name)? {
        Some(group) => Ok(group.id),
        None => match number(name) {
            Some(number) => Ok(Owner::Id(number)),
            None if host.may_come(&format!("group `{name}`")) => Ok(Owner::Named(name.to_owned())),
            None => Err(ModuleError::host(format!("there is no group `{name}` on this host"))
                .at("group")
                .hint("create it first with the `group` module")),
        },
    }
}

/// Returns whether the group of a user's name goes with the user, as userdel has it: it is the primary one, and nobody else's.
pub fn goes_along(host: &dyn Inspect, user: &UserEntry) -> Result<bool, ModuleError> {
    let Some(group) = host.group(&user.name)?.filter(|group| group.name == user.name && group.id == user.group) else { return Ok(false) };
    let others = |names: &[String]| names.iter().any(|name| *name != user.name);
    Ok(!others(&group.members) && !others(&host.primary_members(&group.id)?))
}

/// Reads the number of a user or group; the highest one means "leave it as it is" to the kernel, and nobody has it.
fn number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|number| *number != u32::MAX)
}

/// Returns the attributes an entry shall have: what is asked for, else what it has, else `default_mode` and the agent's user.
pub fn wanted_attributes(
    host: &dyn Inspect,
    now: Option<&Attributes>,
    asked: (&Option<super::types::Mode>, &Option<String>, &Option<String>),
    default_mode: u32,
    directory: bool,
) -> Result<Attributes, ModuleError> {
    let (mode, owner, group) = asked;
    let base = now.map_or(default_mode, |attributes| attributes.mode);
    let me = || host.user(&host.facts().user);
    Ok(Attributes {
        mode: mode.as_ref().map_or(base, |mode| mode.apply(base, directory)),
        owner: match (owner, now) {
            (Some(name), _) => owner_id(host, name)?,
            (None, Some(now)) => now.owner.clone(),
            (None, None) => me()?.map_or(Owner::Id(0), |user| user.id),
        },
        group: match (group, now) {
            (Some(name), _) => group_id(host, name)?,
            (None, Some(now)) => now.group.clone(),
            (None, None) => me()?.map_or(Owner::Id(0), |user| user.group),
        },
    })
}
