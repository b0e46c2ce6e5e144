//! A real sshd on loopback, with keys, configuration and home folder of its own, ended with its handle.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kplay::transport::{ConnectionKind, HostKeyPolicy, Target};
use kplay_modules::agent::wire::BecomeMethod;
use tempfile::TempDir;

/// Where Debian, Fedora and Alpine have it.
const PROGRAMS: &[&str] = &["/usr/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd"];

/// A running sshd.
pub struct Sshd {
    folder: TempDir,
    child: Child,
    /// Port on 127.0.0.1.
    pub port: u16,
}

impl Sshd {
    /// Starts one that lets the user of this process in with [`Sshd::key`].
    pub fn start() -> Self {
        Self::with("")
    }

    /// Starts one with further lines of sshd_config, which win over the usual ones.
    pub fn with(lines: &str) -> Self {
        Self::launch(lines, &[])
    }

    /// Starts one in a network namespace of its own; needs root.
    pub fn in_namespace() -> Self {
        Self::launch("", &["unshare", "--net", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh"])
    }

    /// Starts one in a mount namespace of its own, which a shell script has prepared: its accounts, disks and programs are not
    /// this machine's. `$D` is a folder for the script. Needs root.
    pub fn prepared(lines: &str, script: &str) -> Self {
        let script = format!("set -e; D=$(dirname \"$5\"); chmod 0755 \"$D\"; {script}\nexec \"$@\"");
        Self::launch(lines, &["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"])
    }

    fn launch(lines: &str, wrapper: &[&str]) -> Self {
        let program = PROGRAMS.iter().find(|path| Path::new(path).exists());
        let program = program.expect("this test needs a real sshd: install openssh-server (it needs not run)");
        let mut folder = tempfile::tempdir().expect("a temporary folder");
        for (name, kind) in [("host_ed25519", "ed25519"), ("host_ecdsa", "ecdsa"), ("user", "ed25519"), ("stranger", "ed25519")] {
            make_key(&folder.path().join(name), kind, "");
        }
        let home = folder.path().join("home");
        fs::create_dir(&home).expect("a home folder");
        fs::copy(folder.path().join("user.pub"), folder.path().join("authorized_keys")).expect("authorized keys");
        // The privilege separation folder of Debian's sshd is normally made when the service starts.
        let _ = fs::create_dir_all("/run/sshd");
        for _ in 0..5 {
            let port = free_port();
            let config = config(folder.path(), port, lines);
            let log = fs::File::create(folder.path().join("log")).expect("a log");
            fs::write(folder.path().join("sshd_config"), config).expect("a configuration");
            let words: Vec<&str> = wrapper.iter().copied().chain([*program, "-D", "-e", "-f"]).collect();
            let child = Command::new(words[0])
                .args(&words[1..])
                .arg(folder.path().join("sshd_config"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("sshd starts");
            let mut sshd = Self { folder, child, port };
            if sshd.wait_until_it_listens() {
                sshd.write_known_hosts();
                return sshd;
            }
            // Somebody else took the port meanwhile.
            folder = std::mem::replace(&mut sshd.folder, tempfile::tempdir().expect("a temporary folder"));
        }
        panic!("sshd found no free port");
    }

    fn wait_until_it_listens(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.log().contains("Server listening") {
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = self.log();
                assert!(log.contains("already in use"), "sshd does not start ({status}):\n{log}");
                return false;
            }
            assert!(Instant::now() < deadline, "sshd does not listen:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    fn write_known_hosts(&self) {
        let lines = ["host_ed25519", "host_ecdsa"].map(|name| format!("[127.0.0.1]:{} {}", self.port, self.public_key(name)));
        fs::write(self.known_hosts(), lines.concat()).expect("known hosts");
    }

    /// A path in the folder of this sshd.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The private key that is let in.
    pub fn key(&self) -> PathBuf {
        self.path("user")
    }

    /// A known_hosts file with the keys of this sshd.
    pub fn known_hosts(&self) -> PathBuf {
        self.path("known_hosts")
    }

    /// `$HOME` of everything that runs in a session.
    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// The public key of a key pair in the folder, with its newline.
    pub fn public_key(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.pub"))).expect("a public key")
    }

    /// The network namespace that it lives in.
    pub fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.child.id()))
    }

    /// A file as the sessions of a prepared sshd see it.
    pub fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.child.id()))
    }

    /// What sshd has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A target that connects as the user of this process, with key and known_hosts of this sshd.
    pub fn target(&self) -> Target {
        Target {
            name: "h1".to_owned(),
            connection: ConnectionKind::Ssh,
            address: "127.0.0.1".to_owned(),
            port: Some(self.port),
            user: Some(user_name()),
            private_keys: vec![self.key()],
            password: None,
            jump: Some("none".to_owned()),
            host_keys: HostKeyPolicy::Strict,
            known_hosts: Some(self.known_hosts()),
            namespace: None,
            root: None,
            timeout: Duration::from_secs(20),
            become_method: BecomeMethod::Sudo,
            become_password: None,
            agent_folder: None,
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a key pair.
pub fn make_key(path: &Path, kind: &str, passphrase: &str) {
    let output = Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", passphrase, "-C", "test", "-f"]).arg(path).output();
    let output = output.expect("this test needs ssh-keygen: install openssh-client");
    assert!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
}

/// The name of the user who runs the tests.
pub fn user_name() -> String {
    let output = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Makes a file executable.
pub fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn config(folder: &Path, port: u16, lines: &str) -> String {
    let folder = folder.display();
    // The first value of a setting wins in sshd_config.
    format!(
        "{lines}\n\
         ListenAddress 127.0.0.1\n\
         Port {port}\n\
         HostKey {folder}/host_ed25519\n\
         HostKey {folder}/host_ecdsa\n\
         AuthorizedKeysFile {folder}/authorized_keys\n\
         PidFile none\n\
         StrictModes no\n\
         UsePAM no\n\
         PermitRootLogin yes\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         MaxStartups 500\n\
         SetEnv HOME={folder}/home\n\
         LogLevel VERBOSE\n"
    )
}
