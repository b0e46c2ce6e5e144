//! rustible: playbooks in Rust, compiled for each target and sent there as one program.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Contender, Ground, first_line, succeed};
use crate::Outcome;

/// Which release is installed.
const RELEASE: &str = "0.9.4";

/// rustible over OpenSSH, with one of the fleet's ssh configurations.
pub struct Rustible {
    /// Its name in tables.
    pub name: &'static str,
    /// Which configuration.
    pub kex: &'static str,
}

const PLAYBOOK: &str = r#"use rustible::prelude::*;
use rustible_std::{file, shell};

#[rustible::vars]
struct Vars {
    tree: String,
    label: String,
}

#[rustible::playbook(hosts = "fleet", vars = Vars)]
fn main(ctx: &mut Ctx, vars: Vars) -> Result<()> {
    let Vars { tree, label } = vars;
    for i in 1..=10 {
        ctx.step(&format!("d{i}"), file::Directory::at(format!("{tree}/d{i}")).mode(0o755))?;
    }
    for i in 1..=20 {
        let text = template!(include_str!("../files/t.j2"), label = &label, number = i)?;
        ctx.step(&format!("t{i}"), file::Copy::from_str(&text).to(format!("{tree}/t{i}")).mode(0o644))?;
    }
    let big: [&[u8]; 5] = [
        include_bytes!("../files/big1"), include_bytes!("../files/big2"), include_bytes!("../files/big3"),
        include_bytes!("../files/big4"), include_bytes!("../files/big5"),
    ];
    for (i, content) in (1..).zip(big) {
        ctx.step(&format!("big{i}"), file::Copy::from_bytes(content).to(format!("{tree}/big{i}")).mode(0o644))?;
    }
    for i in 1..=5 {
        ctx.step(&format!("e{i}"), file::Line::in_path(format!("{tree}/e{i}")).set(format!("key = {i}")))?;
    }
    for i in 1..=5 {
        ctx.step(&format!("l{i}"), file::Symlink::at(format!("{tree}/l{i}")).pointing_to(format!("{tree}/t{i}")))?;
    }
    for i in 1..=5 {
        ctx.step(&format!("c{i}"), shell::Command::new("touch").arg(format!("{tree}/c{i}")).creates(format!("{tree}/c{i}")))?;
    }
    Ok(())
}
"#;

impl Rustible {
    fn program(ground: &Ground) -> PathBuf {
        ground.programs.join("rustible/bin/rustible")
    }

    /// Kept from one measurement to the next: what it compiles takes minutes.
    fn workspace(&self, ground: &Ground) -> PathBuf {
        ground.programs.join("rustible").join(self.name)
    }

    fn playbook(&self, ground: &Ground, arguments: &[&str]) -> Command {
        let mut command = Command::new(Self::program(ground));
        command.args(["playbook", "run", "playbooks/fifty.rs"]).args(arguments);
        command.current_dir(self.workspace(ground)).env("CARGO_NET_OFFLINE", "true").env_remove("CARGO_TARGET_DIR");
        command
    }
}

impl Contender for Rustible {
    fn name(&self) -> &'static str {
        self.name
    }

    fn install(&self, programs: &Path) -> Outcome<()> {
        let folder = programs.join("rustible");
        if !folder.join("bin/rustible").exists() {
            succeed(
                Command::new("cargo").args(["install", "-q", "--locked", "rustible-cli", "--version", RELEASE, "--root"]).arg(&folder),
            )?;
        }
        if !folder.join("workspace/Cargo.lock").exists() {
            let workspace = folder.join("workspace");
            let _ = fs::remove_dir_all(&workspace);
            succeed(Command::new(folder.join("bin/rustible")).arg("init").arg(&workspace))?;
            // Its first build wants everything on disk: what is measured runs where no registry is reached.
            let fetch = |arguments: &[&str]| succeed(Command::new("cargo").args(arguments).current_dir(&workspace));
            fetch(&["generate-lockfile"])?;
            // Newer ones have fields that this release does not know.
            fetch(&["update", "-p", "ureq", "--precise", "3.4.1"])?;
            fetch(&["fetch"])?;
        }
        Ok(())
    }

    fn version(&self, ground: &Ground) -> String {
        let kex = if self.kex == "curve" { "curve25519" } else { "default" };
        format!("{}, {kex} key exchange", first_line(Command::new(Self::program(ground)).arg("--version")))
    }

    fn write(&self, ground: &Ground, hosts: usize) -> Outcome<()> {
        let folder = self.workspace(ground);
        let origin = ground.programs.join("rustible/workspace");
        if !folder.join("Cargo.toml").exists() {
            fs::create_dir_all(&folder)?;
            succeed(Command::new("cp").args(["-a"]).arg(format!("{}/.", origin.display())).arg(&folder))?;
        }
        let _ = fs::remove_dir_all(folder.join("files"));
        succeed(Command::new("cp").arg("-a").arg(&ground.sources).arg(folder.join("files")))?;
        let playbook = folder.join("playbooks/fifty.rs");
        fs::create_dir_all(folder.join("playbooks"))?;
        if fs::read_to_string(&playbook).ok().as_deref() != Some(PLAYBOOK) {
            fs::write(&playbook, PLAYBOOK)?;
        }
        let mut list = String::from("group \"fleet\" ssh_user=\"root\" {\n");
        let _ = writeln!(list, "    ssh_args \"-F\" \"{}\"", ground.fleet.ssh_config(self.kex).display());
        for (_, label, address, tree) in ground.hosts(self.name, hosts) {
            let _ = writeln!(
                list,
                "    host \"{label}\" addr=\"{address}\" {{\n        vars {{\n            tree \"{}\"\n            label \"{label}\"\n        }}\n    }}",
                tree.display()
            );
        }
        fs::write(folder.join("hosts.kdl"), list + "}\n")?;
        if !folder.join("target").exists() {
            // It connects, then compiles for minutes: this first connection does not last, and does not have to.
            let _ = self.playbook(ground, &["--check"]).output()?;
        }
        Ok(())
    }

    fn command(&self, ground: &Ground, _hosts: usize) -> Outcome<Command> {
        Ok(self.playbook(ground, &[]))
    }

    fn edit(&self, ground: &Ground, number: usize) -> Outcome<Option<Command>> {
        fs::write(self.workspace(ground).join("playbooks/fifty.rs"), format!("{PLAYBOOK}// edit {number}\n"))?;
        Ok(Some(self.playbook(ground, &["--check"])))
    }

    /// The table at the end has a row per host: name, ok, changed, ….
    fn changed(&self, output: &str) -> Option<usize> {
        let table = output.lines().skip_while(|line| !line.starts_with("host ")).skip(1);
        Some(table.filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<usize>().ok()).sum())
    }
}
