//! What was typed. What it means is said in `config.rs`; nothing after that looks at flags.
#![expect(missing_docs, reason = "groups of options are described at their types")]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};

/// Bring hosts to the state that playbooks describe
///
/// Playbooks and roles are written in Lua, inventories in YAML. Hosts need nothing but sshd: an agent is sent along.
/// `kplay PLAYBOOK --check --diff` says exactly what a run would do, and changes nothing.
#[derive(Debug, Parser)]
#[command(name = "kplay", version, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(override_usage = "kplay PLAYBOOK -i INVENTORY [OPTIONS]\n       kplay COMMAND …")]
#[command(after_help = "Exit codes: 0 done, 1 refused before anything was touched, 2 a host failed, 3 a host was unreachable,\n\
                  4 --check --exit-code: there would be changes, 5 --check: a forecast ended at an unknown result, 130 interrupted.\n\
                  A playbook that is named like a command is run as ./NAME.")]
pub struct Cli {
    /// Runs a playbook when no other command is named.
    #[command(flatten)]
    pub play: Play,
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// Returns how often `-v` was given to whatever command it is.
    pub fn verbosity(&self) -> u8 {
        match &self.command {
            None => self.play.output.verbose,
            Some(Command::Exec(exec)) => exec.output.verbose,
            Some(Command::Undo(undo)) => undo.output.verbose,
            Some(_) => 0,
        }
    }
}

/// The commands besides running a playbook.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one command on hosts
    Exec(Exec),
    /// Show hosts, groups and variables
    Inventory(Inventory),
    /// Explain where a host's variables come from
    Vars(Vars),
    /// Show the manual of a module or role
    Doc(Doc),
    /// Boot throw-away hosts for an inventory
    Lab(Lab),
    /// Revert what a run changed
    Undo(Undo),
    /// List the runs that hosts remember
    Runs(Runs),
    /// Encrypt files of variables
    Vault(Vault),
    /// Learn the keys of hosts
    HostKeys(HostKeys),
    /// Begin a project, playbook or role
    New(New),
    /// Print a completion script for a shell
    Completions(Completions),
}

/// `kplay PLAYBOOK`
#[derive(Debug, Args)]
pub struct Play {
    /// The playbook, a Lua file
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub playbook: Option<PathBuf>,
    #[command(flatten)]
    pub hosts: Hosts,
    #[command(flatten)]
    pub connection: Connection,
    #[command(flatten)]
    pub mode: Mode,
    /// Do only tasks with one of these tags; `all`, `tagged` and `untagged` are such, too
    #[arg(short, long, value_name = "TAG,…", value_delimiter = ',', help_heading = "Selection")]
    pub tags: Vec<String>,
    /// Leave out tasks with one of these tags, likewise
    #[arg(long, value_name = "TAG,…", value_delimiter = ',', help_heading = "Selection")]
    pub skip_tags: Vec<String>,
    /// Leave out all tasks before the one of this name
    #[arg(long, value_name = "TASK", help_heading = "Selection")]
    pub start_at_task: Option<String>,
    /// Show the hosts of each play, and do nothing
    #[arg(long, help_heading = "Instead of running", conflicts_with_all = ["list_tasks", "syntax_check"])]
    pub list_hosts: bool,
    /// Show the tasks of each play as far as they can be known, and do nothing
    #[arg(long, help_heading = "Instead of running", conflicts_with = "syntax_check")]
    pub list_tasks: bool,
    /// Load playbook and inventory, and do nothing
    #[arg(long, help_heading = "Instead of running")]
    pub syntax_check: bool,
    #[command(flatten)]
    pub output: Output,
}

/// Which hosts, with which variables.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Hosts")]
pub struct Hosts {
    /// A file, a folder, a program or a list `a,b,`; may be given several times
    #[arg(short, long, value_name = "INVENTORY", value_hint = ValueHint::AnyPath)]
    pub inventory: Vec<String>,
    /// Only these hosts: a pattern, `@failed` for those that failed last time, or `@FILE`
    #[arg(short, long, value_name = "PATTERN")]
    pub limit: Option<String>,
    /// A variable that wins over all others: `name=text`, `{name: value}` or `@FILE`
    #[arg(short, long = "extra-vars", value_name = "VARS")]
    pub extra_vars: Vec<String>,
    /// A file that holds the passphrase of encrypted files
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub vault_password_file: Option<PathBuf>,
    /// A file of age identities that open encrypted files; may be given several times
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub vault_identity: Vec<PathBuf>,
}

