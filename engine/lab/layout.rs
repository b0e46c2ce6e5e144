//! Where a lab keeps what: its name, its state folder, the folder of its hosts, the cache that all labs share.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use kplay_modules::api::Digest;
use rustix::fs::FlockOperation;

use super::program;
use crate::diagnostic::{Diagnostic, Result};

/// Folder of all labs' states. It lies in /run, so that a state never outlives a boot of the machine where /run does not.
const STATES: &str = "/run/kplay-lab";

/// The lab of one inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lab {
    /// Its name, unique for the inventory's path: `hdss7-3fa9c1`.
    pub name: String,
    /// The inventory, links resolved.
    pub inventory: PathBuf,
    /// Folder for trees and archives that all labs share.
    pub cache: PathBuf,
}

impl Lab {
    /// Returns the lab of `inventory`, a file or folder. It may be gone: its lab is still to be found.
    ///
    /// # Errors
    /// The working directory is unknown.
    pub fn of(inventory: &Path, cache: PathBuf) -> Result<Self> {
        let resolved = resolve(inventory)
            .map_err(|error| Diagnostic::user(format!("cannot find the folder of the inventory `{}`: {error}", inventory.display())))?;
        let word: String =
            resolved.file_stem().unwrap_or_default().to_string_lossy().chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        let digest = Digest::of(resolved.as_os_str().as_encoded_bytes()).hex();
        let name = format!("{}-{}", if word.is_empty() { "lab" } else { &word }, &digest[..6]);
        Ok(Self { name, inventory: resolved, cache })
    }

    /// Returns the folder with the lab's state, keys, process records and consoles.
    pub fn state_folder(&self) -> PathBuf {
        Path::new(STATES).join(&self.name)
    }

    /// Returns the file that names everything the lab is made of.
    pub fn state_file(&self) -> PathBuf {
        self.state_folder().join("state.json")
    }

    /// Returns the private key that opens all hosts of the lab for root.
    pub fn private_key(&self) -> PathBuf {
        self.state_folder().join("id_ed25519")
    }

    /// Returns the file with the hosts' keys.
    pub fn known_hosts(&self) -> PathBuf {
        self.state_folder().join("known_hosts")
    }

    /// Returns the record that a host's launcher leaves of its process.
    pub fn process_file(&self, host: &str) -> PathBuf {
        self.state_folder().join(format!("{host}.process"))
    }

    /// Returns the file with what a host writes to its console.
    pub fn console_file(&self, host: &str) -> PathBuf {
        self.state_folder().join(format!("{host}.console"))
    }

    /// Returns the folder with the hosts' own files.
    pub fn folder(&self) -> PathBuf {
        self.cache.join("labs").join(&self.name)
    }

    /// Returns the name of the lab's namespace, which holds the bridge.
    pub fn namespace(&self) -> String {
        format!("kplay-{}", self.name)
    }

    /// Returns the name of a host's namespace, which is also what its container is called.
    pub fn host_namespace(&self, host: &str) -> String {
        format!("kplay-{}-{host}", self.name)
    }

    /// Waits until no other kplay changes this lab.
    ///
    /// # Errors
    /// The lock cannot be made, usually for want of rights.
    pub fn lock(&self) -> Result<Locked<'_>> {
        let path = self.state_folder().join("lock");
        Ok(Locked { lab: self, lock: lock(&path)? })
    }
}

/// A lab that no other kplay changes at the same time: whatever changes one takes this.
#[derive(Debug)]
pub struct Locked<'a> {
    lab: &'a Lab,
    lock: Lock,
}

impl Deref for Locked<'_> {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.lab
    }
}

