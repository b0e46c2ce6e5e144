//! The main job, from empty hosts to a running control plane, and everything that may happen to it afterwards.
//!
//! One test, since bringing all of it up is most of its time; each step says what it shows.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::frames;
use crate::support::{Events, Lab, Reported, run};

const SSL: &str = "/etc/kubernetes/server/ssl";
const MASTERS: [&str; 2] = ["hdss7-21", "hdss7-22"];
const MEMBERS: [&str; 3] = ["hdss7-12", "hdss7-21", "hdss7-22"];

#[test]
fn a_control_plane_is_deployed_kept_and_mended() {
    let mut lab = Lab::of_repository();
    lab.agents = Some(frames::recording_agents(lab.folder()));
    let forecast = lab.play(&["--check", "--diff"]);
    untouched(&lab);
    let deployed = lab.play(&["--diff"]);
    forecast_was_right(&forecast, &deployed);
    lab.play(&[]).nothing_to_do();
    lab.play(&["--check", "--diff"]).nothing_to_do();

    the_cluster_works(&lab);
    the_files_are_as_the_document_says(&lab);
    the_certificates_are_right(&lab);
    each_host_has_keys_of_its_own(&lab);

    a_flag_changes_one_line_and_restarts_once(&lab);
    what_was_broken_is_mended_alone(&lab);
    a_killed_run_loses_no_restart(&lab);
    a_name_is_added_to_certificates(&lab);
    lab.play(&["--check"]).nothing_to_do();
    the_cluster_works(&lab);
    frames::private_keys_stay_where_they_were_made(&lab);
}

/// A forecast has left the hosts as they were.
fn untouched(lab: &Lab) {
    for host in MEMBERS {
        lab.sh(host, "test ! -e /etc/kubernetes -a ! -e /etc/etcd -a ! -e /usr/local/bin/kubectl -a ! -e /root/.kube").success();
    }
    assert!(!lab.folder().join("pki").exists(), "a forecast makes no authority");
}

/// What the forecast called exact is what was done, in order and count; and all files were in it.
fn forecast_was_right(forecast: &Events, deployed: &Events) {
    let foreseen = forecast.changes();
    let exact: Vec<&Reported> = foreseen.iter().filter(|change| change.certainty == "exact").collect();
    let tasks: BTreeSet<_> = exact.iter().map(|change| (change.host.clone(), change.number)).collect();
    let done = deployed.changes();
    let done: Vec<&Reported> = done.iter().filter(|change| tasks.contains(&(change.host.clone(), change.number))).collect();
    let words = |changes: &[&Reported]| {
        changes.iter().map(|change| format!("{} {} {}", change.host, change.number, change.what)).collect::<Vec<_>>()
    };
    assert_eq!(words(&exact), words(&done));

    let exact = words(&exact).join("\n");
    for file in [
        "/usr/lib/systemd/system/kube-apiserver.service",
        "/etc/kubernetes/server/conf/audit.yml",
        "/root/.kube/config",
        "/usr/local/bin/kubelet",
    ] {
        assert!(exact.contains(file), "{file} is not foreseen exactly:\n{exact}");
    }
    // Not exact is only what packages, commands and services decide.
    for task in forecast.tasks().filter(|task| task["certainty"] != "exact") {
        let module = task["module"].as_str().unwrap();
        assert!(["package", "systemd", "wait_for", "command", "cert"].contains(&module), "{task}");
    }
}

