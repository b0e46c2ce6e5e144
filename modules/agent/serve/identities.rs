//! Which users' agents have worked for this one, so that an undo finds their journals.
#![expect(clippy::disallowed_methods, reason = "the list of users is a file beside the journal")]

use std::path::Path;

use crate::api::ModuleError;
use crate::api::machine::put;

/// Name of the list in the state folder.
const FILE: &str = "identities";

/// Returns the users, in the order in which they came.
pub(super) fn known(state: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(state.join(FILE)).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Adds a user to the list.
pub(super) fn remember(state: &Path, user: &str) -> Result<(), ModuleError> {
    let mut users = known(state);
    if users.iter().any(|known| known == user) || user.contains('\n') {
        return Ok(());
    }
    users.push(user.to_owned());
    put(&state.join(FILE), (users.join("\n") + "\n").as_bytes())
}