/// How hosts are reached, where the inventory does not say.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Log in as this user
    #[arg(short, long)]
    pub user: Option<String>,
    /// Log in with this key; may be given several times
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub private_key: Vec<PathBuf>,
    /// Act as root, or as `--become-user`
    #[arg(short, long)]
    pub r#become: bool,
    /// Whom to become
    #[arg(long, value_name = "USER")]
    pub become_user: Option<String>,
    /// Ask for the password of sudo
    #[arg(short = 'K', long)]
    pub ask_become_pass: bool,
    /// How strictly the keys of hosts are checked
    #[arg(long, value_name = "POLICY", value_enum)]
    pub host_keys: Option<Policy>,
    /// Seconds to connect and log in
    #[arg(short = 'T', long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: Option<u64>,
    /// How many hosts connect at a time: a number, or `auto`, by processors, round trips and open files
    #[arg(short, long, value_name = "N")]
    pub forks: Option<Forks>,
    /// A folder with the agents that are sent to hosts
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub agent_dir: Option<PathBuf>,
}

/// `--forks`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forks {
    Auto,
    Number(u32),
}

impl std::str::FromStr for Forks {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            number => number.parse().ok().filter(|number| *number > 0).map(Self::Number).ok_or("it is `auto` or a number above 0"),
        }
    }
}

/// `--host-keys`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// Only known keys are accepted
    Strict,
    /// Keys of unknown hosts are accepted and remembered
    AcceptNew,
    /// Nothing is checked
    Off,
}

/// What is done.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Mode")]
pub struct Mode {
    /// Forecast only: say what would change, and change nothing
    #[arg(short = 'C', long)]
    pub check: bool,
    /// Show contents before and after
    #[arg(short = 'D', long)]
    pub diff: bool,
    /// With --check, exit with 4 when there would be changes
    #[arg(long, requires = "check")]
    pub exit_code: bool,
}

/// What is shown.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Write every event as a line of JSON; `-` is standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub events: Option<PathBuf>,
    /// Show unchanged and skipped tasks, and what commands print; twice for what the agents log
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// `kplay exec`
#[derive(Debug, Args)]
pub struct Exec {
    /// The hosts
    pub pattern: String,
    #[command(flatten)]
    pub hosts: Hosts,
    #[command(flatten)]
    pub connection: Connection,
    #[command(flatten)]
    pub output: Output,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<String>,
}

/// `kplay inventory`
#[derive(Debug, Args)]
pub struct Inventory {
    /// Print everything as JSON, as `ansible-inventory --list` does (the default)
    #[arg(long, conflicts_with_all = ["graph", "host"])]
    pub list: bool,
    /// Draw the tree of groups, from this group on
    #[arg(long, value_name = "GROUP", num_args = 0..=1, default_missing_value = "all", conflicts_with = "host")]
    pub graph: Option<String>,
    /// Print the variables of one host as JSON
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    #[command(flatten)]
    pub hosts: Hosts,
}

/// `kplay vars`
#[derive(Debug, Args)]
pub struct Vars {
    /// The host
    pub host: String,
    /// The variable; all of them without it
    pub key: Option<String>,
    #[command(flatten)]
    pub hosts: Hosts,
}

/// `kplay doc`
#[derive(Debug, Args)]
pub struct Doc {
    /// A module, or the name or folder of a role; without it all modules are listed
    pub name: Option<String>,
}

/// What `kplay lab --help` says of the settings.
const LAB_SETTINGS: &str = "\
A host takes part when it has the variable `lab`, a mapping; `lab: {}` takes the defaults:
  address     its address, unless `address` or `ansible_host` says it
  prefix      24
  gateway     the lab's own address; the highest free one of the network
  interface   name of the network interface in the host; ens32
  packages    Debian packages that can be installed in the host; []
  include     Debian packages that are in the host from the start; []
  suite       bookworm
  mirror      http://deb.debian.org/debian
  kubernetes  whether a Kubernetes server archive is built when the cache has none; false

Hosts live in network namespaces and have no way out. While the lab is up, kplay reaches them by itself.
Debian trees, packages and archives are kept in $KPLAY_CACHE, else /var/cache/kplay.";

/// `kplay lab`
#[derive(Debug, Args)]
#[command(after_help = LAB_SETTINGS)]
pub struct Lab {
    #[command(subcommand)]
    pub action: LabCommand,
    /// The inventory whose hosts have `lab:` settings: a file or a folder
    // A global argument shares its name with all commands above it, and a playbook's `-i` is of another type.
    #[arg(id = "lab_inventory", short = 'i', long = "inventory", global = true, value_name = "INVENTORY", value_hint = ValueHint::AnyPath)]
    pub inventory: Option<PathBuf>,
}

