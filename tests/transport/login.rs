//! Getting in: host keys, logins, ways through other hosts, and what is said when it does not work.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kplay::diagnostic::{Diagnostic, Kind};
use kplay::transport::{ConnectionKind, HostKeyPolicy, Target};

use crate::support::agents::{agents_of_ones_own, shell_agents};
use crate::support::sshd::{Sshd, make_key};
use crate::talk::Talk;

/// Connects and lets the agent say hello.
#[track_caller]
fn gets_in(target: &Target) {
    let (_folder, agents) = shell_agents();
    let mut talk = Talk::to(target, &agents).unwrap_or_else(|error| panic!("{error:#?}"));
    talk.say(b"echo hello\n");
    assert_eq!(talk.hear(6), b"hello\n");
}

/// Fails to connect; returns why.
#[track_caller]
fn is_refused(target: &Target) -> Box<Diagnostic> {
    let (_folder, agents) = shell_agents();
    let Err(error) = Talk::to(target, &agents) else { panic!("it got in") };
    assert_eq!((error.kind, error.host.as_deref()), (Kind::Unreachable, Some("h1")));
    error
}

#[track_caller]
fn assert_tells(error: &Diagnostic, part: &str) {
    let all = [std::slice::from_ref(&error.message), &error.details, &error.hints].concat().join("\n");
    assert!(all.contains(part), "`{part}` is not in:\n{all}");
}

#[test]
fn a_key_of_another_host_is_refused_with_both_fingerprints() {
    let sshd = Sshd::start();
    let line = format!("# comment\n[127.0.0.1]:{} {}", sshd.port, sshd.public_key("stranger"));
    fs::write(sshd.known_hosts(), line).expect("known hosts");
    for host_keys in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew] {
        let error = is_refused(&Target { host_keys, ..sshd.target() });
        assert_eq!(error.message, format!("the host key of `[127.0.0.1]:{}` is not the one that is known", sshd.port));
        assert!(error.place.as_ref().is_some_and(|place| place.line == 2 && place.file == sshd.known_hosts()), "{error:?}");
        assert_tells(&error, "known: ssh-ed25519 SHA256:");
        assert_tells(&error, "shown: ssh-ed25519 SHA256:");
        assert_tells(&error, &format!("-R '[127.0.0.1]:{}'", sshd.port));
    }
    gets_in(&Target { host_keys: HostKeyPolicy::Off, ..sshd.target() });
}

#[test]
fn a_revoked_key_is_refused_though_it_is_known() {
    let sshd = Sshd::start();
    let known = fs::read_to_string(sshd.known_hosts()).expect("known hosts");
    fs::write(sshd.known_hosts(), format!("{known}@revoked * {}", sshd.public_key("host_ed25519"))).expect("known hosts");
    let error = is_refused(&sshd.target());
    assert_tells(&error, "has been revoked");
    assert_eq!(error.place.as_ref().map(|place| place.line), Some(3));
}

#[test]
fn unknown_hosts_are_refused_or_written_down() {
    let sshd = Sshd::start();
    let empty = Target { known_hosts: Some(sshd.path("other_known_hosts")), ..sshd.target() };
    let error = is_refused(&empty);
    assert_tells(&error, "is not known");
    assert_tells(&error, "kplay host-keys scan");
    assert!(!sshd.path("other_known_hosts").exists());

    gets_in(&Target { host_keys: HostKeyPolicy::AcceptNew, ..empty.clone() });
    let written = fs::read_to_string(sshd.path("other_known_hosts")).expect("it was written");
    assert!(written.starts_with(&format!("[127.0.0.1]:{} ssh-ed25519 ", sshd.port)), "{written}");
    gets_in(&empty);
}

#[test]
fn a_host_known_by_its_second_key_shows_that_one() {
    let sshd = Sshd::start();
    fs::write(sshd.known_hosts(), format!("[127.0.0.1]:{} {}", sshd.port, sshd.public_key("host_ecdsa"))).expect("known hosts");
    gets_in(&sshd.target());
}

