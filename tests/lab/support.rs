//! A lab for one test: brought up from an inventory of its own, taken down when the test ends, however it ends.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;

use serde_json::Value;

/// The program under test.
pub const KPLAY: &str = env!("CARGO_BIN_EXE_kplay");

/// An inventory in a folder of its own, and the lab that belongs to it.
pub struct Lab {
    folder: tempfile::TempDir,
    inventory: PathBuf,
    /// Folder of the agents that are sent; those that Cargo built last when there is none.
    pub agents: Option<PathBuf>,
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
        let lab = Self::at("hosts.yaml");
        lab.rewrite(inventory);
        lab
    }

    /// Copies the repository's inventory, playbooks and roles, builds the agent, and boots the hosts of inventory/hdss7.yaml.
    pub fn of_repository() -> Self {
        Self::of_inventory("inventory/hdss7.yaml")
    }

    /// The same with another inventory of the repository.
    pub fn of_inventory(inventory: &str) -> Self {
        build_agent();
        let lab = Self::at(inventory);
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["inventory", "playbooks", "roles"] {
            run(Command::new("cp").arg("-a").arg(repository.join(folder)).arg(lab.folder.path()));
        }
        lab.kplay(&["lab", "up"]).success();
        lab
    }

    fn at(inventory: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("kplay-lab-test").tempdir().unwrap();
        let inventory = folder.path().join(inventory);
        Self { folder, inventory, agents: None }
    }

    /// The folder that kplay is run in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
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
        self.inventory.clone()
    }

    /// Replaces a text in a file below the folder; it has to be there exactly once.
    #[track_caller]
    pub fn edit(&self, file: &str, old: &str, new: &str) {
        let path = self.folder.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(old).count(), 1, "`{old}` in {file}");
        std::fs::write(path, text.replace(old, new)).unwrap();
    }

    /// Runs the playbook apiserver, insists on success, and returns its events.
    #[track_caller]
    pub fn play(&self, arguments: &[&str]) -> Events {
        self.play_book("playbooks/apiserver.lua", arguments)
    }

    /// Runs a playbook, insists on success, and returns its events.
    #[track_caller]
    pub fn play_book(&self, playbook: &str, arguments: &[&str]) -> Events {
        let file = self.folder.path().join("events.jsonl");
        let path = file.display().to_string();
        let all: Vec<&str> = [playbook, "--events", &path].into_iter().chain(arguments.iter().copied()).collect();
        self.kplay(&all).success();
        Events::read(&file)
    }

    /// Runs kplay on the inventory. What follows `--` stays last.
    #[track_caller]
    pub fn kplay(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }

    /// Runs kplay on the inventory and types something.
    #[track_caller]
    pub fn typed(&self, arguments: &[&str], text: &str) -> Ended {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        Ended::of(child.wait_with_output().unwrap())
    }

    /// Runs a shell script in a host.
    #[track_caller]
    pub fn sh(&self, host: &str, script: &str) -> Ended {
        self.kplay(&["lab", "exec", host, "--", "sh", "-c", script])
    }

    /// Returns a token of a service account without any rights, signed by the apiserver that a host's administrator speaks to.
    #[track_caller]
    pub fn token(&self, host: &str) -> String {
        let script = "kubectl get serviceaccount tester >/dev/null 2>&1 || kubectl create serviceaccount tester >/dev/null; \
                      echo '{\"apiVersion\":\"authentication.k8s.io/v1\",\"kind\":\"TokenRequest\",\"spec\":{}}' \
                      | kubectl create --raw /api/v1/namespaces/default/serviceaccounts/tester/token -f - | sed 's/.*\"token\":\"\\([^\"]*\\).*/\\1/'";
        self.sh(host, script).success().trim().to_owned()
    }

    /// Starts kplay and does not wait for it.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let split = arguments.iter().position(|argument| *argument == "--").unwrap_or(arguments.len());
        let mut command = Command::new(KPLAY);
        command.args(&arguments[..split]).arg("-i").arg(self.inventory()).args(&arguments[split..]);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).env("NO_COLOR", "1");
        command.envs(self.agents.iter().map(|folder| ("KPLAY_AGENT_DIR", folder)));
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

    /// Ends a host as a power cut does: all of its processes at once, and with them its place in the network.
    pub fn kill(&self, host: &str) {
        let namespace = self.namespace(host);
        let processes = run(Command::new("ip").args(["netns", "pids", &namespace]));
        let container = self.boot(host);
        let all = processes.split_whitespace().chain(container.split(' ').take(1));
        // Whoever falls with another one is gone by the time it is its turn.
        Command::new("kill").arg("-9").args(all).stderr(Stdio::null()).status().unwrap();
        run(Command::new("ip").args(["netns", "delete", &namespace]));
    }

    /// Loses a host for good: power, network, and all that its disk held. `lab up` makes a new machine in its place.
    pub fn lose(&self, host: &str) {
        self.kill(host);
        let lab = kplay::lab::Lab::of(&self.inventory(), kplay::lab::default_cache()).unwrap();
        // A host that has never come up is made anew.
        std::fs::remove_file(lab.folder().join(host).join("whole")).unwrap();
    }

    /// The network namespace of a host.
    pub fn namespace(&self, host: &str) -> String {
        kplay::lab::Lab::of(&self.inventory(), kplay::lab::default_cache()).unwrap().host_namespace(host)
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

/// What a run reported.
pub struct Events(Vec<Value>);

/// A change as it was reported: host, task, and what it does to what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reported {
    /// The host.
    pub host: String,
    /// Number of the task on that host.
    pub number: u64,
    /// `exact`, `assumed` or `unknown`.
    pub certainty: String,
    /// Kind and subject: `write_file /etc/…`.
    pub what: String,
}

