//! What every kind of connection promises.

use kplay::transport::{ConnectionKind, Target};

use crate::support::agents::shell_agents;
use crate::support::sshd::Sshd;
use crate::talk::Talk;

const KINDS: [ConnectionKind; 3] = [ConnectionKind::Ssh, ConnectionKind::OpenSsh, ConnectionKind::Local];

/// Bytes without a pattern, always the same.
fn noise(count: u32) -> Vec<u8> {
    (0..count).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Connects in every way and lets the agent run `command`.
fn in_every_way(command: &str, check: impl Fn(ConnectionKind, Talk)) {
    let sshd = Sshd::start();
    let (_folder, agents) = shell_agents();
    for kind in KINDS {
        let target = Target { connection: kind, ..sshd.target() };
        let mut talk = Talk::to(&target, &agents).unwrap_or_else(|error| panic!("{kind:?}: {error:?}\n{}", sshd.log()));
        talk.say(format!("{command}\n").as_bytes());
        check(kind, talk);
    }
}

#[test]
fn bytes_come_back_as_they_went() {
    in_every_way("exec cat", |kind, mut talk| {
        let sent = noise(6_000_000);
        for part in sent.chunks(256 << 10) {
            talk.say(part);
        }
        assert!(talk.hear(sent.len()) == sent, "{kind:?}");
        talk.finish();
        assert_eq!(talk.end(), "exit code 0", "{kind:?}");
    });
}

#[test]
fn much_on_standard_error_stops_nothing() {
    in_every_way("head -c 8000000 /dev/zero >&2; echo done", |kind, mut talk| {
        assert_eq!(talk.hear(5), b"done\n", "{kind:?}");
        assert_eq!(talk.end(), "exit code 0", "{kind:?}");
        assert_eq!(talk.errors.len(), 8_000_000, "{kind:?}");
    });
}

#[test]
fn all_that_was_written_before_the_end_arrives() {
    in_every_way("head -c 3000000 /dev/zero; echo bye >&2; exit 3", |kind, mut talk| {
        assert_eq!(talk.end(), "exit code 3", "{kind:?}");
        assert_eq!(talk.output.len(), 3_000_000, "{kind:?}");
        assert_eq!(talk.errors, b"bye\n", "{kind:?}");
    });
}

#[test]
fn a_killed_agent_is_no_success() {
    in_every_way("kill -9 $$", |kind, mut talk| {
        let how = talk.end();
        // The system's ssh has its own code for it.
        let expected = if kind == ConnectionKind::OpenSsh { "exit code 255" } else { "killed by signal KILL" };
        assert_eq!(how, expected, "{kind:?}");
    });
}

#[test]
fn the_end_of_input_is_seen() {
    in_every_way("cat >/dev/null; echo end", |kind, mut talk| {
        talk.finish();
        assert_eq!(talk.hear(4), b"end\n", "{kind:?}");
        assert_eq!(talk.end(), "exit code 0", "{kind:?}");
    });
}

#[test]
fn new_keys_in_the_middle_of_a_transfer_do_no_harm() {
    let sshd = Sshd::with("RekeyLimit 512K");
    let (_folder, agents) = shell_agents();
    let mut talk = Talk::to(&sshd.target(), &agents).expect("it connects");
    talk.say(b"exec cat\n");
    let sent = noise(6_000_000);
    for part in sent.chunks(256 << 10) {
        talk.say(part);
    }
    assert!(talk.hear(sent.len()) == sent);
    talk.finish();
    assert_eq!(talk.end(), "exit code 0");
}
