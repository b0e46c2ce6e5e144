//! Who is measured: each brings the fifty tasks of the workload in its own language, set up for speed as its documentation says.

mod ansible;
mod bare;
mod kplay;
mod pyinfra;
mod rustible;
mod script;

use std::path::{Path, PathBuf};
use std::process::Command;

pub use bare::connect;

use crate::Outcome;
use crate::fleet::{Fleet, address};
use crate::workload::{label, tree};

/// Where a measurement happens.
pub struct Ground {
    /// Programs that were installed for this.
    pub programs: PathBuf,
    /// Template and files of the workload.
    pub sources: PathBuf,
    /// A folder for each contender's playbooks.
    pub work: PathBuf,
    /// The hosts' files.
    pub trees: PathBuf,
    /// The hosts.
    pub fleet: Fleet,
}

impl Ground {
    /// The folder of one contender's playbooks, made if it is missing.
    pub fn folder(&self, contender: &str) -> Outcome<PathBuf> {
        let folder = self.work.join(contender);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Number, name, address and tree of each of the first `count` hosts.
    pub fn hosts(&self, contender: &str, count: usize) -> impl Iterator<Item = (usize, String, String, PathBuf)> {
        (1..=count).map(move |number| (number, label(number), address(number), tree(&self.trees, contender, number)))
    }
}

/// One program, with one setting.
pub trait Contender {
    /// What it is called in tables and folders.
    fn name(&self) -> &'static str;

    /// Installs it, where the registries can be reached.
    fn install(&self, _programs: &Path) -> Outcome<()> {
        Ok(())
    }

    /// Which release it is, in one line.
    fn version(&self, ground: &Ground) -> String;

    /// Writes its playbook and its inventory of the first `hosts` hosts.
    fn write(&self, ground: &Ground, hosts: usize) -> Outcome<()>;

    /// The program that does the fifty tasks on all hosts.
    fn command(&self, ground: &Ground, hosts: usize) -> Outcome<Command>;

    /// Edits the playbook for the time that is given, and returns the program that then forecasts it; `None` for one that is not asked.
    fn edit(&self, _ground: &Ground, _time: usize) -> Outcome<Option<Command>> {
        Ok(None)
    }

    /// The program that carries to each host what this one's first run has to, and does nothing else; `None` for one that is not asked.
    fn carry(&self, _ground: &Ground, _hosts: usize) -> Outcome<Option<Command>> {
        Ok(None)
    }

    /// How many tasks of all hosts it says it has changed; `None` for one that only looks.
    fn changed(&self, output: &str) -> Option<usize>;

    /// Has a run keep a record of each change, for whoever can.
    fn record(&self, _command: &mut Command) {}

    /// How many tasks of all hosts the last record proves to have changed something; `None` for one that keeps none.
    fn proven(&self, _ground: &Ground) -> Outcome<Option<usize>> {
        Ok(None)
    }

    /// Most hosts that it is measured with.
    fn most_hosts(&self) -> usize {
        usize::MAX
    }

    /// Whether it does the fifty tasks, rather than only looks.
    fn applies(&self) -> bool {
        true
    }
}

/// Everybody, kplay first.
pub fn all() -> Vec<Box<dyn Contender>> {
    vec![
        Box::new(kplay::Kplay),
        Box::new(bare::Bare),
        Box::new(script::Script { name: "script", kex: "curve" }),
        Box::new(script::Script { name: "script-default-kex", kex: "usual" }),
        Box::new(rustible::Rustible { name: "rustible", kex: "curve" }),
        Box::new(rustible::Rustible { name: "rustible-default-kex", kex: "usual" }),
        Box::new(pyinfra::Pyinfra),
        Box::new(ansible::Ansible { name: "ansible-mitogen", mitogen: true }),
        Box::new(ansible::Ansible { name: "ansible", mitogen: false }),
    ]
}

/// The first line that a program prints of its version.
pub fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    output.lines().next().unwrap_or("unknown").to_owned()
}

/// Makes a Python environment of its own and installs packages into it, unless it is there.
pub fn python(programs: &Path, name: &str, packages: &[&str]) -> Outcome<()> {
    let folder = programs.join(name);
    if folder.join("complete").exists() {
        return Ok(());
    }
    succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    succeed(Command::new(folder.join("bin/pip")).args(["install", "-q"]).args(packages))?;
    Ok(std::fs::write(folder.join("complete"), packages.join("\n"))?)
}

/// Runs a program that has to succeed.
pub fn succeed(command: &mut Command) -> Outcome<()> {
    let status = command.status().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed with {status}").into()) }
}

/// The number that stands behind `key=` in a text, summed over all lines.
pub fn sum_of(output: &str, key: &str) -> usize {
    let numbers = output.split(key).skip(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    numbers.filter_map(|digits| digits.parse::<usize>().ok()).sum()
}
