//! What is done to a running control plane: upgrades, renewals, rotations, while a client goes on reading and writing.
//!
//! The second release of an upgrade is the lab's own build with another version of the same length written into it: the same
//! program that calls itself v1.20.3. The one that does not start is a script.

use std::path::PathBuf;
use std::process::Command;

use crate::client::Client;
use crate::drift;
use crate::support::{Lab, run};

const MASTERS: [&str; 2] = ["hdss7-21", "hdss7-22"];
const HOSTS: [&str; 4] = ["hdss7-11", "hdss7-12", "hdss7-21", "hdss7-22"];
const SSL: &str = "/etc/kubernetes/server/ssl";

#[test]
fn a_control_plane_is_operated_while_clients_work() {
    let lab = Lab::of_repository();
    for playbook in ["playbooks/apiserver.lua", "playbooks/proxy.lua"] {
        lab.kplay(&[playbook]).success();
    }
    verify_says_what_is_wrong(&lab);
    let archives = Archives::new(&lab);
    an_upgrade_goes_from_master_to_master(&lab, &archives);
    an_upgrade_to_what_does_not_start_touches_one_master(&lab, &archives);
    certificates_are_renewed(&lab);
    a_flag_is_changed(&lab);
    the_service_accounts_key_is_rotated(&lab);
    the_encryption_key_is_rotated(&lab);
    what_has_expired_everywhere_is_brought_back(&lab);
}

/// No member of etcd is healthy for anybody who asks, and no apiserver ready: nobody can stand in for anybody.
fn what_has_expired_everywhere_is_brought_back(lab: &Lab) {
    let authority = lab.folder().join("pki/hdss7");
    let issue = "d=$(mktemp -d) && touch $d/index && printf '[ca]\ndefault_ca=d\n[d]\ndatabase=%s\nrand_serial=yes\nnew_certs_dir=%s\n\
        default_md=sha256\npolicy=p\ncopy_extensions=copy\nunique_subject=no\n[p]\ncommonName=supplied\n' $d/index $d > $d/conf && openssl ca -batch -notext \
        -config $d/conf -cert $0/ca.pem -keyfile $0/ca-key.pem -startdate 20200101000000Z -enddate 20200102000000Z -in $1 2>$d/why || { cat $d/why >&2; exit 1; }";
    for (host, folder, names) in [
        ("hdss7-12", "/etc/etcd/ssl", &["etcd"][..]),
        (MASTERS[0], "/etc/etcd/ssl", &["etcd"]),
        (MASTERS[1], "/etc/etcd/ssl", &["etcd"]),
        (MASTERS[0], SSL, &["apiserver", "client"]),
        (MASTERS[1], SSL, &["apiserver", "client"]),
    ] {
        for name in names {
            let request = format!("openssl x509 -x509toreq -copy_extensions copy -in {folder}/{name}.pem -signkey {folder}/{name}-key.pem");
            let request = lab.sh(host, &request).success();
            std::fs::write(lab.folder().join("request.pem"), request).unwrap();
            let expired = run(Command::new("sh").args(["-c", issue]).arg(&authority).arg(lab.folder().join("request.pem")));
            lab.sh(host, &format!("cat > {folder}/{name}.pem <<'END'\n{expired}END")).success();
        }
    }
    let wrong = lab.kplay(&["playbooks/verify.lua"]);
    assert!(wrong.code == 2 && wrong.stdout.contains("etcd.pem has expired: run playbooks/renew-certs.lua"), "{}", wrong.stdout);
    lab.kplay(&["playbooks/renew-certs.lua"]).success();
    lab.kplay(&["playbooks/verify.lua"]).success();
    lab.play(&["--check"]).nothing_to_do();
}

