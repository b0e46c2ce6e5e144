//! What the documents name, read out of their own text, held against what lies on hosts. `playbooks/DEVIATIONS.md` has the only
//! exceptions, and an exception that is none any more is a failure, too.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::Lab;

const SITE: &str = "playbooks/site.lua";

/// Deploys a whole site on empty hosts. Its forecast makes neither authority nor keys; a second run has nothing to do.
#[track_caller]
pub fn deployed(inventory: &str) -> Lab {
    let lab = Lab::of_inventory(inventory);
    lab.kplay(&[SITE, "--check"]).success();
    assert!(!lab.folder().join("pki").exists(), "a forecast makes neither authority nor keys");
    lab.play_book(SITE, &[]);
    lab.play_book(SITE, &[]).nothing_to_do();
    lab.play_book(SITE, &["--check"]).nothing_to_do();
    lab.kplay(&["playbooks/verify.lua"]).success();
    lab
}

/// The rows of the table that are about one document: what they quote of it, and what they say that kplay does.
pub struct Deviations {
    document: BTreeSet<String>,
    kplay: BTreeSet<String>,
}

impl Deviations {
    /// Reads the table.
    pub fn of(document: &str) -> Self {
        let table = include_str!("../../playbooks/DEVIATIONS.md");
        let mut found = Self { document: BTreeSet::new(), kplay: BTreeSet::new() };
        for row in table.lines().filter(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            if cells[1].split(", ").any(|name| name == document) {
                found.document.extend(quoted(cells[3]));
                found.kplay.extend(quoted(cells[4]));
            }
        }
        assert!(!found.document.is_empty(), "no row about document {document}");
        found
    }

    /// Insists that what a document says holds exactly where the table makes no exception.
    #[track_caller]
    fn judge(&self, what: &str, holds: bool, seen: &str) {
        let excepted = self.document.contains(what);
        assert!(holds || excepted, "{what} is not as the document says, and DEVIATIONS.md does not have it: {seen}");
        assert!(!(holds && excepted), "{what} is as the document says, and DEVIATIONS.md says it is not: {seen}");
    }
}

/// Returns what stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// Reads flags as units, environment files and command lines have them: `--name=value`, `--name value`, `--name`.
pub fn flags(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let words: Vec<&str> = text.split(|letter: char| letter.is_whitespace() || letter == '\\' || letter == '"' || letter == '\0').collect();
    let mut words = words.into_iter().filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        let Some(flag) = word.find("--").map(|at| &word[at + 2..]).filter(|_| word.starts_with("--") || word.contains("=--")) else {
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            // A text in quotes behind the sign is the next word.
            Some((name, "")) => (name, words.next().unwrap_or_default()),
            Some(pair) => pair,
            None => (flag, words.next_if(|next| !next.starts_with("--") && !next.ends_with('=')).unwrap_or("true")),
        };
        found.insert(name.to_owned(), value.to_owned());
    }
    found
}

/// Returns the command line of a unit's text, and the other lines with their sections.
fn parted(unit: &str) -> (String, BTreeSet<String>) {
    let (mut command, mut lines, mut section, mut inside) = (String::new(), BTreeSet::new(), String::new(), false);
    for line in unit.lines().map(str::trim) {
        if inside || line.starts_with("ExecStart=") {
            command += line;
            command.push('\n');
            inside = line.ends_with('\\');
        } else if line.starts_with('[') {
            section = line.to_owned();
        } else if !line.is_empty() && !line.starts_with('#') {
            lines.insert(format!("{section} {line}"));
        }
    }
    (command, lines)
}

/// A master, and the document that it follows.
pub struct Master<'a> {
    /// Its lab.
    pub lab: &'a Lab,
    /// Its name.
    pub host: &'a str,
    /// The document's exceptions.
    pub deviations: &'a Deviations,
}

