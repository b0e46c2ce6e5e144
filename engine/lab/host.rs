//! One host of a lab: its files, its boot, its end.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kplay_modules::api::Digest;

use super::layout::{Lab, Locked, namespace_path};
use super::process::{self, Process};
use super::state::{HostState, Network};
use super::{cgroup, image, mounts, network, program};
use crate::diagnostic::{Diagnostic, Result};

/// How long a host may take to boot.
const BOOT: Duration = Duration::from_secs(120);
/// How long killed processes may take to vanish.
const END: Duration = Duration::from_secs(20);
/// How many lines of console and journal are shown when a host does not come up.
const TAIL: usize = 15;
/// Beside a host's files: says that it has come up with them once.
const WHOLE: &str = "whole";

/// Joins the host's control groups, records itself, and becomes the container: same process, same start time.
/// usage: launch RECORD GROUP... -- PROGRAM...
const LAUNCH: &str = r#"
record=$1; shift
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done
shift
read -r stat < /proc/$$/stat
started=$(echo "${stat##*) }" | cut -d ' ' -f 20)
read -r boot < /proc/sys/kernel/random/boot_id
echo "$$ $started $boot" > "$record.part"
mv "$record.part" "$record"
exec setsid "$@" < /dev/null
"#;

/// Makes a host and starts to boot it. Nothing of it may be there.
///
/// # Errors
/// Something of it cannot be made.
pub fn start(lab: &Locked<'_>, net: &Network, plan: &HostState) -> Result<()> {
    let name = &plan.host.name;
    let on = |error: Box<Diagnostic>| error.on(name);
    let wrong = |error: std::io::Error| Diagnostic::host(format!("cannot make the host's files: {error}")).on(name);
    for folder in ["upper", "work", "root"] {
        std::fs::create_dir_all(plan.folder.join(folder)).map_err(wrong)?;
    }
    mounts::overlay(&plan.base, &plan.folder).map_err(on)?;
    write_files(lab, plan).map_err(wrong)?;
    let key = plan.folder.join("root/etc/ssh/ssh_host_ed25519_key");
    lab.run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", &key.to_string_lossy()]).map_err(on)?;
    network::connect(lab, net, plan).map_err(on)?;
    boot(lab, plan).map_err(wrong)
}

/// Returns whether a host has come up once, and its files are there.
pub fn is_whole(plan: &HostState) -> bool {
    plan.folder.join(WHOLE).exists() && plan.folder.join("root/etc/os-release").exists()
}

/// Boots a host that has died, with the files that it has: what a machine does when its power is back.
///
/// # Errors
/// Something of its former life stays, or it cannot be started.
pub fn start_again(lab: &Locked<'_>, net: &Network, plan: &HostState) -> Result<()> {
    end(lab, plan)?;
    network::connect(lab, net, plan).map_err(|error| error.on(&plan.host.name))?;
    boot(lab, plan).map_err(|error| Diagnostic::host(format!("cannot boot the host again: {error}")).on(&plan.host.name))
}

/// Waits until a host has booted and its sshd answers.
///
/// # Errors
/// It does not within two minutes; the error shows the end of its console and journal.
pub fn wait_until_ready(lab: &Lab, plan: &HostState) -> Result<()> {
    let end = Instant::now() + BOOT;
    let mut seen = "the container has not started";
    let mut state = String::new();
    while Instant::now() < end {
        let process = Process::recorded(&lab.process_file(&plan.host.name));
        match process.as_ref().map(Process::init) {
            None if Instant::now() + BOOT > end + Duration::from_secs(10) => {
                seen = "the container has ended";
                break;
            }
            None | Some(None) => {}
            Some(Some(init)) => {
                let output = enter(init, &["systemctl", "is-system-running"]).stdin(Stdio::null()).stderr(Stdio::null()).output();
                state = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
                if matches!(state.as_str(), "running" | "degraded") {
                    if answers_ssh(lab, plan) {
                        refresh_packages(plan, init)?;
                        let wrong = |error| Diagnostic::host(format!("cannot note that the host is whole: {error}")).on(&plan.host.name);
                        return std::fs::write(plan.folder.join(WHOLE), "").map_err(wrong);
                    }
                    seen = "it has booted, but its sshd does not answer";
                } else {
                    seen = "systemd has not finished booting";
                }
            }
        }
        std::thread::sleep(Duration::from_millis(150));
    }
    let state = if state.is_empty() { String::new() } else { format!(" (systemd says `{state}`)") };
    Err(Diagnostic::host(format!("the host does not come up: {seen}{state}"))
        .on(&plan.host.name)
        .details(last_words(lab, plan))
        .hint(format!("its whole console is `{}`", lab.console_file(&plan.host.name).display())))
}

