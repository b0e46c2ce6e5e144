//! What somebody has changed by hand on a deployed cluster: a forecast lists exactly that, and a run mends exactly that. And what a
//! forecast of a procedure touches: nothing.
//!
//! The cluster is the one that `document_001` has deployed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::{Events, Lab};

const HOSTS: [&str; 4] = ["hdss7-11", "hdss7-12", "hdss7-21", "hdss7-22"];
const MASTERS: [&str; 2] = ["hdss7-21", "hdss7-22"];

/// A host, what is done to it by hand, and all changes that a run makes of that.
type Damage = (&'static str, &'static str, &'static [&'static str]);

const NODES: &[Damage] = &[
    ("hdss7-11", "sysctl -qw net.ipv4.tcp_keepalive_time=7200", &["kernel-parameter update \"net.ipv4.tcp_keepalive_time\""]),
    (
        "hdss7-12",
        "sed -i 's/^net.core.somaxconn.*/net.core.somaxconn = 128/' /etc/sysctl.d/90-kubernetes.conf",
        &["file update \"/etc/sysctl.d/90-kubernetes.conf\""],
    ),
    ("hdss7-22", "rm /etc/sysctl.d/90-kubernetes.conf", &["file create \"/etc/sysctl.d/90-kubernetes.conf\""]),
];

const APISERVER: &[Damage] = &[
    (
        "hdss7-12",
        "chmod 0750 /var/lib/etcd; systemctl disable -q etcd",
        &["attributes update \"/var/lib/etcd\"", "unit enable \"etcd.service\""],
    ),
    (
        "hdss7-21",
        "chmod 0644 /etc/kubernetes/server/ssl/apiserver-key.pem; chmod 0640 /root/.kube/config; rm /usr/local/bin/kubelet",
        &[
            "attributes update \"/etc/kubernetes/server/ssl/apiserver-key.pem\"",
            "attributes update \"/root/.kube/config\"",
            "link create \"/usr/local/bin/kubelet\"",
        ],
    ),
    // The process was started with what the unit says again afterwards: it need not restart.
    (
        "hdss7-21",
        "sed -i 's/--v 2/--v 6/' /usr/lib/systemd/system/kube-apiserver.service; systemctl disable -q kube-apiserver",
        &[
            "file update \"/usr/lib/systemd/system/kube-apiserver.service\"",
            "systemd daemon-reload \"systemd\"",
            "unit enable \"kube-apiserver.service\"",
        ],
    ),
    (
        "hdss7-22",
        "systemctl stop kube-apiserver; rm /etc/kubernetes/server/ssl/client.pem; echo >> /etc/kubernetes/server/conf/audit.yml",
        &[
            "certificate create \"/etc/kubernetes/server/ssl/client.pem\"",
            "file update \"/etc/kubernetes/server/conf/audit.yml\"",
            "unit start \"kube-apiserver.service\"",
        ],
    ),
];

const PROXY: &[Damage] = &[
    (
        "hdss7-11",
        "sed -i 's/proxy_timeout 900s/proxy_timeout 9s/' /etc/nginx/nginx.conf; systemctl reload nginx; systemctl stop keepalived; \
         systemctl disable -q keepalived nginx; chmod 0600 /etc/keepalived/check_port.sh",
        &[
            "attributes update \"/etc/keepalived/check_port.sh\"",
            "file update \"/etc/nginx/nginx.conf\"",
            "unit enable \"keepalived.service\"",
            "unit enable \"nginx.service\"",
            "unit reload \"nginx.service\"",
            "unit start \"keepalived.service\"",
        ],
    ),
    (
        "hdss7-12",
        "sed -i 's/priority 90/priority 99/' /etc/keepalived/keepalived.conf; chmod 0644 /etc/keepalived/keepalived.conf; \
         systemctl restart keepalived; sed -i /10.4.7.22/d /etc/nginx/nginx.conf; systemctl restart nginx",
        &[
            "file update \"/etc/keepalived/keepalived.conf\"",
            "file update \"/etc/nginx/nginx.conf\"",
            "unit reload \"keepalived.service\"",
            "unit reload \"nginx.service\"",
        ],
    ),
];