impl Master<'_> {
    fn sh(&self, script: &str) -> String {
        self.lab.sh(self.host, script).success()
    }

    /// Returns the flags of the running process.
    pub fn running_flags(&self) -> BTreeMap<String, String> {
        flags(&self.sh("tr '\\0' '\\n' < /proc/$(systemctl show -p MainPID --value kube-apiserver)/cmdline"))
    }

    /// Holds the flags of the running process against those that the document writes. Those beyond must be explained by the document
    /// (`explained`) or stand in the table.
    pub fn holds_flags(&self, document: &str, explained: &[&str]) {
        let (document, running) = (flags(document), self.running_flags());
        assert!(document.len() > 15, "the document has flags: {document:?}");
        for (name, value) in &document {
            let seen = running.get(name);
            self.deviations.judge(&format!("--{name}"), seen == Some(value), &format!("{seen:?} on {}", self.host));
        }
        for name in running.keys().filter(|name| !document.contains_key(*name)) {
            let known = self.deviations.kplay.contains(&format!("--{name}")) || explained.iter().any(|pattern| fits(pattern, name));
            assert!(known, "--{name} is in no document, and DEVIATIONS.md does not have it");
        }
    }

    /// Holds flags that the document explains, with `*` in their names.
    pub fn explains(&self, patterns: &[&str]) {
        let running = self.running_flags();
        for pattern in patterns {
            let (name, value) = pattern.split_once('=').map_or((*pattern, None), |(name, value)| (name, Some(value)));
            let seen: Vec<_> = running.iter().filter(|(flag, _)| fits(name, flag)).collect();
            let holds = !seen.is_empty() && value.is_none_or(|value| seen.iter().all(|(_, seen)| *seen == value));
            assert!(holds || self.deviations.document.contains(name), "{pattern} is explained, and it is {seen:?}");
        }
    }

    /// Holds the lines of the unit other than its command.
    pub fn holds_unit(&self, document: &str, path: &str) {
        let (_, expected) = parted(document);
        let (command, lines) = parted(&self.sh(&format!("cat {path}")));
        assert!(command.contains("kube-apiserver") && expected.len() > 5, "{expected:?}");
        for line in &expected {
            self.deviations.judge(line.split_once(' ').unwrap().1, lines.contains(line), &format!("{lines:?}"));
        }
    }

    /// Holds files, folders, links and their modes.
    pub fn holds_paths(&self, table: &str) {
        for row in table.lines().filter(|line| !line.starts_with('#')) {
            let cells: Vec<&str> = row.split_whitespace().collect();
            let [line, kind, mode, path, ref target @ ..] = cells[..] else { panic!("{row}") };
            let script = format!("stat -c '%F|%a|%U' {path} 2>/dev/null && {{ readlink {path} || true; }}");
            let seen = self.lab.sh(self.host, &script).stdout;
            let (first, second) = seen.split_once('\n').unwrap_or_default();
            let word = match kind {
                "file" => "regular file",
                "folder" => "directory",
                "link" => "symbolic link",
                "absent" => "",
                other => panic!("{other}"),
            };
            // A program may be a link, and what it leads to counts.
            let followed = self.lab.sh(self.host, &format!("stat -L -c '%F|%a|%U' {path} 2>/dev/null")).stdout;
            let first = if kind == "file" { followed.trim() } else { first };
            let mut parts = first.split('|');
            let found = parts.next().unwrap_or_default() == word;
            let same_mode = mode == "-" || parts.next() == Some(mode);
            let same_target = target.first().is_none_or(|target| second.trim() == target.trim_end_matches('/'));
            self.deviations.judge(path, found && same_mode && same_target, &format!("line {line}: {first:?} {second:?}"));
        }
    }
}

/// Returns whether a name fits a pattern with one `*` at most, which may stand for nothing, its dash included.
fn fits(pattern: &str, name: &str) -> bool {
    let pattern = pattern.trim_start_matches("--").split('=').next().unwrap_or_default();
    match pattern.split_once('*') {
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| rest.ends_with(after.trim_start_matches('-'))),
        None => pattern == name,
    }
}

#[test]
fn flags_are_read_in_all_their_spellings() {
    let text = "ExecStart=/x \\\\\n  --a=1 \\\n  --b  2 \\\n  --c=\"d-\" \\\\\n  --e \\\n  --f=g=h\nKUBE=\"--i=j --k\"\nMORE=\"--l m=n\"\n";
    let read: Vec<String> = flags(text).into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    assert_eq!(read, ["a 1", "b 2", "c d-", "e true", "f g=h", "i j", "k true", "l m=n"]);
}