fn the_cluster_works(lab: &Lab) {
    for host in MASTERS {
        assert_eq!(lab.sh(host, "kubectl get --raw /readyz").success(), "ok");
        assert!(lab.sh(host, "kubectl get ns").success().contains("kube-system"));
        assert_eq!(lab.sh(host, "systemctl is-active kube-apiserver; systemctl is-enabled kube-apiserver").success(), "active\nenabled\n");
    }
    // The document's own client is let in, and is not an administrator.
    let curl = |path: &str| {
        format!(
            "curl -s -o /dev/null -w '%{{http_code}}' --cacert {SSL}/ca.pem --cert {SSL}/client.pem --key {SSL}/client-key.pem https://10.4.7.22:6443{path}"
        )
    };
    assert_eq!(lab.sh("hdss7-21", &curl("/readyz")).success(), "200");
    assert_eq!(lab.sh("hdss7-21", &curl("/api/v1/namespaces")).success(), "403");
    let health = format!(
        "ETCDCTL_API=3 etcdctl --endpoints=https://10.4.7.12:2379,https://10.4.7.21:2379,https://10.4.7.22:2379 \
         --cacert={SSL}/ca.pem --cert={SSL}/client.pem --key={SSL}/client-key.pem endpoint health 2>&1"
    );
    assert_eq!(lab.sh("hdss7-21", &health).success().matches("is healthy").count(), 3);
    // A token that one master has signed is known at the other: forbidden is what a client is that has been recognised.
    let token = lab.token("hdss7-21");
    let asked = |token: &str| {
        let script = format!(
            "curl -s -o /dev/null -w '%{{http_code}}' --cacert {SSL}/ca.pem -H 'Authorization: Bearer {token}' https://10.4.7.22:6443/api/v1/nodes"
        );
        lab.sh("hdss7-22", &script).success()
    };
    assert_eq!(asked(&token), "403");
    assert_eq!(asked("nobody.knows.this"), "401");
}

fn the_files_are_as_the_document_says(lab: &Lab) {
    let links = "for name in /usr/local/bin/*; do readlink $name; done | grep -c ^/usr/local/kubernetes-server/server/bin/";
    for host in MASTERS {
        assert_eq!(lab.sh(host, links).success(), "10\n");
        assert_eq!(lab.sh(host, "readlink /usr/local/kubernetes-server").success(), "/usr/local/kubernetes-server-v1.20.2\n");
        let left = "cd /usr/local/kubernetes-server/ && find . -name kubernetes-src.tar.gz -o -name '*.tar' -o -name '*_tag' | wc -l";
        assert_eq!(lab.sh(host, left).success(), "0\n");
        let modes = lab.sh(host, &format!("cd {SSL} && stat -c '%a %U %n' *")).success();
        let expected = "644 root admin.pem|600 root admin-key.pem|644 root apiserver.pem|600 root apiserver-key.pem|644 root ca.pem\
                        |644 root client.pem|600 root client-key.pem|644 root sa.pem|600 root sa-key.pem";
        let sorted = |text: &str, separator: char| text.trim().split(separator).map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(sorted(&modes, '\n'), sorted(expected, '|'));
    }
    let unit = lab.sh("hdss7-21", "cat /usr/lib/systemd/system/kube-apiserver.service").success();
    for flag in [
        "--apiserver-count 2 \\",
        "--service-cluster-ip-range 192.168.0.0/16 \\",
        "--service-node-port-range 3000-29999 \\",
        "--etcd-servers https://10.4.7.12:2379,https://10.4.7.21:2379,https://10.4.7.22:2379 \\",
        "--service-account-issuer=k8s.od.com \\",
    ] {
        assert!(unit.contains(flag), "{flag} in\n{unit}");
    }
}

