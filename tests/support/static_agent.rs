//! The agent as it is shipped: built statically, started where there is hardly anything else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::sshd::executable;

/// Builds the agent for a target as it is shipped and returns it. Takes minutes the first time.
pub fn static_agent(triple: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["build", "--quiet", "--profile", "agent", "--package", "kplay-modules", "--bin", "kplay-agent", "--target", triple];
    let output = Command::new(cargo).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo");
    assert!(output.status.success(), "the agent for {triple} cannot be built:\n{}", String::from_utf8_lossy(&output.stderr));
    // The tests of a program lie in `target/debug/deps`.
    let program = std::env::current_exe().expect("the path of this test");
    program.ancestors().nth(3).expect("the target folder").join(triple).join("agent/kplay-agent")
}

/// A root file system that holds busybox and nothing else. Needs root, for its one device.
pub fn busybox_root() -> TempDir {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().map(Path::new).find(|path| path.exists());
    let busybox = busybox.expect("this test needs a static busybox: install busybox-static");
    let root = tempfile::tempdir().expect("a root folder");
    for folder in ["bin", "dev", "etc", "proc", "root", "tmp", "var"] {
        fs::create_dir(root.path().join(folder)).expect("a folder");
    }
    fs::copy(busybox, root.path().join("bin/busybox")).expect("busybox");
    executable(&root.path().join("bin/busybox"));
    let applets = Command::new(busybox).arg("--list").output().expect("the applets of busybox").stdout;
    for applet in String::from_utf8_lossy(&applets).lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.path().join("bin").join(applet)).expect("an applet");
    }
    fs::write(root.path().join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("accounts");
    fs::write(root.path().join("etc/group"), "root:x:0:\n").expect("groups");
    let null = Command::new("mknod").arg(root.path().join("dev/null")).args(["c", "1", "3"]).status();
    assert!(null.is_ok_and(|status| status.success()), "this test needs root, to make `/dev/null` in a root folder");
    root
}