#[test]
fn a_host_certificate_does_not_confuse() {
    let sshd = Sshd::start();
    let sign = std::process::Command::new("ssh-keygen")
        .args(["-q", "-s"])
        .arg(sshd.path("stranger"))
        .args(["-I", "h1", "-h"])
        .arg(sshd.path("host_ed25519.pub"))
        .status()
        .expect("ssh-keygen");
    assert!(sign.success());
    let certificate = sshd.path("host_ed25519-cert.pub");
    let second = Sshd::with(&format!("HostKey {}\nHostCertificate {}", sshd.path("host_ed25519").display(), certificate.display()));
    let line = format!("[127.0.0.1]:{} {}", second.port, sshd.public_key("host_ed25519"));
    fs::write(second.known_hosts(), line).expect("known hosts");
    gets_in(&second.target());
}

#[test]
fn what_was_tried_is_told_when_nothing_is_accepted() {
    let sshd = Sshd::start();
    let missing = PathBuf::from("/nonexistent/key");
    let error = is_refused(&Target { private_keys: vec![sshd.path("stranger"), missing], ..sshd.target() });
    assert!(error.message.starts_with("the host accepts no login as `"), "{error:?}");
    assert_tells(&error, &format!("key `{}`: refused", sshd.path("stranger").display()));
    assert_tells(&error, "key `/nonexistent/key`: No such file or directory");
    assert_tells(&error, "password: none is configured");
    assert_tells(&error, "the host accepts: publickey");
    assert_tells(&error, "authorized_keys");
}

#[test]
fn a_password_where_none_is_accepted_fails_cleanly() {
    let sshd = Sshd::start();
    let error = is_refused(&Target { private_keys: Vec::new(), password: Some("secret".to_owned()), ..sshd.target() });
    assert_tells(&error, "the host accepts: publickey");
    assert!(!format!("{error:?}").contains("secret"));
}

#[test]
fn the_right_key_is_found_behind_wrong_ones_before_the_host_loses_patience() {
    let sshd = Sshd::start();
    let mut keys: Vec<PathBuf> = (0..8).map(|number| sshd.path(&format!("wrong{number}"))).collect();
    keys.iter().for_each(|key| make_key(key, "ed25519", ""));
    keys.insert(4, sshd.key());
    gets_in(&Target { private_keys: keys.clone(), ..sshd.target() });
    keys.remove(4);
    let error = is_refused(&Target { private_keys: keys, ..sshd.target() });
    assert_tells(&error, "kplay stopped after 5 keys");
    assert!(!sshd.log().contains("Too many authentication failures"), "{}", sshd.log());
}

#[test]
fn an_encrypted_key_without_its_passphrase_says_so() {
    let sshd = Sshd::start();
    make_key(&sshd.path("locked"), "ed25519", "a passphrase");
    let error = is_refused(&Target { private_keys: vec![sshd.path("locked")], ..sshd.target() });
    assert_tells(&error, "encrypted, and there is no passphrase");
    assert_tells(&error, "KPLAY_KEY_PASSPHRASE");
}

#[test]
fn banners_and_noise_do_no_harm() {
    let banner = tempfile::NamedTempFile::new().expect("a file");
    fs::write(banner.path(), "Authorized use only!\nKPLAY\n").expect("a banner");
    for lines in [
        format!("Banner {}", banner.path().display()),
        r#"ForceCommand echo noise; echo more >&2; printf 'no newline'; eval "$SSH_ORIGINAL_COMMAND""#.to_owned(),
        r#"ForceCommand exec tcsh -f -c "$SSH_ORIGINAL_COMMAND""#.to_owned(),
        r#"ForceCommand exec fish -c "$SSH_ORIGINAL_COMMAND""#.to_owned(),
    ] {
        let shell = ["tcsh", "fish"].into_iter().find(|shell| lines.contains(&format!("exec {shell}")));
        if shell.is_some_and(|shell| std::process::Command::new(shell).arg("-c").arg("true").output().is_err()) {
            continue;
        }
        let sshd = Sshd::with(&lines);
        gets_in(&sshd.target());
        gets_in(&Target { connection: ConnectionKind::OpenSsh, ..sshd.target() });
    }
}

