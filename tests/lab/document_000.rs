//! Document 000 on real hosts: three masters, each with a proxy of its own, Secrets encrypted in etcd, an aggregation layer.

use std::collections::BTreeSet;

use crate::documents::{Deviations, Master, deployed};
use crate::renewal::Masters;
use crate::support::Lab;

const MASTERS: [(&str, &str); 3] = [("k8scloud1", "172.16.20.1"), ("k8scloud2", "172.16.20.2"), ("k8scloud3", "172.16.20.3")];
const ENDPOINTS: &str = "https://172.16.20.1:2379,https://172.16.20.2:2379,https://172.16.20.3:2379";
const CERT: &str = "/etc/kubernetes/cert";
const SITE: &str = "playbooks/site.lua";

#[test]
fn document_000_from_empty_hosts() {
    let lab = deployed("inventory/k8scloud.yaml");
    the_hosts_are_as_the_document_says(&lab);
    its_checks_succeed(&lab);
    secrets_are_encrypted(&lab);
    requests_are_written_down(&lab);
    tokens_and_strangers(&lab);
    the_aggregation_layer_has_an_authority_of_its_own(&lab);
    certificates_are_renewed(&lab);
    the_aggregation_layer_has_an_authority_of_its_own(&lab);
}

fn certificates_are_renewed(lab: &Lab) {
    let masters = Masters {
        lab,
        names: &MASTERS.map(|(host, _)| host),
        ssl: CERT,
        certificates: &["kubernetes", "admin", "proxy-client", "kube-controller-manager", "kube-scheduler"],
        address: "https://127.0.0.1:8443",
    };
    masters.renewed_by("playbooks/renew-certs.lua", &[]);
    lab.play_book(SITE, &["--check"]).nothing_to_do();
}

fn the_hosts_are_as_the_document_says(lab: &Lab) {
    let deviations = Deviations::of("000");
    let explained: Vec<&str> = include_str!("documents/000-explained-flags").lines().filter(|line| line.starts_with("--")).collect();
    for (host, address) in MASTERS {
        let unit = include_str!("documents/000-kube-apiserver.service")
            .replace("##NODE_IP##", address)
            .replace("${ETCD_ENDPOINTS}", ENDPOINTS)
            .replace("${K8S_DIR}", "/data/k8s/k8s");
        let master = Master { lab, host, deviations: &deviations };
        master.holds_flags(&unit, &explained);
        master.explains(&explained);
        master.holds_unit(&unit, "/etc/systemd/system/kube-apiserver.service");
        master.holds_paths(include_str!("documents/000-paths"));
    }
    // The configuration is the document's but for the key, which is the same everywhere and not the published one.
    let configs: BTreeSet<String> = MASTERS.map(|(host, _)| lab.sh(host, "cat /etc/kubernetes/encryption-config.yaml").success()).into();
    assert_eq!(configs.len(), 1);
    let document = include_str!("documents/000-encryption-config.yaml");
    let published = "lU9S9JnBJuVEqj6F7OyMAChw3T7cZwl16KmJ8gQtOnw=";
    let without_key = |text: &str| text.lines().filter(|line| !line.contains("secret: ")).collect::<Vec<_>>().join("\n");
    for config in configs {
        assert_eq!(without_key(&config), without_key(document));
        assert!(document.contains(published) && !config.contains(published));
    }
}

