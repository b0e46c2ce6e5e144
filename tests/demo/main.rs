//! Builds the controller and the agent, then shows the main job on throw-away real hosts.
//!
//! `cargo demo` brings the lab of `inventory/hdss7.yaml` up, forecasts, deploys, deploys again, and shows the running cluster.
//! `cargo demo down` takes it down. Nothing outside the cache folder and `/run/kplay-lab` is touched, apart from Debian packages that are missing.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a runner: it starts programs and speaks to whoever started it"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

const INVENTORY: &str = "inventory/hdss7.yaml";
const PLAYBOOK: &str = "playbooks/apiserver.lua";
const AGENT_TARGET: &str = "x86_64-unknown-linux-musl";

/// Programs that the demo needs, and after them those that only `cargo test` does, with the Debian packages that hold them.
const PROGRAMS: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("make", "make"),
    ("perl", "perl"),
    ("musl-gcc", "musl-tools"),
    ("debootstrap", "debootstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("apt-ftparchive", "apt-utils"),
    ("ip", "iproute2"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("go", "golang-go"),
    ("jq", "jq"),
    ("rsync", "rsync"),
    ("dpkg-source", "dpkg-dev"),
    ("busybox", "busybox-static"),
    ("openssl", "openssl"),
    ("sudo", "sudo"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

fn main() -> ExitCode {
    let down = std::env::args().nth(1).as_deref() == Some("down");
    let result = prepare().and_then(|()| if down { lab("down") } else { show() });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Installs what is missing and builds both programs.
fn prepare() -> Result<(), String> {
    if !is_root() {
        return Err("the demo boots real hosts and needs root for that\n  = hint: without root, give the hosts of an inventory `connection: local` and `root: DIR`; \
             the same playbook then acts below that folder (see README.md, \"Without root\")"
            .to_owned());
    }
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !on_path(program)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        say(&format!("installing {}", missing.join(" ")));
        run("apt-get", &["update", "-q"])?;
        run("apt-get", &[&["install", "-qy", "--no-install-recommends"], missing.as_slice()].concat())?;
    }
    run("rustup", &["target", "add", AGENT_TARGET])?;
    say("building kplay and its agent");
    run("cargo", &["build", "--release", "--package", "kplay"])?;
    run("cargo", &["build", "--profile", "agent", "--package", "kplay-modules", "--bin", "kplay-agent", "--target", AGENT_TARGET])?;
    let target = target()?;
    let built = target.join(AGENT_TARGET).join("agent/kplay-agent");
    let beside = target.join(format!("release/kplay-agent-{AGENT_TARGET}"));
    std::fs::copy(&built, beside).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    Ok(())
}

/// The main job, from no hosts to a running cluster.
fn show() -> Result<(), String> {
    say("bringing the hosts up (the first time builds a Debian tree and Kubernetes: about 15 minutes)");
    lab("up")?;
    say("what a deployment would do");
    kplay(&[PLAYBOOK, "-i", INVENTORY, "--check"])?;
    say("deploying");
    let start = Instant::now();
    kplay(&[PLAYBOOK, "-i", INVENTORY])?;
    let deployed = start.elapsed();
    say("once more: nothing is left to do");
    let start = Instant::now();
    kplay(&[PLAYBOOK, "-i", INVENTORY])?;
    let again = start.elapsed();
    say("the cluster");
    for host in ["hdss7-21", "hdss7-22"] {
        println!("{host}: kubectl get --raw /readyz");
        kplay(&["lab", "exec", host, "-i", INVENTORY, "--", "kubectl", "get", "--raw", "/readyz"])?;
        println!();
    }
    let endpoints = "--endpoints=https://10.4.7.12:2379,https://10.4.7.21:2379,https://10.4.7.22:2379";
    let ssl = "/etc/kubernetes/server/ssl";
    let (ca, cert, key) = (format!("--cacert={ssl}/ca.pem"), format!("--cert={ssl}/client.pem"), format!("--key={ssl}/client-key.pem"));
    kplay(&[
        "lab",
        "exec",
        "hdss7-21",
        "-i",
        INVENTORY,
        "--",
        "env",
        "ETCDCTL_API=3",
        "etcdctl",
        endpoints,
        &ca,
        &cert,
        &key,
        "endpoint",
        "health",
    ])?;
    kplay(&["lab", "exec", "hdss7-21", "-i", INVENTORY, "--", "kubectl", "get", "ns"])?;
    let program = target()?.join("release/kplay");
    let program = program.display();
    println!(
        "\ndeployed in {:.1} s, the second run took {:.1} s\n\nlook around:   {program} lab exec hdss7-21 -i {INVENTORY} -- kubectl get all -A\n\
         a shell:       {program} lab console hdss7-22 -i {INVENTORY}\ntake it down:  cargo demo down",
        deployed.as_secs_f64(),
        again.as_secs_f64()
    );
    Ok(())
}

fn lab(action: &str) -> Result<(), String> {
    kplay(&["lab", action, "-i", INVENTORY])
}

fn kplay(arguments: &[&str]) -> Result<(), String> {
    run(&target()?.join("release/kplay").to_string_lossy(), arguments)
}

/// Returns Cargo's target folder, wherever it is: this program lies in one of its folders.
fn target() -> Result<PathBuf, String> {
    let me = std::env::current_exe().map_err(|error| format!("cannot tell where this program lies: {error}"))?;
    me.ancestors().nth(2).map(Path::to_owned).ok_or_else(|| format!("`{}` is in no target folder of Cargo's", me.display()))
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let status = Command::new(program).args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{program} {}` ended with {status}", arguments.join(" "))),
        Err(error) => Err(format!("cannot run `{program}`: {error}")),
    }
}

fn say(text: &str) {
    println!("\n\x1b[1m== {text}\x1b[0m");
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // System programs are not on everybody's path.
    let system = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}

/// The owner of our own entry in /proc is our effective user; this runner has no dependencies, so it reads that.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    Path::new("/proc/self").metadata().is_ok_and(|entry| entry.uid() == 0)
}
