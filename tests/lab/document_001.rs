//! Document 001 on real hosts, with all that belongs to it: two masters, three members of etcd, two proxies and a shared address.

use crate::documents::{Deviations, Master, deployed};
use crate::drift;
use crate::support::Lab;

const MASTERS: [(&str, &str); 2] = [("hdss7-21", "10.4.7.21"), ("hdss7-22", "10.4.7.22")];
const SSL: &str = "/etc/kubernetes/server/ssl";

#[test]
fn document_001_from_empty_hosts() {
    let lab = deployed("inventory/hdss7.yaml");
    the_hosts_are_as_the_document_says(&lab);
    its_checks_succeed(&lab);
    the_shared_address_serves(&lab);
    there_is_one_leader(&lab);

    drift::drift_is_listed_and_mended(&lab);
    drift::renewal_is_foreseen(&lab);
    drift::procedures_only_list_their_steps(&lab);
    lab.kplay(&["playbooks/verify.lua"]).success();
}

fn the_hosts_are_as_the_document_says(lab: &Lab) {
    let deviations = Deviations::of("001");
    let unit = include_str!("documents/001-kube-apiserver.service");
    for (host, _) in MASTERS {
        let master = Master { lab, host, deviations: &deviations };
        master.holds_flags(unit, &[]);
        master.holds_unit(unit, "/usr/lib/systemd/system/kube-apiserver.service");
        master.holds_paths(include_str!("documents/001-paths"));
        assert_eq!(lab.sh(host, "cat /etc/kubernetes/server/conf/audit.yml").success(), include_str!("documents/001-audit.yml"));
    }
}

fn its_checks_succeed(lab: &Lab) {
    let curl = |more: &str, url: &str| format!("curl -sk --cert {SSL}/client.pem --key {SSL}/client-key.pem {more} https://{url}");
    for (host, address) in MASTERS {
        assert!(lab.sh(host, "systemctl status kube-apiserver | grep Active:").success().contains("active (running)"));
        assert!(lab.sh(host, "kubectl get ns").success().contains("kube-system"));
        // Line 559 and the document's last one.
        assert_eq!(lab.sh(host, &curl("", &format!("{address}:2379"))).success().trim(), "404 page not found");
        assert!(lab.sh(host, &curl("", &format!("{address}:6443/api/"))).success().contains("\"kind\": \"APIVersions\""));
        let log = lab.sh(host, "head -n 1 /var/logs/kubernetes/kube-apiserver/audit-log").success();
        assert!(log.contains("\"kind\":\"Event\""), "{log}");
    }
}

fn the_shared_address_serves(lab: &Lab) {
    let holders: Vec<&str> =
        ["hdss7-11", "hdss7-12"].into_iter().filter(|host| lab.sh(host, "ip addr").success().contains("inet 10.4.7.10/32")).collect();
    assert_eq!(holders.len(), 1, "{holders:?}");
    for host in ["hdss7-11", "hdss7-12"] {
        let listening = lab.sh(host, "ss -Hlnpt").success();
        assert!(listening.lines().any(|line| line.contains(":7443 ") && line.contains("nginx")), "{listening}");
        assert_eq!(
            lab.sh(host, "systemctl is-active nginx keepalived; systemctl is-enabled nginx keepalived").success(),
            "active\nactive\nenabled\nenabled\n"
        );
    }
    // A token of one master is good at the address of all.
    let token = lab.token("hdss7-21");
    let ask = |more: &str, path: &str| {
        let script = format!("curl -s -o /dev/null -w '%{{http_code}}' --cacert {SSL}/ca.pem {more} https://10.4.7.10:7443{path}");
        lab.sh("hdss7-22", &script).success()
    };
    assert_eq!(ask(&format!("--cert {SSL}/admin.pem --key {SSL}/admin-key.pem"), "/api/v1/nodes"), "200");
    for _ in 0..4 {
        assert_eq!(ask(&format!("-H 'Authorization: Bearer {token}'"), "/api/v1/nodes"), "403");
        assert_eq!(ask("-H 'Authorization: Bearer nobody.knows.this'", "/api/v1/nodes"), "401");
    }
}

fn there_is_one_leader(lab: &Lab) {
    for name in ["kube-controller-manager", "kube-scheduler"] {
        let holder =
            lab.sh("hdss7-22", &format!("kubectl get lease {name} -n kube-system -o jsonpath='{{.spec.holderIdentity}}'")).success();
        assert!(MASTERS.iter().any(|(host, _)| holder.starts_with(&format!("{host}_"))), "{name}: {holder}");
    }
    // It works: a new namespace has its account of its own accord.
    let account = "kubectl create namespace works >/dev/null && for i in $(seq 50); do kubectl get serviceaccount default -n works && exit 0; sleep 0.2; done; exit 1";
    lab.sh("hdss7-21", account).success();
}
