//! Cases of strict reading: what is a value, what is an error, and where.

use std::path::Path;

use super::parse;
use crate::diagnostic::Diagnostic;

fn json(text: &str) -> String {
    parse(Path::new("x.yaml"), text).unwrap().root.to_json().to_string()
}

/// Returns line, column, length and message of the error.
fn refused(text: &str) -> (u32, u32, u32, String) {
    let error: Box<Diagnostic> = parse(Path::new("x.yaml"), text).unwrap_err();
    let place = error.place.unwrap();
    (place.line, place.column, place.length, error.message)
}

#[test]
fn scalars_follow_the_core_schema() {
    for (text, expected) in [
        ("", "null"),
        ("~", "null"),
        ("yes", r#""yes""#),
        ("No", r#""No""#),
        ("on", r#""on""#),
        ("true", "true"),
        ("0", "0"),
        ("-0", "0"),
        ("+12", "12"),
        ("0x1f", "31"),
        ("0o644", "420"),
        ("1_000", r#""1_000""#),
        ("22:22", r#""22:22""#),
        ("2026-11-22", r#""2026-11-22""#),
        ("1.10", "1.1"),
        (".5", "0.5"),
        ("1e3", "1000.0"),
        ("1.2.3", r#""1.2.3""#),
        (".", r#"".""#),
        ("e3", r#""e3""#),
        ("\"0644\"", r#""0644""#),
        ("!!str 12", r#""12""#),
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
    ] {
        assert_eq!(json(text), expected, "{text}");
    }
}

#[test]
fn what_readers_disagree_about_is_refused() {
    let (line, column, length, message) = refused("a: 1\nmode: 0644\n");
    assert_eq!((line, column, length), (2, 7, 4));
    assert!(message.starts_with("the number `0644` begins with a zero"), "{message}");
    assert!(refused("x: 99999999999999999999").3.contains("64 bits"));
    assert!(refused("x: .inf").3.contains("not a number"));
}

#[test]
fn a_key_given_twice_is_refused() {
    assert_eq!(refused("a:\n  b: 1\n  c: 2\n  b: 3\n"), (4, 3, 1, "the key `b` is given twice, first in line 2".to_owned()));
    assert_eq!(refused("{1: a, \"1\": b}").3, "the key `1` is given twice, first in line 1");
}

#[test]
fn merge_keys_yield_to_what_is_written_out() {
    let text = "base: &base {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\nx:\n  <<: [*base, *more]\n  a: 9\n";
    assert_eq!(json(text), r#"{"base":{"a":1,"b":2},"more":{"b":3,"c":4},"x":{"b":2,"c":4,"a":9}}"#);
    assert_eq!(refused("<<: 3").3, "`<<` merges a mapping or a list of them, not a number");
}

#[test]
fn aliases_cannot_exhaust_the_memory() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    assert_eq!(refused(&text).3, "aliases multiply to too many values");
    assert!(parse(Path::new("x"), &"[".repeat(200)).is_err());
    assert!(parse(Path::new("x"), "a: &a [*a]").is_err());
}

#[test]
fn tags_are_known_or_refused() {
    assert_eq!(refused("p: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n").0, 1);
    assert_eq!(refused("p: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n").1, 4);
    assert_eq!(refused("p: !other x"), (1, 4, 6, "unknown tag `!other`".to_owned()));
    assert!(parse(Path::new("x"), "p: !unsafe '{{ x }}'").unwrap().root.has_literal());
}

#[test]
fn mistakes_have_a_place() {
    let (line, _, _, _) = refused("a: [1, 2\nb: 3\n");
    assert!(line >= 1);
    assert_eq!(refused("a: 1\n---\nb: 2\n").0, 2);
    assert_eq!(refused("a: 1\n b: 2\n").0, 2);
}