fn its_checks_succeed(lab: &Lab) {
    for (host, _) in MASTERS {
        assert!(lab.sh(host, "systemctl status kube-apiserver | grep Active:").success().contains("active (running)"));
        assert_eq!(lab.sh(host, "systemctl is-enabled kube-apiserver").success(), "enabled\n");
        let info = lab.sh(host, "kubectl cluster-info").success();
        assert!(info.contains("is running at") && info.contains("https://127.0.0.1:8443"), "{info}");
        let all = lab.sh(host, "kubectl get all --all-namespaces").success();
        assert!(all.contains("service/kubernetes") && all.contains("10.254.0.1") && all.contains("443/TCP"), "{all}");
        let listening = lab.sh(host, "ss -Hlnpt").success();
        let listens = |port: &str, name: &str| listening.lines().any(|line| line.contains(&format!("{port} ")) && line.contains(name));
        assert!(listens(":6443", "kube-apiserver"), "{listening}");
        assert!(listens("127.0.0.1:8443", "nginx"), "{listening}");
        assert!(!listening.contains(":8080 "), "{listening}");
    }
    let components = lab.sh("k8scloud2", "kubectl get componentstatuses -o yaml").success();
    for name in ["controller-manager", "scheduler", "etcd-0", "etcd-1", "etcd-2"] {
        assert!(components.contains(&format!("name: {name}\n")), "{name} in {components}");
    }
    assert_eq!(components.matches("type: Healthy").count(), 5, "{components}");
    // Kubelets let the apiserver's user in.
    let may = "kubectl auth can-i create nodes --subresource=proxy --as=kubernetes";
    assert_eq!(lab.sh("k8scloud1", may).success(), "yes\n");
    assert_eq!(lab.sh("k8scloud1", "kubectl auth can-i create nodes --subresource=proxy --as=somebody || true").success(), "no\n");
}

fn secrets_are_encrypted(lab: &Lab) {
    lab.sh("k8scloud1", "kubectl create secret generic hidden --from-literal=word=plainly-to-be-seen").success();
    let get = format!(
        "ETCDCTL_API=3 etcdctl --endpoints={ENDPOINTS} --cacert={CERT}/ca.pem --cert={CERT}/kubernetes.pem --key={CERT}/kubernetes-key.pem \
         get /registry/secrets/default/hidden --print-value-only | tr -c '[:print:]' . "
    );
    let stored = lab.sh("k8scloud3", &get).success();
    assert!(stored.starts_with("k8s:enc:aescbc:v1:key1:") && !stored.contains("plainly-to-be-seen"), "{stored}");
    // Every master reads what one has written.
    for (host, address) in MASTERS {
        let read = format!("kubectl --server=https://{address}:6443 get secret hidden -o jsonpath='{{.data.word}}' | base64 -d");
        assert_eq!(lab.sh(host, &read).success(), "plainly-to-be-seen");
    }
}

fn requests_are_written_down(lab: &Lab) {
    let entries: usize = MASTERS
        .iter()
        .map(|(host, _)| {
            lab.sh(host, "grep '\"name\":\"hidden\"' /data/k8s/k8s/kube-apiserver/audit.log | grep '\"verb\":\"create\"' || true").success()
        })
        .map(|found| {
            assert!(found.lines().all(|entry| entry.contains("\"level\":\"Metadata\"") && !entry.contains("requestObject")), "{found}");
            found.lines().count()
        })
        .sum();
    assert_eq!(entries, 1, "the policy has Secrets written down at the level Metadata");
}

fn tokens_and_strangers(lab: &Lab) {
    let ask = |address: &str, more: &str| {
        let script = format!("curl -s -o /dev/null -w '%{{http_code}}' --cacert {CERT}/ca.pem {more} https://{address}:6443/api/v1/nodes");
        lab.sh("k8scloud1", &script).success()
    };
    let token = lab.token("k8scloud1");
    for (_, address) in MASTERS {
        assert_eq!(ask(address, ""), "401", "nobody is let in without a name");
        assert_eq!(ask(address, "-H 'Authorization: Bearer nobody.knows.this'"), "401");
        // Forbidden is what a client is that has been recognised.
        assert_eq!(ask(address, &format!("-H 'Authorization: Bearer {token}'")), "403");
    }
}

fn the_aggregation_layer_has_an_authority_of_its_own(lab: &Lab) {
    let ask = |certificate: &str| {
        let script = format!(
            "curl -s -o /dev/null -w '%{{http_code}}' --cacert {CERT}/ca.pem --cert {CERT}/{certificate}.pem --key {CERT}/{certificate}-key.pem \
             -H 'X-Remote-User: admin' -H 'X-Remote-Group: system:masters' https://172.16.20.2:6443/api/v1/pods"
        );
        lab.sh("k8scloud1", &script).success()
    };
    assert_eq!(ask("proxy-client"), "200", "the aggregator says for whom it asks");
    assert_eq!(ask("kubernetes"), "403", "a client of the cluster does not");
}
