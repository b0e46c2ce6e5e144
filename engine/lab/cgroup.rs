//! Control groups: every host gets its own. Without that, hosts on a machine without systemd would share one tree, and a
//! unit that is stopped in one host would wait for the unit of the same name in all others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Returns the control groups that a host named `name` is to have. None on a machine that runs systemd, where the
/// container asks systemd for a scope of its own.
pub fn planned(name: &str) -> Vec<PathBuf> {
    if machine_runs_systemd() {
        return Vec::new();
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    hierarchies(&table).into_iter().map(|mount| mount.join(name)).collect()
}

/// Returns whether systemd is the machine's own init.
pub fn machine_runs_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// Returns the processes in these control groups and in all below them.
pub fn processes(groups: &[PathBuf]) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let mut queue = groups.to_vec();
    while let Some(group) = queue.pop() {
        let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        queue.extend(children(&group));
    }
    found
}

/// Removes these control groups with all below them. Groups that still hold processes stay.
pub fn remove(groups: &[PathBuf]) {
    for group in groups {
        remove(&children(group));
        // What cannot be removed yet is reported by whoever asks whether it is gone.
        let _ = std::fs::remove_dir(group);
    }
}

fn children(group: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(group).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.into_iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Returns where the hierarchies that systemd uses are mounted: the unified one, and version 1's `name=systemd`.
fn hierarchies(mountinfo: &str) -> Vec<PathBuf> {
    let of_line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?;
        let mut right = right.split(' ');
        let kind = right.next()?;
        let options = right.nth(1)?;
        let used = kind == "cgroup2" || kind == "cgroup" && options.split(',').any(|option| option == "name=systemd");
        used.then(|| PathBuf::from(point))
    };
    mountinfo.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hierarchies_of_systemd_are_used() {
        let table = "1 0 0:1 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n2 0 0:2 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                     3 0 0:3 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(hierarchies(table), [PathBuf::from("/sys/fs/cgroup/systemd"), PathBuf::from("/sys/fs/cgroup/unified")]);
    }
}
