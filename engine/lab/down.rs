//! Takes a lab down: processes, mounts, namespaces, control groups and files, also those of a lab that was never finished.

use super::layout::Lab;
use super::state::State;
use super::up::in_parallel;
use super::{Say, host, image, network, requirements};
use crate::diagnostic::{Diagnostic, Result};

/// Removes everything that the lab is made of, and tells whether there was anything. Trees and packages stay in the cache.
///
/// # Errors
/// Something stays; what is on record is still there, so that `down` can be tried again.
pub fn down(lab: &Lab, say: Say<'_>) -> Result<bool> {
    requirements::check_root()?;
    let folder = lab.state_folder();
    let known = folder.exists() || lab.folder().exists();
    if known {
        let lab = &lab.lock()?;
        let state = State::load(lab)?.unwrap_or_default();
        let plans: Vec<_> = state.hosts.values().cloned().collect();
        in_parallel(&plans, |plan| {
            host::stop(lab, plan)?;
            say(&format!("{} is down", plan.host.name));
            Ok(())
        })?;
        network::remove(lab, &lab.namespace())?;
        image::remove_tree(&lab.folder())?;
        if state.made_netns_folder {
            network::remove_folder();
        }
        std::fs::remove_dir_all(&folder).map_err(|error| Diagnostic::host(format!("cannot remove `{}`: {error}", folder.display())))?;
        // Both are shared with other labs; they go with the last one.
        for shared in [folder.parent(), lab.folder().parent()].into_iter().flatten() {
            let _ = std::fs::remove_dir(shared);
        }
    }
    image::sweep(&lab.cache)?;
    Ok(known)
}
