//! Document 002 on real hosts: three masters that find each other by name, flags in environment files, nginx on a machine of its own.

use crate::documents::{Deviations, Master, deployed, flags};
use crate::renewal::Masters;
use crate::support::Lab;

const MASTERS: [(&str, &str); 3] = [("k8s-2", "192.168.103.146"), ("k8s-3", "192.168.103.147"), ("k8s-4", "192.168.103.148")];
const SSL: &str = "/etc/kubernetes/ssl";
const SITE: &str = "playbooks/site.lua";

#[test]
fn document_002_from_empty_hosts() {
    let lab = deployed("inventory/k8s-1-6.yaml");
    the_hosts_are_as_the_document_says(&lab);
    what_is_translated_says_why(&lab);
    the_masters_are_reached_by_name(&lab);
    a_kubelet_can_begin_with_its_token(&lab);
    certificates_are_renewed_in_time(&lab);
}

/// Certificates that are due soon are found by whoever brings hosts to their state, not only by renew-certs.lua.
fn certificates_are_renewed_in_time(lab: &Lab) {
    let masters = Masters {
        lab,
        names: &MASTERS.map(|(host, _)| host),
        ssl: SSL,
        certificates: &["kubernetes", "admin", "kube-proxy", "kube-controller-manager", "kube-scheduler"],
        address: "https://k8s-1:7443",
    };
    masters.renewed_by("playbooks/renew-certs.lua", &["-e", "lifetime=80d", "-e", "renew_before=10d"]);
    masters.are_found_by(SITE);
    masters.renewed_by(SITE, &[]);
    lab.play_book(SITE, &["--check"]).nothing_to_do();
}

fn the_hosts_are_as_the_document_says(lab: &Lab) {
    let deviations = Deviations::of("002");
    for (host, address) in MASTERS {
        let own = include_str!("documents/002-apiserver").replace("192.168.103.146", address);
        let shared = include_str!("documents/002-config");
        let master = Master { lab, host, deviations: &deviations };
        master.holds_flags(&format!("{shared}{own}"), &[]);
        master.holds_unit(include_str!("documents/002-kube-apiserver.service"), "/usr/lib/systemd/system/kube-apiserver.service");
        master.holds_paths(include_str!("documents/002-paths"));
        assert_eq!(lab.sh(host, "cat /etc/kubernetes/config").success(), shared);
        // Each variable has what the document gives it, but for the flags in the table.
        let seen = lab.sh(host, "cat /etc/kubernetes/apiserver").success();
        for line in own.lines().filter(|line| !line.starts_with("KUBE_API_ARGS") && !line.starts_with("KUBE_ADMISSION_CONTROL")) {
            assert!(seen.lines().any(|other| other == line), "{line} in {seen}");
        }
        assert!(lab.sh(host, "systemctl status kube-apiserver").success().contains("active (running)"));
        assert_eq!(lab.sh(host, "systemctl is-enabled kube-apiserver").success(), "enabled\n");
    }
    assert!(flags(include_str!("documents/002-apiserver")).len() > 15);
}

/// Nothing that the release does not know is dropped in silence.
fn what_is_translated_says_why(lab: &Lab) {
    let seen = lab.sh("k8s-3", "cat /etc/kubernetes/apiserver").success();
    for remark in [
        "# --admission-control is --enable-admission-plugins here: ",
        "# --experimental-bootstrap-token-auth is --enable-bootstrap-token-auth here: ",
        "# --kubelet-https=true is left out: ",
        "# --enable-swagger-ui=true is left out: ",
    ] {
        assert!(seen.contains(remark), "{remark} in {seen}");
    }
    assert!(seen.contains("KUBE_ADMISSION_CONTROL=\"--enable-admission-plugins=ServiceAccount,NamespaceLifecycle,"), "{seen}");
    lab.edit("inventory/k8s-1-6.yaml", "admission_plugins: [ServiceAccount, ", "admission_plugins: [");
    let refused = lab.kplay(&[SITE, "--check"]).failure(1);
    assert!(refused.contains("--admission-control has to contain ServiceAccount"), "{refused}");
    lab.edit("inventory/k8s-1-6.yaml", "admission_plugins: [", "admission_plugins: [ServiceAccount, ");
}

fn the_masters_are_reached_by_name(lab: &Lab) {
    let reserved =
        lab.sh("k8s-1", "cat /proc/sys/net/ipv4/ip_local_reserved_ports; grep -c reserved_ports /etc/sysctl.d/90-kubernetes.conf");
    assert_eq!(reserved.success(), "2379-2380,6443,7443,8443,10250-10259\n1\n");
    for (host, address) in MASTERS {
        assert_eq!(lab.sh("k8s-1", &format!("getent hosts {host}")).success().split_whitespace().next(), Some(address));
        let ready = format!("curl -s --cacert {SSL}/ca.pem --cert {SSL}/admin.pem --key {SSL}/admin-key.pem https://{host}:6443/readyz");
        assert_eq!(lab.sh("k8s-2", &ready).success(), "ok");
        assert!(lab.sh(host, "ls /var/lib/k8s").success().contains("kube-apiserver.INFO"), "logs are files");
    }
    let through_nginx = format!("curl -s --cacert {SSL}/ca.pem --cert {SSL}/admin.pem --key {SSL}/admin-key.pem https://k8s-1:7443/readyz");
    assert_eq!(lab.sh("k8s-4", &through_nginx).success(), "ok");
}

fn a_kubelet_can_begin_with_its_token(lab: &Lab) {
    let who = format!("kubectl --kubeconfig={SSL}/bootstrap.kubeconfig get nodes 2>&1 || true");
    let said = lab.sh("k8s-4", &who).success();
    assert!(said.contains("User \"kubelet-bootstrap\" cannot list resource"), "{said}");
    for (host, _) in MASTERS {
        assert_eq!(lab.sh(host, "stat -c '%a %U' /etc/kubernetes/token.csv").success(), "600 root\n");
    }
    // A token that one master signed, the others know.
    let token = lab.token("k8s-2");
    for (_, address) in MASTERS {
        let script = format!(
            "curl -s -o /dev/null -w '%{{http_code}}' --cacert {SSL}/ca.pem -H 'Authorization: Bearer {token}' https://{address}:6443/api/v1/nodes"
        );
        assert_eq!(lab.sh("k8s-3", &script).success(), "403");
    }
    // The audit log has requests for Secrets, and only their metadata.
    lab.sh("k8s-2", "kubectl create secret generic hidden --from-literal=word=unseen").success();
    let log = lab.sh("k8s-2", "grep '\"name\":\"hidden\"' /var/lib/k8s/apiserver.log").success();
    assert!(log.contains("\"level\":\"Metadata\"") && !log.contains("requestObject"), "{log}");
}
