//! Nothing bad spreads: what is wrong is found before anything is changed, and what cannot be foreseen reaches one machine, which is
//! then as it was before.

use crate::support::{Ended, Lab};

const MASTERS: [&str; 2] = ["hdss7-21", "hdss7-22"];
const MEMBERS: [&str; 3] = ["hdss7-12", "hdss7-21", "hdss7-22"];
const HOSTS: [&str; 4] = ["hdss7-11", "hdss7-12", "hdss7-21", "hdss7-22"];

#[test]
fn nothing_bad_spreads() {
    let lab = Lab::of_repository();
    what_others_on_the_link_use_is_refused(&lab);
    what_cannot_be_looked_at_is_told(&lab);
    for playbook in ["playbooks/apiserver.lua", "playbooks/proxy.lua"] {
        lab.kplay(&[playbook]).success();
    }
    what_another_proxy_holds_is_used_by_nobody_else(&lab);
    what_does_not_fit_a_running_control_plane_is_refused(&lab);
    a_sick_etcd_is_told(&lab);
    a_bad_flag_touches_one_master(&lab);
    a_bad_setting_of_etcd_touches_one_member(&lab);
    a_master_that_was_left_out_is_let_in_again(&lab);
    a_bad_proxy_touches_one_that_has_not_the_address(&lab);
    lab.kplay(&["playbooks/controllers.lua"]).success();
    a_bad_flag_of_controllers_touches_one_master(&lab);
    lab.kplay(&["playbooks/verify.lua"]).success();
}

/// Runs a playbook that has to stop before anything is changed, and returns what it says.
#[track_caller]
fn refused(lab: &Lab, arguments: &[&str]) -> String {
    let Ended { code, stdout, stderr } = lab.kplay(arguments);
    assert_eq!(code, 2, "{stdout}{stderr}");
    let nothing = stdout.contains("nothing changed") || stdout.contains("nothing would change");
    assert!(nothing && stdout.contains("not fit for what is to be done"), "{stdout}");
    stdout
}

#[track_caller]
fn tells(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part}\n{said}");
    }
}

/// On empty hosts: the shared address, and the number of the virtual router.
fn what_others_on_the_link_use_is_refused(lab: &Lab) {
    lab.sh("hdss7-21", "ip address add 10.4.7.10/24 dev ens32").success();
    let mac = lab.sh("hdss7-21", "cat /sys/class/net/ens32/address").success();
    let used = format!(
        "`vip` 10.4.7.10 is used by a machine that is none of the proxies, {}: choose another address, or free this one",
        mac.trim()
    );
    for arguments in [["playbooks/apiserver.lua"].as_slice(), &["playbooks/site.lua", "--check"], &["playbooks/proxy.lua"]] {
        tells(&refused(lab, arguments), &[&used]);
    }
    lab.sh("hdss7-21", "ip address del 10.4.7.10/24 dev ens32").success();

    let other = r#"play { name = "another cluster's proxy", hosts = "hdss7-22", run = function(host)
      host:keepalived({ parents = true, dest = "/etc/keepalived/keepalived.conf", instances = { VI_9 = {
        interface = "ens32", virtual_router_id = 251, priority = 10, address = "10.4.7.22", virtual_ipaddress = "10.4.7.99" } } })
      host:package({ name = "keepalived" })
      host:systemd({ name = "keepalived", state = "started" })
    end }"#;
    std::fs::write(lab.folder().join("playbooks/other.lua"), other).unwrap();
    lab.kplay(&["playbooks/other.lua"]).success();
    let used = "`virtual_router_id` 251 is used on its link by 10.4.7.22, which is none of the proxies: choose another one, 1 to 255";
    // It takes a moment until it announces itself.
    lab.sh("hdss7-22", "for i in $(seq 100); do ip -o address show to 10.4.7.99 | grep -q . && exit 0; sleep 0.1; done; exit 1").success();
    tells(&refused(lab, &["playbooks/site.lua"]), &[used]);
    lab.kplay(&["playbooks/preflight.lua", "-e", "{virtual_router_id: 250}"]).success();
    let said = refused(lab, &["playbooks/preflight.lua", "-e", "interface=ens99"]);
    tells(&said, &["there is no network interface `ens99` on this host: correct `interface` in the inventory"]);
    lab.sh("hdss7-22", "systemctl disable --now keepalived && rm -r /etc/keepalived").success();
    for host in HOSTS {
        lab.sh(host, "test ! -e /etc/kubernetes -a ! -e /etc/etcd -a ! -e /etc/nginx -a ! -e /etc/sysctl.d/90-kubernetes.conf").success();
    }
}

