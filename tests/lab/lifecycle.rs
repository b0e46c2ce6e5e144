//! Hosts come up, do what real hosts do, and go without a trace.

use std::time::{Duration, Instant};

use crate::support::{KPLAY, Lab, build_agent};

/// Two hosts, with the packages of inventory/hdss7.yaml, so that the cache serves both.
const TWO: &str = "
all:
  vars:
    lab: { packages: [etcd-server, etcd-client, nginx-light, libnginx-mod-stream, keepalived] }
  hosts:
    one: { address: 10.91.7.11 }
    two: { address: 10.91.7.12 }
";

#[test]
fn hosts_come_up_answer_and_go() {
    let lab = Lab::up(TWO);
    let table = lab.kplay(&["lab", "status"]).success();
    assert!(table.contains("one   10.91.7.11       up\n") && table.contains("two   10.91.7.12       up\n"), "{table}");

    assert_eq!(lab.sh("one", "uname -n; systemctl is-system-running; cat /proc/1/comm").success(), "one\nrunning\nsystemd\n");
    assert_eq!(lab.sh("two", "exit 7").code, 7);
    let seen = lab.sh("one", "ip -o -4 address show ens32; ip route show default").success();
    assert!(seen.contains("10.91.7.11/24") && seen.contains("default via 10.91.7.254 dev ens32"), "{seen}");
    // The machine itself has neither interface nor address of the lab.
    let machine = std::process::Command::new("ip").args(["-o", "address"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&machine.stdout).contains("10.91.7."));

    lab.kplay(&["lab", "down"]).success();
    assert_eq!(lab.traces(), [""; 0]);
    assert!(lab.kplay(&["lab", "down"]).success().contains("no lab"));
    assert_eq!(lab.kplay(&["lab", "status"]).code, 2);
}

#[test]
fn up_leaves_running_hosts_alone_and_boots_those_that_died() {
    let lab = Lab::up(TWO);
    let (one, two) = (lab.boot("one"), lab.boot("two"));
    lab.sh("one", "touch /root/mine").success();
    assert!(lab.kplay(&["lab", "up"]).success().contains("one 10.91.7.11 was up"));
    assert_eq!((lab.boot("one"), lab.boot("two")), (one.clone(), two.clone()));

    // A host that has died comes back with its files, as a machine does when its power is back.
    lab.sh("two", "touch /root/mine").success();
    lab.kill("two");
    assert!(lab.kplay(&["lab", "up"]).success().contains("two 10.91.7.12 is up"));
    assert_eq!(lab.boot("one"), one);
    assert_ne!(lab.boot("two"), two);
    lab.sh("two", "test -e /root/mine").success();
    lab.sh("one", "test -e /root/mine && apt-get install -qy keepalived >/dev/null").success();
}

#[test]
fn a_killed_up_leaves_nothing_that_down_does_not_find() {
    let lab = Lab::new(TWO);
    for millis in [10, 40, 80, 120, 200, 300, 500, 800, 1300] {
        let mut up = lab.start(&["lab", "up"]);
        std::thread::sleep(Duration::from_millis(millis));
        up.kill().unwrap();
        up.wait().unwrap();
        lab.kplay(&["lab", "down"]).success();
        assert_eq!(lab.traces(), [""; 0], "after {millis} ms");
    }
    // And up finishes what a killed one has begun.
    let mut up = lab.start(&["lab", "up"]);
    std::thread::sleep(Duration::from_millis(200));
    up.kill().unwrap();
    up.wait().unwrap();
    lab.kplay(&["lab", "up"]).success();
    assert_eq!(lab.sh("two", "systemctl is-system-running").success(), "running\n");
}

#[test]
fn only_hosts_whose_settings_changed_are_made_anew() {
    let lab = Lab::up(TWO);
    let one = lab.boot("one");
    lab.rewrite(&TWO.replace("two: { address: 10.91.7.12 }", "three: { address: 10.91.7.13 }"));
    let said = lab.kplay(&["lab", "up"]).success();
    assert!(said.contains("taking two down") && said.contains("three 10.91.7.13 is up"), "{said}");
    assert_eq!(lab.boot("one"), one);
    let error = lab.sh("two", "true").failure(1);
    assert!(error.contains("the lab has no host `two`"), "{error}");
}

#[test]
fn two_labs_with_the_same_addresses_do_not_meet() {
    let (left, right) = (Lab::up(TWO), Lab::up(TWO));
    left.sh("one", "echo left > /root/side").success();
    right.sh("one", "echo right > /root/side").success();
    assert_eq!(left.sh("one", "cat /root/side").success(), "left\n");
    left.kplay(&["lab", "down"]).success();
    assert_eq!(right.sh("one", "cat /root/side").success(), "right\n");
}