#[test]
fn an_account_without_commands_is_explained() {
    let sshd = Sshd::with("ForceCommand echo This account is not available.; exit 1");
    for connection in [ConnectionKind::Ssh, ConnectionKind::OpenSsh] {
        let error = is_refused(&Target { connection, ..sshd.target() });
        assert_eq!(error.message, "the host ended the session before the agent ran: exit code 1");
        assert_tells(&error, "stdout: This account is not available.");
    }
}

/// Counts the agents in a host's folder.
fn agents_in(folder: &Path) -> usize {
    let names = fs::read_dir(folder).expect("a cache").map(|entry| entry.expect("an entry").file_name());
    names.filter(|name| name.to_string_lossy().starts_with("agent-")).count()
}

#[test]
fn the_agent_is_sent_to_a_host_once() {
    let sshd = Sshd::start();
    let (_folder, agents) = shell_agents();
    for (round, connection) in [ConnectionKind::Ssh, ConnectionKind::Ssh, ConnectionKind::OpenSsh].into_iter().enumerate() {
        let talk = Talk::to(&Target { connection, ..sshd.target() }, &agents).expect("it connects");
        assert_eq!(talk.connected.agent_sent, round == 0, "round {round}");
    }
    assert_eq!(agents_in(&sshd.home().join(".cache/kplay")), 1);
}

#[test]
fn an_agent_where_others_can_write_is_left_for_another_place() {
    let unsafe_ways: [fn(&Path); 3] = [
        |home| fs::set_permissions(home.join(".cache/kplay"), Permissions::from_mode(0o777)).expect("a mode"),
        |home| fs::set_permissions(home.join(".cache"), Permissions::from_mode(0o775)).expect("a mode"),
        |home| {
            fs::rename(home.join(".cache/kplay"), home.join("moved")).expect("a name");
            symlink(home.join("moved"), home.join(".cache/kplay")).expect("a link");
        },
    ];
    for (number, make_unsafe) in unsafe_ways.into_iter().enumerate() {
        for connection in [ConnectionKind::Ssh, ConnectionKind::OpenSsh] {
            let sshd = Sshd::start();
            let (_folder, agents) = agents_of_ones_own();
            let sent = || Talk::to(&Target { connection, ..sshd.target() }, &agents).expect("it connects").connected.agent_sent;
            assert!(sent() && !sent(), "way {number}, {connection:?}");
            make_unsafe(&sshd.home());
            assert!(sent(), "way {number}, {connection:?}: it is brought to another place");
            assert!(!sent(), "way {number}, {connection:?}: where it stays");
            let left = agents_in(&sshd.home().join(".cache/kplay"));
            assert_eq!(left, 0, "way {number}, {connection:?}: the other is not tried again");
        }
    }
}

#[test]
fn a_folder_for_the_agent_may_be_named() {
    let sshd = Sshd::start();
    let target = Target { agent_folder: Some(sshd.path("agents")), ..sshd.target() };
    gets_in(&target);
    assert!(!sshd.home().join(".cache").exists());
    assert_eq!(agents_in(&sshd.path("agents")), 1);
    let (_folder, agents) = shell_agents();
    let error = Talk::to(&Target { agent_folder: Some("/bad; folder".into()), ..target }, &agents).err().expect("refused");
    assert_eq!(error.kind, Kind::User);
}

#[test]
fn jumps_lead_through_other_hosts() {
    let (first, second, goal) = (Sshd::start(), Sshd::start(), Sshd::start());
    let hop = |sshd: &Sshd| format!("{}@127.0.0.1:{}", crate::support::sshd::user_name(), sshd.port);
    // One known_hosts file and one key for the whole way.
    let mut known = String::new();
    for sshd in [&first, &second, &goal] {
        known.push_str(&fs::read_to_string(sshd.known_hosts()).expect("known hosts"));
        fs::copy(goal.path("user.pub"), sshd.path("authorized_keys")).expect("authorized keys");
    }
    fs::write(goal.known_hosts(), known).expect("known hosts");
    for jump in [hop(&first), format!("{},{}", hop(&first), hop(&second))] {
        gets_in(&Target { jump: Some(jump), ..goal.target() });
    }
    assert!(first.log().matches("Accepted publickey").count() == 2 && second.log().contains("Accepted publickey"));

    let error = is_refused(&Target { jump: Some("nobody@127.0.0.1:1".to_owned()), ..goal.target() });
    assert_tells(&error, "on the way: ");
    assert_tells(&error, "Connection refused");
}