/// A proxy without keepalived asks on the link who has the address, and is answered by the one that holds it.
fn what_another_proxy_holds_is_used_by_nobody_else(lab: &Lab) {
    lab.sh("hdss7-12", "systemctl stop keepalived").success();
    let said = lab.kplay(&["playbooks/proxy.lua", "--check"]).success();
    tells(&said, &["would change", "keepalived"]);
    lab.sh("hdss7-21", "ip address add 10.4.7.10/24 dev ens32").success();
    tells(&refused(lab, &["playbooks/proxy.lua", "--check"]), &["is used by a machine that is none of the proxies"]);
    lab.sh("hdss7-21", "ip address del 10.4.7.10/24 dev ens32").success();
    lab.kplay(&["playbooks/proxy.lua"]).success();
}

/// As a run leaves the proxies that is killed while a master restarts.
fn a_master_that_was_left_out_is_let_in_again(lab: &Lab) {
    for proxy in ["hdss7-11", "hdss7-12"] {
        lab.sh(proxy, "sed -i 's/server 10.4.7.22:6443.*[^;]/& down/' /etc/nginx/nginx.conf && grep -q ' down;' /etc/nginx/nginx.conf && systemctl reload nginx")
            .success();
    }
    lab.kplay(&["playbooks/apiserver.lua"]).success();
    for proxy in ["hdss7-11", "hdss7-12"] {
        lab.sh(proxy, "! grep ' down;' /etc/nginx/nginx.conf").success();
    }
}

fn what_cannot_be_looked_at_is_told(lab: &Lab) {
    lab.sh("hdss7-11", "mv $(command -v ss) /root/ss && mv $(command -v perl) /root/perl").success();
    let said = lab.kplay(&["playbooks/preflight.lua"]).success();
    lab.sh("hdss7-11", "mv /root/ss /root/perl /usr/bin/").success();
    tells(
        &said,
        &[
            "hdss7-11  warning: nobody has looked whether ports are free, for want of the program `ss` on this host",
            "hdss7-11  warning: nobody has looked whether `vip` and `virtual_router_id` are free, for want of the program `perl` on this host",
        ],
    );
}

fn what_does_not_fit_a_running_control_plane_is_refused(lab: &Lab) {
    let said = lab.kplay(&["playbooks/preflight.lua"]).success();
    assert_eq!(
        said.matches("warning").count(),
        2,
        "document 001's range has two ports of the control plane, and nothing else is wrong: {said}"
    );

    lab.sh("hdss7-22", "printf '#!/bin/sh\\nexec /bin/date -d \"1 hour\" \"$@\"\\n' > /usr/local/bin/date; chmod 755 /usr/local/bin/date")
        .success();
    let said = refused(lab, &["playbooks/apiserver.lua"]);
    lab.sh("hdss7-22", "rm /usr/local/bin/date").success();
    tells(
        &said,
        &["! hdss7-22  failed", "its clock differs from the controller's by 3", " s: certificates would not be valid yet", "Have chrony"],
    );
    tells(&said, &["nothing is changed anywhere, since hdss7-22 failed"]);

    // The real program, asked for flags that it does not take, on a host that has it already.
    let flags = r#"{extra_flags: ["--event-tt=1h", "--max-requests-inflight=many", "--feature-gates=EphemeralContainer=true", "--kubelet-https=true"]}"#;
    let said = refused(lab, &["playbooks/apiserver.lua", "-e", flags]);
    tells(
        &said,
        &[
            "! hdss7-21  failed",
            "! hdss7-22  failed",
            "kube-apiserver v1.20.2 has no flag `--event-tt` (did you mean `event-ttl`?): correct it in the inventory",
            "kube-apiserver v1.20.2 refuses `--max-requests-inflight=many`: invalid argument \"many\"",
            "kube-apiserver v1.20.2 has no feature gate `EphemeralContainer` (did you mean `EphemeralContainers`?)",
        ],
    );
    assert!(!said.contains("kubelet-https"), "{said}");

    // The same archive, called another release.
    let said = refused(lab, &["playbooks/apiserver.lua", "-e", "kubernetes_version=v1.22.0"]);
    tells(
        &said,
        &[
            "kube-apiserver v1.20.2 runs, and v1.22.0 skips a minor release: go one at a time, v1.21 first",
            "is `Kubernetes v1.20.2`, and `kubernetes_version` is v1.22.0: correct one of `kubernetes_archive` and `kubernetes_version`",
        ],
    );
    let said = refused(lab, &["playbooks/apiserver.lua", "-e", "kubernetes_version=v1.19.9", "-e", "kubernetes_checksum=sha256:0123"]);
    tells(
        &said,
        &[
            "kube-apiserver v1.20.2 runs, and v1.19.9 is older: what has been stored may not be readable any more",
            "and `kubernetes_checksum` is sha256:0123: it is another release, or was damaged on its way",
        ],
    );
    lab.play(&["--check"]).nothing_to_do();
}

