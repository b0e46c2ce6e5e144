//! Processes by number and start time, so that a number that was given out again is never mistaken, and never by name.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::layout::namespace_path;

/// One life of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since the machine booted.
    started: u64,
}

impl Process {
    /// Reads what a host's launcher recorded: number, start time, boot of the machine. `None` when the process has ended.
    pub fn recorded(file: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(file).ok()?;
        let mut words = text.split_ascii_whitespace();
        let process = Self { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? };
        let same_boot = words.next() == std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().as_deref().map(str::trim);
        (same_boot && process.lives()).then_some(process)
    }

    /// Returns whether this very process still runs.
    pub fn lives(&self) -> bool {
        stat(self.pid).is_some_and(|(state, started)| started == self.started && !matches!(state, 'Z' | 'X'))
    }

    /// Returns the host's own first process: the child of its container.
    pub fn init(&self) -> Option<i32> {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).ok()?;
        let children = children.split_ascii_whitespace().filter_map(|word| word.parse().ok());
        children.into_iter().find(|child| is_first_in_namespace(*child)).filter(|_| self.lives())
    }

    /// Kills the process at once.
    pub fn kill(&self) {
        if self.lives() {
            kill(self.pid);
        }
    }
}

/// Returns the processes that live in the network namespace `name`: those of a lab's host, and nothing else.
pub fn in_namespace(name: &str) -> BTreeSet<i32> {
    let Ok(entry) = namespace_path(name).metadata() else { return BTreeSet::new() };
    let wanted = format!("net:[{}]", entry.ino());
    let lives_there = |pid: &i32| {
        std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|found| found.as_os_str() == wanted.as_str())
            && stat(*pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
    };
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeSet::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(lives_there).collect()
}

/// Kills what `find` returns, again and again, until it returns nothing; `false` when something is left after `limit`.
pub fn kill_all(find: impl Fn() -> BTreeSet<i32>, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = find();
        if left.is_empty() {
            return true;
        }
        left.into_iter().for_each(kill);
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid).filter(|pid| !pid.is_init()) {
        // A process that has ended meanwhile is what was wanted.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// Returns state and start time. The command's name, in parentheses, may hold anything.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn is_first_in_namespace(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_ascii_whitespace().count() > 1 && numbers.split_ascii_whitespace().next_back() == Some("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(file: &Path, pid: u32, started: u64) {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        std::fs::write(file, format!("{pid} {started} {boot}")).unwrap();
    }

    #[test]
    fn a_number_given_out_again_is_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p");
        let me = std::process::id();
        let (_, started) = stat(i32::try_from(me).unwrap()).unwrap();
        record(&file, me, started);
        assert!(Process::recorded(&file).is_some());
        record(&file, me, started + 1);
        assert!(Process::recorded(&file).is_none());
        std::fs::write(&file, format!("{me} {started} another-boot")).unwrap();
        assert!(Process::recorded(&file).is_none());
    }

    #[test]
    fn an_absent_namespace_holds_no_process() {
        assert!(in_namespace("kplay-no-such-namespace").is_empty());
    }
}
