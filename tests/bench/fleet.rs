//! The hosts that everything is measured on: one sshd for each, on loopback addresses of a network namespace of our own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;

/// Port of every sshd. The namespace is ours, so that it is free.
const PORT: u16 = 22;
/// Where an agent of root keeps its state.
pub const STATE: &str = "/var/lib/kplay";
/// Where root is at home on a host.
const HOME: &str = "/root";
/// Clock ticks of a second, as Linux reports processor time to programs.
const TICKS: u64 = 100;

/// Running sshds and what is needed to log in.
pub struct Fleet {
    children: Vec<Child>,
    folder: PathBuf,
}

/// Returns the address of host `number`, counted from 1: 127.0.1.1, …
pub fn address(number: usize) -> String {
    format!("127.0.{}.{}", 1 + (number - 1) / 250, 1 + (number - 1) % 250)
}

impl Fleet {
    /// Starts an sshd for each of `count` hosts.
    pub fn start(folder: &Path, count: usize) -> Outcome<Self> {
        fs::create_dir_all(folder.join("home/.ssh"))?;
        fs::create_dir_all("/run/sshd")?;
        for name in ["host", "user"] {
            if !folder.join(name).exists() {
                let done = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(name)).status()?;
                if !done.success() {
                    return Err("ssh-keygen failed".into());
                }
            }
        }
        fs::copy(folder.join("user.pub"), folder.join("authorized_keys"))?;
        fs::set_permissions(folder.join("authorized_keys"), fs::Permissions::from_mode(0o600))?;
        let key = fs::read_to_string(folder.join("host.pub"))?;
        let known: String = (1..=count).map(|number| format!("{} {}\n", address(number), key.trim())).collect();
        fs::write(folder.join("home/.ssh/known_hosts"), known)?;
        let mut fleet = Self { children: Vec::new(), folder: folder.to_owned() };
        for (name, options) in [("curve", "KexAlgorithms curve25519-sha256\n"), ("usual", "")] {
            let config = format!(
                "IdentityFile {0}/user\nIdentitiesOnly yes\nUserKnownHostsFile {0}/home/.ssh/known_hosts\nGlobalKnownHostsFile /dev/null\n\
                 StrictHostKeyChecking yes\nBatchMode yes\nUser root\n{options}",
                folder.display()
            );
            fs::write(fleet.ssh_config(name), config)?;
        }
        fs::create_dir_all(STATE)?;
        for number in 1..=count {
            let listener = address(number);
            let (state, home) = (fleet.state(number), folder.join(format!("homes/{number}")));
            fs::create_dir_all(&state)?;
            fs::create_dir_all(&home)?;
            let config = folder.join(format!("sshd_config.{number}"));
            fs::write(
                &config,
                format!(
                    "ListenAddress {listener}\nPort {PORT}\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized_keys\nPidFile none\nStrictModes no\n\
                     UsePAM no\nUseDNS no\nPermitRootLogin yes\nPasswordAuthentication no\nMaxStartups 2000\nMaxSessions 100\nPrintMotd no\n\
                     PrintLastLog no\nSubsystem sftp /usr/lib/openssh/sftp-server\n",
                    folder.display()
                ),
            )?;
            let log = fs::File::create(folder.join("sshd.log"))?;
            // Hosts share this machine's files; what is kept of a host has to be each one's own. Nor may a login run what root of
            // this machine has in its shell's start-up files: a hundred milliseconds of it would hide what is measured.
            let own = "mount --bind \"$1\" \"$2\" && mount --bind \"$3\" \"$4\" && shift 4 && exec \"$@\"";
            let mut sshd = Command::new("unshare");
            sshd.args(["--mount", "sh", "-c", own, "sh"]).arg(&state).arg(STATE).arg(&home).arg(HOME);
            sshd.args(["/usr/sbin/sshd", "-D", "-e", "-f"]).arg(&config);
            sshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            fleet.children.push(sshd.spawn()?);
        }
        fleet.wait(count)?;
        Ok(fleet)
    }

    fn wait(&self, count: usize) -> Outcome<()> {
        let end = Instant::now() + Duration::from_secs(30);
        for number in [1, count] {
            while std::net::TcpStream::connect((address(number), PORT)).is_err() {
                if Instant::now() > end {
                    let log = fs::read_to_string(self.folder.join("sshd.log")).unwrap_or_default();
                    return Err(format!("the sshd of {} does not listen: {log}", address(number)).into());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Empties the homes of all hosts: whatever a contender has left there, its agent above all, is gone.
    pub fn forget(&self) -> Outcome<()> {
        for home in fs::read_dir(self.folder.join("homes"))? {
            for entry in fs::read_dir(home?.path())? {
                self.put_aside(&entry?.path())?;
            }
        }
        Ok(())
    }

    /// Takes a file or a folder out of the way, for ever. Not by deleting it: ext4 gives nobody an inode that was deleted in the last
    /// seconds, and looks for another one at each file that is made, which cost a first run as much processor as all else.
    pub fn put_aside(&self, path: &Path) -> Outcome<()> {
        let aside = self.folder.join("aside");
        fs::create_dir_all(&aside)?;
        let number = fs::read_dir(&aside)?.count();
        Ok(fs::rename(path, aside.join(number.to_string()))?)
    }

    /// Where the agent's state of a host lies on this machine.
    pub fn state(&self, number: usize) -> PathBuf {
        self.folder.join(format!("state/{number}"))
    }

    /// The key that every host lets in.
    pub fn key(&self) -> PathBuf {
        self.folder.join("user")
    }

    /// The keys of all hosts, where a user who logs in would have them.
    pub fn known_hosts(&self) -> PathBuf {
        self.home().join(".ssh/known_hosts")
    }

    /// The home folder of a user who logs in.
    pub fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// A configuration for OpenSSH's client: `curve` with the cheap key exchange, `usual` with its default.
    pub fn ssh_config(&self, name: &str) -> PathBuf {
        self.folder.join(format!("ssh_config.{name}"))
    }

    /// Processor time that the hosts have used so far: their sshds and all that ran below them.
    pub fn processor(&self) -> Duration {
        Duration::from_millis(self.children.iter().map(|child| ticks_below(child.id())).sum::<u64>() * 1000 / TICKS)
    }
}

/// Own time, that of children waited for, and that of children that still run.
fn ticks_below(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    let own: u64 = fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    own + children.split_ascii_whitespace().filter_map(|child| child.parse().ok()).map(ticks_below).sum::<u64>()
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