fn a_sick_etcd_is_told(lab: &Lab) {
    lab.sh("hdss7-12", "systemctl stop etcd").success();
    let said = lab.kplay(&["playbooks/preflight.lua"]).success();
    tells(
        &said,
        &[
            "warning: etcd has 2 healthy members of 3, so that it can lose no other member: see `journalctl -u etcd` at https://10.4.7.12:2379. \
         No master that serves is stopped before all are healthy",
        ],
    );
    lab.play(&[]);

    // A member that may keep next to nothing.
    let etcdctl = "ETCDCTL_API=3 etcdctl --endpoints=https://10.4.7.12:2379 --cacert=/etc/etcd/ssl/ca.pem --cert=/etc/etcd/ssl/etcd.pem \
                   --key=/etc/etcd/ssl/etcd-key.pem";
    let narrow = "cp -a /etc/etcd/etcd.yaml /root/ && echo 'quota-backend-bytes: 65536' >> /etc/etcd/etcd.yaml && systemctl restart etcd";
    lab.sh("hdss7-12", &format!("{narrow} && ! {etcdctl} put x y")).success();
    let said = refused(lab, &["playbooks/apiserver.lua", "-e", "{apiserver_log_level: 3}"]);
    lab.sh("hdss7-12", &format!("cp -a /root/etcd.yaml /etc/etcd/ && systemctl restart etcd && {etcdctl} alarm disarm")).success();
    tells(&said, &["etcd has the alarm NOSPACE: compact, defragment, then `etcdctl alarm disarm`"]);
    lab.play(&["--check"]).nothing_to_do();
}

/// When a unit was started, and the files that it was started with.
fn state(lab: &Lab, host: &str, unit: &str) -> String {
    let files = "/etc/etcd/etcd.yaml /etc/nginx/nginx.conf /etc/systemd/system/etcd.service /usr/lib/systemd/system/kube-*.service";
    lab.sh(
        host,
        &format!(
            "systemctl show -p InvocationID --value {unit}; systemctl show -p NeedDaemonReload {unit}; sha256sum {files} 2>/dev/null; true"
        ),
    )
    .success()
}

/// Runs a playbook by which `unit` does not come up on `touched`, which alone has been touched, and is as it was before.
#[track_caller]
fn stops_at_one(lab: &Lab, arguments: &[&str], unit: &str, hosts: &[&str], touched: &str, told: &str) {
    let before: Vec<_> = hosts.iter().map(|host| state(lab, host, unit)).collect();
    let Ended { code, stdout, stderr } = lab.kplay(arguments);
    assert_eq!(code, 2, "{stdout}{stderr}");
    tells(&stdout, &[&format!("! {touched}  "), told, &format!("< {touched}  is as it was before this play")]);
    assert!(!stdout.contains("could not take everything back"), "{stdout}");
    for (host, before) in hosts.iter().zip(before) {
        let now = state(lab, host, unit);
        let (old, new) = (before.split_once('\n').unwrap(), now.split_once('\n').unwrap());
        assert_eq!(old.1, new.1, "the files of {host}:\n{stdout}");
        assert_eq!(old.0 != new.0, *host == touched, "{host} was started anew, or was not:\n{stdout}");
    }
}

