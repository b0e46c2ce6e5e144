//! Packages: dpkg's database, what apt complains of, and what is assumed where there is no package manager.

use super::super::tests::Bench;
use super::*;
use crate::api::change::Change;
use crate::api::perform::Perform;

fn packages(install: &[&str], remove: &[&str]) -> Packages {
    Packages {
        install: install.iter().map(|name| (*name).to_owned()).collect(),
        remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        purge: true,
        update: false,
        start_services: false,
        before: BTreeMap::new(),
        timeout: 0,
    }
}

fn versions(bench: &Bench, names: &[&str]) -> Vec<(String, String)> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    bench.machine.find_packages(&names).unwrap().into_iter().collect()
}

#[test]
fn apt_names_what_it_does_not_know() {
    let unknown = |text: &str| unknown_package(text);
    assert_eq!(unknown("Reading…\nE: Unable to locate package ngixn\n").as_deref(), Some("ngixn"));
    assert_eq!(unknown("E: Version '1.0' for 'nginx' was not found").as_deref(), Some("nginx=1.0"));
    assert_eq!(unknown("E: Package 'php5' has no installation candidate").as_deref(), Some("php5"));
    assert_eq!(unknown("E: Could not get lock /var/lib/dpkg/lock-frontend"), None);
}

#[test]
fn a_transaction_installs_and_removes() {
    let line = apt_command(&packages(&["nginx=1.2"], &["apache2"])).argv.join(" ");
    assert!(line.ends_with("--purge install -- nginx=1.2 apache2-"), "{line}");
}

#[test]
fn the_database_tells_what_is_installed() {
    let mut bench = Bench::new();
    bench.write("/usr/bin/apt-get", "").write(
        "/var/lib/dpkg/status",
        "Package: nginx\nStatus: install ok installed\nPriority: optional\nArchitecture: amd64\nVersion: 1.22.1-9\nDescription: x\n Package: fake\n\n\
         Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\n\
         Package: libc6\nStatus: install ok installed\nArchitecture: i386\nVersion: 2.36\n\n\
         Package: last\nStatus: hold ok installed\nArchitecture: all\nVersion: 1:2~3+b1\n",
    );
    bench.again();
    let found = versions(&bench, &["nginx", "gone", "missing", "libc6:amd64", "libc6:i386", "last"]);
    let expected = [("last", "1:2~3+b1"), ("libc6:i386", "2.36"), ("nginx", "1.22.1-9")];
    assert_eq!(found, expected.map(|(name, version)| (name.to_owned(), version.to_owned())));
}

#[test]
fn this_machines_database_agrees_with_dpkg_itself() {
    if super::super::commands::find_program("dpkg-query").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(None, folder.path().to_owned(), "run-1");
    let names = ["dpkg", "coreutils", "no-such-package"].map(str::to_owned);
    let found = machine.find_packages(&names).unwrap();
    for name in ["dpkg", "coreutils"] {
        let output = std::process::Command::new("dpkg-query").args(["-W", "-f", "${Version}", name]).output().unwrap();
        assert_eq!(found.get(name).map(String::as_str), Some(String::from_utf8_lossy(&output.stdout).as_ref()));
    }
    assert_eq!(found.len(), 2);
}

#[test]
fn a_root_without_a_package_manager_assumes() {
    let mut bench = Bench::new();
    assert_eq!(versions(&bench, &["nginx"]), []);
    let change = Change::Packages(packages(&["nginx", "etcd=3.4"], &[]));
    let back = bench.machine.invert(&change).unwrap();
    bench.perform(&change).unwrap();
    bench.again();
    let expected = [("etcd", "3.4"), ("nginx", "assumed")].map(|(name, version)| (name.to_owned(), version.to_owned()));
    assert_eq!(versions(&bench, &["etcd", "nginx"]), expected);
    bench.perform(&back[0]).unwrap();
    assert_eq!(versions(&bench, &["etcd", "nginx"]), []);
}

#[test]
fn services_are_kept_from_starting_and_the_administrators_policy_is_left_alone() {
    let bench = Bench::new();
    bench.write("/usr/sbin/x", "");
    let policy = bench.real("/usr/sbin/policy-rc.d");
    let guard = bench.machine.forbid_starts().unwrap();
    let output = std::process::Command::new(&policy).status().unwrap();
    assert_eq!(output.code(), Some(101));
    // A run that was killed leaves its policy; the next one takes it over.
    std::mem::forget(guard);
    drop(bench.machine.forbid_starts().unwrap());
    assert!(!policy.exists());
    bench.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 0\n");
    drop(bench.machine.forbid_starts().unwrap());
    assert_eq!(bench.text("/usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 0\n");
}

#[test]
fn a_failed_transaction_shows_what_apt_complained_of() {
    let output = CommandOutput { code: Some(100), stderr: "W: a warning\nE: held broken packages\n".into(), ..CommandOutput::default() };
    let error = failed("apt-get", &output);
    assert_eq!((error.message.as_str(), error.details), ("`apt-get` failed: exit code 100", vec!["E: held broken packages".to_owned()]));
}
