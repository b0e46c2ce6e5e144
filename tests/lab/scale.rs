//! Masters that come, go, and are lost, each with its member of etcd, while clients go on working.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::support::{Ended, Lab};

/// A third master joins, with a member of etcd, and leaves again.
#[test]
fn a_master_comes_goes_and_is_replaced() {
    let lab = &Lab::of_repository();
    for playbook in ["playbooks/apiserver.lua", "playbooks/proxy.lua"] {
        lab.kplay(&[playbook]).success();
    }
    a_lost_machine_is_replaced(lab);
    let three = members(lab);
    lab.edit(
        "inventory/hdss7.yaml",
        "        hdss7-22: { address: 10.4.7.22 }\n    masters:\n      hosts:\n",
        "        hdss7-22: { address: 10.4.7.22 }\n        hdss7-23: { address: 10.4.7.23 }\n    masters:\n      hosts:\n        hdss7-23:\n",
    );
    lab.kplay(&["lab", "up"]).success();
    what_is_not_fit_does_not_join(lab, &three);
    let client = Client::begin(lab);
    lab.kplay(&["playbooks/scale.lua"]).success();
    client.is_content("arrival of a master");
    assert_eq!(members(lab), format!("{three} started, hdss7-23, false\n"));
    assert_eq!(lab.sh("hdss7-23", "kubectl get --raw /readyz").success(), "ok");
    assert_eq!(lab.sh("hdss7-11", "grep -c 10.4.7.23:6443 /etc/nginx/nginx.conf").success(), "1\n");
    lab.kplay(&["playbooks/verify.lua"]).success();
    lab.play(&["--check"]).nothing_to_do();

    lab.edit(
        "inventory/hdss7.yaml",
        "        hdss7-23: { address: 10.4.7.23 }\n    masters:\n      hosts:\n        hdss7-23:\n",
        "    masters:\n      hosts:\n",
    );
    lab.edit(
        "inventory/hdss7.yaml",
        "  children:\n",
        "  children:\n    leaving:\n      hosts:\n        hdss7-23: { address: 10.4.7.23 }\n",
    );
    // As where each master has a proxy.
    let proxy = "mkdir -p /etc/nginx && echo 'upstream kube-apiserver {}' > /etc/nginx/nginx.conf &&
        printf '[Service]\\nExecStart=/bin/sleep 1000\\n[Install]\\nWantedBy=multi-user.target\\n' > /etc/systemd/system/nginx.service &&
        systemctl daemon-reload && systemctl enable --now nginx";
    lab.sh("hdss7-23", proxy).success();
    let client = Client::begin(lab);
    lab.kplay(&["playbooks/scale.lua"]).success();
    client.is_content("departure of a master");
    assert_eq!(members(lab), three);
    let gone = "systemctl is-active kube-apiserver etcd nginx; systemctl is-enabled kube-apiserver etcd nginx; ls /var/lib/etcd";
    assert_eq!(lab.sh("hdss7-23", gone).stdout, "inactive\ninactive\ninactive\ndisabled\ndisabled\ndisabled\n");
    lab.play(&["--check"]).nothing_to_do();
}

/// A machine on which a master could not work has not become a member of etcd when that is found.
fn what_is_not_fit_does_not_join(lab: &Lab, before: &str) {
    let late = "printf '#!/bin/sh\\nexec /bin/date -d \"1 hour\" \"$@\"\\n' > /usr/local/bin/date; chmod 755 /usr/local/bin/date";
    lab.sh("hdss7-23", late).success();
    let Ended { code, stdout, stderr } = lab.kplay(&["playbooks/scale.lua"]);
    assert_eq!(code, 2, "{stdout}{stderr}");
    assert!(stdout.contains("nothing is changed anywhere, since hdss7-23 failed") && stdout.contains("its clock differs"), "{stdout}");
    assert_eq!(members(lab), before);
    lab.sh("hdss7-23", "test ! -e /etc/etcd && rm /usr/local/bin/date").success();
}

/// A master is lost with all that it held, also its member of etcd, and comes back empty, under its name and address. The run that
/// takes it in again is killed half way, and the next one does the rest. Nobody else restarts, and clients go on working: at no time
/// has etcd been without its majority.
fn a_lost_machine_is_replaced(lab: &Lab) {
    let others = || {
        let script = "for unit in etcd kube-apiserver; do systemctl show -p MainPID --value $unit; done";
        ["hdss7-12", "hdss7-22"].map(|host| lab.sh(host, script).success())
    };
    let (whole, undisturbed) = (members(lab), others());
    hdss7_12_leads(lab);
    let client = Client::begin(lab);
    lab.lose("hdss7-21");
    // One cannot be reached, and the others stop since it is not known to be fit.
    let Ended { code, stdout, stderr } = lab.kplay(&["playbooks/scale.lua"]);
    assert_eq!(code, 2, "{stdout}{stderr}");
    assert!(stdout.contains("! hdss7-21  unreachable") && stdout.contains("nothing changed"), "{stdout}");
    lab.kplay(&["lab", "up"]).success();
    lab.sh("hdss7-21", "test ! -e /etc/etcd -a ! -e /etc/kubernetes -a ! -e /var/lib/etcd").success();
    let mut killed = lab.start(&["playbooks/scale.lua"]);
    let joins = Instant::now();
    while !members(lab).contains("hdss7-21, true") {
        assert!(joins.elapsed() < Duration::from_secs(120) && killed.try_wait().unwrap().is_none(), "{}", members(lab));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    lab.kplay(&["playbooks/scale.lua"]).success();
    // The others have known the address of this member before. As long as a learner answers there, writes that go to it are refused
    // and tried again, and the run that was killed leaves it so until the next one: 0 to 9 of about 900 requests have been seen.
    client.is_content_but_for("replacement of a master", 30);
    assert_eq!(members(lab), whole);
    assert_eq!(others(), undisturbed, "nobody else has restarted");
    assert_eq!(lab.sh("hdss7-21", "kubectl get --raw /readyz").success(), "ok");
    lab.kplay(&["playbooks/verify.lua"]).success();
    lab.play(&["--check"]).nothing_to_do();
}

/// Makes a member the leader of etcd that stays: to lose the leader costs an election, whoever runs what.
fn hdss7_12_leads(lab: &Lab) {
    let script = "export ETCDCTL_API=3 ETCDCTL_CACERT=/etc/etcd/ssl/ca.pem ETCDCTL_CERT=/etc/etcd/ssl/etcd.pem ETCDCTL_KEY=/etc/etcd/ssl/etcd-key.pem
        all=https://10.4.7.12:2379,https://10.4.7.21:2379,https://10.4.7.22:2379
        status() { etcdctl --endpoints=$all endpoint status; }
        id=$(status | grep 10.4.7.12: | cut -d, -f2 | tr -d ' ')
        leader=$(status | grep ', true, false' | cut -d, -f1)
        [ $leader = https://10.4.7.12:2379 ] || etcdctl --endpoints=$leader move-leader $id";
    lab.sh("hdss7-12", script).success();
}

/// The members of etcd: whether each is started, its name, and whether it is a learner.
fn members(lab: &Lab) -> String {
    let ssl = "/etc/etcd/ssl";
    let script = format!(
        "ETCDCTL_API=3 etcdctl --endpoints=https://10.4.7.12:2379 --cacert={ssl}/ca.pem --cert={ssl}/etcd.pem --key={ssl}/etcd-key.pem \
         member list | cut -d, -f2,3,6 | sort"
    );
    lab.sh("hdss7-12", &script).success()
}
