//! The agent's own file, where another user can start it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::api::{Inspect, ModuleError};

/// Folders that every user can reach; some systems forbid to start programs in one of them.
const SHARED: &[&str] = &["/var/tmp", "/tmp", "/dev/shm"];

/// A path of the agent's program. A copy made for the purpose is removed with it.
pub(super) struct Program {
    pub(super) path: PathBuf,
    copy: bool,
}

impl Program {
    /// Returns the program for `user`, who may not be able to enter the folder that it lies in.
    pub(super) fn for_user(host: &dyn Inspect, user: &str) -> Result<Self, ModuleError> {
        let entry = host.user(user)?.ok_or_else(|| {
            ModuleError::host(format!("there is no user `{user}` to become on this host")).hint("create it first, or correct `become_user`")
        })?;
        let own = std::env::current_exe().map_err(|error| ModuleError::host(format!("the agent cannot find its own program: {error}")))?;
        let root = entry.id == crate::api::Owner::Id(0);
        if own.exists() && (root || open_to_all(&own)) {
            return Ok(Self { path: own, copy: false });
        }
        let mut last = None;
        for folder in SHARED.iter().map(Path::new).filter(|folder| folder.is_dir() && !forbids_programs(folder)) {
            match copy_to(folder) {
                Ok(path) => return Ok(Self { path, copy: true }),
                Err(error) => last = Some(ModuleError::io("copy the agent to", folder, &error)),
            }
        }
        Err(last.unwrap_or_else(|| ModuleError::host(format!("there is no folder where `{user}` could start the agent"))))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.copy {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn open_to_all(path: &Path) -> bool {
    let mode = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.mode());
    mode(path) & 0o005 == 0o005 && path.ancestors().skip(1).all(|folder| mode(folder) & 0o001 != 0)
}

fn forbids_programs(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

fn copy_to(folder: &Path) -> std::io::Result<PathBuf> {
    let mut from = File::open("/proc/self/exe")?;
    let name = format!("kplay-agent-{}-{}", std::process::id(), crate::api::machine::now());
    let path = folder.join(name);
    let mut to = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path)?;
    let copied =
        std::io::copy(&mut from, &mut to).and_then(|_| to.flush()).and_then(|()| to.set_permissions(PermissionsExt::from_mode(0o755)));
    if let Err(error) = copied {
        let _ = std::fs::remove_file(&path);
        return Err(error);
    }
    Ok(path)
}
