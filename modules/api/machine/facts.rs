//! Facts: read from the kernel's files and the host's own, without starting anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::api::inspect::Facts;
use crate::api::types::Owner;

use super::Machine;

impl Machine {
    /// Takes the facts again.
    pub fn gather(&mut self) {
        let release = self.release();
        let field = |name: &str| release.get(name).cloned().unwrap_or_default();
        let uname = rustix::system::uname();
        let (user, home) = self.identity();
        let default_interface = default_interface();
        let addresses = super::addresses::by_interface();
        let has = |path: &str| self.place(Path::new(path), true).is_ok_and(|place| place.exists());
        let facts = Facts {
            hostname: uname.nodename().to_string_lossy().split('.').next().unwrap_or_default().to_owned(),
            architecture: uname.machine().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            os: field("ID"),
            os_version: field("VERSION_ID"),
            os_codename: field("VERSION_CODENAME"),
            os_family: family(&field("ID"), &field("ID_LIKE")),
            package_manager: match () {
                () if has("/usr/bin/apt-get") => "apt",
                () if has("/usr/bin/dnf") => "dnf",
                () if has("/usr/bin/yum") => "yum",
                () => "",
            }
            .to_owned(),
            // Below a root units are assumed to run.
            init: if self.root.is_some() || has("/run/systemd/system") { "systemd".to_owned() } else { String::new() },
            processors: std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
            memory_mib: memory_mib(),
            default_address: addresses.get(&default_interface).and_then(|list| list.first()).cloned().unwrap_or_default(),
            addresses,
            default_interface,
            user,
            home,
            machine_id: self.text("/etc/machine-id").trim().to_owned(),
            time: super::now(),
        };
        self.facts = facts;
    }

    fn release(&self) -> BTreeMap<String, String> {
        let text = Some(self.text("/etc/os-release")).filter(|text| !text.is_empty()).unwrap_or_else(|| self.text("/usr/lib/os-release"));
        text.lines()
            .filter_map(|line| line.trim().split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
            .collect()
    }

    /// Below a root, tasks act as that root's superuser.
    fn identity(&self) -> (String, PathBuf) {
        if self.root.is_some() {
            return ("root".to_owned(), "/root".into());
        }
        let number = rustix::process::geteuid().as_raw();
        let text = self.text("/etc/passwd");
        let line = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        match line.into_iter().find(|fields| fields.get(2).and_then(|field| field.parse().ok()) == Some(number)) {
            Some(fields) => (
                fields.first().copied().unwrap_or_default().to_owned(),
                fields.get(5).filter(|home| !home.is_empty()).map_or_else(|| "/".into(), PathBuf::from),
            ),
            None => match self.find_user(&number.to_string()) {
                Ok(Some(user)) if user.id == Owner::Id(number) => (user.name, user.home),
                _ => (number.to_string(), std::env::var_os("HOME").map_or_else(|| "/".into(), PathBuf::from)),
            },
        }
    }

    fn text(&self, path: &str) -> String {
        let read = self.place(Path::new(path), true).ok().and_then(|place| std::fs::read(place).ok());
        String::from_utf8_lossy(&read.unwrap_or_default()).into_owned()
    }
}

fn family(id: &str, like: &str) -> String {
    let families = [
        ("debian", ["debian", "ubuntu"].as_slice()),
        ("redhat", &["rhel", "fedora", "centos"]),
        ("suse", &["suse", "opensuse", "sles"]),
        ("alpine", &["alpine"]),
        ("arch", &["arch"]),
    ];
    let words: Vec<&str> = std::iter::once(id).chain(like.split_whitespace()).collect();
    let found = families.iter().find(|(_, names)| words.iter().any(|word| names.contains(word)));
    found.map(|(family, _)| (*family).to_owned()).unwrap_or_default()
}

fn memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Returns the interface of the default route with the lowest metric.
fn default_interface() -> String {
    let text = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let routes = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let default = routes.filter(|fields| fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000"));
    let best = default.min_by_key(|fields| fields.get(6).and_then(|metric| metric.parse::<u32>().ok()));
    best.and_then(|fields| fields.first().map(|name| (*name).to_owned())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_belong_to_their_family() {
        assert_eq!(family("ubuntu", "debian"), "debian");
        assert_eq!(family("rocky", "rhel centos fedora"), "redhat");
        assert_eq!(family("linuxmint", "ubuntu debian"), "debian");
        assert_eq!(family("void", ""), "");
    }
}
