//! The bootstrap script, run by the shells of this machine.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;
use crate::transport::stream::StreamLink;
use crate::transport::tests::{Absorbing, target};

fn marker() -> Marker {
    Marker("00ff".to_owned())
}

#[test]
fn the_script_is_one_line_that_every_shell_takes_as_one_word() {
    let line = one_line(SCRIPT);
    for forbidden in ["'", "!", "\\\\", "\n"] {
        assert!(!line.contains(forbidden), "{forbidden:?} in {line}");
    }
    for shell in [vec!["dash"], vec!["bash", "--posix"], vec!["busybox", "sh"]] {
        let output = Command::new(shell[0]).args(&shell[1..]).args(["-n", "-c", &line]).output().unwrap();
        assert!(output.status.success(), "{shell:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn lines_are_found_behind_noise_and_only_with_our_marker() {
    let text = b"Welcome!\r\n\x01KPLAY:beef\nlast login\x01KPLAY-NEED:00ff gzip abcd\r\nrest";
    let (line, end) = find_line(text, &marker()).unwrap();
    assert_eq!(line, Line::Need { digest: "abcd".to_owned(), packing: Packing::Gzip });
    assert_eq!(&text[end..], b"rest");
    assert_eq!(find_line(b"\x01KPLAY:00ff", &marker()), None);
    assert_eq!(find_line(b"x\x01KPLAY:00ff\nframes", &marker()), Some((Line::Started, 13)));
    assert_eq!(find_line(b"\x01KPLAY-MACHINE:00ff s390x\n", &marker()).unwrap().0, Line::Machine("s390x".to_owned()));
    assert_eq!(find_line(b"\x01KPLAY-FAIL:00ff no id\n", &marker()).unwrap().0, Line::Fail("no id".to_owned()));
}

#[test]
fn folders_that_a_shell_would_look_into_are_refused() {
    assert_eq!(plain_path(Path::new("/opt/kplay-agent/")).unwrap(), "/opt/kplay-agent");
    for bad in ["relative", "/with space", "/$(reboot)", "/a'b", "/a;b", "/a:b"] {
        assert!(plain_path(Path::new(bad)).is_err(), "{bad}");
    }
}

#[test]
fn bytes_behind_the_marker_are_kept() {
    let (link, mut far) = StreamLink::pair().unwrap();
    far.stream.write_all(b"motd\n\x01KPLAY:00ff\n\x05\x00\x00\x00").unwrap();
    let agents = Agents::locate(None).unwrap();
    let connected = run(Box::new(link), &marker(), &agents, Duration::from_secs(5)).unwrap();
    assert_eq!(connected.early, b"\x05\x00\x00\x00");
    assert!(!connected.agent_sent);
}

#[test]
fn what_was_taken_in_with_something_else_is_not_waited_for() {
    let (link, mut far) = StreamLink::pair().unwrap();
    let host = std::thread::spawn(move || {
        far.stream.write_all(b"\x01KPLAY:00ff\n").unwrap();
        far
    });
    let connected = run(Box::new(Absorbing::new(link)), &marker(), &Agents::locate(None).unwrap(), Duration::from_secs(3)).unwrap();
    assert!(!connected.agent_sent);
    host.join().unwrap();
}

#[test]
fn an_agent_is_sent_on_when_a_read_has_opened_the_window() {
    let host = Host::new();
    let link = host.start(&["sh"], None);
    let connected = run(Box::new(Absorbing::new(link)), &marker(), &host.agents, Duration::from_secs(3)).unwrap();
    assert!(connected.agent_sent);
}

#[test]
fn a_session_that_ends_early_shows_what_the_host_said() {
    let (link, mut far) = StreamLink::pair().unwrap();
    far.stream.write_all(b"This account is not available.\n").unwrap();
    far.errors.write_all(b"bye\n").unwrap();
    drop(far);
    let error = run(Box::new(link), &marker(), &Agents::locate(None).unwrap(), Duration::from_secs(5)).unwrap_err();
    assert_eq!(error.details, ["stdout: This account is not available.", "stderr: bye"]);
}

#[test]
fn a_silent_host_is_given_up() {
    let (link, _far) = StreamLink::pair().unwrap();
    let begun = Instant::now();
    let error = run(Box::new(link), &marker(), &Agents::locate(None).unwrap(), Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.message, "the host did not start the agent in time");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// A host of its own: a home folder, and an agent that says the marker and where it lies. Of its place it looks at the mode of its file
/// only; all that the real one looks at is tested with it (`modules/agent/trust.rs`).
struct Host {
    folder: tempfile::TempDir,
    agents: Agents,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Each host has another agent, so that those of two tests never meet in a folder that hosts share.
        let text = format!(
            "#!/bin/sh\n# {}\ncase $3,$(/bin/ls -ld \"$0\") in ,*|?*,-rwx------*) ;; *) exit 96;; esac\nprintf '\\001KPLAY:%s\\n' \"$2\"\necho \"$0\"\n",
            folder.path().display()
        );
        for machine in ["x86_64", "aarch64"] {
            std::fs::write(folder.path().join(format!("kplay-agent-{machine}-unknown-linux-musl")), &text).unwrap();
        }
        std::fs::create_dir(folder.path().join("home")).unwrap();
        let agents = Agents::locate(Some(folder.path())).unwrap();
        Self { folder, agents }
    }

    fn home(&self) -> std::path::PathBuf {
        self.folder.path().join("home")
    }

    fn cached(&self) -> std::path::PathBuf {
        let digest = self.agents.all().unwrap()[0].1.digest.hex();
        self.home().join(".cache/kplay").join(format!("agent-{digest}"))
    }

    /// Starts the script in a shell of the host.
    fn start(&self, shell: &[&str], path: Option<&Path>) -> StreamLink {
        self.start_command(shell, path, &script(&marker(), &self.agents, None).unwrap())
    }

    fn start_command(&self, shell: &[&str], path: Option<&Path>, line: &str) -> StreamLink {
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).arg("-c").arg(line).env("HOME", self.home());
        if let Some(path) = path {
            command.env("PATH", path);
        }
        StreamLink::start(&mut command, true).unwrap()
    }

    /// Returns a folder with a shell, the few programs that the script cannot do without, and some more, all but the shell of busybox.
    /// Busybox's own shell knows all of them besides.
    fn programs(&self, shell: &str, further: &[&str]) -> std::path::PathBuf {
        let programs = self.folder.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        std::os::unix::fs::symlink(shell, programs.join("sh")).unwrap();
        for applet in ["id", "uname", "ls", "mkdir", "chmod", "rm", "mv", "head"].iter().chain(further) {
            // Busybox has no zstd.
            let program = if *applet == "zstd" { where_is(applet) } else { busybox() };
            std::os::unix::fs::symlink(program, programs.join(applet)).unwrap();
        }
        programs
    }

    /// Lets the script run to its agent; returns whether that had to be sent, and where it runs.
    fn run(&self, shell: &[&str], path: Option<&Path>) -> Result<(bool, String)> {
        let link = self.start(shell, path);
        Ok(Self::hear(run(Box::new(link), &marker(), &self.agents, Duration::from_secs(20))?))
    }

    /// Goes the whole way to the agent; returns the same, and how many commands that took.
    fn reach(&self, shell: &[&str], path: Option<&Path>) -> Result<(bool, String, usize)> {
        let mut commands = 0;
        let connected = start(&target(), &self.agents, Duration::from_secs(20), |line| {
            commands += 1;
            Ok(Box::new(self.start_command(shell, path, line)))
        })?;
        let (sent, place) = Self::hear(connected);
        Ok((sent, place, commands))
    }

    fn hear(mut connected: Connected) -> (bool, String) {
        let mut place = connected.early;
        let mut buffer = [0; 1024];
        while !place.ends_with(b"\n") {
            match connected.link.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => place.extend_from_slice(&buffer[..count]),
                Err(_) => assert!(wait(&*connected.link, Instant::now() + Duration::from_secs(10))),
            }
        }
        (connected.agent_sent, String::from_utf8(place).unwrap().trim().to_owned())
    }
}