impl Locked<'_> {
    /// Runs a program that changes the lab. It holds the lock too, so that whoever comes after a killed kplay waits for
    /// what that one had begun.
    ///
    /// # Errors
    /// Those of [`program::run`].
    pub fn run<S: AsRef<OsStr>>(&self, name: &str, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        let held = self.hold().map_err(|error| Diagnostic::user(format!("cannot share the lab's lock: {error}")))?;
        program::run_with_input(held, name, arguments)
    }

    /// Returns an input for a process that is to hold the lock as long as it keeps that input. Reading it gives nothing.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn hold(&self) -> std::io::Result<Stdio> {
        self.lock.0.try_clone().map(Stdio::from)
    }
}

/// Resolves the links in a path as far as it exists.
fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    path.canonicalize().or_else(|_| {
        let absolute = std::path::absolute(path)?;
        let (folder, name) = (absolute.parent(), absolute.file_name());
        let folder = folder.map(|folder| folder.canonicalize().unwrap_or_else(|_| folder.to_owned()));
        Ok(folder.zip(name).map_or_else(|| absolute.clone(), |(folder, name)| folder.join(name)))
    })
}

/// Returns the path of a namespace that has a name.
pub fn namespace_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Returns the folder for trees and archives: `$KPLAY_CACHE`, else /var/cache/kplay for root, else `~/.cache/kplay`.
pub fn default_cache() -> PathBuf {
    if let Some(folder) = std::env::var_os("KPLAY_CACHE").filter(|folder| !folder.is_empty()) {
        return PathBuf::from(folder);
    }
    let home = std::env::var_os("HOME").filter(|_| !rustix::process::geteuid().is_root());
    home.map_or_else(|| PathBuf::from("/var/cache/kplay"), |home| Path::new(&home).join(".cache/kplay"))
}

/// A lock that ends when this is dropped, or with the process.
#[derive(Debug)]
pub struct Lock(File);

/// Waits for the lock of `path`, making the file and its folder.
pub fn lock(path: &Path) -> Result<Lock> {
    let wrong = |error: std::io::Error| Diagnostic::user(format!("cannot lock `{}`: {error}", path.display()));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(wrong)?;
    }
    loop {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(wrong)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| wrong(error.into()))?;
        // Whoever held the lock before may have removed the file with the lab's folder; then this lock means nothing.
        let same = |found: std::fs::Metadata| file.metadata().is_ok_and(|held| held.ino() == found.ino() && held.dev() == found.dev());
        if path.metadata().is_ok_and(same) {
            return Ok(Lock(file));
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(wrong)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_of_two_inventories_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            Lab::of(&path, folder.path().to_owned()).unwrap()
        };
        let (one, two) = (file("a/hdss7.yaml"), file("b/hdss7.yaml"));
        assert!(one.name.starts_with("hdss7-"));
        assert_ne!(one.name, two.name);
        assert_ne!(one.host_namespace("x"), two.host_namespace("x"));
        std::fs::remove_file(folder.path().join("a/hdss7.yaml")).unwrap();
        assert_eq!(Lab::of(&folder.path().join("a/hdss7.yaml"), folder.path().to_owned()).unwrap(), one);
    }

    #[test]
    fn what_a_killed_kplay_has_begun_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lab/lock");
        let mut left = {
            let held = lock(&path).unwrap();
            std::process::Command::new("sleep").arg("1000").stdin(Stdio::from(held.0.try_clone().unwrap())).spawn().unwrap()
        };
        let probe = File::open(&path).unwrap();
        let free = || rustix::fs::flock(&probe, FlockOperation::NonBlockingLockExclusive).is_ok();
        assert!(!free());
        left.kill().unwrap();
        left.wait().unwrap();
        assert!(free());
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_taken_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lab/lock");
        let first = lock(&path).unwrap();
        let other = path.clone();
        let waiting = std::thread::spawn(move || lock(&other).map(|_| ()));
        std::thread::sleep(std::time::Duration::from_millis(50));
        std::fs::remove_file(&path).unwrap();
        drop(first);
        waiting.join().unwrap().unwrap();
        assert!(path.exists());
    }
}
