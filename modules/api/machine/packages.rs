//! Packages: what is installed is read from the package database, changes are left to the package manager.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Machine;
use crate::api::change::Packages;
use crate::api::error::ModuleError;
use crate::api::inspect::{Command, CommandOutput};

const DPKG_STATUS: &str = "/var/lib/dpkg/status";
const APT_LISTS: &str = "/var/lib/apt/lists";
/// Debian's maintainer scripts ask this program whether they may start a service; 101 forbids it.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &str = "#!/bin/sh\n# kplay: nothing is started while packages are being installed\nexit 101\n";
/// Seconds to wait for another package manager's lock.
const LOCK: u64 = 120;
/// Seconds for a transaction when the task names no limit.
const LIMIT: u64 = 1800;
/// Version of packages that are assumed; see `assumed.rs`.
const ASSUMED: &str = "assumed";

/// The package managers that kplay drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Apt,
    /// `dnf` or its predecessor, which take the same words.
    Rpm(&'static str),
}

impl Machine {
    pub(super) fn find_packages(&self, names: &[String]) -> Result<BTreeMap<String, String>, ModuleError> {
        match self.manager() {
            Some(Manager::Apt) => self.dpkg(names),
            Some(Manager::Rpm(_)) => self.rpm(names),
            None if self.root.is_some() => {
                let assumed = self.assumed.borrow();
                Ok(names.iter().filter_map(|name| Some((name.clone(), assumed.packages.get(name)?.clone()))).collect())
            }
            None => Err(no_manager()),
        }
    }

    pub(super) fn change_packages(&self, packages: &Packages) -> Result<(), ModuleError> {
        let manager = match self.manager() {
            Some(manager) => manager,
            None if self.root.is_some() => return self.assume_packages(packages),
            None => return Err(no_manager()),
        };
        if let Some(root) = self.root.as_deref().filter(|_| !self.privileged()) {
            return Err(ModuleError::host(format!("cannot change the packages of `{}`: only root may", root.display()))
                .hint("run the agent as root, or use an empty folder as the root, where packages are assumed"));
        }
        match manager {
            Manager::Apt => self.apt(packages),
            Manager::Rpm(program) => self.dnf(program, packages),
        }
    }

    fn manager(&self) -> Option<Manager> {
        match self.facts.package_manager.as_str() {
            "apt" => Some(Manager::Apt),
            "dnf" => Some(Manager::Rpm("dnf")),
            "yum" => Some(Manager::Rpm("yum")),
            _ => None,
        }
    }

    /// Reads dpkg's own database: asking dpkg would start a process for each look.
    fn dpkg(&self, names: &[String]) -> Result<BTreeMap<String, String>, ModuleError> {
        let path = Path::new(DPKG_STATUS);
        let file = match std::fs::File::open(self.place(path, true)?) {
            Ok(file) => file,
            Err(error) if super::files::is_missing(&error) => return Ok(BTreeMap::new()),
            Err(error) => return Err(ModuleError::io("read", path, &error)),
        };
        let wanted = |name: &str, architecture: &str| {
            names.iter().find(|asked| match asked.split_once(':') {
                Some((asked, of)) => asked == name && of == architecture,
                None => asked.as_str() == name,
            })
        };
        let mut found = BTreeMap::new();
        let mut paragraph = Paragraph::default();
        let mut finish = |paragraph: &mut Paragraph| {
            let paragraph = std::mem::take(paragraph);
            if paragraph.installed
                && let Some(asked) = wanted(&paragraph.name, &paragraph.architecture)
            {
                found.insert(asked.clone(), paragraph.version);
            }
        };
        for line in BufReader::new(file).split(b'\n') {
            let line = line.map_err(|error| ModuleError::io("read", path, &error))?;
            if line.is_empty() { finish(&mut paragraph) } else { paragraph.read(&line) }
        }
        finish(&mut paragraph);
        Ok(found)
    }

