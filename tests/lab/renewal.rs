//! Certificates that are issued anew: all of them, on one master after the other, and everything that uses them starts anew with them.

use std::collections::BTreeMap;

use crate::client::Client;
use crate::support::Lab;

/// Masters, each with a member of etcd and controllers, and what belongs to them.
pub struct Masters<'a> {
    /// Their lab.
    pub lab: &'a Lab,
    /// Their names.
    pub names: &'a [&'a str],
    /// Folder of their certificates.
    pub ssl: &'a str,
    /// The certificates in it.
    pub certificates: &'a [&'a str],
    /// Where clients on the last of them reach all apiservers.
    pub address: &'a str,
}

impl Masters<'_> {
    /// Runs a playbook while a client works. Afterwards all certificates are others, all keys are the same, and what is served is
    /// what lies on the disk.
    #[track_caller]
    pub fn renewed_by(&self, playbook: &str, arguments: &[&str]) {
        let before = self.certificates();
        let keys = self.keys();
        let client = Client::of(self.lab, self.names, self.ssl, self.address);
        self.lab.play_book(playbook, arguments);
        client.is_content(playbook);
        let after = self.certificates();
        for (file, serial) in &before {
            assert!(after[file] != *serial, "{file} is as old as before");
        }
        assert_eq!(self.keys(), keys, "keys stay");
        self.are_served(&after);
        self.lab.kplay(&["playbooks/verify.lua"]).success();
    }

    /// Insists that a forecast of a playbook lists all certificates, and beside them only what follows from that.
    #[track_caller]
    pub fn are_found_by(&self, playbook: &str) {
        let seen = self.lab.play_book(playbook, &["--check"]).summary();
        let due: Vec<String> = seen
            .iter()
            .filter_map(|change| change.split_once(" certificate update "))
            .map(|(host, file)| format!("{host} {}", file.trim_matches('"')))
            .collect();
        let mut expected: Vec<String> = self.certificates().into_keys().collect();
        expected.sort();
        let mut due = due;
        due.sort();
        assert_eq!(due, expected, "{playbook} --check: {seen:?}");
        let follows = |change: &&String| !change.contains(" unit re") && !change.contains("nginx.conf");
        assert_eq!(seen.iter().filter(follows).count(), expected.len(), "{seen:?}");
    }

    /// The number of each certificate, by host and path.
    fn certificates(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for host in self.names {
            let files: Vec<String> = self.certificates.iter().map(|name| format!("{}/{name}.pem", self.ssl)).collect();
            let script = format!(
                "for file in {} /etc/etcd/ssl/etcd.pem; do echo $file $(openssl x509 -noout -serial -in $file); done",
                files.join(" ")
            );
            for line in self.lab.sh(host, &script).success().lines() {
                let (file, serial) = line.split_once(" serial=").unwrap_or_else(|| panic!("{host}: {line}"));
                found.insert(format!("{host} {file}"), serial.to_owned());
            }
        }
        found
    }

    fn keys(&self) -> Vec<String> {
        self.names
            .iter()
            .map(|host| self.lab.sh(host, &format!("sha256sum {}/*-key.pem /etc/etcd/ssl/*-key.pem", self.ssl)).success())
            .collect()
    }

    /// Whoever listens shows the certificate that lies on the disk: it has been started with it.
    fn are_served(&self, certificates: &BTreeMap<String, String>) {
        for host in self.names {
            let of = |file: String| &certificates[&format!("{host} {file}")];
            let own = |name: &str| of(format!("{}/{name}.pem", self.ssl));
            for (port, serial) in [
                (6443, own("kubernetes")),
                (2379, of("/etc/etcd/ssl/etcd.pem".to_owned())),
                (2380, of("/etc/etcd/ssl/etcd.pem".to_owned())),
                (10257, own("kube-controller-manager")),
                (10259, own("kube-scheduler")),
            ] {
                let address = if port == 2380 { "$(hostname -i | cut -d' ' -f1)" } else { "127.0.0.1" };
                let script = format!("openssl s_client -connect {address}:{port} </dev/null 2>/dev/null | openssl x509 -noout -serial");
                assert_eq!(self.lab.sh(host, &script).success().trim(), format!("serial={serial}"), "{host}:{port}");
            }
        }
    }
}