/// The program takes the flag, and refuses its value when it starts.
fn a_bad_flag_touches_one_master(lab: &Lab) {
    let flag = r#"{extra_flags: ["--tls-min-version=VersionTLS99"]}"#;
    let forecast = lab.kplay(&["playbooks/apiserver.lua", "--check", "--diff", "-e", flag]).success();
    tells(&forecast, &["+  --tls-min-version=VersionTLS99 \\"]);
    let told = "Error: unknown tls version \"VersionTLS99\"";
    stops_at_one(lab, &["playbooks/apiserver.lua", "-e", flag], "kube-apiserver", &MASTERS, "hdss7-21", told);
    serves(lab);
    for proxy in ["hdss7-11", "hdss7-12"] {
        assert_eq!(lab.sh(proxy, "grep -c ' down;' /etc/nginx/nginx.conf").stdout, "0\n", "clients are sent to all masters again");
    }
    lab.play_book("playbooks/proxy.lua", &["--check"]).nothing_to_do_on(&["hdss7-11", "hdss7-12"]);
}

fn a_bad_setting_of_etcd_touches_one_member(lab: &Lab) {
    let template = "roles/etcd/templates/etcd.yaml.j2";
    let path = lab.folder().join(template);
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{good}heartbeat-interval: 100\nelection-timeout: 101\n")).unwrap();
    let told = "should be at least as 5 times as --heartbeat-interval";
    stops_at_one(lab, &["playbooks/apiserver.lua"], "etcd", &MEMBERS, "hdss7-12", told);
    std::fs::write(&path, good).unwrap();
    serves(lab);
}

/// nginx takes the file, and cannot listen there.
fn a_bad_proxy_touches_one_that_has_not_the_address(lab: &Lab) {
    let arguments = ["playbooks/proxy.lua", "-e", "proxy_address=10.4.7.222"];
    stops_at_one_by_reload(lab, &arguments);
}

#[track_caller]
fn stops_at_one_by_reload(lab: &Lab, arguments: &[&str]) {
    let hosts = ["hdss7-11", "hdss7-12"];
    let before: Vec<_> = hosts.iter().map(|host| state(lab, host, "nginx")).collect();
    let Ended { code, stdout, stderr } = lab.kplay(arguments);
    assert_eq!(code, 2, "{stdout}{stderr}");
    assert!(stdout.contains("! hdss7-12  ") && !stdout.contains("! hdss7-11  "), "the one without the address comes first:\n{stdout}");
    let after: Vec<_> = hosts.iter().map(|host| state(lab, host, "nginx")).collect();
    assert_eq!(before, after, "{stdout}");
    assert_eq!(lab.sh("hdss7-11", "ip -o address show to 10.4.7.10 | wc -l").stdout, "1\n");
}

fn a_bad_flag_of_controllers_touches_one_master(lab: &Lab) {
    let flag = r#"{timeout: 20, controller_manager_flags: ["--leader-elect-lease-duration=1s"]}"#;
    // It dies within a second: before the start counts as done, or after.
    let told = "leaseDuration must be greater than renewDeadline";
    stops_at_one(lab, &["playbooks/controllers.lua", "-e", flag], "kube-controller-manager", &MASTERS, "hdss7-21", told);
    lab.play_book("playbooks/controllers.lua", &["--check"]).nothing_to_do_on(&MASTERS);
}

/// All masters serve, soon.
fn serves(lab: &Lab) {
    for master in MASTERS {
        let ready =
            "for i in $(seq 120); do [ \"$(kubectl get --raw /readyz 2>&1)\" = ok ] && exit 0; sleep 0.5; done; kubectl get --raw /readyz";
        lab.sh(master, ready).success();
    }
    lab.play(&["--check"]).nothing_to_do();
}