fn the_certificates_are_right(lab: &Lab) {
    let ca = lab.folder().join("pki/hdss7/ca.pem");
    let fetched = |host: &str, path: &str| {
        let copy = lab.folder().join(format!("{host}-{}", path.rsplit('/').next().unwrap()));
        std::fs::write(&copy, lab.sh(host, &format!("cat {path}")).success()).unwrap();
        copy
    };
    let openssl = |arguments: &[&str], file: &std::path::Path| run(Command::new("openssl").args(arguments).arg(file));
    let verify = |purpose: &str, file: &std::path::Path| {
        run(Command::new("openssl").args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]).arg(&ca).arg(file));
    };
    let sans = |file: &std::path::Path| {
        let text = openssl(&["x509", "-noout", "-ext", "subjectAltName", "-in"], file);
        text.lines().nth(1).unwrap_or_default().trim().split(", ").map(str::to_owned).collect::<BTreeSet<_>>()
    };
    for host in MASTERS {
        let apiserver = fetched(host, &format!("{SSL}/apiserver.pem"));
        verify("sslserver", &apiserver);
        let names =
            ["10.4.7.10", "10.4.7.21", "10.4.7.22", "10.4.7.23", "127.0.0.1", "192.168.0.1"].map(|address| format!("IP Address:{address}"));
        let domain = ["", ".svc", ".svc.cluster", ".svc.cluster.local"].map(|rest| format!("DNS:kubernetes.default{rest}"));
        assert_eq!(sans(&apiserver), names.into_iter().chain(domain).collect());
        let client = fetched(host, &format!("{SSL}/client.pem"));
        verify("sslclient", &client);
        let subject = openssl(&["x509", "-noout", "-subject", "-in"], &client);
        for part in ["CN = k8s-node", "O = organizational", "OU = organizational units", "C = CN", "ST = beijing", "L = beijing"] {
            assert!(subject.contains(part), "{part} in {subject}");
        }
        verify("sslclient", &fetched(host, &format!("{SSL}/admin.pem")));
    }
    for host in MEMBERS {
        let member = fetched(host, "/etc/etcd/ssl/etcd.pem");
        verify("sslserver", &member);
        verify("sslclient", &member);
        assert!(sans(&member).contains(&format!("IP Address:10.4.7.{}", host.rsplit('-').next().unwrap())));
    }
}

/// Keys are made where they are used; only the service accounts' pair is shared, and the authority's key is nowhere but here.
fn each_host_has_keys_of_its_own(lab: &Lab) {
    let digest = |host: &str, file: &str| lab.sh(host, &format!("sha256sum < {file}")).success();
    for name in ["client", "apiserver", "admin"] {
        assert_ne!(digest(MASTERS[0], &format!("{SSL}/{name}-key.pem")), digest(MASTERS[1], &format!("{SSL}/{name}-key.pem")));
    }
    assert_eq!(digest(MASTERS[0], &format!("{SSL}/sa-key.pem")), digest(MASTERS[1], &format!("{SSL}/sa-key.pem")));
    let key = std::fs::read_to_string(lab.folder().join("pki/hdss7/ca-key.pem")).unwrap();
    let line = key.lines().nth(3).unwrap();
    for host in MEMBERS {
        assert_eq!(lab.sh(host, &format!("grep -rlF '{line}' /etc /root /var/lib /usr/local/etc 2>/dev/null | wc -l")).success(), "0\n");
    }
}

fn a_flag_changes_one_line_and_restarts_once(lab: &Lab) {
    lab.edit("inventory/hdss7.yaml", "apiserver_log_level: 2", "apiserver_log_level: 3");
    let forecast = lab.play(&["--check", "--diff"]);
    let diff: Vec<String> = forecast
        .tasks()
        .filter(|task| task["host"] == "hdss7-21")
        .flat_map(|task| task["changes"].as_array().unwrap().clone())
        .flat_map(|change| change["diff"].as_array().cloned().unwrap_or_default())
        .map(|line| line.as_str().unwrap().to_owned())
        .filter(|line| (line.starts_with('+') || line.starts_with('-')) && !line.starts_with("+++") && !line.starts_with("---"))
        .collect();
    assert_eq!(diff, ["-  --v 2 \\", "+  --v 3 \\"]);
    let expected: Vec<String> = forecast.summary();
    assert_eq!(expected.iter().filter(|change| change.contains("restart")).count(), 2, "{expected:?}");
    let started = |host| lab.sh(host, "systemctl show -p MainPID --value etcd").success();
    let etcd = MEMBERS.map(started);
    assert_eq!(lab.play(&[]).summary(), expected);
    assert_eq!(MEMBERS.map(started), etcd, "etcd goes on running");
    lab.play(&["--check"]).nothing_to_do();
}

