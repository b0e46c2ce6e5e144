use std::io::Write as _;
use std::process::Command;

use super::*;
use crate::transport::stream::StreamLink;

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
    assert_eq!(line, Line::Need { digest: "abcd".to_owned(), gzip: true });
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