/// Nothing is wrong with a new cluster; what is broken then is named, and the exit code says so.
fn verify_says_what_is_wrong(lab: &Lab) {
    let said = lab.kplay(&["playbooks/verify.lua", "--events", "verify.jsonl"]).success();
    assert!(said.contains("etcd can lose 1 more of its 3 members") && said.contains("holds 10.4.7.10"), "{said}");
    let events = std::fs::read_to_string(lab.folder().join("verify.jsonl")).unwrap();
    let row = events
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .find(|event| event["level"] == "debug" && event["host"] == "hdss7-21" && event["text"].as_str().unwrap().starts_with('{'))
        .unwrap();
    let row: serde_json::Value = serde_json::from_str(row["text"].as_str().unwrap()).unwrap();
    assert_eq!((&row["ready"], &row["processes"]["kube-apiserver"]["version"]), (&true.into(), &"v1.20.2".into()));

    for (host, damage, repair, complaint) in [
        (MASTERS[1], "systemctl stop kube-apiserver", "systemctl start kube-apiserver", "kube-apiserver is not ready"),
        (
            MASTERS[1],
            "echo >> /etc/kubernetes/server/conf/audit.yml",
            "sed -i '$d' /etc/kubernetes/server/conf/audit.yml",
            "--audit-policy-file /etc/kubernetes/server/conf/audit.yml differs from the other masters'",
        ),
        (
            "hdss7-11",
            "sed -i.bak s/:6443/:6444/ /etc/nginx/nginx.conf && systemctl reload nginx",
            "mv /etc/nginx/nginx.conf.bak /etc/nginx/nginx.conf && systemctl reload nginx",
            "no apiserver answers through it",
        ),
        ("hdss7-12", "systemctl stop etcd", "systemctl start etcd", "its member of etcd is not healthy"),
    ] {
        lab.sh(host, damage).success();
        let wrong = lab.kplay(&["playbooks/verify.lua"]);
        lab.sh(host, repair).success();
        assert!(wrong.code == 2 && wrong.stdout.contains(complaint), "after `{damage}`: code {}\n{}", wrong.code, wrong.stdout);
    }
    lab.kplay(&["playbooks/apiserver.lua"]).success();
    lab.kplay(&["playbooks/verify.lua", "--check"]).success();
}

fn an_upgrade_goes_from_master_to_master(lab: &Lab, archives: &Archives) {
    let arguments = archives.arguments("v1.20.3");
    let before = drift::state(lab, &HOSTS);
    let forecast = lab.kplay(&with("playbooks/upgrade.lua", &arguments, &["--check"])).success();
    assert!(forecast.contains("link /usr/local/kubernetes-server to /usr/local/kubernetes-server-v1.20.3"), "{forecast}");
    drift::same(&before, &drift::state(lab, &HOSTS), "upgrade.lua");

    let client = Client::begin(lab);
    lab.kplay(&with("playbooks/upgrade.lua", &arguments, &[])).success();
    client.is_content("upgrade");
    for master in MASTERS {
        assert_eq!(lab.sh(master, "kubectl version --short 2>/dev/null | grep Server").success(), "Server Version: v1.20.3\n");
    }
    lab.edit("inventory/hdss7.yaml", "    kubernetes_version: v1.20.2\n", &archives.variables("v1.20.3"));
    lab.play(&["--check"]).nothing_to_do();
}

