//! Connections that are cut, by large contents on their way or by the end of their kplay: the next run goes on where the last one stopped.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use kplay_modules::api::Journal;
use kplay_modules::api::machine::Machine;

use crate::support::agents::real_agent_folder;
use crate::support::kplay::Kplay;
use crate::support::sshd::{Sshd, user_name};

const SIZE: usize = 12 << 20;

/// Passes connections on to a host, counts what goes there, and cuts them when that is too much.
struct Relay {
    port: u16,
    /// Bytes that still go to the host.
    left: Arc<AtomicI64>,
    /// Bytes that have gone there.
    passed: Arc<AtomicU64>,
}

impl Relay {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self { port: listener.local_addr().unwrap().port(), left: Arc::default(), passed: Arc::default() };
        let (left, passed) = (Arc::clone(&relay.left), Arc::clone(&relay.passed));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let host = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let (mut back, mut answers) = (client.try_clone().unwrap(), host.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
                let (left, passed) = (Arc::clone(&left), Arc::clone(&passed));
                std::thread::spawn(move || forward(client, host, &left, &passed));
            }
        });
        relay
    }

    /// Lets this much pass from now on.
    fn allow(&self, bytes: i64) {
        self.left.store(bytes, Ordering::SeqCst);
        self.passed.store(0, Ordering::SeqCst);
    }
}

fn forward(mut client: TcpStream, mut host: TcpStream, left: &AtomicI64, passed: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        if left.fetch_sub(count as i64, Ordering::SeqCst) < count as i64 || host.write_all(&buffer[..count]).is_err() {
            break;
        }
        passed.fetch_add(count as u64, Ordering::SeqCst);
    }
    let _ = (client.shutdown(Shutdown::Both), host.shutdown(Shutdown::Both));
}

/// Bytes that do not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..size / 8).flat_map(|_| next().to_le_bytes()).collect()
}

fn kept(root: &Path) -> Vec<u64> {
    let entries = fs::read_dir(root.join("var/lib/kplay/partial")).into_iter().flatten().flatten();
    entries.map(|entry| entry.metadata().unwrap().len()).collect()
}

#[test]
fn what_a_cut_connection_has_brought_is_not_sent_again() {
    let sshd = Sshd::start();
    let relay = Relay::to(sshd.port);
    let kplay = Kplay::new();
    let folder = kplay.folder().to_owned();
    let root = folder.join("host");
    fs::create_dir(&root).unwrap();
    let content = noise(SIZE);
    fs::write(folder.join("large"), &content).unwrap();
    let known = fs::read_to_string(sshd.known_hosts()).unwrap().replace(&sshd.port.to_string(), &relay.port.to_string());
    fs::create_dir_all(folder.join(".ssh")).unwrap();
    fs::write(folder.join(".ssh/known_hosts"), known).unwrap();
    let kplay = kplay
        .inventory(&format!(
            "all:\n  hosts:\n    h1: {{ address: 127.0.0.1, port: {}, user: {}, private_key: \"{}\", agent_folder: \"{}\", root: \"{}\" }}\n",
            relay.port,
            user_name(),
            sshd.key().display(),
            sshd.home().display(),
            root.display()
        ))
        .env("KPLAY_AGENT_DIR", &real_agent_folder().to_string_lossy())
        .playbook(
            r#"
            play { name = "large", hosts = "all", run = function(host)
              host:copy({ src = "large", dest = "/large" })
              host:copy({ src = "large", dest = "/twice" })
            end }
            "#,
        );
    let again = |ran: crate::support::kplay::Ran| {
        ran.then().args(["play.lua"]).env("KPLAY_AGENT_DIR", &real_agent_folder().to_string_lossy()).any_stdout()
    };
    // The agent is on the host already, so that what passes is the content.
    relay.allow(i64::MAX);
    let ran = again(kplay.args(["--check"]).any_stdout().run()).args(["--check"]).run();
    assert!(kept(&root).is_empty(), "a check keeps nothing");

    relay.allow(SIZE as i64 / 2);
    let ran = again(ran).status(3).stdout_has("run the playbook again, it goes on where this host stands").run();
    // The agent may still have to write what has come through.
    std::thread::sleep(Duration::from_secs(1));
    let arrived = kept(&root);
    assert!(matches!(arrived[..], [size] if size > SIZE as u64 / 4 && size < SIZE as u64 / 2), "{arrived:?}");
    assert!(!root.join("large").exists(), "no half file");

    relay.allow(i64::MAX);
    let ran = again(ran).stdout_has("changed=2").run();
    let passed = relay.passed.load(Ordering::SeqCst);
    assert!(passed < SIZE as u64 - arrived[0] + (512 << 10), "{passed} bytes passed though {arrived:?} of {SIZE} were there");
    assert!(fs::read(root.join("large")).unwrap() == content && fs::read(root.join("twice")).unwrap() == content);
    assert!(kept(&root).is_empty(), "what has arrived in full is not kept");

    // What is there is not the beginning of the content: it is sent whole.
    fs::remove_file(root.join("large")).unwrap();
    let digest = kplay_modules::api::Digest::of(&content).hex();
    fs::write(root.join("var/lib/kplay/partial").join(digest), vec![7; SIZE / 2]).unwrap();
    let _ran = again(ran).stdout_has("changed=1").run();
    assert!(fs::read(root.join("large")).unwrap() == content);
    assert!(kept(&root).is_empty());
}

/// The agent of a kplay that was killed finishes the change it is at, and has the host's lock for that long.
#[test]
fn a_run_waits_for_what_a_dead_one_is_still_doing() {
    let kplay = Kplay::new();
    let root = kplay.folder().join("host");
    fs::create_dir(&root).unwrap();
    // Building it may take longer than anybody waits.
    let agents = real_agent_folder();
    let journal = Journal::begin(&Machine::state_folder(Some(&root)), "20260101-000000-dead", "root@elsewhere").unwrap();
    journal.farewell().say();
    let dead = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(4));
        drop(journal);
    });
    let said = "  waits for the last change of a run whose controller is gone: `RUN` by root@elsewhere, for TIME (process ";
    kplay
        .env("KPLAY_AGENT_DIR", &agents.to_string_lossy())
        .inventory(&format!("all:\n  hosts:\n    h1: {{ connection: local, root: \"{}\" }}\n", root.display()))
        .playbook(r#"play { name = "new", hosts = "all", run = function(host) host:file({ path = "/new", state = "directory" }) end }"#)
        .stdout_has(said)
        .stdout_has("1 task changed 1 host")
        .run();
    assert!(dead.is_finished(), "it did not wait");
    dead.join().unwrap();
}
