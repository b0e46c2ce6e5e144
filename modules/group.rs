//! Manages a group of users on the host.
//!
//! ```lua
//! host:group({ name = "etcd", system = true })
//! ```
//!
//! Results: `gid`, null as long as the group is yet to be made.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::change::GroupSpec;
#[cfg(test)]
use crate::api::conformance::Example;
use crate::api::{Change, Controller, Footprint, Inspect, Module, ModuleError, Owner, Proposal};

/// Arguments of `group`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Name of the group.
    name: String,
    /// `present` or `absent`.
    #[serde(default)]
    state: State,
    /// Number of the group; left to the system, or as it is, when not given.
    #[serde(default)]
    gid: Option<u32>,
    /// Whether a group that is made gets a number from the range for the system's own.
    #[serde(default)]
    system: bool,
}

/// Whether an account is to be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It is.
    #[default]
    Present,
    /// It is not.
    Absent,
}

impl Module for Group {
    const NAME: &'static str = "group";

    fn prepare(&mut self, _controller: &dyn Controller) -> Result<(), ModuleError> {
        check_name(&self.name, "group")?;
        if self.state == State::Absent && self.gid.is_some() {
            return Err(ModuleError::argument("`gid` means nothing for a group that is to be absent").at("gid"));
        }
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let now = host.group(&self.name)?.filter(|group| group.name == self.name);
        let number = |id: &Owner| if let Owner::Id(id) = id { Some(*id) } else { None };
        let before = now.as_ref().and_then(|group| number(&group.id));
        let after = match self.state {
            State::Absent => None,
            State::Present => Some(GroupSpec { gid: self.gid, system: self.system }),
        };
        if let Some(gid) = self.gid.filter(|gid| before != Some(*gid))
            && let Some(other) = host.group(&gid.to_string())?.filter(|other| other.name != self.name && other.id == Owner::Id(gid))
        {
            return Err(ModuleError::host(format!("the number {gid} belongs to the group `{}`", other.name)).at("gid"));
        }
        if let (State::Absent, Some(group)) = (self.state, &now)
            && let Some(user) = host.primary_members(&group.id)?.first()
        {
            return Err(ModuleError::host(format!("`{}` is the primary group of the user `{user}`", self.name))
                .at("name")
                .hint("give that user another `group`, or remove it first, with the `user` module"));
        }
        let differs = match (&now, &after) {
            (None, None) => false,
            (Some(_), Some(_)) => self.gid.is_some() && self.gid != before,
            _ => true,
        };
        let changes = if differs { vec![Change::Group { name: self.name.clone(), before, after }] } else { Vec::new() };
        Ok(Proposal::new(changes).with("gid", before.map_or(Value::Null, Value::from)))
    }

    fn reach(&self) -> Footprint {
        Footprint::Accounts(vec![self.name.clone()])
    }

    #[cfg(test)]
    fn examples() -> Vec<Example> {
        use crate::api::fake::Fake;
        use serde_json::json;
        vec![
            Example::new("makes a group", json!({ "name": "app" })),
            Example::new("makes a group of the system", json!({ "name": "app", "gid": 120, "system": true })).on(Fake::new()),
            Example::new("gives it another number", json!({ "name": "app", "gid": 4_294_967_294_u32 })).on(Fake::new().group("app", 1000)),
            Example::new("removes it", json!({ "name": "app", "state": "absent" })).on(Fake::new().group("app", 1000)),
        ]
    }
}

/// Refuses what no account can be called.
pub(crate) fn check_name(name: &str, what: &str) -> Result<(), ModuleError> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-@$".contains(letter);
    if name.is_empty() || name.len() > 32 || name.starts_with(['-', '.']) || !name.chars().all(allowed) {
        return Err(ModuleError::argument(format!("`{name}` cannot be the name of a {what}")).at("name"));
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ModuleError::argument(format!("`{name}` looks like a number, and cannot be the name of a {what}")).at("name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AnyModule;
    use crate::api::fake::{Desk, Fake};
    use serde_json::json;

    fn module(arguments: Value) -> Result<Box<dyn AnyModule>, ModuleError> {
        let mut module = (crate::find("group").unwrap().parse)(arguments)?;
        module.prepare(&Desk::new())?;
        Ok(module)
    }

    #[test]
    fn a_group_is_made_changed_or_removed_only_where_it_differs() {
        let host = Fake::new().group("app", 1000);
        let changes = |arguments: Value| module(arguments).unwrap().check(&host).unwrap().changes.len();
        assert_eq!(changes(json!({ "name": "app" })), 0);
        assert_eq!(changes(json!({ "name": "app", "gid": 1000, "system": true })), 0);
        assert_eq!(changes(json!({ "name": "app", "gid": 7 })), 1);
        assert_eq!(changes(json!({ "name": "new" })), 1);
        assert_eq!(changes(json!({ "name": "new", "state": "absent" })), 0);
        assert_eq!(changes(json!({ "name": "app", "state": "absent" })), 1);
        assert_eq!(module(json!({ "name": "app" })).unwrap().check(&host).unwrap().output["gid"], 1000);
    }

    #[test]
    fn a_number_that_is_taken_is_refused() {
        let host = Fake::new().group("app", 1000).group("other", 1001);
        let error = module(json!({ "name": "app", "gid": 1001 })).unwrap().check(&host).unwrap_err();
        assert_eq!(error.message, "the number 1001 belongs to the group `other`");
    }

    #[test]
    fn a_primary_group_stays() {
        let host = Fake::new().user("eve", 1000);
        let error = module(json!({ "name": "eve", "state": "absent" })).unwrap().check(&host).unwrap_err();
        assert_eq!(error.message, "`eve` is the primary group of the user `eve`");
    }

    #[test]
    fn arguments_that_cannot_work_are_refused() {
        for name in ["", "a b", "-x", "a:b", "0", "é", &"x".repeat(33)] {
            assert!(module(json!({ "name": name })).is_err(), "{name}");
        }
        assert!(module(json!({ "name": "a", "state": "absent", "gid": 1 })).is_err());
    }
}
