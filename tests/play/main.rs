//! Whole runs: plays, batches, failures, what travels, and who is trusted with what. Hosts are folders, or sshd on loopback.
#![allow(clippy::disallowed_methods, reason = "tests make the files and start the programs that they need")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod cuts;
mod downloads;
mod edges;
mod events;
mod failures;
mod faults;
mod flow;
mod mistakes;
mod outputs;
mod preflight;
mod proxies;
mod roles;
mod secrets;
mod selection;
mod travel;
mod trust;
mod undo_on_failure;

use support::agents::real_agent_folder;
use support::kplay::Kplay;

/// A command line whose hosts are the folders `a`, `b` … of the test's own folder, reached without ssh.
pub fn hosts(names: &[&str]) -> Kplay {
    let kplay = Kplay::new().env("KPLAY_AGENT_DIR", &real_agent_folder().to_string_lossy());
    let mut inventory = String::from("all:\n  hosts:\n");
    for name in names {
        let root = kplay.folder().join(name);
        std::fs::create_dir(&root).unwrap();
        inventory += &format!("    {name}: {{ connection: local, root: \"{}\" }}\n", root.display());
    }
    kplay.inventory(&inventory)
}