/// Damages one thing after the other on one master: each is found, and mended alone.
fn what_was_broken_is_mended_alone(lab: &Lab) {
    for (damage, needles) in [
        ("rm /usr/local/bin/kubelet", vec!["/usr/local/bin/kubelet"]),
        ("chmod 0644 /etc/kubernetes/server/ssl/sa-key.pem", vec!["/etc/kubernetes/server/ssl/sa-key.pem"]),
        ("systemctl stop kube-apiserver", vec!["kube-apiserver"]),
        ("systemctl disable -q kube-apiserver", vec!["kube-apiserver"]),
        ("rm /usr/local/kubernetes-server/server/bin/mounter", vec!["kubernetes-server-v1.20.2"]),
        ("touch /usr/local/kubernetes-server/server/bin/kube-proxy.tar", vec!["kube-proxy.tar"]),
    ] {
        lab.sh("hdss7-22", damage).success();
        let seen = lab.play(&["--check"]).summary();
        assert!(seen.len() == needles.len() && needles.iter().all(|needle| seen[0].contains(needle)), "after `{damage}`: {seen:?}");
        assert_eq!(lab.play(&[]).summary(), seen, "after `{damage}`");
        lab.play(&["--check"]).nothing_to_do();
    }
}

/// Kills a run as soon as the unit is written: the next one restarts the service all the same. So it does when somebody has
/// restarted the service with another content in between.
fn a_killed_run_loses_no_restart(lab: &Lab) {
    let pid = || lab.sh("hdss7-21", "systemctl show -p MainPID --value kube-apiserver").success();
    let before = pid();
    lab.edit("inventory/hdss7.yaml", "apiserver_log_level: 3", "apiserver_log_level: 2");
    let inventory = lab.inventory();
    let mut child = Command::new(crate::support::KPLAY)
        .args(["playbooks/apiserver.lua", "-i", inventory.to_str().unwrap()])
        .current_dir(lab.folder())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let written =
        "for i in $(seq 600); do grep -q -- '--v 2 ' /usr/lib/systemd/system/kube-apiserver.service && exit 0; sleep 0.02; done; exit 1";
    lab.sh("hdss7-21", written).success();
    child.kill().unwrap();
    child.wait().unwrap();
    lab.play(&[]);
    assert_ne!(pid(), before);
    lab.play(&["--check"]).nothing_to_do();

    let by_hand = "cd /usr/lib/systemd/system && cp kube-apiserver.service /root/ && sed -i 's/--v 2 /--v 5 /' kube-apiserver.service \
                   && systemctl daemon-reload && systemctl restart kube-apiserver";
    lab.sh("hdss7-21", by_hand).success();
    let restarted = pid();
    let seen = lab.play(&[]).summary();
    assert!(seen.iter().any(|change| change.contains("restart")), "{seen:?}");
    assert_ne!(pid(), restarted);
    assert!(
        lab.sh("hdss7-21", "tr '\\0' ' ' < /proc/$(systemctl show -p MainPID --value kube-apiserver)/cmdline").success().contains("--v 2 ")
    );
}

fn a_name_is_added_to_certificates(lab: &Lab) {
    lab.edit("inventory/hdss7.yaml", "planned_masters: [10.4.7.23]", "planned_masters: [10.4.7.23, 10.4.7.24]");
    let forecast = lab.play(&["--check", "--diff"]);
    let reasons =
        forecast.tasks().flat_map(|task| task["changes"].as_array().unwrap().clone()).map(|change| change.to_string()).collect::<Vec<_>>();
    assert_eq!(reasons.iter().filter(|change| change.contains("+SAN 10.4.7.24")).count(), 2, "{reasons:?}");
    lab.play(&[]);
    lab.play(&["--check"]).nothing_to_do();
}
