//! Archives as the usual tools make them are read back whole.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

fn tarball() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in [("top/a", b"first".as_slice()), ("top/b", &[7; 300_000])] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn piped(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn sizes(bytes: &[u8]) -> Vec<(String, u64)> {
    let mut archive = open("test.tar", Box::new(bytes)).unwrap();
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let size = io::copy(&mut entry, &mut io::sink()).unwrap();
        (entry.path().unwrap().display().to_string(), size)
    });
    entries.collect()
}

#[test]
fn every_compression_is_recognised_by_its_content() {
    let tar = tarball();
    let expected = [("top/a".to_owned(), 5), ("top/b".to_owned(), 300_000)];
    assert_eq!(sizes(&tar), expected);
    assert_eq!(sizes(&piped("gzip", &["-c"], &tar)), expected);
    assert_eq!(sizes(&piped("xz", &["-c"], &tar)), expected);
    assert_eq!(sizes(&piped("zstd", &["-c", "-q"], &tar)), expected);
}

#[test]
fn archives_in_several_pieces_are_one() {
    let tar = tarball();
    let (head, tail) = tar.split_at(100_000);
    let expected = [("top/a".to_owned(), 5), ("top/b".to_owned(), 300_000)];
    for (program, arguments) in [("gzip", ["-c"].as_slice()), ("xz", &["-c"]), ("zstd", &["-c", "-q"])] {
        let mut pieces = piped(program, arguments, head);
        pieces.extend(piped(program, arguments, tail));
        assert_eq!(sizes(&pieces), expected, "{program}");
    }
    let mut skippable = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    skippable.extend(piped("zstd", &["-c", "-q"], &tar));
    assert_eq!(sizes(&skippable), expected);
}

#[test]
fn what_is_no_archive_is_named() {
    for (bytes, what) in [(b"PK\x03\x04....".as_slice(), "a zip file"), (b"BZh9", "bzip2"), (b"", "empty"), (b"<html>", "a web page")] {
        let error = open("x.tar", Box::new(bytes)).map(|_| ()).unwrap_err();
        assert!(error.message.contains(what), "{error}");
    }
    let cut = &piped("gzip", &["-c"], &tarball())[..300];
    let mut archive = open("x.tgz", Box::new(cut)).unwrap();
    let read: io::Result<u64> = archive.entries().unwrap().map(|entry| io::copy(&mut entry?, &mut io::sink())).sum();
    assert!(read.is_err());
}

#[test]
fn members_stay_in_their_folder() {
    let path = |name: &str, strip| member_path(Path::new(name), strip).map(|path| path.map(|path| path.display().to_string()));
    assert_eq!(path("./a/b/c", 1).unwrap().as_deref(), Some("b/c"));
    assert_eq!(path("/etc/passwd", 0).unwrap().as_deref(), Some("etc/passwd"));
    assert_eq!(path("a", 1).unwrap(), None);
    assert!(path("a/../../b", 0).is_err());
}
