//! Clouds: what earlier changes may have done to a host beyond what their data tells.

use std::path::{Path, PathBuf};

use super::{Certainty, Forecast};
use crate::api::change::{Footprint, Packages};
use crate::api::types::is_below;

/// Something that cannot be seen clearly, since a change laid in between.
pub(super) struct Cloud {
    pub(super) over: Over,
    /// A fragment that names the cause: "command `make` would have run".
    pub(super) because: String,
    /// Which fold laid it.
    pub(super) at: u64,
}

/// What a cloud lies over.
pub(super) enum Over {
    Anything,
    /// These and all below.
    Paths(Vec<PathBuf>),
    /// Files of the system, users and units, as packages bring and touch them.
    System(SystemCloud),
    Units(Vec<String>),
    Accounts(Vec<String>),
    KernelParameters(Vec<String>),
}

/// What packages that would have been installed may bring.
pub(super) struct SystemCloud {
    /// Whether their services may start.
    pub(super) starts: bool,
    /// Whether any package is installed, not only removed.
    pub(super) installs: bool,
}

/// Folders that packages stay out of, by the policies of all distributions.
const PRIVATE: &[&str] = &["/home", "/root", "/tmp", "/srv", "/mnt", "/media", "/usr/local", "/proc", "/sys", "/dev"];

/// Folders where a package hardly ever puts anything that a playbook manages: vendors' packages use `/opt`, and below
/// `/etc/systemd/system` packages only have links made.
const RARE: &[&str] = &["/opt", "/etc/systemd/system"];

impl Forecast<'_> {
    /// Lays a cloud, as a task does of which cannot be known what it would do.
    pub fn cloud(&mut self, footprint: &Footprint, because: &str) {
        let over = match footprint {
            Footprint::Nothing => return,
            Footprint::Anything => Over::Anything,
            Footprint::System => Over::System(SystemCloud { starts: false, installs: true }),
            Footprint::Paths(paths) if paths.is_empty() => return,
            Footprint::Paths(paths) => {
                let mut both = paths.clone();
                both.extend(paths.iter().map(|path| self.silently(|forecast| forecast.settle(path))));
                both.dedup();
                Over::Paths(both)
            }
            Footprint::Units(units) => Over::Units(units.iter().map(|unit| crate::api::units::full_name(unit)).collect()),
            Footprint::Accounts(names) => Over::Accounts(names.clone()),
            Footprint::KernelParameters(keys) => Over::KernelParameters(keys.clone()),
        };
        if matches!(over, Over::Anything | Over::System(_) | Over::Units(_)) {
            self.stirred.get_or_insert_with(|| because.to_owned());
        }
        self.changed_by = Some(because.to_owned());
        self.lay(over, because);
    }

    /// Lays the cloud of a package transaction.
    pub(super) fn cloud_of_packages(&mut self, packages: &Packages, because: &str) {
        self.lay(Over::System(SystemCloud { starts: packages.start_services, installs: !packages.install.is_empty() }), because);
    }

    pub(super) fn lay(&mut self, over: Over, because: &str) {
        self.folds += 1;
        self.clouds.push(Cloud { over, because: because.to_owned(), at: self.folds });
    }

    /// Lowers the certainty for an answer about a path, known since fold `since`; `exists` is what the answer will be.
    /// Returns whether the answer lies in a cloud that makes it unknown.
    pub(super) fn judge_path(&self, path: &Path, since: u64, exists: bool) -> bool {
        let mut unknown = false;
        for cloud in self.clouds.iter().filter(|cloud| cloud.at > since) {
            let certainty = match &cloud.over {
                Over::Anything => Certainty::Unknown,
                Over::Paths(paths) if paths.iter().any(|cloudy| is_below(path, cloudy)) => Certainty::Unknown,
                Over::System(system) => system.certainty_of(path, exists),
                Over::Paths(_) | Over::Units(_) | Over::Accounts(_) | Over::KernelParameters(_) => Certainty::Exact,
            };
            self.lower(certainty, &cloud.because);
            unknown |= certainty == Certainty::Unknown;
        }
        unknown
    }

    /// Lowers the certainty for the names in a directory.
    pub(super) fn judge_names(&self, folder: &Path) {
        for cloud in &self.clouds {
            match &cloud.over {
                Over::Paths(paths) if paths.iter().any(|cloudy| cloudy.parent() == Some(folder)) => {
                    self.lower(Certainty::Unknown, &cloud.because);
                }
                Over::System(system) => self.lower(system.certainty_of(folder, false), &cloud.because),
                _ => {}
            }
        }
    }

    /// Lowers the certainty for an answer about a user or group. Packages bring some, and leave those alone that are there.
    pub(super) fn judge_account(&self, name: &str, since: u64, exists: bool) {
        let under_packages = if exists { Certainty::Exact } else { Certainty::Assumed };
        self.judge(since, under_packages, |over| matches!(over, Over::Accounts(names) if names.iter().any(|known| known == name)));
    }

    /// Lowers the certainty for an answer about a unit.
    pub(super) fn judge_unit(&self, name: &str, since: u64) {
        self.judge(since, Certainty::Assumed, |over| matches!(over, Over::Units(names) if names.iter().any(|known| known == name)));
    }

    /// Lowers the certainty for an answer about a kernel parameter; packages bring defaults for them in files only.
    pub(super) fn judge_parameter(&self, key: &str, since: u64) {
        self.judge(since, Certainty::Exact, |over| matches!(over, Over::KernelParameters(keys) if keys.iter().any(|known| known == key)));
    }

    /// Lowers the certainty for an answer about installed packages.
    pub(super) fn judge_packages(&self) {
        self.judge(0, Certainty::Assumed, |_| false);
    }

    fn judge(&self, since: u64, under_packages: Certainty, covers: impl Fn(&Over) -> bool) {
        for cloud in self.clouds.iter().filter(|cloud| cloud.at > since) {
            match &cloud.over {
                Over::Anything => self.lower(Certainty::Unknown, &cloud.because),
                Over::System(_) => self.lower(under_packages, &cloud.because),
                over if covers(over) => self.lower(Certainty::Unknown, &cloud.because),
                _ => {}
            }
        }
    }

    /// Returns the latest packages that would have been installed, and why they are not there yet.
    pub(super) fn packages_to_come(&self) -> Option<(&SystemCloud, &str)> {
        self.clouds.iter().rev().find_map(|cloud| match &cloud.over {
            Over::System(system) if system.installs => Some((system, cloud.because.as_str())),
            _ => None,
        })
    }
}

impl SystemCloud {
    fn certainty_of(&self, path: &Path, exists: bool) -> Certainty {
        let within = |folders: &[&str]| folders.iter().any(|folder| is_below(path, Path::new(folder)));
        match (within(PRIVATE), within(RARE), exists || !self.installs) {
            (true, _, _) | (_, true, true) => Certainty::Exact,
            (_, true, false) | (_, _, true) => Certainty::Assumed,
            (_, _, false) => Certainty::Unknown,
        }
    }
}
