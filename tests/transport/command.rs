//! What comes from the operator's own surroundings, through the `kplay` command: keys, ssh-agent, ssh_config, known_hosts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::agents::real_agent_folder;
use crate::support::sshd::{Sshd, make_key};

/// An operator with a home folder of their own, and one host in the inventory.
struct Operator {
    home: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Operator {
    /// Someone who knows the keys of `sshd`, but has none for it.
    fn of(sshd: &Sshd) -> Self {
        let home = tempfile::tempdir().expect("a home folder");
        let operator = Self { home };
        fs::create_dir(operator.path(".ssh")).expect("a folder for keys");
        fs::copy(sshd.known_hosts(), operator.path(".ssh/known_hosts")).expect("known hosts");
        let inventory = format!("all:\n  hosts:\n    h1:\n      address: 127.0.0.1\n      port: {}\n", sshd.port);
        fs::write(operator.path("inventory.yaml"), inventory).expect("an inventory");
        operator
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    /// Takes a key of the sshd's folder, under one of the usual names or another.
    fn take_key(&self, from: &Path, name: &str) {
        let to = self.path(".ssh").join(name);
        fs::copy(from, &to).expect("a key");
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("permissions");
    }

    /// Runs `kplay` with nothing but its own environment; `command` goes behind all options.
    fn kplay(&self, arguments: &[&str], command: &[&str], variables: &[(&str, &str)]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_kplay"))
            .args(arguments)
            .args(["-i", "inventory.yaml", "-T", "30"])
            .args(command)
            .current_dir(self.home.path())
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("KPLAY_AGENT_DIR", real_agent_folder())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("kplay runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    fn exec(&self, variables: &[(&str, &str)]) -> Ended {
        self.kplay(&["exec", "h1"], &["--", "echo", "hello from there"], variables)
    }

    #[track_caller]
    fn gets_in(&self, variables: &[(&str, &str)]) {
        let ended = self.exec(variables);
        assert!(ended.code == Some(0) && ended.stdout.contains("hello from there"), "{ended:#?}");
    }

    #[track_caller]
    fn is_refused(&self, variables: &[(&str, &str)], reason: &str) {
        let ended = self.exec(variables);
        assert!(ended.code == Some(3) && ended.stderr.contains(reason), "{ended:#?}");
    }
}

/// An ssh-agent, ended with its handle.
struct SshAgent {
    child: Child,
    socket: String,
}

impl SshAgent {
    fn with(folder: &Path, keys: &[&Path]) -> Self {
        let socket = folder.join("agent.socket").display().to_string();
        let child = Command::new("ssh-agent").args(["-D", "-a", &socket]).stdout(Stdio::null()).spawn();
        let agent = Self { child: child.expect("this test needs ssh-agent: install openssh-client"), socket };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !Path::new(&agent.socket).exists() {
            assert!(Instant::now() < deadline, "ssh-agent does not start");
            std::thread::sleep(Duration::from_millis(2));
        }
        for key in keys {
            let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &agent.socket).status();
            assert!(added.is_ok_and(|status| status.success()), "ssh-add {}", key.display());
        }
        agent
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_usual_key_file_is_found() {
    let sshd = Sshd::start();
    let operator = Operator::of(&sshd);
    operator.is_refused(&[], "the host accepts no login as");
    operator.take_key(&sshd.key(), "id_ed25519");
    operator.gets_in(&[]);
}

#[test]
fn an_encrypted_key_is_opened_with_the_passphrase_from_the_environment() {
    let sshd = Sshd::start();
    let operator = Operator::of(&sshd);
    make_key(&operator.path(".ssh/id_ed25519"), "ed25519", "open sesame");
    fs::copy(operator.path(".ssh/id_ed25519.pub"), sshd.path("authorized_keys")).expect("authorized keys");
    operator.is_refused(&[], "encrypted, and there is no passphrase");
    operator.is_refused(&[("KPLAY_KEY_PASSPHRASE", "wrong")], "the host accepts no login as");
    operator.gets_in(&[("KPLAY_KEY_PASSPHRASE", "open sesame")]);
}

#[test]
fn keys_of_the_ssh_agent_are_tried_and_chosen_by_ssh_config() {
    let sshd = Sshd::start();
    let operator = Operator::of(&sshd);
    let wrong: Vec<_> = (0..7).map(|number| sshd.path(&format!("wrong{number}"))).collect();
    wrong.iter().for_each(|key| make_key(key, "ed25519", ""));
    let right = sshd.key();

    let agent = SshAgent::with(&operator.path(""), &[&wrong[0], &right]);
    operator.gets_in(&[("SSH_AUTH_SOCK", &agent.socket)]);
    drop(agent);

    // Behind seven others the host would never see it, unless its public half is named.
    let keys: Vec<&Path> = wrong.iter().map(std::path::PathBuf::as_path).chain([right.as_path()]).collect();
    fs::remove_file(operator.path("agent.socket")).unwrap_or_default();
    let agent = SshAgent::with(&operator.path(""), &keys);
    operator.is_refused(&[("SSH_AUTH_SOCK", &agent.socket)], "kplay stopped after 5 keys");
    fs::copy(sshd.path("user.pub"), operator.path(".ssh/lab.pub")).expect("a public key");
    fs::write(operator.path(".ssh/config"), "Host 127.*\n  IdentitiesOnly yes\n  IdentityFile ~/.ssh/lab\n").expect("ssh_config");
    operator.gets_in(&[("SSH_AUTH_SOCK", &agent.socket)]);
}

#[test]
fn keys_of_new_hosts_are_shown_and_taken_in() {
    let sshd = Sshd::start();
    let operator = Operator::of(&sshd);
    operator.take_key(&sshd.key(), "id_ed25519");
    let known = fs::read_to_string(operator.path(".ssh/known_hosts")).expect("known hosts");
    fs::remove_file(operator.path(".ssh/known_hosts")).expect("known hosts");
    operator.is_refused(&[], "kplay host-keys scan");

    let ended = operator.kplay(&["host-keys", "scan", "h1"], &[], &[]);
    assert_eq!(ended.code, Some(1), "nobody can be asked: {ended:#?}");
    assert!(ended.stdout.starts_with(&format!("h1  [127.0.0.1]:{}  ssh-ed25519 SHA256:", sshd.port)), "{ended:#?}");
    assert!(!operator.path(".ssh/known_hosts").exists());

    let ended = operator.kplay(&["host-keys", "scan", "h1", "--yes"], &[], &[]);
    assert!(ended.code == Some(0) && ended.stdout.contains("1 new key written to"), "{ended:#?}");
    let taken = fs::read_to_string(operator.path(".ssh/known_hosts")).expect("known hosts");
    assert!(known.contains(taken.trim().trim_end_matches(" test")), "{taken}");
    operator.gets_in(&[]);
    let ended = operator.kplay(&["host-keys", "scan"], &[], &[]);
    assert!(ended.code == Some(0) && ended.stdout.contains("  known\n"), "{ended:#?}");

    fs::write(operator.path(".ssh/known_hosts"), format!("[127.0.0.1]:{} {}", sshd.port, sshd.public_key("stranger")))
        .expect("known hosts");
    let ended = operator.kplay(&["host-keys", "scan", "--yes"], &[], &[]);
    assert!(ended.code == Some(3) && ended.stderr.contains("is not the one that is known"), "{ended:#?}");
}
