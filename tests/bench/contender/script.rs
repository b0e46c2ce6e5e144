//! The floor of any tool that uses the system's ssh: a shell script, written by hand for each host, that only looks.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::{Contender, Ground, first_line};
use crate::Outcome;
use crate::workload::{COMMANDS, DIRECTORIES, FILES, LINES, LINKS, TEMPLATES, content, rendered};

/// A script for each host, all sent at once.
pub struct Script {
    /// Its name in tables.
    pub name: &'static str,
    /// Which of the fleet's ssh configurations it uses.
    pub kex: &'static str,
}

impl Contender for Script {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self, _ground: &Ground) -> String {
        format!("sh over ssh, {} key exchange; {}", if self.kex == "curve" { "curve25519" } else { "default" }, ssh_version())
    }

    fn write(&self, ground: &Ground, hosts: usize) -> Outcome<()> {
        let folder = ground.folder(self.name)?;
        let mut labels = String::new();
        for (number, label, address, tree) in ground.hosts(self.name, hosts) {
            fs::create_dir_all(&tree)?;
            let tree = tree.display();
            // The sums are what a script would have been generated with; the files are made here, since it changes nothing.
            let mut script = format!("cd {tree} || exit 1\n");
            let mut sums = String::new();
            for i in 1..=DIRECTORIES {
                fs::create_dir_all(format!("{tree}/d{i}"))?;
                let _ = writeln!(script, "[ -d d{i} ] && [ \"$(stat -c %a d{i})\" = 755 ] || echo d{i}");
            }
            for i in 1..=TEMPLATES {
                fs::write(format!("{tree}/t{i}"), rendered(&label, i))?;
                let _ = write!(sums, "t{i} ");
            }
            for i in 1..=FILES {
                fs::write(format!("{tree}/big{i}"), content(i))?;
                let _ = write!(sums, "big{i} ");
            }
            let listed = Command::new("sh").args(["-c", &format!("cd {tree} && sha256sum {sums}")]).output()?;
            let _ = write!(script, "sha256sum -c --quiet <<'E'\n{}E\n", String::from_utf8_lossy(&listed.stdout));
            for i in 1..=LINES {
                fs::write(format!("{tree}/e{i}"), format!("alpha\nbeta\nkey = {i}\n"))?;
                let _ = writeln!(script, "grep -qxF 'key = {i}' e{i} || echo e{i}");
            }
            for i in 1..=LINKS {
                let _ = fs::remove_file(format!("{tree}/l{i}"));
                std::os::unix::fs::symlink(format!("{tree}/t{i}"), format!("{tree}/l{i}"))?;
                let _ = writeln!(script, "[ \"$(readlink l{i})\" = {tree}/t{i} ] || echo l{i}");
            }
            for i in 1..=COMMANDS {
                fs::write(format!("{tree}/c{i}"), "")?;
                let _ = writeln!(script, "[ -e c{i} ] || touch c{i}");
            }
            fs::write(folder.join(format!("{number}.sh")), script)?;
            let _ = writeln!(labels, "{number} {address}");
        }
        Ok(fs::write(folder.join("hosts"), labels)?)
    }

    fn command(&self, ground: &Ground, hosts: usize) -> Outcome<Command> {
        let mut command = Command::new("sh");
        let ssh = format!("ssh -F {} \"$2\" sh < \"$1.sh\"", ground.fleet.ssh_config(self.kex).display());
        command.args(["-c", &format!("xargs -P {hosts} -L 1 sh -c '{ssh}' sh < hosts")]).current_dir(ground.folder(self.name)?);
        Ok(command)
    }

    fn changed(&self, _output: &str) -> Option<usize> {
        None
    }

    fn applies(&self) -> bool {
        false
    }
}

/// Which OpenSSH this machine has.
pub fn ssh_version() -> String {
    first_line(Command::new("sh").args(["-c", "ssh -V 2>&1"]))
}
