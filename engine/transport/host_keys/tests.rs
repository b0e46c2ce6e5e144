//! Lines of known_hosts files, and what follows from them.

use super::*;

const ED: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFSVcaY5FeXsyYu4wNaYHpHyv50xqaRHxwRRsR65LVlq";
const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKX0k9VERAOV2TATQyOQqvyOoBs3DNRejxN8LqWT9jgW";
const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBMLWxn5p9x/+GSQvv5TrG+RZ+0FUFIxWU7QVETKlP9o6wznS5gSAQ2eS71IAPR+Sz6M4lv+DLenseC8zE49oheA=";
/// `hash.example`, hashed by ssh-keygen -H.
const HASHED: &str = "|1|qg9pp0vrE63Rz+V8Jg6y590beZo=|aFlv2af0XsmhfqW9AX2UPOmug4Y=";

fn known(text: &str, name: &str) -> KnownHosts {
    let mut known = KnownHosts::default();
    known.parse(Path::new("known_hosts"), text, name);
    known
}

fn judge(text: &str, name: &str, key: &str) -> &'static str {
    match known(text, name).judge(name, &key.parse().unwrap()) {
        Verdict::Known => "known",
        Verdict::Unknown => "unknown",
        Verdict::Changed(_) => "changed",
        Verdict::Revoked(_) => "revoked",
    }
}

#[test]
fn keys_are_judged_as_openssh_does() {
    let cases = [
        (format!("a.example {ED}"), "a.example", "known"),
        (format!("A.Example {ED} with a comment # and more"), "a.example", "known"),
        (format!("a.example,10.0.0.1\t{ED}"), "10.0.0.1", "known"),
        (format!("b.example {ED}"), "a.example", "unknown"),
        (format!("a.example {OTHER}"), "a.example", "changed"),
        (format!("a.example {OTHER}\na.example {ED}"), "a.example", "known"),
        (format!("*.example,!a.example {ED}"), "a.example", "unknown"),
        (format!("*.example,!a.example {ED}"), "b.example", "known"),
        (format!("?.example {ED}"), "ab.example", "unknown"),
        (format!("{HASHED} {ED}"), "hash.example", "known"),
        (format!("{HASHED} {OTHER}"), "hash.example", "changed"),
        (format!("{HASHED} {ED}"), "other.example", "unknown"),
        (format!("[a.example]:2222 {ED}"), "[a.example]:2222", "known"),
        (format!("[*.example]:2222 {ED}"), "[a.example]:2222", "known"),
        // No fallback from a port to the bare name, in either direction.
        (format!("a.example {OTHER}"), "[a.example]:2222", "unknown"),
        (format!("[a.example]:2222 {OTHER}"), "a.example", "unknown"),
        // A revoked key stays revoked, whatever else says so.
        (format!("a.example {ED}\n@revoked * {ED}"), "a.example", "revoked"),
        (format!("a.example {ED}\n@revoked * {OTHER}"), "a.example", "known"),
        // An authority does not vouch for plain keys.
        (format!("@cert-authority * {ED}"), "a.example", "unknown"),
        // Offering another type does not make a known host unknown.
        (format!("a.example {ECDSA}"), "a.example", "changed"),
    ];
    for (text, name, expected) in &cases {
        assert_eq!(judge(text, name, ED), *expected, "{text} for {name}");
    }
}

#[test]
fn bad_lines_are_left_out_and_named() {
    let known = known(&format!("# comment\n\nnonsense\na.example ssh-ed25519 AAAA!\n@strange * {ED}\na.example {ED}"), "a.example");
    assert_eq!(known.lines.len(), 1);
    assert_eq!(known.warnings.len(), 3);
    assert!(known.warnings[0].starts_with("known_hosts:3:"), "{:?}", known.warnings);
}

#[test]
fn the_types_of_a_host_come_in_the_order_of_its_lines() {
    let known = known(&format!("a {ECDSA}\na {ED}\nb {OTHER}\n@revoked a {OTHER}"), "a");
    assert_eq!(known.types_of("a"), ["ecdsa-sha2-nistp256", "ssh-ed25519"]);
}

#[test]
fn new_keys_are_written_once_and_changed_ones_never() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".ssh/known_hosts");
    let wire = |key: &str| key.parse::<PublicKey>().unwrap().to_bytes().unwrap();
    let accept = |name: &str, key: &str, hashed| {
        check(&KnownHosts::read(std::slice::from_ref(&file), name), name, &wire(key), HostKeyPolicy::AcceptNew, &file, hashed)
    };
    accept("a.example", ED, false).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("a.example {ED}\n"));
    accept("a.example", ED, false).unwrap();
    accept("[b.example]:2222", OTHER, true).unwrap();
    accept("[b.example]:2222", OTHER, true).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().nth(1).unwrap().starts_with("|1|"), "{text}");

    let error = accept("a.example", OTHER, false).unwrap_err();
    assert_eq!(error.place, Some(Place::line(&file, 1)));
    assert!(error.details[0].starts_with("known: ssh-ed25519 SHA256:"), "{error:?}");
    assert!(error.details[1].starts_with("shown: ssh-ed25519 SHA256:"), "{error:?}");
    assert!(error.hints.iter().any(|hint| hint.contains("ssh-keygen -f") && hint.contains("-R 'a.example'")), "{error:?}");
}

#[test]
fn a_last_line_without_its_end_is_not_joined() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    std::fs::write(&file, format!("z {OTHER}")).unwrap();
    append(&file, "a", &ED.parse().unwrap(), false).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("z {OTHER}\na {ED}\n"));
}

#[test]
fn globs() {
    for (pattern, text, expected) in [
        ("*", "", true),
        ("a*c", "abbc", true),
        ("a*c", "abcd", false),
        ("*a*b*", "xaxxbx", true),
        ("a?", "a", false),
        ("", "", true),
        ("", "x", false),
    ] {
        assert_eq!(matches_glob(pattern, text), expected, "{pattern} {text}");
    }
}
