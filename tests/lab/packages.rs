//! Packages where dnf manages them: its own rpm database and repositories, on a host without apt.

use crate::support::{Lab, build_agent};

const HOSTS: &str = "
all:
  vars:
    lab: { packages: [dnf, rpm, createrepo-c] }
  hosts:
    redhat: { address: 10.92.8.11 }
";

/// Turns a Debian host into one that dnf manages, with a repository of two releases of `tool`, and `helper`, which needs `tool` and
/// provides `aide`.
const TURN: &str = r#"
set -e
apt-get update -q
apt-get install -qy --no-install-recommends dnf rpm createrepo-c
cd /root
package() {
  printf 'Name: %s\nVersion: %s\nRelease: 1\nSummary: %s\nLicense: MIT\nBuildArch: noarch\n%s\n%%description\nA test.\n%%install\nmkdir -p %%{buildroot}/opt\necho %s > %%{buildroot}/opt/%s\n%%files\n/opt/%s\n' \
    "$1" "$2" "$1" "$3" "$2" "$1" "$1" > "$1-$2.spec"
  rpmbuild -bb --quiet --define '_rpmdir /srv/rpms' "$1-$2.spec"
}
package tool 1.0 ''
package tool 2.0 ''
package helper 1.0 'Requires: tool
Provides: aide'
createrepo_c -q /srv/rpms
mkdir -p /etc/yum.repos.d
printf '[test]\nname=test\nbaseurl=file:///srv/rpms\ngpgcheck=0\n' > /etc/yum.repos.d/test.repo
mv /usr/bin/apt-get /root/apt-get
"#;

#[test]
fn dnf_manages_a_host_without_apt() {
    build_agent();
    let lab = Lab::up(HOSTS);
    lab.sh("redhat", TURN).success();
    let play = |task: &str, arguments: &[&str]| {
        let text = format!("play {{ name = \"packages\", hosts = \"all\", run = function(host)\n{task}\nend }}\n");
        std::fs::write(lab.folder().join("play.lua"), text).unwrap();
        lab.kplay(&[&["play.lua"], arguments].concat())
    };
    let there = |expected: &str| {
        let script = "rpm -q --qf '%{NAME} %{VERSION}\\n' tool helper | grep -v 'not installed' | sort | paste -sd,; cat /opt/tool 2>/dev/null || true";
        assert_eq!(lab.sh("redhat", script).success().trim(), expected);
    };
    // Each is foreseen, done once, and found done the second time.
    let tell = |task: &str, change: &str, after: &str| {
        for (arguments, changes) in [(&["--check"][..], true), (&[], true), (&[], false), (&["--check"], false)] {
            let stdout = play(task, arguments).success();
            assert_eq!(stdout.contains(change), changes, "{arguments:?} {task}\n{stdout}");
            assert_eq!(stdout.contains("changed=0"), !changes, "{arguments:?} {task}\n{stdout}");
        }
        there(after);
    };
    tell(r#"host:package({ name = "tool=1.0" })"#, "tool", "tool 1.0\n1.0");
    tell(r#"host:package({ name = { "tool", "helper" } })"#, "helper", "helper 1.0,tool 1.0\n1.0");
    tell(r#"host:package({ name = { "tool", "helper" }, state = "latest" })"#, "tool", "helper 1.0,tool 2.0\n2.0");
    tell(r#"host:package({ name = "tool=1.0-1" })"#, "tool", "helper 1.0,tool 1.0\n1.0");
    tell(r#"host:package({ name = "tool=2.*" })"#, "tool", "helper 1.0,tool 2.0\n2.0");
    tell(r#"host:package({ name = "helper", state = "absent" })"#, "helper", "tool 2.0\n2.0");
    tell(r#"host:package({ name = "aide" })"#, "aide", "helper 1.0,tool 2.0\n2.0");
    tell(r#"host:package({ name = "aide", state = "absent" })"#, "aide", "tool 2.0\n2.0");
    // Undo brings back what was there.
    let run = play(r#"host:package({ name = "tool", state = "absent" })"#, &[]).success();
    there("");
    let run = run.split("undo with: kplay undo ").nth(1).unwrap().trim().to_owned();
    lab.kplay(&["undo", &run]).success();
    there("tool 2.0\n2.0");
    // New lists: another release appears only once they are fetched.
    let newer = "cd /root && sed 's/2.0/3.0/' tool-2.0.spec > tool-3.0.spec && rpmbuild -bb --quiet --define '_rpmdir /srv/rpms' tool-3.0.spec && createrepo_c -q /srv/rpms";
    lab.sh("redhat", newer).success();
    play("host:package({ update = true })", &[]).success();
    tell(r#"host:package({ name = "tool", state = "latest" })"#, "tool", "tool 3.0\n3.0");
    for name in ["tol", "tool=9.9"] {
        let ended = play(&format!("host:package({{ name = \"{name}\" }})"), &[]);
        assert_eq!(ended.code, 2);
        let message = format!("error: there is no package `{}` in the repositories of this host", name.replace('=', "-"));
        assert!(ended.stdout.contains(&message), "{}", ended.stdout);
    }
}
