//! What the machine must have before a lab can be made, said in one message with what to do about it.

use std::path::Path;

use crate::diagnostic::{Diagnostic, Result};

/// The programs that a lab is made with, and the Debian packages that hold them.
const PROGRAMS: &[(&str, &str)] = &[
    ("debootstrap", "debootstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("ip", "iproute2"),
    ("ssh-keygen", "openssh-client"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("setsid", "util-linux"),
    ("unshare", "util-linux"),
];

/// Fails unless this process may make a lab on this machine.
///
/// # Errors
/// Rights, programs or features of the kernel are missing.
pub fn check() -> Result<()> {
    check_root()?;
    let missing = missing_programs(on_path);
    if let Some((first, rest)) = missing.split_first() {
        let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        let programs = rest.iter().fold(format!("`{}`", first.0), |list, (program, _)| format!("{list}, `{program}`"));
        return Err(Diagnostic::user(format!("a lab needs {programs}, which this machine has not"))
            .hint(format!("on Debian: `apt-get install {}`", packages.join(" "))));
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    // A kernel with overlay as a module learns of it when it is first mounted; modprobe does that beforehand.
    if !filesystems.contains("\toverlay\n") && super::program::run("modprobe", ["overlay"]).is_err() {
        return Err(
            Diagnostic::user("a lab needs the overlay file system, which this kernel has not").hint("load it with `modprobe overlay`")
        );
    }
    if !Path::new("/proc/self/ns/net").exists() {
        return Err(
            Diagnostic::user("a lab needs network namespaces, which this kernel has not").hint("it has to be built with CONFIG_NET_NS")
        );
    }
    Ok(())
}

/// Fails unless this process is root.
///
/// # Errors
/// It is not.
pub fn check_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Diagnostic::user("a lab needs root: it mounts, makes network namespaces and boots hosts")
        .hint("run it with sudo")
        .hint("without root, hosts with `connection: local` and `root: DIR` show most of a playbook's work"))
}

fn missing_programs(found: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
    PROGRAMS.iter().copied().filter(|(program, _)| !found(program)).collect()
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_program_names_its_package() {
        assert_eq!(missing_programs(|program| program != "ip"), [("ip", "iproute2")]);
        assert_eq!(missing_programs(|_| false).len(), PROGRAMS.len());
    }
}