/// One node is touched and undone by itself, the others go on, and the reason is told.
fn an_upgrade_to_what_does_not_start_touches_one_master(lab: &Lab, archives: &Archives) {
    let others = lab.sh(MASTERS[1], "systemctl show -p MainPID --value kube-apiserver").success();
    let client = Client::begin(lab);
    let ended = lab.kplay(&with("playbooks/upgrade.lua", &archives.arguments("v1.20.4"), &[]));
    assert_eq!(ended.code, 2, "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("this kube-apiserver does not start"), "the journal is shown:\n{}", ended.stdout);
    assert!(ended.stdout.contains("hdss7-21  is as it was before this play"), "{}", ended.stdout);
    client.is_content("upgrade to what does not start");
    for master in MASTERS {
        assert_eq!(lab.sh(master, "readlink /usr/local/kubernetes-server").success(), "/usr/local/kubernetes-server-v1.20.3\n");
        // The one that was undone has started just now: systemd calls it active before its last hooks have run.
        let ready =
            "for i in $(seq 120); do [ \"$(kubectl get --raw /readyz 2>&1)\" = ok ] && exit 0; sleep 0.5; done; kubectl get --raw /readyz";
        lab.sh(master, ready).success();
    }
    assert_eq!(lab.sh(MASTERS[1], "systemctl show -p MainPID --value kube-apiserver").success(), others, "it was not restarted");
    assert_eq!(lab.sh("hdss7-11", "grep -c ' down;' /etc/nginx/nginx.conf").stdout, "0\n", "clients are sent to all masters again");
    lab.kplay(&["playbooks/verify.lua"]).success();
    lab.play(&["--check"]).nothing_to_do();
}

fn certificates_are_renewed(lab: &Lab) {
    let fingerprints = || -> Vec<String> {
        let look = |host: &&str| {
            let files = format!("{SSL}/apiserver.pem {SSL}/client.pem {SSL}/admin.pem /etc/etcd/ssl/etcd.pem");
            let script = format!("for file in {files}; do openssl x509 -noout -serial -in $file; done; sha256sum {SSL}/*-key.pem");
            lab.sh(host, &script).success()
        };
        MASTERS.iter().flat_map(|host| look(host).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    let before = fingerprints();
    let client = Client::begin(lab);
    lab.kplay(&["playbooks/renew-certs.lua"]).success();
    client.is_content("renew-certs");
    let after = fingerprints();
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before == after, !before.starts_with("serial="), "certificates are new, keys are not: {before}, {after}");
    }
    // What is served is what lies on the disk.
    let served = format!(
        "openssl s_client -connect 127.0.0.1:6443 </dev/null 2>/dev/null | openssl x509 -noout -serial; openssl x509 -noout -serial -in {SSL}/apiserver.pem"
    );
    let served = lab.sh(MASTERS[0], &served).success();
    let served: Vec<&str> = served.lines().collect();
    assert_eq!(served[0], served[1]);
    lab.kplay(&["playbooks/verify.lua"]).success();
    lab.play(&["--check"]).nothing_to_do();
}

fn a_flag_is_changed(lab: &Lab) {
    lab.edit("inventory/hdss7.yaml", "    apiserver_log_level: 2\n", "    apiserver_log_level: 3\n");
    let client = Client::begin(lab);
    lab.play(&[]);
    client.is_content("change of a flag");
    lab.play(&["--check"]).nothing_to_do();
}

/// Tokens that the old key has signed are good until it is dropped, those of the new one on all masters from its first use on.
fn the_service_accounts_key_is_rotated(lab: &Lab) {
    lab.kplay(&["playbooks/rotate-service-account-key.lua", "--check"]).success();
    let token = || {
        let script = "kubectl get serviceaccount tester >/dev/null 2>&1 || kubectl create serviceaccount tester >/dev/null; \
                      echo '{\"apiVersion\":\"authentication.k8s.io/v1\",\"kind\":\"TokenRequest\",\"spec\":{}}' \
                      | kubectl create --raw /api/v1/namespaces/default/serviceaccounts/tester/token -f - \
                      | sed 's/.*\"token\":\"\\([^\"]*\\).*/\\1/'";
        lab.sh(MASTERS[0], script).success().trim().to_owned()
    };
    let asked = |master: &str, token: &str| {
        let url = "https://127.0.0.1:6443/api/v1/nodes";
        let script = format!("curl -s -o /dev/null -w '%{{http_code}}' --cacert {SSL}/ca.pem -H 'Authorization: Bearer {token}' {url}");
        lab.sh(master, &script).success()
    };
    let old = token();
    let client = Client::begin(lab);
    let said = lab.kplay(&["playbooks/rotate-service-account-key.lua"]).success();
    client.is_content("rotation of the service accounts' key");
    assert!(said.contains("run this again then"), "the old key has to live on: {said}");
    let new = token();
    for master in MASTERS {
        // Forbidden is what a client is that has been recognised.
        assert_eq!((asked(master, &old), asked(master, &new)), ("403".to_owned(), "403".to_owned()));
    }
    lab.kplay(&["playbooks/rotate-service-account-key.lua", "-e", "token_lifetime=0"]).success();
    for master in MASTERS {
        assert_eq!((asked(master, &old), asked(master, &new)), ("401".to_owned(), "403".to_owned()));
    }
    lab.kplay(&["playbooks/verify.lua"]).success();
    lab.play(&["--check"]).nothing_to_do();
}

/// Afterwards every Secret is encrypted with the new key, and can be read on all masters.
fn the_encryption_key_is_rotated(lab: &Lab) {
    let config = "/etc/kubernetes/encryption-config.yaml";
    lab.edit(
        "inventory/hdss7.yaml",
        "    planned_masters:",
        &format!("    encryption_config: {config}\n    encrypted_resources: [secrets, configmaps]\n    planned_masters:"),
    );
    // Masters change one after the other, and the client asks any of them for what any has written: none encrypts before all can read.
    let client = Client::begin(lab);
    lab.play(&[]);
    client.is_content("switching encryption on");
    lab.play(&["--check"]).nothing_to_do();
    lab.sh(
        MASTERS[0],
        "kubectl create secret generic one --from-literal=word=treasure; kubectl create configmap one --from-literal=word=gold",
    )
    .success();
    let kept = |kind: &str| {
        let ssl = "/etc/etcd/ssl";
        let script = format!(
            "ETCDCTL_API=3 etcdctl --endpoints=https://10.4.7.12:2379 --cacert={ssl}/ca.pem --cert={ssl}/etcd.pem --key={ssl}/etcd-key.pem \
             get /registry/{kind}/default/one | head -c 80 | tr -cd '[:print:]'"
        );
        lab.sh("hdss7-12", &script).success()
    };
    assert!(kept("secrets").contains("k8s:enc:aescbc:v1:key1:"), "{}", kept("secrets"));
    // What is encrypted stays readable.
    let refused = lab.kplay(&["playbooks/apiserver.lua", "-e", "{encrypted_resources: [secrets]}"]);
    assert!(refused.code == 2 && refused.stdout.contains("kube-apiserver encrypts configmaps"), "{}{}", refused.stdout, refused.stderr);
    let client = Client::begin(lab);
    // As long as nobody can say what is encrypted with the old key, it stays.
    lab.sh("hdss7-12", "mv /usr/bin/etcdctl /usr/bin/etcdctl.away").success();
    let stopped = lab.kplay(&["playbooks/rotate-encryption-key.lua"]);
    assert!(stopped.code == 2 && stopped.stdout.contains("what is encrypted with the old key"), "{}", stopped.stdout);
    assert_eq!(lab.sh(MASTERS[1], &format!("grep -c name: {config}")).success(), "2\n");
    lab.sh("hdss7-12", "mv /usr/bin/etcdctl.away /usr/bin/etcdctl").success();
    lab.kplay(&["playbooks/rotate-encryption-key.lua"]).success();
    client.is_content("rotation of the encryption key");
    for kind in ["secrets", "configmaps"] {
        assert!(kept(kind).contains("k8s:enc:aescbc:v1:key2:"), "{}", kept(kind));
    }
    for master in MASTERS {
        assert_eq!(lab.sh(master, "kubectl get secret one -o jsonpath='{.data.word}' | base64 -d").success(), "treasure");
        assert_eq!(lab.sh(master, "kubectl get configmap one -o jsonpath='{.data.word}'").success(), "gold");
        assert_eq!(lab.sh(master, &format!("grep -c name: {config}")).success(), "1\n", "the old key is gone");
    }
    lab.kplay(&["playbooks/verify.lua"]).success();
    lab.play(&["--check"]).nothing_to_do();
}

fn with<'a>(playbook: &'a str, arguments: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    std::iter::once(playbook).chain(arguments.iter().map(String::as_str)).chain(more.iter().copied()).collect()
}