impl Events {
    /// Reads the events that a run has written to a file.
    pub fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        Self(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// All tasks that ended.
    pub fn tasks(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(|event| event["event"] == "task")
    }

    /// All changes, in the order of each host's tasks.
    pub fn changes(&self) -> Vec<Reported> {
        let mut changes = Vec::new();
        for task in self.tasks() {
            for change in task["changes"].as_array().unwrap() {
                let subject =
                    change.as_object().unwrap().iter().find(|(key, _)| !["kind", "action", "summary", "diff"].contains(&key.as_str()));
                let subject = subject.map(|(_, value)| value.to_string()).unwrap_or_default();
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                changes.push(Reported {
                    host: text(&task["host"]),
                    number: task["number"].as_u64().unwrap(),
                    certainty: text(&task["certainty"]),
                    what: format!("{} {} {subject}", text(&change["kind"]), text(&change["action"])),
                });
            }
        }
        changes.sort_by(|a, b| (&a.host, a.number).cmp(&(&b.host, b.number)));
        changes
    }

    /// What is changed, without host and order, for short comparisons: `hdss7-21 write_file … "/etc/…"`.
    pub fn summary(&self) -> Vec<String> {
        self.changes().into_iter().map(|change| format!("{} {}", change.host, change.what)).collect()
    }

    /// The recap, by host.
    pub fn recap(&self) -> BTreeMap<String, Value> {
        let recap = self.0.last().unwrap();
        assert_eq!(recap["event"], "recap");
        recap["hosts"].as_object().unwrap().iter().map(|(host, counts)| (host.clone(), counts.clone())).collect()
    }

    /// Insists that every host took part and nothing was, or would be, changed.
    #[track_caller]
    pub fn nothing_to_do(&self) {
        // What is done once for all may be nothing at all.
        let all: Vec<String> = self.recap().into_keys().filter(|host| host != "localhost").collect();
        self.nothing_to_do_on(&all.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Insists that these hosts took part and nothing was, or would be, changed on any.
    #[track_caller]
    pub fn nothing_to_do_on(&self, hosts: &[&str]) {
        assert_eq!(self.summary(), [""; 0]);
        let recap = self.recap();
        for host in hosts {
            let counts = &recap[*host];
            let count = |key: &str| counts[key].as_u64().unwrap();
            assert!(count("ok") > 0, "{host}: {counts}");
            assert_eq!(count("changed") + count("failed") + count("unknown"), 0, "{host}: {counts}");
            assert_eq!(counts["unreachable"], false, "{host}");
        }
    }
}

/// Runs a program that must succeed and returns what it printed.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    Ended::of(command.output().unwrap()).success()
}

/// Builds the agent that is sent to hosts, from the sources that are tested, once for all tests.
pub fn build_agent() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "kplay-modules", "--bin", "kplay-agent", "--target", "x86_64-unknown-linux-musl"]);
        run(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
    });
}
