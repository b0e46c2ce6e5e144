//! A lab for one test: brought up from an inventory of its own, taken down when the test ends, however it ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The program under test.
pub const KPLAY: &str = env!("CARGO_BIN_EXE_kplay");

/// An inventory in a folder of its own, and the lab that belongs to it.
pub struct Lab {
    folder: tempfile::TempDir,
}

/// How a program ended and what it said.
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Lab {
    /// Writes the inventory. Nothing is booted.
    pub fn new(inventory: &str) -> Self {
        let lab = Self { folder: tempfile::Builder::new().prefix("kplay-lab-test").tempdir().unwrap() };
        lab.rewrite(inventory);
        lab
    }

    /// Writes the inventory and boots its hosts.
    pub fn up(inventory: &str) -> Self {
        let lab = Self::new(inventory);
        lab.kplay(&["lab", "up"]).success();
        lab
    }

    /// Replaces the inventory.
    pub fn rewrite(&self, inventory: &str) {
        std::fs::write(self.inventory(), inventory).unwrap();
    }

    /// The inventory's path.
    pub fn inventory(&self) -> PathBuf {
        self.folder.path().join("hosts.yaml")
    }

    /// Runs kplay on the inventory. What follows `--` stays last.
    #[track_caller]
    pub fn kplay(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }

    /// Runs a shell script in a host.
    #[track_caller]
    pub fn sh(&self, host: &str, script: &str) -> Ended {
        self.kplay(&["lab", "exec", host, "--", "sh", "-c", script])
    }

    /// Starts kplay and does not wait for it.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let split = arguments.iter().position(|argument| *argument == "--").unwrap_or(arguments.len());
        let mut command = Command::new(KPLAY);
        command.args(&arguments[..split]).arg("-i").arg(self.inventory()).args(&arguments[split..]);
        command.stdin(Stdio::null()).env("NO_COLOR", "1");
        command
    }

    /// The lab's name, as its namespaces, folders and control groups carry it.
    pub fn name(&self) -> String {
        kplay::lab::Lab::of(&self.inventory(), kplay::lab::default_cache()).unwrap().name
    }

    /// What a host's launcher recorded of its process, which tells one boot from another.
    pub fn boot(&self, host: &str) -> String {
        let file = Path::new("/run/kplay-lab").join(self.name()).join(format!("{host}.process"));
        std::fs::read_to_string(file).unwrap()
    }

    /// Everything on this machine that carries the lab's name.
    pub fn traces(&self) -> Vec<String> {
        let name = self.name();
        let mut found = Vec::new();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(&name)).map(|line| format!("mount {line}")));
        let folders = [
            "/run/kplay-lab",
            "/run/netns",
            "/run/systemd/nspawn/propagate",
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/unified",
            "/sys/fs/cgroup/systemd",
        ];
        let cache = kplay::lab::default_cache().join("labs");
        for folder in folders.iter().map(Path::new).chain([cache.as_path()]) {
            let entries = std::fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
            found.extend(
                entries
                    .iter()
                    .map(|entry| entry.path())
                    .filter(|path| path.to_string_lossy().contains(&name))
                    .map(|path| path.display().to_string()),
            );
        }
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&name) {
                found.push(format!("process {} {line}", entry.file_name().to_string_lossy()));
            }
        }
        found
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let ended = self.kplay(&["lab", "down"]);
        // A second panic would hide the first.
        if !std::thread::panicking() {
            assert_eq!(ended.code, 0, "{}", ended.stderr);
        }
    }
}

impl Ended {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Insists on exit code 0 and returns what was printed.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Insists on an exit code and returns what was said of it.
    #[track_caller]
    pub fn failure(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stderr
    }
}
