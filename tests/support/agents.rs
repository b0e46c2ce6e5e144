//! Agents to send to hosts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use kplay::transport::Agents;
use kplay_modules::api::Digest;
use tempfile::TempDir;

use super::sshd::executable;

/// The names an agent may have.
const NAMES: [&str; 3] = ["kplay-agent", "kplay-agent-x86_64-unknown-linux-musl", "kplay-agent-aarch64-unknown-linux-musl"];

/// A stand-in for the agent that makes a link visible: it says the marker, then does the shell command in the first line of
/// its input, so that a test decides what flows.
const SHELL: &str = "#!/bin/sh\nprintf '\\001KPLAY:%s\\n' \"$2\"\nread -r line\neval \"$line\"\n";

/// Agents that run what they are told. The folder has to be kept for as long as they are used.
pub fn shell_agents() -> (TempDir, Agents) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in NAMES {
        fs::write(folder.path().join(name), SHELL).expect("an agent");
        executable(&folder.path().join(name));
    }
    let agents = Agents::locate(Some(folder.path())).expect("agents");
    (folder, agents)
}

/// The agent of this very build, for hosts that are this machine.
pub fn real_agents() -> Agents {
    Agents::locate(Some(real_agent_folder())).expect("agents")
}

/// The agent of this very build, as nobody else's: what another test brings to a folder that hosts share is not this one. The first
/// folder has to be kept for as long as they are used; what was brought goes with it.
pub fn agents_of_ones_own() -> (OwnAgents, Agents) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let real = real_agent_folder().join(NAMES[0]);
    let text = format!("#!/bin/sh\n# {}\nexec {} \"$@\"\n", folder.path().display(), real.display());
    for name in NAMES {
        fs::write(folder.path().join(name), &text).expect("an agent");
        executable(&folder.path().join(name));
    }
    let agents = Agents::locate(Some(folder.path())).expect("agents");
    (OwnAgents { digest: Digest::of(text.as_bytes()).hex(), _folder: folder }, agents)
}

/// What is left of them where hosts share folders is removed at the end.
pub struct OwnAgents {
    digest: String,
    _folder: TempDir,
}

impl Drop for OwnAgents {
    fn drop(&mut self) {
        let user = rustix::process::getuid().as_raw();
        for folder in ["/var/tmp", "/tmp"] {
            let _ = fs::remove_file(format!("{folder}/kplay-{user}/agent-{}", self.digest));
        }
    }
}

/// A folder with the agent of this very build under all its names. Built on first use: `cargo test` builds the programs of
/// the package that it tests, and the agent belongs to another one. Linked against this machine's libc, so that no other
/// compiler is needed and nothing is built twice.
pub fn real_agent_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // The tests of a program lie in `target/debug/deps`.
        let program = std::env::current_exe().expect("the path of this test");
        let profile = program.ancestors().nth(2).expect("the folder of the profile");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "kplay-modules", "--bin", "kplay-agent", "--target-dir"]);
        build.arg(profile.parent().expect("the target folder"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let output = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo");
        assert!(output.status.success(), "the agent cannot be built:\n{}", String::from_utf8_lossy(&output.stderr));

        // Without what only a debugger reads, it travels in a third of the time.
        let folder = profile.join("agents-for-tests");
        fs::create_dir_all(&folder).expect("a folder");
        let (built, fresh) = (profile.join("kplay-agent"), folder.join(format!("new-{}", std::process::id())));
        let stripped = Command::new("strip").arg("-o").arg(&fresh).arg(&built).status().is_ok_and(|status| status.success());
        if !stripped {
            fs::copy(&built, &fresh).expect("a copy of the agent");
        }
        for name in NAMES {
            // Other tests may be reading the one that is there.
            let link = folder.join(format!("link-{}", std::process::id()));
            let _ = fs::remove_file(&link);
            fs::hard_link(&fresh, &link).and_then(|()| fs::rename(&link, folder.join(name))).expect("a name for the agent");
            let _ = fs::remove_file(&link);
        }
        fs::remove_file(&fresh).expect("the first name of the agent");
        folder
    })
}
