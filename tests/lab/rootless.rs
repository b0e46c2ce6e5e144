//! The same playbook without root: hosts are folders, and what needs a running system is left out.

use std::path::Path;
use std::process::Command;

use crate::support::{KPLAY, build_agent, run};

#[test]
fn the_playbook_fills_folders_without_root() {
    build_agent();
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    for part in ["inventory", "playbooks", "roles"] {
        run(Command::new("cp").arg("-a").arg(repository.join(part)).arg(base));
    }
    std::fs::create_dir(base.join("bin")).unwrap();
    std::fs::copy(KPLAY, base.join("bin/kplay")).unwrap();
    let agent = Path::new(KPLAY).ancestors().nth(2).unwrap().join("x86_64-unknown-linux-musl/debug/kplay-agent");
    std::fs::copy(agent, base.join("bin/kplay-agent")).unwrap();
    archive(base);
    run(Command::new("chown").args(["-R", "65534:65534"]).arg(base));

    let play = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "bin/kplay", "playbooks/site.lua", "-i", "inventory/here.yaml"]);
        command.args(["--skip-tags", "system", "-e", "kubernetes_archive=small.tar.gz"]).args(arguments);
        run(command.current_dir(base).env("HOME", base).env("NO_COLOR", "1"))
    };
    let forecast = play(&["--check"]);
    assert!(!base.join("target/here/hdss7-21").exists() && !base.join("target/here/pki").exists(), "{forecast}");
    play(&[]);
    assert!(play(&["--check"]).contains("nothing would change"));

    let master = base.join("target/here/hdss7-21");
    for file in [
        "etc/kubernetes/server/ssl/apiserver-key.pem",
        "usr/lib/systemd/system/kube-apiserver.service",
        "etc/etcd/etcd.yaml",
        "root/.kube/config",
        "usr/lib/systemd/system/kube-scheduler.service",
        "etc/kubernetes/server/conf/kube-controller-manager.kubeconfig",
    ] {
        assert!(master.join(file).is_file(), "{file}");
    }
    for file in ["etc/nginx/nginx.conf", "etc/keepalived/keepalived.conf"] {
        assert!(base.join("target/here/hdss7-11").join(file).is_file(), "{file}");
    }
    assert_eq!(std::fs::read_dir(master.join("usr/local/bin")).unwrap().count(), 10);
    assert_eq!(std::fs::read_dir(master.join("usr/local/kubernetes-server-v1.20.2")).unwrap().count(), 1);
}

/// An archive that is laid out as the official one, with next to nothing in it.
fn archive(base: &Path) {
    let bin = base.join("kubernetes/server/bin");
    std::fs::create_dir_all(&bin).unwrap();
    for name in ["kube-apiserver", "kube-apiserver.tar", "kube-apiserver.docker_tag", "kubectl"] {
        std::fs::write(bin.join(name), name).unwrap();
    }
    std::fs::write(base.join("kubernetes/kubernetes-src.tar.gz"), "sources").unwrap();
    run(Command::new("tar").args(["-czf", "playbooks/small.tar.gz", "kubernetes"]).current_dir(base));
}