#[test]
fn silence_and_refusal_are_told_apart() {
    let sshd = Sshd::start();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let error = is_refused(&Target { port: Some(closed), ..sshd.target() });
    assert_eq!(error.message, format!("cannot connect to `127.0.0.1` port {closed}: connection refused"));

    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("a port").port();
    let begun = Instant::now();
    let error = is_refused(&Target { port: Some(port), timeout: Duration::from_millis(300), ..sshd.target() });
    assert_eq!(error.message, format!("`127.0.0.1` port {port} does not speak ssh in time"));
    assert!(begun.elapsed() < Duration::from_secs(5));

    let error = is_refused(&Target { address: "no-such-host.invalid".to_owned(), ..sshd.target() });
    assert!(error.message.starts_with("cannot find the address of `no-such-host.invalid`"), "{error:?}");
}

#[test]
fn a_host_with_only_old_algorithms_is_explained() {
    let sshd = Sshd::with("KexAlgorithms diffie-hellman-group14-sha1\nCiphers 3des-cbc");
    let error = is_refused(&sshd.target());
    assert!(error.message.starts_with("`127.0.0.1` and kplay cannot agree on how to encrypt"), "{error:?}");
    assert_tells(&error, "no key exchange in common: the host offers diffie-hellman-group14-sha1");
    assert_tells(&error, "no cipher in common: the host offers 3des-cbc");
    assert_tells(&error, "connection: openssh");
}

#[test]
fn a_host_in_another_namespace_is_reached_from_there() {
    if crate::support::sshd::user_name() != "root" {
        let error = is_refused(&Target { namespace: Some("/proc/self/ns/net".into()), ..Sshd::start().target() });
        assert_tells(&error, "entering a network namespace needs root");
        return;
    }
    let sshd = Sshd::in_namespace();
    assert_tells(&is_refused(&sshd.target()), "connection refused");
    for connection in [ConnectionKind::Ssh, ConnectionKind::OpenSsh] {
        gets_in(&Target { namespace: Some(sshd.namespace()), connection, ..sshd.target() });
    }
    // The pool's own threads have stayed where they were.
    gets_in(&Sshd::start().target());
    let error = is_refused(&Target { namespace: Some("/run/netns/no-such-lab".into()), ..sshd.target() });
    assert_tells(&error, "cannot open the network namespace `/run/netns/no-such-lab`");
}

#[test]
fn the_systems_ssh_says_why_it_fails() {
    let sshd = Sshd::start();
    let target = Target { connection: ConnectionKind::OpenSsh, ..sshd.target() };
    let error = is_refused(&Target { private_keys: vec![sshd.path("stranger")], ..target.clone() });
    assert!(error.message.starts_with("`ssh` cannot reach `127.0.0.1`: "), "{error:?}");
    assert_tells(&error, "Permission denied (publickey)");
    let error = is_refused(&Target { known_hosts: Some(sshd.path("nothing")), ..target.clone() });
    assert_tells(&error, "Host key verification failed");
    assert_tells(&error, "kplay host-keys scan");
    let error = is_refused(&Target { port: Some(1), ..target });
    assert_tells(&error, "Connection refused");
}

#[test]
fn many_connect_at_once() {
    let sshd = Sshd::start();
    let (_folder, agents) = shell_agents();
    Talk::to(&sshd.target(), &agents).expect("the agent is sent");
    std::thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| {
                let mut talk = Talk::to(&sshd.target(), &agents).unwrap_or_else(|error| panic!("{error:#?}"));
                talk.say(b"exec cat\n0123456789");
                assert_eq!(talk.hear(10), b"0123456789");
                talk.finish();
                assert_eq!(talk.end(), "exit code 0");
            });
        }
    });
}
