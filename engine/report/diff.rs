//! What a change does to contents: unified for text, size and checksum for binaries, fingerprints for keys.

use std::sync::Arc;
use std::time::Duration;

use kplay_modules::agent::wire::ChangeReport;
use kplay_modules::api::change::{Member, MemberKind, Packages, WriteFile};
use kplay_modules::api::{Change, Content, Digest};
use similar::TextDiff;

use super::pem;
use super::summary::bytes;

/// Finds a content that the controller holds, for contents that hosts therefore do not send back.
pub type Lookup = Arc<dyn Fn(&Digest) -> Option<Vec<u8>> + Send + Sync>;

/// Most lines shown of one change.
const LINES: usize = 500;
/// Most entries shown of an archive.
const ENTRIES: usize = 50;

/// A line of a diff; `kind` decides its color.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What the line is.
    pub kind: LineKind,
    /// Its text, without the newline, control characters spelled out.
    pub text: String,
}

/// The kinds of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    /// `--- before`, `+++ after`, `@@ … @@`
    Head,
    /// The same before and after.
    Same,
    /// Only after.
    Added,
    /// Only before.
    Removed,
    /// A remark.
    Note,
}

/// Returns what the change does to contents; nothing when its summary says it all.
pub fn diff(report: &ChangeReport, lookup: &Lookup) -> Vec<Line> {
    match &report.change {
        Change::WriteFile(write) => file(write, report, lookup),
        Change::Remove { path, .. } => match &report.before {
            Some(before) if is_text(before) => contents(&path.display().to_string(), false, before, &[]),
            _ => Vec::new(),
        },
        Change::Unpack(unpack) => bounded(unpack.members.iter().map(member), ENTRIES),
        Change::Packages(packages) => bounded(package_lines(packages).into_iter(), ENTRIES),
        _ => Vec::new(),
    }
}

fn line(kind: LineKind, text: impl Into<String>) -> Line {
    Line { kind, text: text.into() }
}

fn note(text: impl Into<String>) -> Line {
    line(LineKind::Note, text)
}

fn file(write: &WriteFile, report: &ChangeReport, lookup: &Lookup) -> Vec<Line> {
    let digest = write.content.digest();
    if write.before_digest == Some(digest) {
        return Vec::new();
    }
    if write.secret {
        return vec![note("the content is secret")];
    }
    let after = match (&report.after, &write.content) {
        (Some(bytes), _) => Some(bytes.clone()),
        (None, Content::Inline(bytes)) => Some(bytes.clone()),
        (None, Content::Blob(blob)) if blob.secret => return vec![note("the content is secret")],
        (None, Content::Blob(_)) => lookup(&digest),
    };
    let was_file = write.before_digest.is_some();
    let before = if was_file { report.before.as_deref() } else { Some(&[][..]) };
    let shown = write.path.display().to_string();
    match (before, after) {
        (Some(before), Some(after)) if is_text(before) && is_text(&after) => contents(&shown, write.before.is_none(), before, &after),
        _ => {
            let old = write.before.as_ref().filter(|_| was_file).map(|entry| entry.size);
            let was = match (old, write.before_digest) {
                (Some(size), Some(digest)) => format!("{}, sha256 {} -> ", bytes(size), short(&digest)),
                _ => String::new(),
            };
            vec![note(format!("binary: {was}{}, sha256 {}", bytes(write.content.size()), short(&digest)))]
        }
    }
}

/// Compares two texts. Keys and certificates in them are replaced by what identifies them.
fn contents(name: &str, absent: bool, before: &[u8], after: &[u8]) -> Vec<Line> {
    if before == after {
        return vec![note("the file is empty")];
    }
    let text = |bytes: &[u8]| pem::described(&String::from_utf8_lossy(bytes));
    let (before, after) = (text(before), text(after));
    if before == after {
        return vec![note("differs only in what is not shown of keys")];
    }
    let diff = TextDiff::configure().timeout(Duration::from_secs(2)).diff_lines(before.as_str(), after.as_str());
    let mut unified = diff.unified_diff();
    let head = if absent { "/dev/null".to_owned() } else { format!("before {name}") };
    let unified = unified.context_radius(3).header(&head, &format!("after {name}")).to_string();
    // A carriage return at the end of a line may be all that differs; it is shown like other control characters.
    let lines = unified.split_terminator('\n').map(|text| {
        let kind = match text.as_bytes() {
            [b'-', b'-', b'-', b' ', ..] | [b'+', b'+', b'+', b' ', ..] | [b'@', b'@', ..] => LineKind::Head,
            [b'+', ..] => LineKind::Added,
            [b'-', ..] => LineKind::Removed,
            [b'\\', ..] => LineKind::Note,
            _ => LineKind::Same,
        };
        line(kind, printable(text))
    });
    bounded(lines, LINES)
}

/// Keeps the first lines, and says how many there are besides.
fn bounded(lines: impl Iterator<Item = Line>, limit: usize) -> Vec<Line> {
    let mut kept: Vec<Line> = lines.collect();
    if kept.len() > limit {
        let rest = kept.len() - limit;
        kept.truncate(limit);
        kept.push(note(format!("… {rest} more")));
    }
    kept
}

fn member(member: &Member) -> Line {
    let path = printable(&member.path.display().to_string());
    let what = match &member.kind {
        MemberKind::File(_, size) => format!("{path} ({})", bytes(*size)),
        MemberKind::Directory => format!("{path}/"),
        MemberKind::Symlink(target) => format!("{path} -> {}", printable(&target.display().to_string())),
    };
    match member.before {
        None => line(LineKind::Added, format!("+{what}")),
        Some(_) => line(LineKind::Same, format!("~{what}")),
    }
}

fn package_lines(packages: &Packages) -> Vec<Line> {
    if packages.install.len() + packages.remove.len() < 2 {
        return Vec::new();
    }
    let installed = packages.install.iter().map(|name| line(LineKind::Added, format!("+{name}")));
    installed.chain(packages.remove.iter().map(|name| line(LineKind::Removed, format!("-{name}")))).collect()
}

fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

/// Returns the head of a digest, enough to tell two contents apart.
fn short(digest: &Digest) -> String {
    digest.hex()[..12].to_owned()
}

/// Spells out control characters, which would otherwise speak to the terminal.
pub fn printable(text: &str) -> String {
    if !text.chars().any(|letter| letter.is_control() && letter != '\t') {
        return text.to_owned();
    }
    text.chars()
        .map(|letter| if letter.is_control() && letter != '\t' { letter.escape_default().to_string() } else { letter.to_string() })
        .collect()
}