fn busybox() -> String {
    where_is("busybox")
}

fn where_is(program: &str) -> String {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().stdout;
    let found = String::from_utf8(found).unwrap();
    assert!(!found.is_empty(), "this test needs {program}: install busybox-static and zstd");
    found.trim().to_owned()
}

impl Drop for Host {
    fn drop(&mut self) {
        // Where agents go when the home folder will not do.
        let user = rustix::process::getuid().as_raw();
        for folder in ["/var/tmp", "/tmp"] {
            let file = self.cached();
            let _ = std::fs::remove_file(format!("{folder}/kplay-{user}/{}", file.file_name().unwrap().to_str().unwrap()));
        }
    }
}

#[test]
fn the_agent_is_sent_once_whatever_the_shell() {
    for shell in [&["sh"][..], &["bash"], &["busybox", "sh"], &["tcsh", "-f"], &["bsd-csh", "-f"], &["fish"], &["zsh", "-f"]] {
        if Command::new(shell[0]).arg("-c").arg("true").output().is_err() && !["sh", "bash", "busybox"].contains(&shell[0]) {
            continue;
        }
        let host = Host::new();
        let cached = host.cached().display().to_string();
        assert_eq!(host.reach(shell, None).unwrap(), (true, cached.clone(), 1), "{shell:?}");
        assert_eq!(host.reach(shell, None).unwrap(), (false, cached.clone(), 1), "{shell:?}");
        assert_eq!(host.run(shell, None).unwrap(), (false, cached), "{shell:?}, the script alone");
    }
}