/// Ends a host and removes all that it was made of, however far it had come.
///
/// # Errors
/// Something stays.
pub fn stop(lab: &Locked<'_>, plan: &HostState) -> Result<()> {
    end(lab, plan)?;
    let name = &plan.host.name;
    image::remove_tree(&plan.folder).map_err(|error| error.on(name))?;
    for file in [lab.process_file(name), lab.console_file(name)] {
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

/// Ends a host's processes and takes its network away; its files stay.
fn end(lab: &Locked<'_>, plan: &HostState) -> Result<()> {
    let name = &plan.host.name;
    let record = lab.process_file(name);
    let mut container = Process::recorded(&record);
    let find = || {
        let mut left = process::in_namespace(&plan.namespace);
        left.extend(cgroup::processes(&plan.cgroups));
        left
    };
    // The container goes first: it would only watch its host die and report that.
    if let Some(process) = &container {
        process.kill();
    }
    let gone = process::kill_all(find, END);
    // A launcher that had only just begun has recorded itself by now, or was in the host's control group.
    if let Some(process) = container.take().or_else(|| Process::recorded(&record)) {
        process.kill();
    }
    if !gone {
        let left: Vec<_> = find().iter().map(ToString::to_string).collect();
        return Err(Diagnostic::host(format!("processes of the host do not end: {}", left.join(", "))).on(name));
    }
    network::remove(lab, &plan.namespace).map_err(|error| error.on(name))?;
    cgroup::remove(&plan.cgroups);
    // nspawn leaves the folder through which it would have passed mounts on.
    let _ = std::fs::remove_dir(Path::new("/run/systemd/nspawn/propagate").join(&plan.namespace));
    Ok(())
}

/// Returns the number of the host's first process, when it runs.
pub fn init(lab: &Lab, host: &str) -> Option<i32> {
    Process::recorded(&lab.process_file(host)).and_then(|process| process.init())
}

/// Returns whether the host's sshd greets a connection from the lab's namespace.
pub fn answers_ssh(lab: &Lab, plan: &HostState) -> bool {
    network::greeting(&lab.namespace(), (plan.host.address, 22).into()).is_ok_and(|line| line.starts_with("SSH-"))
}

/// Returns a command that runs `argv` inside the host whose first process is `init`, as root.
pub fn enter(init: i32, argv: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args([
        "--target",
        &init.to_string(),
        "--all",
        "--",
        "/usr/bin/env",
        "-i",
        "HOME=/root",
        "USER=root",
        "LOGNAME=root",
        "LANG=C.UTF-8",
    ]);
    command.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    if let Ok(terminal) = std::env::var("TERM") {
        command.arg(format!("TERM={terminal}"));
    }
    command.args(argv);
    command
}

/// Returns the host's public key, as known_hosts lists it.
pub fn public_key(plan: &HostState) -> Option<String> {
    let text = std::fs::read_to_string(plan.folder.join("root/etc/ssh/ssh_host_ed25519_key.pub")).ok()?;
    let mut words = text.split_ascii_whitespace();
    Some(format!("{},{} {} {}", plan.host.name, plan.host.address, words.next()?, words.next()?))
}

fn write_files(lab: &Lab, plan: &HostState) -> std::io::Result<()> {
    let root = plan.folder.join("root");
    let name = &plan.host.name;
    let short = name.split('.').next().unwrap_or(name);
    let names = if short == name { name.clone() } else { format!("{name} {short}") };
    let identity = &Digest::of(plan.namespace.as_bytes()).hex()[..32];
    let source = if plan.packages.is_some() { "deb [trusted=yes] file:/srv/apt ./\n" } else { "" };
    std::fs::write(root.join("etc/hostname"), format!("{name}\n"))?;
    std::fs::write(
        root.join("etc/hosts"),
        format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{} {names}\n", plan.host.address),
    )?;
    std::fs::write(root.join("etc/machine-id"), format!("{identity}\n"))?;
    std::fs::write(root.join("etc/apt/sources.list"), source)?;
    let keys = root.join("root/.ssh/authorized_keys");
    std::fs::copy(lab.private_key().with_extension("pub"), &keys)?;
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600))
}