    fn rpm(&self, names: &[String]) -> Result<BTreeMap<String, String>, ModuleError> {
        let words = ["rpm", "-q", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\\n", "--"].map(str::to_owned);
        let output = self.run_command(&Command::new(words.into_iter().chain(names.iter().cloned())))?;
        // It exits with the number of packages that are missing, having said so line by line.
        let lines = output.stdout.lines().filter(|line| !line.ends_with("is not installed"));
        let pairs = lines.filter_map(|line| line.split_once(' ')).filter(|(name, _)| names.iter().any(|asked| asked == name));
        let mut found: BTreeMap<_, _> = pairs.map(|(name, version)| (name.to_owned(), version.to_owned())).collect();
        // dnf takes what a package provides for its name, too (`vim` is `vim-enhanced`).
        for name in names {
            if !found.contains_key(name) {
                let words = ["rpm", "-q", "--whatprovides", "--qf", "%{VERSION}-%{RELEASE}\\n", "--", name.as_str()].map(str::to_owned);
                let output = self.run_command(&Command::new(words))?;
                if let Some(version) = output.stdout.lines().next().filter(|_| output.success()) {
                    found.insert(name.clone(), version.to_owned());
                }
            }
        }
        Ok(found)
    }

    fn apt(&self, packages: &Packages) -> Result<(), ModuleError> {
        let mut updated = packages.update || !packages.install.is_empty() && !self.has_lists()?;
        if updated {
            self.apt_update(packages)?;
        }
        let _quiet = if packages.start_services || packages.install.is_empty() { None } else { Some(self.forbid_starts()?) };
        loop {
            let output = self.run_manager(&apt_command(packages))?;
            if output.success() {
                return Ok(());
            }
            let unknown = unknown_package(&output.stderr);
            if unknown.is_some() && !updated {
                updated = true;
                self.apt_update(packages)?;
                continue;
            }
            return Err(match unknown {
                Some(name) => ModuleError::host(format!("there is no package `{name}` in the package lists of this host"))
                    .at("name")
                    .hint("check its name and version (`apt-cache policy NAME`), or add the repository that has it"),
                None => failed("apt-get", &output),
            });
        }
    }

    fn apt_update(&self, packages: &Packages) -> Result<(), ModuleError> {
        let mut command = Command::new(["apt-get", "-q", "-o", &format!("DPkg::Lock::Timeout={LOCK}"), "update"]);
        command.timeout = limit(packages);
        let output = self.run_manager(&command)?;
        // apt-get takes what it could fetch for good enough and exits with 0; then the lists are as old as they were.
        let complaint = output.stderr.lines().any(|line| line.starts_with("E: ") || line.contains("Failed to fetch"));
        if output.success() && !complaint { Ok(()) } else { Err(failed("apt-get update", &output)) }
    }

    fn dnf(&self, program: &str, packages: &Packages) -> Result<(), ModuleError> {
        // `install` leaves a package as it is that is there in whatever version, unless it is told which one.
        let (newer, install): (Vec<_>, Vec<_>) = packages.install.iter().cloned().partition(|name| packages.before.contains_key(name));
        let mut steps = vec![("install", install), ("upgrade", newer), ("remove", packages.remove.clone())];
        steps.retain(|(_, names)| !names.is_empty());
        if steps.is_empty() {
            steps.push(("makecache", Vec::new()));
        }
        for (verb, names) in steps {
            let run = |refresh: bool| {
                let refresh = Some("--refresh").filter(|_| refresh && program == "dnf");
                let words = [program, "-y", "-q"].into_iter().chain(refresh).chain([verb, "--"]).map(str::to_owned);
                // Both take `name-version` for what Debian writes `name=version`.
                let mut command = Command::new(words.chain(names.iter().map(|name| name.replacen('=', "-", 1))));
                command.timeout = limit(packages);
                self.run_manager(&command)
            };
            let mut output = run(packages.update)?;
            if !packages.update && without_match(&output).is_some() {
                output = run(true)?;
            }
            if !output.success() {
                return Err(match without_match(&output) {
                    Some(name) => ModuleError::host(format!("there is no package `{name}` in the repositories of this host"))
                        .at("name")
                        .hint("check its name and version, or add the repository that has it"),
                    None => failed(program, &output),
                });
            }
        }
        Ok(())
    }

    fn assume_packages(&self, packages: &Packages) -> Result<(), ModuleError> {
        self.assume(|assumed| {
            for name in &packages.remove {
                assumed.packages.remove(name);
            }
            for wish in &packages.install {
                let (name, version) = wish.split_once('=').unwrap_or((wish, ASSUMED));
                assumed.packages.insert(name.to_owned(), version.to_owned());
            }
        })
    }

    /// Package managers are let run to their end, whatever becomes of the agent's input: half an installation is worse.
    fn run_manager(&self, command: &Command) -> Result<CommandOutput, ModuleError> {
        let mut command = command.clone();
        // Nobody answers questions, and nobody but the playbook restarts services.
        for (name, value) in [("DEBIAN_FRONTEND", "noninteractive"), ("UCF_FORCE_CONFFOLD", "1"), ("NEEDRESTART_SUSPEND", "1")] {
            command.environment.insert(name.to_owned(), value.to_owned());
        }
        if let Some(root) = &self.root {
            command.argv.splice(0..0, ["chroot".to_owned(), root.display().to_string()]);
        }
        super::commands::run_quietly(&command)
    }

    fn has_lists(&self) -> Result<bool, ModuleError> {
        let lists = Path::new(APT_LISTS);
        Ok(self.look(lists, true)?.is_some() && self.names(lists)?.iter().any(|name| name.contains("_Packages")))
    }

    /// Forbids maintainer scripts to start services until what is returned is dropped. A policy that is there already is the
    /// administrator's; one that a killed run of ours left is taken over.
    fn forbid_starts(&self) -> Result<Policy, ModuleError> {
        let path = self.place(Path::new(POLICY), true)?;
        let failed = |error: std::io::Error| ModuleError::io("write", &path, &error);
        match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path) {
            Ok(mut file) => {
                let policy = Policy(Some(path.clone()));
                file.write_all(POLICY_TEXT.as_bytes()).map_err(failed)?;
                // Whatever the umask has left of it.
                file.set_permissions(Permissions::from_mode(0o755)).map_err(failed)?;
                Ok(policy)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let ours = std::fs::read(&path).is_ok_and(|text| text == POLICY_TEXT.as_bytes());
                Ok(Policy(Some(path.clone()).filter(|_| ours)))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// A policy file that goes away with this.
struct Policy(Option<PathBuf>);

impl Drop for Policy {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What matters of one entry of dpkg's database.
#[derive(Default)]
struct Paragraph {
    name: String,
    version: String,
    architecture: String,
    installed: bool,
}

impl Paragraph {
    fn read(&mut self, line: &[u8]) {
        let field = |name: &str| {
            let value = line.strip_prefix(name.as_bytes())?.strip_prefix(b": ")?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        match line.first() {
            Some(b'P') => self.name = field("Package").unwrap_or(std::mem::take(&mut self.name)),
            Some(b'V') => self.version = field("Version").unwrap_or(std::mem::take(&mut self.version)),
            Some(b'A') => self.architecture = field("Architecture").unwrap_or(std::mem::take(&mut self.architecture)),
            Some(b'S') => self.installed = self.installed || field("Status").is_some_and(|status| status.ends_with(" ok installed")),
            _ => {}
        }
    }
}

fn apt_command(packages: &Packages) -> Command {
    let lock = format!("DPkg::Lock::Timeout={LOCK}");
    let options = [
        "-q",
        "-y",
        "--no-install-recommends",
        "--allow-downgrades",
        "-o",
        "Dpkg::Options::=--force-confdef",
        "-o",
        "Dpkg::Options::=--force-confold",
        "-o",
        &lock,
    ];
    let purge = Some("--purge").filter(|_| packages.purge);
    let words = std::iter::once("apt-get").chain(options).chain(purge).chain(["install", "--"]).map(str::to_owned);
    // `NAME-` removes within the same transaction.
    let removed = packages.remove.iter().map(|name| format!("{name}-"));
    let mut command = Command::new(words.chain(packages.install.iter().cloned()).chain(removed));
    command.timeout = limit(packages);
    command
}

fn limit(packages: &Packages) -> u64 {
    if packages.timeout == 0 { LIMIT } else { packages.timeout }
}

/// Returns the package that apt-get says it does not know.
fn unknown_package(stderr: &str) -> Option<String> {
    stderr.lines().filter_map(|line| line.strip_prefix("E: ")).find_map(|line| {
        let name = line.strip_prefix("Unable to locate package ").map(str::to_owned);
        let quoted = |line: &str| line.split('\'').nth(1).map(str::to_owned);
        name.or_else(|| match line {
            _ if line.contains("has no installation candidate") => quoted(line),
            // Version '1' for 'nginx' was not found
            _ if line.starts_with("Version '") => {
                let mut parts = line.split('\'');
                let version = parts.nth(1)?;
                Some(format!("{}={version}", parts.nth(1)?))
            }
            _ => None,
        })
    })
}

/// Returns the package that dnf or yum say they do not know.
fn without_match(output: &CommandOutput) -> Option<&str> {
    let mut lines = output.stdout.lines().chain(output.stderr.lines()).filter(|_| !output.success());
    let known = ["No match for argument: ", "Error: Unable to find a match: "];
    lines.find_map(|line| known.iter().find_map(|words| line.strip_prefix(words))).map(str::trim)
}

fn failed(program: &str, output: &CommandOutput) -> ModuleError {
    let complaints: Vec<String> =
        output.stderr.lines().filter(|line| line.starts_with("E: ") || line.starts_with("Error")).map(str::to_owned).collect();
    let all = || output.stderr.lines().chain(output.stdout.lines()).map(str::to_owned).collect::<Vec<_>>();
    let mut details = if complaints.is_empty() { all() } else { complaints };
    details.drain(..details.len().saturating_sub(20));
    let error = ModuleError::host(format!("`{program}` failed: {}", output.ending())).details(details);
    if output.stderr.contains("Could not get lock") || output.stderr.contains("lock-frontend") {
        return error.hint("another package manager is running on the host");
    }
    error
}

fn no_manager() -> ModuleError {
    ModuleError::host("this host has no package manager that kplay knows").hint("it knows apt, dnf and yum")
}

#[cfg(test)]
mod tests;
