//! Whether the place where an agent lies is one that only its own user can have written to.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How an agent ends that was started at a place it does not trust.
pub const DISTRUSTS: u8 = 96;

/// Returns whether `agent` is its user's own, for nobody else to touch, and whether every folder above it belongs to that user or
/// to root and can be written by nobody else (a sticky `/tmp` excepted). Its own folder must be no link; those above may be.
///
/// That is what the script which brings an agent asks of a place as well (`engine/transport/bootstrap.sh`).
pub fn is_trusted(agent: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    let Ok(file) = agent.symlink_metadata() else { return false };
    if !file.is_file() || file.uid() != user || file.mode() & 0o7777 != 0o700 {
        return false;
    }
    let Some(folder) = agent.parent().filter(|folder| !folder.is_symlink()) else { return false };
    let Ok(folder) = folder.canonicalize() else { return false };
    folder.ancestors().all(|folder| {
        folder.symlink_metadata().is_ok_and(|folder| {
            let closed = folder.mode() & 0o022 == 0 || folder.mode() & 0o1000 != 0;
            folder.is_dir() && closed && [0, user].contains(&folder.uid())
        })
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    /// An agent at a place in order, two folders deep.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let agent = home.path().join("above/kplay/agent-00");
        fs::create_dir_all(agent.parent().unwrap()).unwrap();
        fs::write(&agent, "agent").unwrap();
        let modes = [("above", 0o755), ("above/kplay", 0o700), ("above/kplay/agent-00", 0o700)];
        for (path, mode) in modes {
            set(&home.path().join(path), mode);
        }
        (home, agent)
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_place_of_ones_own_is_trusted_through_a_link_too() {
        let (home, agent) = place();
        assert!(is_trusted(&agent));
        symlink(home.path().join("above"), home.path().join("link")).unwrap();
        assert!(is_trusted(&home.path().join("link/kplay/agent-00")));
        set(&home.path().join("above"), 0o1777);
        assert!(is_trusted(&agent), "sticky");
    }

    #[test]
    fn what_others_could_have_written_is_not_trusted() {
        type Change = fn(&Path);
        let ways: [(&str, Change); 7] = [
            ("a file for others", |home| set(&home.join("above/kplay/agent-00"), 0o755)),
            ("a file of another mode", |home| set(&home.join("above/kplay/agent-00"), 0o4700)),
            ("a folder for others", |home| set(&home.join("above/kplay"), 0o777)),
            ("a folder above for the group", |home| set(&home.join("above"), 0o775)),
            ("no file", |home| fs::remove_file(home.join("above/kplay/agent-00")).unwrap()),
            ("a link as the file", |home| {
                let agent = home.join("above/kplay/agent-00");
                fs::rename(&agent, home.join("above/kplay/moved")).unwrap();
                symlink("moved", &agent).unwrap();
            }),
            ("a link as the folder", |home| {
                fs::rename(home.join("above/kplay"), home.join("above/moved")).unwrap();
                symlink("moved", home.join("above/kplay")).unwrap();
            }),
        ];
        for (what, change) in ways {
            let (home, agent) = place();
            change(home.path());
            assert!(!is_trusted(&agent), "{what}");
        }
        assert!(!is_trusted(Path::new("agent-00")) && !is_trusted(Path::new("/")));
    }

    #[test]
    fn another_users_file_or_folder_is_not_trusted() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        for path in ["above", "above/kplay", "above/kplay/agent-00"] {
            let (home, agent) = place();
            std::os::unix::fs::chown(home.path().join(path), Some(65534), None).unwrap();
            assert!(!is_trusted(&agent), "{path}");
        }
    }
}