#[test]
fn an_agent_that_is_there_needs_no_other_program() {
    let host = Host::new();
    let nothing = host.folder.path().join("nothing");
    std::fs::create_dir(&nothing).unwrap();
    for shell in ["/bin/sh", "/bin/bash"] {
        assert!(host.reach(&[shell], Some(&nothing)).is_err(), "no agent yet, and nothing to bring it with");
    }
    host.reach(&["sh"], None).unwrap();
    let cached = host.cached().display().to_string();
    for shell in ["/bin/sh", "/bin/bash"] {
        assert_eq!(host.reach(&[shell], Some(&nothing)).unwrap(), (false, cached.clone(), 1));
    }
}

#[test]
fn an_agent_that_cannot_or_will_not_run_is_reached_or_replaced_by_the_script() {
    type Spoil = fn(&Path);
    let spoil: [(&str, Spoil); 5] = [
        ("empty", |agent| std::fs::write(agent, "").unwrap()),
        ("cut", |agent| std::fs::write(agent, [b"\x7fELF".as_slice(), &[0; 60]].concat()).unwrap()),
        ("for others", |agent| std::fs::set_permissions(agent, PermissionsExt::from_mode(0o755)).unwrap()),
        ("closed", |agent| std::fs::set_permissions(agent, PermissionsExt::from_mode(0o600)).unwrap()),
        ("a link", |agent| {
            std::fs::remove_file(agent).unwrap();
            std::os::unix::fs::symlink("/bin/true", agent).unwrap();
        }),
    ];
    for (what, spoil) in spoil {
        for shell in ["sh", "bash"] {
            let host = Host::new();
            let cached = host.cached().display().to_string();
            host.reach(&[shell], None).unwrap();
            spoil(&host.cached());
            let (sent, place, commands) = host.reach(&[shell], None).unwrap();
            assert_eq!((sent, place), (true, cached.clone()), "{shell}: {what}");
            assert_eq!(commands, 2, "{shell}: {what}");
            assert_eq!(host.reach(&[shell], None).unwrap(), (false, cached, 1), "{shell}: {what}");
        }
    }
}

#[test]
fn a_folder_that_is_anothers_is_not_looked_into() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Host::new();
    host.reach(&["sh"], None).unwrap();
    std::os::unix::fs::chown(host.cached().parent().unwrap(), Some(65534), None).unwrap();
    let (sent, place, commands) = host.reach(&["sh"], None).unwrap();
    assert!(sent && place.starts_with("/var/tmp/kplay-"), "{place}");
    assert_eq!(commands, 1, "it was not started to find that out");
}

#[test]
fn busybox_is_enough() {
    // Without zstd and gzip the agent travels as it is.
    for (shell, further) in [(busybox().as_str(), &["gzip", "find"][..]), ("/bin/sh", &["zstd"]), ("/bin/sh", &["sha256sum"])] {
        let host = Host::new();
        let programs = host.programs(shell, further);
        let shell = programs.join("sh").display().to_string();
        assert!(host.run(&[&shell], Some(&programs)).unwrap().0);
        assert!(!host.run(&[&shell], Some(&programs)).unwrap().0);
    }
}

