//! pyinfra, with its own ssh client and all hosts at once.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Contender, Ground, first_line, python};
use crate::Outcome;

/// pyinfra 3.
pub struct Pyinfra;

const DEPLOY: &str = r#"from pyinfra import host
from pyinfra.facts.files import File
from pyinfra.operations import files, server

tree = host.data.tree
for i in range(1, 11):
    files.directory(path=f"{tree}/d{i}", mode="755")
for i in range(1, 21):
    files.template(src="SOURCES/t.j2", dest=f"{tree}/t{i}", mode="644", label=host.name, number=i)
for i in range(1, 6):
    files.put(src=f"SOURCES/big{i}", dest=f"{tree}/big{i}", mode="644")
for i in range(1, 6):
    files.line(path=f"{tree}/e{i}", line=f"key = {i}", present=True)
for i in range(1, 6):
    files.link(path=f"{tree}/l{i}", target=f"{tree}/t{i}")
for i in range(1, 6):
    if not host.get_fact(File, path=f"{tree}/c{i}"):
        server.shell(commands=[f"touch {tree}/c{i}"])
"#;

impl Contender for Pyinfra {
    fn name(&self) -> &'static str {
        "pyinfra"
    }

    fn install(&self, programs: &Path) -> Outcome<()> {
        python(programs, "pyinfra", &["pyinfra"])
    }

    fn version(&self, ground: &Ground) -> String {
        first_line(Command::new(ground.programs.join("pyinfra/bin/pyinfra")).arg("--version"))
    }

    fn write(&self, ground: &Ground, hosts: usize) -> Outcome<()> {
        let folder = ground.folder(self.name())?;
        let mut list = String::from("hosts = [\n");
        for (_, label, address, tree) in ground.hosts(self.name(), hosts) {
            let _ = writeln!(
                list,
                "    (\"{label}\", {{\"ssh_hostname\": \"{address}\", \"ssh_user\": \"root\", \"ssh_key\": \"{}\", \
                 \"ssh_known_hosts_file\": \"{}\", \"tree\": \"{}\"}}),",
                ground.fleet.key().display(),
                ground.fleet.known_hosts().display(),
                tree.display()
            );
        }
        fs::write(folder.join("inventory.py"), list + "]\n")?;
        Ok(fs::write(folder.join("deploy.py"), DEPLOY.replace("SOURCES", &ground.sources.to_string_lossy()))?)
    }

    fn command(&self, ground: &Ground, hosts: usize) -> Outcome<Command> {
        let mut command = Command::new(ground.programs.join("pyinfra/bin/pyinfra"));
        command.args(["-y", "--parallel", &hosts.to_string(), "inventory.py", "deploy.py"]).current_dir(ground.folder(self.name())?);
        Ok(command)
    }

    /// Its last table has the columns hosts, succeeded, failed, unchanged, a dash for none; the sums are in the line `Grand total`.
    fn changed(&self, output: &str) -> Option<usize> {
        let line = output.lines().rev().find_map(|line| line.split_once("Grand total"))?.1;
        let succeeded = line.split_ascii_whitespace().nth(1)?;
        if succeeded == "-" { Some(0) } else { succeeded.parse().ok() }
    }
}