#[test]
fn units_of_one_name_in_two_hosts_are_two_units() {
    let lab = Lab::up(TWO);
    for host in ["one", "two"] {
        lab.sh(host, "systemd-run -q --unit=nap sleep 1000").success();
    }
    let start = Instant::now();
    lab.sh("one", "systemctl stop nap").success();
    assert!(start.elapsed() < Duration::from_secs(20), "stopping took {:?}", start.elapsed());
    assert_eq!(lab.sh("two", "systemctl is-active nap").success(), "active\n");
}

#[test]
fn hosts_install_packages_and_let_only_network_parameters_be_set() {
    let lab = Lab::up(TWO);
    let installed =
        "apt-get install -qy --no-install-recommends nginx-light libnginx-mod-stream >/dev/null 2>&1 && systemctl is-active nginx";
    assert_eq!(lab.sh("one", installed).success(), "active\n");
    lab.sh("one", "sysctl -qw net.ipv4.ip_forward=1").success();
    assert_ne!(lab.sh("one", "sysctl -qw kernel.panic=1").code, 0);
}

#[test]
fn ssh_gets_in_with_the_labs_key_and_knows_the_hosts() {
    let lab = Lab::up(TWO);
    let connection = kplay::lab::connection_settings(&lab.inventory()).unwrap();
    let namespace = connection.namespace.file_name().unwrap().to_str().unwrap().to_owned();
    for (name, address) in &connection.hosts {
        let known = format!("UserKnownHostsFile={}", connection.known_hosts.display());
        let output = std::process::Command::new("ip")
            .args([
                "netns",
                "exec",
                &namespace,
                "ssh",
                "-F",
                "none",
                "-o",
                "StrictHostKeyChecking=yes",
                "-o",
                "BatchMode=yes",
                "-o",
                &known,
                "-i",
            ])
            .arg(&connection.private_key)
            .args([&format!("root@{address}"), "uname -n"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), name, "{}", String::from_utf8_lossy(&output.stderr));
    }
    lab.kplay(&["lab", "down"]).success();
    assert_eq!(kplay::lab::connection_settings(&lab.inventory()), None);
}

/// `lab run` brings the hosts up and runs a playbook on them; `lab console` opens a shell of root in one of them.
#[test]
fn a_playbook_runs_on_a_lab_of_its_own() {
    build_agent();
    let lab = Lab::new(TWO);
    let play =
        "play { name = 'name', hosts = 'all', run = function(host)\n  host:copy({ dest = '/root/name', content = host.name })\nend }\n";
    std::fs::write(lab.folder().join("play.lua"), play).unwrap();
    let ran = lab.kplay(&["lab", "run", "play.lua"]).success();
    assert!(ran.contains("one 10.91.7.11 is up") && ran.contains("~ two  copy /root/name"), "{ran}");
    assert_eq!(lab.sh("two", "cat /root/name").success(), "two");
    let boot = lab.boot("one");
    let again = lab.kplay(&["lab", "run", "play.lua", "--", "--check"]).success();
    assert!(again.contains("two  ok=1  changed=0"), "{again}");
    assert_eq!(lab.boot("one"), boot, "hosts that run are left alone");
    let typo = lab.kplay(&["lab", "run", "paly.lua"]).failure(1);
    assert!(typo.contains("paly.lua"), "{typo}");

    let console = lab.typed(&["lab", "console", "one"], "uname -n\nid -un\nexit 7\n");
    assert_eq!((console.stdout.as_str(), console.code), ("one\nroot\n", 7), "{}", console.stderr);
    assert!(lab.kplay(&["lab", "console", "three"]).failure(1).contains("the lab has no host `three`"));
    lab.kplay(&["lab", "down"]).success();
    assert_eq!(lab.kplay(&["lab", "console", "one"]).code, 1);
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    for (settings, needle) in [
        ("lab: { pakages: [] }", "unknown field `pakages`"),
        ("lab: { prefix: 40 }", "`prefix: 40` is not between 8 and 30"),
        ("lab: { suite: bookworm, include: ['; reboot'] }", "is not the name of a Debian package"),
        ("other: 1", "no host of this inventory has `lab` settings"),
    ] {
        let lab = Lab::new(&format!("all: {{ hosts: {{ one: {{ address: 10.91.7.11, {settings} }} }} }}"));
        let error = lab.kplay(&["lab", "up"]).failure(1);
        assert!(error.contains(needle), "{error}");
    }
    // Somebody who is not root is told what a lab needs. The program lies where only root may look, so it is copied.
    let lab = Lab::new(TWO);
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let program = folder.path().join("kplay");
    std::fs::copy(KPLAY, &program).unwrap();
    let inventory = folder.path().join("hosts.yaml");
    std::fs::copy(lab.inventory(), &inventory).unwrap();
    std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(folder.path()).status().unwrap();
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program)
        .args(["lab", "up", "-i"])
        .arg(inventory)
        .env("HOME", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("a lab needs root"), "{said}");
}
