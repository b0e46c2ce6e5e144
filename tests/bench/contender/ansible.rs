//! ansible-core with pipelining and connections that persist, by itself and with mitogen's strategy.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Contender, Ground, first_line, python, sum_of};
use crate::Outcome;
use crate::workload::{COMMANDS, DIRECTORIES, FILES, LINES, LINKS, TEMPLATES};

/// One of both ways.
pub struct Ansible {
    /// Its name in tables.
    pub name: &'static str,
    /// Whether mitogen carries it.
    pub mitogen: bool,
}

impl Contender for Ansible {
    fn name(&self) -> &'static str {
        self.name
    }

    fn install(&self, programs: &Path) -> Outcome<()> {
        // The newest release of mitogen says which releases of ansible-core it knows.
        python(programs, "ansible", &["ansible-core<2.20", "mitogen"])
    }

    fn version(&self, ground: &Ground) -> String {
        let version = first_line(Command::new(ground.programs.join("ansible/bin/ansible")).arg("--version"));
        let mitogen = first_line(
            Command::new(ground.programs.join("ansible/bin/python"))
                .args(["-c", "import mitogen; print('.'.join(map(str, mitogen.__version__)))"]),
        );
        if self.mitogen { format!("{version}, mitogen {mitogen}") } else { version }
    }

    fn write(&self, ground: &Ground, hosts: usize) -> Outcome<()> {
        let folder = ground.folder(self.name)?;
        let strategy = if self.mitogen {
            let found = first_line(
                Command::new(ground.programs.join("ansible/bin/python"))
                    .args(["-c", "import ansible_mitogen, os; print(os.path.dirname(ansible_mitogen.__file__))"]),
            );
            format!("strategy_plugins = {found}/plugins/strategy\nstrategy = mitogen_linear\n")
        } else {
            String::new()
        };
        let config = format!(
            "[defaults]\ninventory = hosts.yaml\nforks = 50\ngathering = explicit\ninterpreter_python = /usr/bin/python3\n{strategy}\
             [ssh_connection]\npipelining = True\nssh_args = -F {} -o ControlMaster=auto -o ControlPersist=60s\n",
            ground.fleet.ssh_config("curve").display()
        );
        fs::write(folder.join("ansible.cfg"), config)?;
        let mut list = format!(
            "all:\n  vars:\n    ansible_user: root\n    ansible_ssh_private_key_file: {}\n  hosts:\n",
            ground.fleet.key().display()
        );
        for (_, label, address, tree) in ground.hosts(self.name, hosts) {
            let _ = writeln!(list, "    {label}: {{ ansible_host: {address}, label: {label}, tree: \"{}\" }}", tree.display());
        }
        fs::write(folder.join("hosts.yaml"), list)?;
        Ok(fs::write(folder.join("fifty.yaml"), tasks(&ground.sources.to_string_lossy()))?)
    }

    fn command(&self, ground: &Ground, _hosts: usize) -> Outcome<Command> {
        let mut command = Command::new(ground.programs.join("ansible/bin/ansible-playbook"));
        command
            .arg("fifty.yaml")
            .current_dir(ground.folder(self.name)?)
            .env("ANSIBLE_CONFIG", ground.folder(self.name)?.join("ansible.cfg"));
        Ok(command)
    }

    /// With fifty, a single run takes a quarter of an hour.
    fn most_hosts(&self) -> usize {
        10
    }

    fn changed(&self, output: &str) -> Option<usize> {
        Some(sum_of(output, "changed="))
    }
}

fn tasks(sources: &str) -> String {
    let mut text = String::from("- hosts: all\n  tasks:\n");
    let mut task = |module: &str, arguments: String| {
        let _ = writeln!(text, "    - {module}: {{ {arguments} }}");
    };
    for i in 1..=DIRECTORIES {
        task("file", format!("path: '{{{{ tree }}}}/d{i}', state: directory, mode: '0755'"));
    }
    for i in 1..=TEMPLATES {
        task("template", format!("src: {sources}/t.j2, dest: '{{{{ tree }}}}/t{i}', mode: '0644' }}, vars: {{ number: {i} "));
    }
    for i in 1..=FILES {
        task("copy", format!("src: {sources}/big{i}, dest: '{{{{ tree }}}}/big{i}', mode: '0644'"));
    }
    for i in 1..=LINES {
        task("lineinfile", format!("path: '{{{{ tree }}}}/e{i}', line: 'key = {i}'"));
    }
    for i in 1..=LINKS {
        task("file", format!("path: '{{{{ tree }}}}/l{i}', src: '{{{{ tree }}}}/t{i}', state: link"));
    }
    for i in 1..=COMMANDS {
        task("command", format!("cmd: 'touch {{{{ tree }}}}/c{i}', creates: '{{{{ tree }}}}/c{i}'"));
    }
    text.replace(" }, vars:", " }\n      vars:")
}
