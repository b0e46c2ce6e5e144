//! What the controller is told of a change: enough to show it, and no secret.

use std::path::Path;

use crate::agent::wire::ChangeReport;
use crate::api::change::{Run, WriteFile};
use crate::api::{Blob, Change, Command, Content, EntryKind, Inspect};

/// Largest text that is shown in a diff, bytes.
const SHOWN: u64 = 1 << 20;

/// How changes are reported.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// With contents before and after.
    pub(crate) diff: bool,
    /// Without anything that the task was told or saw.
    pub(crate) sensitive: bool,
}

/// Returns what is told of `change`, which `host` is about to see.
pub(crate) fn report(host: &dyn Inspect, change: &Change, manner: Manner) -> ChangeReport {
    let (before, after) = if manner.diff && !manner.sensitive { contents(host, change) } else { (None, None) };
    ChangeReport { change: without_contents(change, manner.sensitive), before, after }
}

fn contents(host: &dyn Inspect, change: &Change) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    match change {
        Change::WriteFile(write) if !write.secret => match &write.content {
            Content::Inline(bytes) => match showable(bytes) {
                Some(after) => (now(host, &write.path), Some(after)),
                None => (None, None),
            },
            // The controller has it.
            Content::Blob(blob) if !blob.secret && blob.size <= SHOWN => (now(host, &write.path), None),
            Content::Blob(_) => (None, None),
        },
        Change::Remove { path, before } if before.kind == EntryKind::File => (now(host, path), None),
        Change::Download(download) if download.before.is_some() => (now(host, &download.path), None),
        _ => (None, None),
    }
}

/// Returns a file's content as it is now, when it may be shown.
fn now(host: &dyn Inspect, path: &Path) -> Option<Vec<u8>> {
    let entry = host.entry(path).ok()??;
    if entry.kind != EntryKind::File || entry.size > SHOWN {
        return None;
    }
    showable(&host.read(path, SHOWN).ok()?)
}

/// Returns a text that may be shown.
fn showable(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = bytes.len() as u64 <= SHOWN && !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok();
    let key = bytes.windows(KEY.len()).any(|window| window == KEY);
    (text && !key).then(|| without_passwords(bytes))
}

/// Replaces what follows the words that only ever stand before a password, in whatever file.
fn without_passwords(text: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let word = line.trim_ascii_start();
        let hidden =
            PASSWORDS.iter().find(|known| word.strip_prefix(**known).is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_whitespace)));
        match hidden {
            Some(known) => {
                shown.extend_from_slice(&line[..line.len() - word.len() + known.len()]);
                shown.extend_from_slice(b" ********");
                shown.extend_from_slice(&line[line.trim_ascii_end().len()..]);
            }
            None => shown.extend_from_slice(line),
        }
    }
    shown
}

/// Words of configurations before passwords: keepalived's.
const PASSWORDS: [&[u8]; 1] = [b"auth_pass"];

/// What every private key in PEM form contains.
const KEY: &[u8] = b"PRIVATE KEY-----";

/// Returns the change without what is inside files, and without what is secret.
pub(crate) fn without_contents(change: &Change, sensitive: bool) -> Change {
    match change {
        Change::WriteFile(write) => {
            let secret = write.secret || sensitive;
            let blob = Blob { digest: write.content.digest(), size: write.content.size(), secret };
            Change::WriteFile(WriteFile { content: Content::Blob(blob), secret, ..write.clone() })
        }
        Change::Run(run) if run.secret || sensitive => {
            let command = Command { timeout: run.command.timeout, ..Command::new(["(a sensitive command)"]) };
            Change::Run(Run { command, secret: true, ..run.clone() })
        }
        Change::User { name, before, after, remove_home } => {
            let mut after = after.clone();
            if let Some(hash) = after.as_mut().and_then(|spec| spec.password_hash.as_mut()) {
                "(hidden)".clone_into(hash);
            }
            let mut before = before.clone();
            if let Some(spec) = &mut before {
                spec.password_hash = None;
            }
            Change::User { name: name.clone(), before, after, remove_home: *remove_home }
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_told_whoever_wrote_the_file() {
        let text = b"! auth_pass\n  auth_pass 11111111\n\tauth_pass\told one \r\nauth_password x\nauth_pass";
        let shown = "! auth_pass\n  auth_pass ********\n\tauth_pass ******** \r\nauth_password x\nauth_pass";
        assert_eq!(String::from_utf8(without_passwords(text)).unwrap(), shown);
    }
}