/// What to do with a lab.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum LabCommand {
    /// Boot the hosts that do not run, those that have died with the files they had, and wait until they answer
    Up,
    /// Remove hosts, networks and mounts; Debian trees and packages stay in the cache
    Down,
    /// Show which hosts run
    Status,
    /// Run a command in a host as root
    Exec {
        /// Name of the host
        host: String,
        /// Program and arguments; no shell expands them
        #[arg(last = true, required = true, value_name = "COMMAND")]
        argv: Vec<String>,
    },
    /// Boot the hosts, then run a playbook on them
    Run {
        /// The playbook
        playbook: PathBuf,
        /// Further arguments of `kplay PLAYBOOK`, such as `-- --check --diff`
        #[arg(last = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Open a shell in a host as root
    Console {
        /// Name of the host
        host: String,
    },
}

/// `kplay undo`
#[derive(Debug, Args)]
pub struct Undo {
    /// The run, as its recap and `kplay runs` name it
    pub run: String,
    #[command(flatten)]
    pub hosts: Hosts,
    #[command(flatten)]
    pub connection: Connection,
    #[command(flatten)]
    pub mode: Mode,
    #[command(flatten)]
    pub output: Output,
}

/// `kplay runs`
#[derive(Debug, Args)]
pub struct Runs {
    /// The hosts
    #[arg(default_value = "all")]
    pub pattern: String,
    #[command(flatten)]
    pub hosts: Hosts,
    #[command(flatten)]
    pub connection: Connection,
}

/// `kplay vault`
#[derive(Debug, Args)]
pub struct Vault {
    #[command(subcommand)]
    pub action: VaultAction,
}

/// What is done with encrypted files.
#[derive(Debug, Subcommand)]
pub enum VaultAction {
    /// Encrypt FILE into FILE.age and remove FILE
    Encrypt {
        /// The files
        #[arg(required = true, value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        /// Encrypt to this age recipient instead of a passphrase; may be given several times
        #[arg(short, long, value_name = "RECIPIENT")]
        recipient: Vec<String>,
        #[command(flatten)]
        keys: VaultKeys,
    },
    /// Decrypt FILE.age into FILE and remove FILE.age
    Decrypt {
        /// The files
        #[arg(required = true, value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        keys: VaultKeys,
    },
    /// Print the content of an encrypted file
    View {
        /// The file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        keys: VaultKeys,
    },
    /// Open the content of an encrypted file in $EDITOR and encrypt it again
    Edit {
        /// The file; it is made when there is none
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Encrypt to this age recipient instead of a passphrase; may be given several times
        #[arg(short, long, value_name = "RECIPIENT")]
        recipient: Vec<String>,
        #[command(flatten)]
        keys: VaultKeys,
    },
    /// Make an age identity, write it to FILE and print its recipient
    Keygen {
        /// The file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// What opens encrypted files.
#[derive(Debug, Default, Args)]
pub struct VaultKeys {
    /// A file that holds the passphrase
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub vault_password_file: Option<PathBuf>,
    /// A file of age identities; may be given several times
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub vault_identity: Vec<PathBuf>,
}

/// `kplay host-keys`
#[derive(Debug, Args)]
pub struct HostKeys {
    #[command(subcommand)]
    pub action: HostKeysAction,
}

/// What is done with host keys.
#[derive(Debug, Subcommand)]
pub enum HostKeysAction {
    /// Ask hosts for their keys, show the fingerprints, and write them down once you agree
    Scan {
        /// The hosts
        #[arg(default_value = "all")]
        pattern: String,
        #[command(flatten)]
        hosts: Hosts,
        #[command(flatten)]
        connection: Connection,
        /// Write them down without asking
        #[arg(short, long)]
        yes: bool,
    },
}

/// `kplay new`
#[derive(Debug, Args)]
pub struct New {
    #[command(subcommand)]
    pub what: NewWhat,
}

/// What is begun.
#[derive(Debug, Subcommand)]
pub enum NewWhat {
    /// A folder with an inventory, a playbook and a role that run as they are
    Project {
        /// The folder
        #[arg(value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
    /// A playbook
    Playbook {
        /// The file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// A role
    Role {
        /// Its name; it is made in `roles/`
        name: String,
    },
}

/// `kplay completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