fn boot(lab: &Locked<'_>, plan: &HostState) -> std::io::Result<()> {
    let name = &plan.host.name;
    let record = lab.process_file(name);
    for group in &plan.cgroups {
        std::fs::create_dir_all(group)?;
    }
    let console = std::fs::File::create(lab.console_file(name))?;
    let mut command = Command::new("sh");
    command.args(["-euc", LAUNCH, "launch"]).arg(&record).args(&plan.cgroups).arg("--");
    command.args(["systemd-nspawn", "--quiet", "--boot", "--register=no"]);
    // Where systemd runs the machine, the container asks it for a scope; elsewhere it lives where the launcher put it.
    if !cgroup::machine_runs_systemd() {
        command.arg("--keep-unit");
    }
    command.arg("--directory").arg(plan.folder.join("root"));
    command.arg(format!("--machine={}", plan.namespace)).arg(format!("--hostname={name}"));
    command.arg(format!("--network-namespace-path={}", namespace_path(&plan.namespace).display()));
    command.args([
        "--capability=CAP_NET_ADMIN,CAP_NET_RAW",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=read-only",
    ]);
    if let Some(packages) = &plan.packages {
        command.arg(format!("--bind-ro={}:/srv/apt", packages.display()));
    }
    command.arg("systemd.show_status=1");
    // Parameters of the kernel outside `net.` stay read-only, as they belong to the whole machine.
    command.env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network");
    command.stdin(lab.hold()?).stdout(console.try_clone()?).stderr(console);
    // Nobody waits for it: it outlives this process, in a session of its own, and holds the lock until it is on record.
    command.spawn().map(|_| ())
}

/// Lets apt learn what the lab has, once per host.
fn refresh_packages(plan: &HostState, init: i32) -> Result<()> {
    let lists = plan.folder.join("root/var/lib/apt/lists/_srv_apt_._Packages");
    if plan.packages.is_none() || lists.exists() {
        return Ok(());
    }
    let output = enter(init, &["apt-get", "-q", "update"]).stdin(Stdio::null()).output();
    let wrong =
        |said: String| Diagnostic::host("`apt-get update` fails in the host").on(&plan.host.name).details(program::last_lines(&said, TAIL));
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(wrong(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Returns the end of a host's console, and of its journal when that can be read from outside.
fn last_words(lab: &Lab, plan: &HostState) -> Vec<String> {
    let mut lines = program::last_lines(&program::tail_of(&lab.console_file(&plan.host.name)), TAIL);
    let journal = plan.folder.join("root/var/log/journal");
    let count = TAIL.to_string();
    if let Ok(text) =
        program::run("journalctl", ["--quiet", "--no-pager", "--priority=warning", "-n", &count, "-D", &journal.to_string_lossy()])
    {
        lines.extend(program::last_lines(&text, TAIL));
    }
    lines
}
