//! kplay itself, as it is built for releases.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{Contender, Ground, first_line};
use crate::Outcome;

/// kplay with its defaults: `ssh` through libssh2, proof and journal on.
pub struct Kplay;

/// The level at which kplay packs the agent (`ZSTD_LEVEL` of `engine/transport/agents.rs`).
const PACKED: &str = "-6";
/// What a recorded run tells of each task.
const EVENTS: &str = "events.jsonl";
const PLAY: &str = r#"play {
  name = "fifty",
  hosts = "all",
  run = function(host)
    local tree = host.vars.tree
    for i = 1, 10 do host:file({ path = tree .. "/d" .. i, state = "directory", mode = "0755" }) end
    for i = 1, 20 do
      host:template({ src = "SOURCES/t.j2", dest = tree .. "/t" .. i, mode = "0644", vars = { number = i, label = host.name } })
    end
    for i = 1, 5 do host:copy({ src = "SOURCES/big" .. i, dest = tree .. "/big" .. i, mode = "0644" }) end
    for i = 1, 5 do host:line({ path = tree .. "/e" .. i, line = "key = " .. i }) end
    for i = 1, 5 do host:file({ path = tree .. "/l" .. i, state = "link", target = tree .. "/t" .. i }) end
    for i = 1, 5 do host:command({ command = { "touch", tree .. "/c" .. i }, creates = tree .. "/c" .. i }) end
  end,
}
"#;

/// The controller beside this program, which the alias has built.
pub fn program() -> PathBuf {
    let mut path = std::env::current_exe().unwrap_or_default();
    path.set_file_name("kplay");
    path
}

/// Writes an inventory for the first hosts.
pub fn inventory(ground: &Ground, contender: &str, hosts: usize) -> String {
    let mut text = format!("all:\n  vars:\n    user: root\n    private_key: {}\n  hosts:\n", ground.fleet.key().display());
    for (_, label, address, tree) in ground.hosts(contender, hosts) {
        let _ = writeln!(text, "    {label}: {{ address: {address}, tree: \"{}\" }}", tree.display());
    }
    text
}

impl Contender for Kplay {
    fn name(&self) -> &'static str {
        "kplay"
    }

    fn version(&self, _ground: &Ground) -> String {
        first_line(Command::new(program()).arg("--version"))
    }

    fn write(&self, ground: &Ground, hosts: usize) -> Outcome<()> {
        let folder = ground.folder(self.name())?;
        fs::write(folder.join("fifty.lua"), PLAY.replace("SOURCES", &ground.sources.to_string_lossy()))?;
        Ok(fs::write(folder.join("hosts.yaml"), inventory(ground, self.name(), hosts))?)
    }

    fn command(&self, ground: &Ground, _hosts: usize) -> Outcome<Command> {
        let mut command = Command::new(program());
        command.args(["fifty.lua", "-i", "hosts.yaml"]).current_dir(ground.folder(self.name())?).env("HOME", ground.fleet.home());
        // The agent that was built for this, not whatever a build folder holds besides.
        command.envs(program().parent().map(|folder| ("KPLAY_AGENT_DIR", folder)));
        Ok(command)
    }

    fn edit(&self, ground: &Ground, time: usize) -> Outcome<Option<Command>> {
        let playbook = PLAY.replace("SOURCES", &ground.sources.to_string_lossy());
        fs::write(ground.folder(self.name())?.join("fifty.lua"), format!("{playbook}-- edit {time}\n"))?;
        let mut command = self.command(ground, 1)?;
        command.arg("--check");
        Ok(Some(command))
    }

    fn carry(&self, ground: &Ground, hosts: usize) -> Outcome<Option<Command>> {
        let agent = program().with_file_name(format!("kplay-agent-{}", crate::AGENT_TARGET));
        let zstd = Command::new("zstd").args(["-q", PACKED, "-c"]).arg(&agent).output()?;
        if !zstd.status.success() {
            return Err(format!("zstd cannot pack the agent: {}", String::from_utf8_lossy(&zstd.stderr)).into());
        }
        let mut bytes = zstd.stdout;
        let packed = bytes.len();
        for number in 1..=crate::workload::FILES {
            bytes.extend(fs::read(ground.sources.join(format!("big{number}")))?);
        }
        let file = ground.folder(self.name())?.join("carried");
        fs::write(&file, bytes)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("connect").arg(ground.fleet.key()).arg(hosts.to_string()).arg(file).arg(packed.to_string());
        Ok(Some(command))
    }

    fn changed(&self, output: &str) -> Option<usize> {
        Some(super::sum_of(output, " changed="))
    }

    fn record(&self, command: &mut Command) {
        command.args(["--events", EVENTS]);
    }

    fn proven(&self, ground: &Ground) -> Outcome<Option<usize>> {
        let text = fs::read_to_string(ground.folder(self.name())?.join(EVENTS))?;
        let events: Vec<serde_json::Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let changes = |event: &serde_json::Value| event["changes"].as_array().is_some_and(|changes| !changes.is_empty());
        Ok(Some(events.iter().filter(|event| event["event"] == "task" && event["status"] == "changed" && changes(event)).count()))
    }
}
