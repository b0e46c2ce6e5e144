//! Fails unless what is said holds.
//!
//! ```lua
//! host:assert({ that = { host.facts.os_family == "debian", host.facts.memory_mib >= 1024 }, message = "a Debian host with 1 GiB is needed" })
//! ```
//!
//! The conditions are Lua's, judged where the playbook is evaluated; the task fails in its place in the order of tasks, on the
//! host that it is called on. A condition that reads a result waits for it.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

#[cfg(test)]
use crate::api::conformance::Example;
use crate::api::{Inspect, Module, ModuleError, Proposal};

/// Arguments of `assert`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Assert {
    /// A condition or a list of them; all have to be true.
    #[serde(deserialize_with = "conditions")]
    #[schemars(with = "Conditions")]
    that: Vec<bool>,
    /// What to say when one does not hold.
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected true, false or a list of them")]
enum Conditions {
    /// One condition.
    One(bool),
    /// Several.
    Many(Vec<bool>),
}

impl Module for Assert {
    const NAME: &'static str = "assert";

    fn check(&self, _host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let Some(position) = self.that.iter().position(|holds| !holds) else { return Ok(Proposal::default()) };
        let which = if self.that.len() == 1 {
            "the condition does not hold".to_owned()
        } else {
            format!("condition {} of {} does not hold", position + 1, self.that.len())
        };
        let error = match &self.message {
            Some(message) => ModuleError::host(message.clone()).details([which]),
            None => ModuleError::host(which),
        };
        Err(error.at("that"))
    }

    #[cfg(test)]
    fn examples() -> Vec<Example> {
        vec![
            Example::new("one condition", serde_json::json!({ "that": true })),
            Example::new("several", serde_json::json!({ "that": [true, true], "message": "" })),
        ]
    }
}

fn conditions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<bool>, D::Error> {
    let conditions = match Conditions::deserialize(deserializer)? {
        Conditions::One(one) => vec![one],
        Conditions::Many(many) => many,
    };
    if conditions.is_empty() { Err(serde::de::Error::custom("there is no condition")) } else { Ok(conditions) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake::Fake;
    use serde_json::{Value, json};

    fn checked(arguments: Value) -> Result<Proposal, ModuleError> {
        (crate::find("assert").unwrap().parse)(arguments)?.check(&Fake::new())
    }

    #[test]
    fn all_conditions_have_to_hold() {
        assert_eq!(checked(json!({ "that": [true, true] })), Ok(Proposal::default()));
        assert_eq!(checked(json!({ "that": false })).unwrap_err().message, "the condition does not hold");
        let error = checked(json!({ "that": [true, false, false], "message": "too small" })).unwrap_err();
        assert_eq!(
            (error.message.as_str(), error.details.as_slice()),
            ("too small", ["condition 2 of 3 does not hold".to_owned()].as_slice())
        );
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for that in [json!(null), json!(1), json!("yes"), json!([]), json!({}), json!([true, "x"])] {
            assert!(checked(json!({ "that": that })).is_err(), "{that}");
        }
        assert!(checked(json!({})).unwrap_err().message.contains("that"));
    }
}
