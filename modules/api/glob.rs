//! Patterns of paths, as `include`, `exclude` and `ignore` take them.
//!
//! `*` stands for any part of a name, `?` for one character, `[a-z]` and `[!a-z]` for one of a set, `**` for any number of folders.
//! A pattern without a slash is compared with every name of a path, one with a slash with the path from its beginning; a folder
//! that a pattern matches takes with it all that is below.

use std::path::Path;

use super::error::ModuleError;

/// A list of patterns.
#[derive(Debug, Clone, Default)]
pub struct Globs(Vec<Glob>);

#[derive(Debug, Clone)]
struct Glob {
    /// The pattern as it was written.
    text: String,
    /// The pattern's names; the first is `**` unless the pattern had a slash.
    names: Vec<Vec<char>>,
}

impl Globs {
    /// Reads patterns; `argument` is where they were given.
    pub fn parse(patterns: &[String], argument: &str) -> Result<Self, ModuleError> {
        patterns.iter().map(|pattern| Glob::parse(pattern, argument)).collect::<Result<_, _>>().map(Self)
    }

    /// Returns whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether any pattern matches the relative `path` or a folder that it lies in.
    pub fn matches(&self, path: &Path) -> bool {
        self.0.iter().any(|glob| glob.matches(path))
    }

    /// Returns the first pattern that matches none of the paths.
    pub fn unused(&self, paths: &[&Path]) -> Option<&str> {
        self.0.iter().find(|glob| !paths.iter().any(|path| glob.matches(path))).map(|glob| glob.text.as_str())
    }
}

impl Glob {
    fn parse(text: &str, argument: &str) -> Result<Self, ModuleError> {
        let refuse = |what: &str| Err(ModuleError::argument(format!("`{text}` in `{argument}` {what}")).at(argument));
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        let from_the_top = trimmed.contains('/');
        let trimmed = trimmed.strip_prefix("./").or(trimmed.strip_prefix('/')).unwrap_or(trimmed);
        let mut names: Vec<Vec<char>> = trimmed.split('/').map(|name| name.chars().collect()).collect();
        if names.iter().any(Vec::is_empty) {
            return refuse("holds an empty name");
        }
        if names.iter().any(|name| name.len() > 2 && name.iter().all(|letter| *letter == '*')) {
            return refuse("holds more than two stars in a row");
        }
        if names.iter().any(|name| !is_closed(name)) {
            return refuse("has a `[` without its `]`");
        }
        if !from_the_top {
            names.insert(0, vec!['*', '*']);
        }
        Ok(Self { text: text.to_owned(), names })
    }

    fn matches(&self, path: &Path) -> bool {
        let names: Vec<Vec<char>> = path.components().map(|part| part.as_os_str().to_string_lossy().chars().collect()).collect();
        (1..=names.len()).any(|length| names_match(&self.names, &names[..length]))
    }
}

/// Returns whether each `[` has its `]`.
fn is_closed(mut name: &[char]) -> bool {
    while let Some(open) = name.iter().position(|letter| *letter == '[') {
        let Some((_, rest)) = set(&name[open..]) else { return false };
        name = rest;
    }
    true
}

fn names_match(pattern: &[Vec<char>], names: &[Vec<char>]) -> bool {
    match (pattern.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first.as_slice() == ['*', '*'] => {
            names_match(rest, names) || names.split_first().is_some_and(|(_, below)| names_match(pattern, below))
        }
        (Some((first, rest)), Some((name, below))) => name_matches(first, name) && names_match(rest, below),
        _ => false,
    }
}

fn name_matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => name_matches(rest, name) || name.split_first().is_some_and(|(_, below)| name_matches(pattern, below)),
        (Some(('?', rest)), Some((_, below))) => name_matches(rest, below),
        (Some(('[', _)), Some((letter, below))) => set(pattern).is_some_and(|(set, rest)| set.holds(*letter) && name_matches(rest, below)),
        (Some((wanted, rest)), Some((letter, below))) => wanted == letter && name_matches(rest, below),
        _ => false,
    }
}

/// What stands between brackets.
struct Set<'a> {
    letters: &'a [char],
    not: bool,
}

impl Set<'_> {
    fn holds(&self, letter: char) -> bool {
        let mut rest = self.letters;
        let mut found = false;
        while let Some((first, more)) = rest.split_first() {
            rest = match more {
                ['-', last, after @ ..] => {
                    found |= (*first..=*last).contains(&letter);
                    after
                }
                _ => {
                    found |= *first == letter;
                    more
                }
            };
        }
        found != self.not
    }
}

/// Splits `[…]rest` in two; a `]` that comes first is one of the letters.
fn set(pattern: &[char]) -> Option<(Set<'_>, &[char])> {
    let inner = pattern.strip_prefix(&['['])?;
    let (not, inner) = match inner {
        ['!' | '^', rest @ ..] => (true, rest),
        _ => (false, inner),
    };
    let end = 1 + inner.iter().skip(1).position(|letter| *letter == ']')?;
    Some((Set { letters: &inner[..end], not }, &inner[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_or_paths_and_what_is_below() {
        let cases = [
            ("*.tar", "server/bin/a.tar", true),
            ("*.tar", "a.tar.gz", false),
            ("*_tag", "bin/kube-apiserver.docker_tag", true),
            ("bin", "server/bin/a", true),
            ("bin", "server/binary", false),
            ("server/bin", "server/bin/a", true),
            ("server/bin/", "server/bin", true),
            ("./server/*", "server/bin/a", true),
            ("/bin", "server/bin", false),
            ("server/*", "server", false),
            ("**/a", "a", true),
            ("**/a", "x/y/a", true),
            ("x/**/a", "x/a", true),
            ("x/**/a", "x/y/z/a", true),
            ("x/**", "x/y/z", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]x", "]x", true),
            ("[a-]x", "-x", true),
            ("*", "any/thing", true),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("é?", "éà", true),
        ];
        for (pattern, path, expected) in cases {
            let globs = Globs::parse(&[pattern.to_owned()], "exclude").unwrap();
            assert_eq!(globs.matches(Path::new(path)), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["", "/", "a//b", "[a", "a[", "[]", "***"] {
            assert!(Globs::parse(&[pattern.to_owned()], "exclude").is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_known() {
        let globs = Globs::parse(&["a*".to_owned(), "b".to_owned()], "include").unwrap();
        assert_eq!(globs.unused(&[Path::new("abc")]), Some("b"));
    }
}
