//! Waits until a port, a path, a server or a unit is as it shall be, and fails when it is not in time.
//!
//! ```lua
//! host:wait_for({ path = "/etc/hostname" })
//! host:wait_for({ port = 22, state = "open", timeout = 30 })
//! ```
//!
//! Exactly one of these is waited for, seen from the host itself:
//!
//! - `port`: a connection to `host` (the host itself when not given) is taken, or, with `state = "closed"`, refused; as long as
//!   that name cannot be resolved, neither is the case. With `address` the sockets that listen are looked at instead, without a
//!   connection: one of them has to be reached at that address, or none.
//! - `path`: something is there, or, with `state = "absent"`, nothing.
//! - `url`: the server answers with one of `status`, and with a body in which `body` is found. For `https`, `ca` names the
//!   authorities to trust, `cert` and `key` the certificate to show: files on the host.
//! - `unit`: systemd calls it active, or, with `state = "inactive"`, inactive. A unit that has failed is not waited for.
//!
//! `served_by` names the unit behind a port or server, so that a failure says what that unit is at, and shows its log.
//!
//! Forecasts look once. After tasks that would have changed what is waited for, they say so instead.
//!
//! Results: `status` and `body` of the answer, `addresses` on which the port is listened on; null where they mean nothing.

mod goal;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[cfg(test)]
use crate::api::conformance::Example;
use crate::api::{Controller, Inspect, Module, ModuleError, Proposal};

use goal::{Goal, Look, Seen};

/// Arguments of `wait_for`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitFor {
    /// A TCP port.
    #[serde(default)]
    port: Option<u16>,
    /// Name or address of the host that has the port; the host itself when not given.
    #[serde(default)]
    host: Option<String>,
    /// An address of the host itself at which the port has to be listened on, or not.
    #[serde(default)]
    address: Option<String>,
    /// A path on the host.
    #[serde(default)]
    path: Option<PathBuf>,
    /// `https://` or `http://`.
    #[serde(default)]
    url: Option<String>,
    /// A PEM file on the host with the authorities to trust, instead of the usual ones.
    #[serde(default)]
    ca: Option<PathBuf>,
    /// A PEM file on the host with the certificate to show.
    #[serde(default)]
    cert: Option<PathBuf>,
    /// A PEM file on the host with its key.
    #[serde(default)]
    key: Option<PathBuf>,
    /// The status or statuses that the server has to answer with; 200 when not given.
    #[serde(default)]
    status: Option<Statuses>,
    /// A regular expression that has to be found in the body.
    #[serde(default)]
    body: Option<String>,
    /// A unit.
    #[serde(default)]
    unit: Option<String>,
    /// The unit that serves the port or the server: once it has failed nothing is waited for, and a failure shows its log.
    #[serde(default)]
    served_by: Option<String>,
    /// `open` or `closed` for a port, `present` or `absent` for a path, `active` or `inactive` for a unit; the first when not given.
    #[serde(default)]
    state: Option<String>,
    /// Seconds to wait at most.
    #[serde(default = "default_timeout")]
    timeout: u64,
    /// Seconds between two looks.
    #[serde(default = "default_interval")]
    interval: f64,
    /// How often in a row it has to be seen.
    #[serde(default = "once")]
    consecutive: u32,
}

/// One status or several.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a status or a list of them")]
enum Statuses {
    /// One.
    One(u16),
    /// Any of these.
    Any(Vec<u16>),
}

/// Seconds that one look may take at most.
const LOOK: u64 = 10;

impl Module for WaitFor {
    const NAME: &'static str = "wait_for";

    fn prepare(&mut self, _controller: &dyn Controller) -> Result<(), ModuleError> {
        if !(0.05..=3600.0).contains(&self.interval) {
            return Err(ModuleError::argument("`interval` is not between 0.05 and 3600 seconds").at("interval"));
        }
        if self.consecutive == 0 {
            return Err(ModuleError::argument("`consecutive` is 0: nothing would be waited for").at("consecutive"));
        }
        Goal::of(self).map(|_| ())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let goal = Goal::of(self)?;
        let interval = Duration::from_secs_f64(self.interval);
        let deadline = Instant::now() + Duration::from_secs(self.timeout);
        let mut met = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = left.clamp(Duration::from_millis(500), Duration::from_secs(LOOK));
            let not_yet = match goal.look(host, patience)? {
                Look::Met(seen) => {
                    met += 1;
                    if met >= self.consecutive || host.forecasting() {
                        return Ok(described(seen));
                    }
                    None
                }
                Look::NotYet(what) => {
                    if self.has_failed(host) {
                        return Err(self.explained(host, self.failure(&goal, &what, false)));
                    }
                    met = 0;
                    Some(what)
                }
                Look::Never(what) => return Err(self.explained(host, self.failure(&goal, &what, false))),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if host.forecasting() || left.is_zero() {
                let again = format!("seen {met} times in a row, not {}", self.consecutive);
                let error = self.failure(&goal, &not_yet.unwrap_or_else(|| goal::Unmet::new(again)), !host.forecasting());
                return Err(self.explained(host, error));
            }
            host.pause(interval.min(left))?;
        }
    }

    #[cfg(test)]
    fn examples() -> Vec<Example> {
        tests::examples()
    }
}

impl WaitFor {
    /// Returns whether the unit that was to serve has failed for good.
    fn has_failed(&self, host: &dyn Inspect) -> bool {
        let unit = self.served_by.as_ref().and_then(|name| host.unit(name).ok());
        unit.is_some_and(|unit| unit.active_state == "failed")
    }

    /// Adds what the unit says on which it depends.
    fn explained(&self, host: &dyn Inspect, mut error: ModuleError) -> ModuleError {
        let serving = self.served_by.as_deref();
        if let Some(unit) = serving.and_then(|name| host.unit(name).ok()) {
            error.details.push(format!("the unit is {} ({}), result: {}", unit.active_state, unit.sub_state, unit.result));
        }
        if let Some(name) = serving.or(self.unit.as_deref()).filter(|_| !host.forecasting()) {
            error.details.extend(host.unit_log(name));
        }
        error
    }

    fn failure(&self, goal: &Goal<'_>, unmet: &goal::Unmet, waited: bool) -> ModuleError {
        let time = if waited { format!(" within {} s", self.timeout) } else { String::new() };
        let error = ModuleError::host(format!("{goal}{time}: {}", unmet.what)).at(goal.argument()).details(unmet.details.clone());
        match &unmet.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        }
    }
}

fn described(seen: Seen) -> Proposal {
    let addresses = seen.addresses.map_or(Value::Null, |addresses| addresses.iter().map(ToString::to_string).collect());
    let (status, body) = seen.answer.map_or((Value::Null, Value::Null), |answer| (answer.status.into(), answer.body.into()));
    Proposal::default().with("status", status).with("body", body).with("addresses", addresses)
}

fn default_timeout() -> u64 {
    60
}

fn default_interval() -> f64 {
    1.0
}

fn once() -> u32 {
    1
}