/// Releases derived from the lab's own.
struct Archives {
    folder: PathBuf,
}

impl Archives {
    fn new(lab: &Lab) -> Self {
        let folder = lab.folder().join("archives");
        let built = kplay::lab::default_cache().join("kubernetes-server-linux-amd64.tar.gz");
        let script = r#"
            mkdir -p "$2/tree" && tar -C "$2/tree" -xzf "$1" && cd "$2/tree"
            LC_ALL=C sed -i 's/v1\.20\.2/v1.20.3/g' kubernetes/server/bin/kube-apiserver
            tar -czf ../v1.20.3.tar.gz kubernetes
            { printf '#!/bin/sh\ncase "$*" in *--version*) echo Kubernetes v1.20.4; exit ;; --help) cat <<"END"; exit ;; esac\n'
              kubernetes/server/bin/kube-apiserver --help
              printf 'END\necho "this kube-apiserver does not start" >&2\nexit 1\n'; } > script
            cat script > kubernetes/server/bin/kube-apiserver && rm script
            tar -czf ../v1.20.4.tar.gz kubernetes
            cd .. && rm -r tree
        "#;
        run(Command::new("sh").args(["-ec", script, "sh"]).arg(built).arg(&folder).env("GZIP", "-1"));
        Self { folder }
    }

    fn arguments(&self, version: &str) -> Vec<String> {
        let archive = self.folder.join(format!("{version}.tar.gz"));
        ["-e".to_owned(), format!("kubernetes_version={version}"), "-e".to_owned(), format!("kubernetes_archive={}", archive.display())]
            .into()
    }

    fn variables(&self, version: &str) -> String {
        let archive = self.folder.join(format!("{version}.tar.gz"));
        format!("    kubernetes_version: {version}\n    kubernetes_archive: {}\n", archive.display())
    }
}