#[test]
fn an_agent_that_is_not_as_it_was_left_is_replaced() {
    let host = Host::new();
    host.run(&["sh"], None).unwrap();
    std::fs::write(host.cached(), "#!/bin/sh\necho shorter\n").unwrap();
    assert!(host.run(&["sh"], None).unwrap().0, "another size");
    std::fs::set_permissions(host.cached(), PermissionsExt::from_mode(0o755)).unwrap();
    assert!(host.run(&["sh"], None).unwrap().0, "another mode");
    std::fs::remove_file(host.cached()).unwrap();
    std::os::unix::fs::symlink("/bin/true", host.cached()).unwrap();
    assert!(host.run(&["sh"], None).unwrap().0, "a link");
    assert!(!host.run(&["sh"], None).unwrap().0);
}

#[test]
fn folders_that_others_can_write_to_are_not_used() {
    let unsafe_ways: [fn(&Path); 3] = [
        |home| std::fs::set_permissions(home.join(".cache/kplay"), PermissionsExt::from_mode(0o777)).unwrap(),
        |home| std::fs::set_permissions(home.join(".cache"), PermissionsExt::from_mode(0o775)).unwrap(),
        |home| {
            std::fs::rename(home.join(".cache/kplay"), home.join("moved")).unwrap();
            std::os::unix::fs::symlink(home.join("moved"), home.join(".cache/kplay")).unwrap();
        },
    ];
    for (number, make_unsafe) in unsafe_ways.into_iter().enumerate() {
        let host = Host::new();
        host.run(&["sh"], None).unwrap();
        make_unsafe(&host.home());
        let (sent, place) = host.run(&["sh"], None).unwrap();
        assert!(sent && place.starts_with("/var/tmp/kplay-"), "way {number}: {place}");
        assert_eq!(host.run(&["sh"], None).unwrap(), (false, place), "way {number}");
    }
}

#[test]
fn an_agent_that_arrives_damaged_is_not_started() {
    let sender = Host::new();
    let agent = sender.agents.all().unwrap()[0].1.clone();
    let mut ways = vec![(Packing::Plain, "sha256sum", agent.packed(Packing::Gzip).unwrap().to_vec())];
    for (packing, program) in [(Packing::Zstd, "zstd"), (Packing::Gzip, "gzip")] {
        let whole = agent.packed(packing).unwrap().to_vec();
        let [mut changed, cut] = [whole.clone(), whole[..whole.len() - 12].to_vec()];
        changed[whole.len() - 9] ^= 1;
        ways.extend([b"wrong".to_vec(), changed, cut].map(|damaged| (packing, program, damaged)));
    }
    for (packing, program, damaged) in ways {
        let host = Host::new();
        let programs = host.programs("/bin/sh", &[program]);
        let mut link = host.start(&["/bin/sh"], Some(&programs));
        link.write(format!("{}\n", damaged.len()).as_bytes()).unwrap();
        link.write(&damaged).unwrap();
        let marker = marker();
        let mut session = Session::new(Box::new(link), &marker, Duration::from_secs(20));
        let Line::Need { packing: wanted, .. } = session.next_line().unwrap() else { panic!("nothing is asked for") };
        assert_eq!(wanted, packing);
        let Line::Fail(reason) = session.next_line().unwrap() else { panic!("not refused") };
        assert!(reason.starts_with("the agent arrived damaged in "), "{reason}");
        assert!(session.next_line().is_err(), "it ends");
        let folder = host.cached();
        assert_eq!(std::fs::read_dir(folder.parent().unwrap()).unwrap().count(), 0, "nothing is left behind");
    }
    let host = Host::new();
    let error = host.run(&["/bin/sh"], Some(&host.programs("/bin/sh", &[]))).unwrap_err();
    assert_eq!(error.message, "cannot start the agent: none of zstd, gzip and sha256sum is there");
}

#[test]
fn an_unknown_processor_is_told_with_what_can_be_done() {
    let (link, mut far) = StreamLink::pair().unwrap();
    far.stream.write_all(b"\x01KPLAY-MACHINE:00ff riscv64\n").unwrap();
    let error = run(Box::new(link), &marker(), &Agents::locate(None).unwrap(), Duration::from_secs(5)).unwrap_err();
    assert_eq!(error.message, "there is no agent for hosts with `riscv64` processors");
}
