//! The agent as it is shipped: static, small, and at home on a host that has nothing but a shell.

use std::io::Read;
use std::sync::mpsc::channel;
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzEncoder;
use kplay::transport::{Agents, Arrival, ConnectionKind, PollLoop, Target, connect};
use kplay_modules::agent::wire::{self, BecomeMethod, Hello, Outcome, Request, Status, Task, ToAgent, ToController, VERSION};

use crate::shared::sshd::{Sshd, executable};
use crate::shared::static_agent::{busybox_root, static_agent};

const X86_64: &str = "x86_64-unknown-linux-musl";
const AARCH64: &str = "aarch64-unknown-linux-musl";
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets an agent make a file below `/tmp` of its host, and returns what it says about itself.
fn session(target: &Target, agents: &Agents) -> wire::ToController {
    let (sender, arrivals) = channel();
    let poll = PollLoop::spawn(sender).unwrap();
    poll.add(1, connect(target, agents).unwrap_or_else(|error| panic!("{error:#?}")));
    let say = |message: &ToAgent| poll.send(1, wire::encode(message).unwrap());
    say(&ToAgent::Hello(Hello {
        version: VERSION.into(),
        run: "20261122-054501-test".to_owned(),
        by: "test@localhost".to_owned(),
        check: false,
        diff: false,
        root: target.root.clone(),
        become_method: BecomeMethod::Sudo,
        become_password: None,
    }));
    let hear = || loop {
        match arrivals.recv_timeout(PATIENCE).unwrap() {
            Arrival::Message(1, message) => break message,
            Arrival::Log(..) => {}
            other => panic!("{other:?}"),
        }
    };
    let ready = hear();
    let arguments = kplay_modules::find("file").map(|file| (file.parse)(serde_json::json!({ "path": "/tmp/made", "state": "directory" })));
    let arguments = arguments.unwrap().unwrap().to_json().unwrap();
    let task = Task { id: 1, module: "file".to_owned(), arguments, name: "a folder".to_owned(), ..Task::default() };
    say(&ToAgent::Request(Request { id: 1, tasks: vec![task] }));
    loop {
        match hear() {
            ToController::Outcome(Outcome { status, failure, .. }) => assert_eq!((status, failure), (Status::Changed, None)),
            ToController::Done { id: 1 } => break,
            ToController::Started { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    say(&ToAgent::Bye);
    poll.close(1);
    ready
}

fn gzipped_size(path: &std::path::Path) -> usize {
    let mut packed = Vec::new();
    GzEncoder::new(std::fs::File::open(path).unwrap(), Compression::default()).read_to_end(&mut packed).unwrap();
    packed.len()
}

#[test]
fn busybox_alone_is_host_enough() {
    let agent = static_agent(X86_64);
    assert!(gzipped_size(&agent) < 3 << 20, "{} bytes gzipped", gzipped_size(&agent));
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(&agent, folder.path().join(format!("kplay-agent-{X86_64}"))).unwrap();
    let root = busybox_root();
    let force = format!("ForceCommand HOME=/root exec chroot {} /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"", root.path().display());
    let sshd = Sshd::with(&force);
    let ready = session(&sshd.target(), &Agents::locate(Some(folder.path())).unwrap());
    assert!(matches!(&ready, ToController::Ready { version, .. } if version == VERSION), "{ready:?}");
    assert!(root.path().join("tmp/made").is_dir());
    assert_eq!(std::fs::read_dir(root.path().join("root/.cache/kplay")).unwrap().count(), 1);
}

#[test]
fn the_aarch64_agent_runs() {
    let agent = static_agent(AARCH64);
    assert!(gzipped_size(&agent) < 3 << 20, "{} bytes gzipped", gzipped_size(&agent));
    let folder = tempfile::tempdir().unwrap();
    let emulated = folder.path().join("kplay-agent");
    std::fs::write(&emulated, format!("#!/bin/sh\nexec qemu-aarch64-static {} \"$@\"\n", agent.display())).unwrap();
    executable(&emulated);
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("tmp")).unwrap();
    let target = Target { connection: ConnectionKind::Local, root: Some(root.clone()), ..Sshd::start().target() };
    let ready = session(&target, &Agents::locate(Some(folder.path())).unwrap());
    let ToController::Ready { facts, .. } = ready else { panic!("{ready:?}") };
    assert_eq!(facts.architecture, "aarch64", "install qemu-user-static");
    assert!(root.join("tmp/made").is_dir());
}