const CONTROLLERS: &[Damage] = &[
    (
        "hdss7-21",
        "chmod 0644 /etc/kubernetes/server/conf/kube-scheduler.kubeconfig; systemctl stop kube-controller-manager; \
         systemctl disable -q kube-scheduler; rm /etc/kubernetes/server/ssl/kube-controller-manager.pem",
        &[
            "attributes update \"/etc/kubernetes/server/conf/kube-scheduler.kubeconfig\"",
            "certificate create \"/etc/kubernetes/server/ssl/kube-controller-manager.pem\"",
            "unit enable \"kube-scheduler.service\"",
            "unit start \"kube-controller-manager.service\"",
        ],
    ),
    // This one has been started with what was changed by hand.
    (
        "hdss7-22",
        "sed -i s/leader-elect=true/leader-elect=false/ /usr/lib/systemd/system/kube-scheduler.service; systemctl daemon-reload; \
         systemctl restart kube-scheduler",
        &["file update \"/usr/lib/systemd/system/kube-scheduler.service\"", "unit restart \"kube-scheduler.service\""],
    ),
    (
        "hdss7-22",
        "sed -i s/127.0.0.1:6443/127.0.0.2:6443/ /etc/kubernetes/server/conf/kube-controller-manager.kubeconfig; \
         systemctl stop kube-controller-manager; systemctl disable -q kube-controller-manager",
        &[
            "file update \"/etc/kubernetes/server/conf/kube-controller-manager.kubeconfig\"",
            "unit enable \"kube-controller-manager.service\"",
            "unit start \"kube-controller-manager.service\"",
        ],
    ),
];

/// Each playbook that brings hosts to a state finds and mends what belongs to it; site.lua finds and mends all of it at once.
pub fn drift_is_listed_and_mended(lab: &Lab) {
    let parts = [("nodes", NODES), ("apiserver", APISERVER), ("proxy", PROXY), ("controllers", CONTROLLERS)];
    let all: Vec<Damage> = parts.iter().flat_map(|(_, damages)| damages.iter().copied()).collect();
    for (playbook, damages) in parts.into_iter().chain([("site", &all[..])]) {
        let playbook = format!("playbooks/{playbook}.lua");
        let nothing = |arguments: &[&str]| assert_eq!(lab.play_book(&playbook, arguments).summary(), [""; 0], "{playbook}");
        nothing(&["--check", "--diff"]);
        for (host, damage, _) in damages {
            lab.sh(host, damage).success();
        }
        let mut expected: Vec<String> =
            damages.iter().flat_map(|(host, _, changes)| changes.iter().map(move |change| format!("{host} {change}"))).collect();
        expected.sort();
        the_address_has_arrived(lab);
        let before = state(lab, &HOSTS);
        assert_eq!(sorted(&lab.play_book(&playbook, &["--check", "--diff"])), expected, "{playbook} --check");
        same(&before, &state(lab, &HOSTS), &playbook);
        assert_eq!(sorted(&lab.play_book(&playbook, &[])), expected, "{playbook}");
        nothing(&["--check", "--diff"]);
    }
}

/// Whoever loses keepalived loses the address: waits until somebody else has taken it.
fn the_address_has_arrived(lab: &Lab) {
    let end = Instant::now() + Duration::from_secs(20);
    let holds = |host: &&str| !lab.sh(host, "ip -o -4 address show to 10.4.7.10").success().is_empty();
    while ["hdss7-11", "hdss7-12"].iter().filter(|host| holds(host)).count() != 1 {
        assert!(Instant::now() < end, "nobody holds the address");
    }
}

fn sorted(events: &Events) -> Vec<String> {
    let mut changes = events.summary();
    changes.sort();
    changes
}

