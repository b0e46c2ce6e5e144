//! Modes mean what they mean to chmod(1).

use super::*;

/// What GNU chmod, run with umask 0, makes of a file with mode 7644 and of a directory with mode 7755.
const CHMOD: &[(&str, u32, u32)] = &[
    ("u=rw", 0o3644, 0o7655),
    ("g=rx", 0o5654, 0o7755),
    ("o=", 0o6640, 0o6750),
    ("a=r", 0o444, 0o6444),
    ("=r", 0o444, 0o6444),
    ("u=rwx", 0o3744, 0o7755),
    ("u=rws", 0o7644, 0o7655),
    ("ug=s", 0o7004, 0o7005),
    ("+t", 0o7644, 0o7755),
    ("u+t", 0o7644, 0o7755),
    ("a-s", 0o1644, 0o1755),
    ("+s", 0o7644, 0o7755),
    ("u=", 0o3044, 0o7055),
    ("u=rwX", 0o3644, 0o7755),
    ("a+X", 0o7644, 0o7755),
    ("go-rwx", 0o7600, 0o7700),
    ("u+x-w", 0o7544, 0o7555),
    ("u=rw+x", 0o3744, 0o7755),
    ("o=t", 0o7640, 0o7750),
    ("a=t", 0o1000, 0o7000),
    ("ug-s", 0o1644, 0o1755),
    ("-t", 0o6644, 0o6755),
    ("o-t", 0o6644, 0o6755),
    ("u-t", 0o7644, 0o7755),
    ("u+x,a+X", 0o7755, 0o7755),
];

#[test]
fn symbolic_modes_do_what_chmod_does() {
    for (text, file, directory) in CHMOD {
        let mode = Mode::parse(text).unwrap();
        let found = (mode.apply(0o7644, false), mode.apply(0o7755, true));
        assert_eq!(found, (*file, *directory), "{text}: {:o} {:o}", found.0, found.1);
    }
}

#[test]
fn octal_modes_are_three_or_four_digits_and_numbers_are_refused() {
    for (text, bits) in [("000", 0), ("644", 0o644), ("0644", 0o644), ("7777", 0o7777)] {
        assert_eq!(Mode::parse(text).unwrap().apply(0o123, false), bits, "{text}");
    }
    for text in ["", "0", "64", "00644", "77777", "0888", "0x1ff", "rw-r--r--", "u", "z+x", "u+q", "u+x,", "u=g"] {
        let error = Mode::parse(text).unwrap_err();
        assert_eq!(error, format!("`{text}` is not a file mode; write \"0644\" or \"u+x,go-w\""));
    }
    assert!(serde_json::from_str::<Mode>("420").unwrap_err().to_string().contains("expected a mode as a string"));
}
