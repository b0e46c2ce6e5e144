//! Writes keepalived's configuration: addresses that move to another host when theirs is in trouble.
//!
//! ```lua
//! local check = host:copy({
//!   dest = "/etc/keepalived/check_port.sh",
//!   content = '#!/bin/sh\n[ -n "$1" ] && [ -n "$(ss -Hlnt "sport = :$1")" ]\n',
//!   mode = "0755",
//!   parents = true,
//! })
//! local conf = host:keepalived({
//!   global_defs = { router_id = "10.4.7.11" },
//!   failback = "manual",
//!   scripts = { chk_nginx = { script = "/etc/keepalived/check_port.sh 7443", interval = 2 } },
//!   instances = {
//!     VI_1 = {
//!       interface = "ens32",
//!       virtual_router_id = 251,
//!       priority = 100,
//!       address = "10.4.7.11",
//!       peers = { { address = "10.4.7.12", priority = 90 } },
//!       auth_pass = "11111111",
//!       track_script = "chk_nginx",
//!       virtual_ipaddress = "10.4.7.10",
//!     },
//!   },
//! })
//! ```
//!
//! `failback` decides what happens when a host is well again that has lost its address, and with it how the rest has to look,
//! since keepalived takes combinations that then do something else:
//!
//! - "manual": the address stays where it is until somebody moves it. All instances get `state BACKUP` and `nopreempt`, and
//!   scripts have no `weight`: a script that fails takes the instance out of the election altogether.
//! - "automatic": the address goes back to the host with the highest priority, which starts as MASTER. A script that fails
//!   lowers that priority by its `weight`, which has to be more than the distance to the next host's.
//!
//! What cannot work is refused with the reason, also what keepalived would take: two instances with one router id on one link, a
//! virtual address that is a host's own, a password of which keepalived would drop the end, a script that is given no port, an
//! interface that the host has not. `peers` are the other hosts; their priorities are compared, and with `unicast` announcements
//! are sent to them alone instead of the multicast group.
//!
//! Where keepalived is installed, `keepalived -t` judges a private copy before anything is written, in a forecast, too. Script
//! security is always on. Passwords are never shown. Give the result to `reload_on` of `systemd`: keepalived keeps an address
//! over a reload.

mod rules;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::place::{self, Placement};
use crate::api::{Content, Controller, Inspect, Mode, Module, ModuleError, OneOrMany, Proposal, Word};

/// Where the program may lie.
const PROGRAMS: [&str; 3] = ["/usr/sbin/keepalived", "/usr/local/sbin/keepalived", "/sbin/keepalived"];

/// Arguments of `keepalived`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keepalived {
    /// What is shared with other hosts, by name.
    instances: BTreeMap<String, Instance>,
    /// Scripts that say whether this host can do its work, by name.
    #[serde(default)]
    scripts: BTreeMap<String, Script>,
    /// "manual" leaves an address where it is when its former host is well again, "automatic" gives it back.
    #[serde(default)]
    failback: Failback,
    /// Lines of `global_defs` by their keyword: `router_id`, `vrrp_garp_master_refresh` … An empty text stands for no value.
    #[serde(default)]
    global_defs: BTreeMap<String, Word>,
    /// The file, absolute.
    #[serde(default = "default_dest")]
    dest: PathBuf,
    /// Mode, as "0640". Default: what the file has, else 0600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    /// Owning user, by name or number. Default: what the file has, else the user the task runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// Owning group, by name or number. Default: what the file has, else that of the user the task runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Make missing folders above the file, with mode 0755.
    #[serde(default)]
    parents: bool,
}

/// Who holds an address once all hosts are well again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Failback {
    /// Who holds it.
    #[default]
    Manual,
    /// Who has the highest priority.
    Automatic,
}

/// A `vrrp_instance`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Instance {
    /// The network interface that announcements are sent on and addresses are put on.
    interface: String,
    /// Number of the virtual router, 1 to 255: the same on all of its hosts, used by nobody else on the link.
    virtual_router_id: i64,
    /// 1 to 254; the highest of those that are well gets the addresses.
    priority: i64,
    /// The addresses, each with a prefix length if it needs one: "10.4.7.10" or "10.4.7.10/24".
    virtual_ipaddress: OneOrMany,
    /// MASTER or BACKUP. By default, what follows from `failback` and the priorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    /// This host's own address, from which announcements are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The other hosts of the virtual router.
    #[serde(default)]
    peers: Vec<Peer>,
    /// Whether announcements are sent to `peers` alone, instead of the multicast group.
    #[serde(default)]
    unicast: bool,
    /// Seconds between announcements, 1 to 255, the same on all hosts.
    #[serde(default = "one")]
    advert_int: i64,
    /// Password of the announcements, at most 8 characters. It is sent in clear text: it guards against mistakes, not attacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth_pass: Option<String>,
    /// Names of the scripts that have to succeed.
    #[serde(default)]
    track_script: OneOrMany,
}

/// The state that an instance starts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum State {
    /// With the addresses.
    Master,
    /// Without them.
    Backup,
}

/// Another host of a virtual router.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Peer {
    /// Its own address.
    address: String,
    /// Its priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<i64>,
}

/// A `vrrp_script`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Script {
    /// Absolute path of a program and its arguments; exit code 0 is success.
    script: String,
    /// Seconds between two runs.
    #[serde(default = "two")]
    interval: i64,
    /// Seconds after which a run has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<i64>,
    /// What is added to the priority: below 0 while it fails, above 0 while it succeeds. Only for `failback = "automatic"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<i64>,
    /// Failures in a row that count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fall: Option<i64>,
    /// Successes in a row that count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rise: Option<i64>,
}

fn default_dest() -> PathBuf {
    "/etc/keepalived/keepalived.conf".into()
}

fn one() -> i64 {
    1
}

fn two() -> i64 {
    2
}

impl Module for Keepalived {
    const NAME: &'static str = "keepalived";

    fn prepare(&mut self, _: &dyn Controller) -> Result<(), ModuleError> {
        self.dest = place::absolute_file(&self.dest, "dest")?;
        rules::of_arguments(self)
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        rules::of_host(self, host)?;
        let installed = PROGRAMS.iter().map(|program| host.target(Path::new(program))).collect::<Result<Vec<_>, _>>()?;
        let password = self.instances.values().any(|instance| instance.auth_pass.is_some());
        Placement {
            path: &self.dest,
            argument: "dest",
            content: Content::Inline(text::render(self).into_bytes()),
            asked: (&self.mode, &self.owner, &self.group),
            default_mode: place::default_mode(password),
            validate: installed.iter().any(Option::is_some).then_some("keepalived -t -f %s"),
            parents: self.parents,
            // What is secret of it are its passwords, which no report shows of any file.
            secret: false,
        }
        .changes(host)
        .map(Proposal::new)
    }

    #[cfg(test)]
    fn examples() -> Vec<crate::api::conformance::Example> {
        tests::examples()
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.dest.clone()]
    }
}

impl Keepalived {
    /// Returns the state that an instance starts in.
    fn state(&self, instance: &Instance) -> State {
        let highest = instance.peers.iter().filter_map(|peer| peer.priority).max();
        match (self.failback, instance.state) {
            (Failback::Manual, _) => State::Backup,
            (Failback::Automatic, Some(state)) => state,
            (Failback::Automatic, None) if highest.is_some_and(|highest| instance.priority > highest) => State::Master,
            (Failback::Automatic, None) => State::Backup,
        }
    }
}