/// All certificates, and all that was started with them.
pub fn renewal_is_foreseen(lab: &Lab) {
    let before = state(lab, &HOSTS);
    let foreseen: BTreeSet<String> = lab.play_book("playbooks/renew-certs.lua", &["--check", "--diff"]).summary().into_iter().collect();
    same(&before, &state(lab, &HOSTS), "renew-certs.lua");
    let mut expected: BTreeSet<String> = ["certificate update \"/etc/etcd/ssl/etcd.pem\"", "unit restart \"etcd.service\""]
        .map(|change| format!("hdss7-12 {change}"))
        .into();
    for master in MASTERS {
        for name in ["client", "apiserver", "admin", "kube-controller-manager", "kube-scheduler"] {
            expected.insert(format!("{master} certificate update \"/etc/kubernetes/server/ssl/{name}.pem\""));
        }
        expected.insert(format!("{master} certificate update \"/etc/etcd/ssl/etcd.pem\""));
        for unit in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            expected.insert(format!("{master} unit restart \"{unit}.service\""));
        }
    }
    // Masters are drained at the proxies meanwhile.
    for proxy in ["hdss7-11", "hdss7-12"] {
        expected.insert(format!("{proxy} file update \"/etc/nginx/nginx.conf\""));
        expected.insert(format!("{proxy} unit reload \"nginx.service\""));
    }
    assert_eq!(foreseen, expected);
}

/// A procedure tells its steps in a forecast, and does none.
pub fn procedures_only_list_their_steps(lab: &Lab) {
    let before = state(lab, &HOSTS);
    for (procedure, step) in [
        ("rotate-encryption-key", "4. drop the old key on all masters"),
        ("rotate-service-account-key", "2. sign with the new key"),
        ("failover-drill", "3. stop nginx on the holder"),
        ("failback", "3. restart keepalived on the proxy that holds the address"),
        ("scale", "have hosts of the group `etcd` that are no members join it"),
    ] {
        let said = lab.kplay(&[&format!("playbooks/{procedure}.lua"), "--check"]).success();
        assert!(said.contains(step) && said.contains("nothing would change"), "{said}");
    }
    same(&before, &state(lab, &HOSTS), "procedures");
}

/// Insists that nothing has been touched.
#[track_caller]
pub fn same(before: &BTreeSet<String>, after: &BTreeSet<String>, what: &str) {
    let differences: Vec<_> = before.symmetric_difference(after).collect();
    assert!(differences.is_empty(), "the forecast of {what} has touched {differences:#?}");
}

/// All that a run could have touched, line by line: files with their times, services, kernel parameters, addresses; what etcd holds,
/// its members; the controller's authorities and keys. Leases are renewed all the time, whoever looks.
pub fn state(lab: &Lab, hosts: &[&str]) -> BTreeSet<String> {
    const HOST: &str = r"
        find /etc /usr/lib/systemd /usr/local /root /var/lib -path /var/lib/etcd -prune -o -path /root/.kube/cache -prune -o \
          -printf '%p %y %m %u %g %s %T@ %C@ %l\n'
        for unit in nginx keepalived etcd kube-apiserver kube-controller-manager kube-scheduler; do
          echo $(systemctl show -p Id,InvocationID,ActiveState,UnitFileState,StateChangeTimestampMonotonic $unit)
        done
        sysctl net.core.somaxconn net.ipv4.tcp_keepalive_time
        ip -o -4 address
        test -d /var/lib/etcd/member || exit 0
        ask() {
          ETCDCTL_API=3 etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/ssl/ca.pem --cert=/etc/etcd/ssl/etcd.pem \
            --key=/etc/etcd/ssl/etcd-key.pem $@
        }
        ask member list
        ask get / --prefix --keys-only -w fields | awk '/^.Key/ { key = $3 } /^.ModRevision/ { print key, $3 }' |
          grep -vE '^./registry/(leases|masterleases|events)/'
    ";
    let mut lines = BTreeSet::new();
    for host in hosts {
        let told = lab.sh(host, HOST).success();
        lines.extend(told.lines().map(|line| format!("{host}: {line}")));
    }
    assert!(lines.iter().any(|line| line.contains("\"/registry/namespaces/default\"")), "etcd tells what it holds");
    let controller = std::process::Command::new("find").arg(lab.folder().join("pki")).args(["-printf", "%p %m %s %T@\n"]).output().unwrap();
    lines.extend(String::from_utf8_lossy(&controller.stdout).lines().map(|line| format!("controller: {line}")));
    lines
}
