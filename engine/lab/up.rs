//! Brings a lab up: whatever runs as the inventory says stays, what has died boots again with its files, the rest is made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::layout::{Lab, Locked, namespace_path};
use super::process::Process;
use super::settings::{LabHost, network_of};
use super::state::{HostState, Network, State};
use super::{Say, cgroup, host, image, network, requirements};
use crate::diagnostic::{Diagnostic, Result};

/// Brings `hosts` up, boots what is not running, and waits until all of them answer.
///
/// # Errors
/// Something is missing on the machine, or a host does not come up; hosts that did stay up.
pub fn up(lab: &Lab, hosts: &[LabHost], say: Say<'_>) -> Result<()> {
    requirements::check()?;
    let (address, prefix, gateway) = network_of(hosts)?;
    let wanted = Network { address, prefix, gateway };
    let images = images(lab, hosts, say)?;
    let lab = &lab.lock()?;
    let mut state = State::load(lab)?.unwrap_or_default();
    if state.hosts.is_empty() && state.network.is_none() {
        state.made_netns_folder = !Path::new("/run/netns").exists();
        // After a boot of the machine the state may be gone and the files still there.
        image::remove_tree(&lab.folder())?;
    }
    state.folder = lab.folder();
    if state.network.as_ref() != Some(&wanted) || !namespace_path(&lab.namespace()).exists() {
        renew_network(lab, &mut state, wanted.clone())?;
    }
    let plans = plans(lab, &state, hosts, &images);
    let leaving: Vec<_> = state.hosts.values().filter(|old| plans.get(&old.host.name) != Some(*old)).cloned().collect();
    for old in &leaving {
        say(&format!("taking {} down: its settings have changed", old.host.name));
    }
    in_parallel(&leaving, |old| host::stop(lab, old))?;
    state.hosts = plans;
    // From here on everything that is made is on record.
    state.save(lab)?;
    make_key(lab)?;
    let plans: Vec<_> = state.hosts.values().cloned().collect();
    let result = in_parallel(&plans, |plan| bring_up(lab, &wanted, plan, say));
    write_known_hosts(lab, &plans)?;
    result
}

/// Makes sure that one host runs.
fn bring_up(lab: &Locked<'_>, net: &Network, plan: &HostState, say: Say<'_>) -> Result<()> {
    let name = &plan.host.name;
    let runs = Process::recorded(&lab.process_file(name)).is_some() && namespace_path(&plan.namespace).exists();
    if !runs && host::is_whole(plan) {
        host::start_again(lab, net, plan)?;
    } else if !runs {
        // Half a host, as a killed run leaves it, is no host.
        host::stop(lab, plan)?;
        host::start(lab, net, plan)?;
    }
    host::wait_until_ready(lab, plan)?;
    say(&format!("{name} {} {}", plan.host.address, if runs { "was up" } else { "is up" }));
    Ok(())
}

/// The tree and the packages of each host, by its name.
type Images = BTreeMap<String, (PathBuf, Option<PathBuf>)>;

fn images(lab: &Lab, hosts: &[LabHost], say: Say<'_>) -> Result<Images> {
    let mut by_base: BTreeMap<PathBuf, Vec<&LabHost>> = BTreeMap::new();
    for host in hosts {
        by_base.entry(image::base(&lab.cache, &host.settings, say)?).or_default().push(host);
    }
    let mut images = Images::new();
    for (base, members) in by_base {
        let packages = image::packages(&lab.cache, &base, &members, say)?;
        images.extend(members.iter().map(|host| (host.name.clone(), (base.clone(), packages.clone()))));
    }
    if hosts.iter().any(|host| host.settings.kubernetes) {
        image::kubernetes(&lab.cache, say)?;
    }
    Ok(images)
}

/// Makes the lab's namespace anew; hosts of the old one have no cable any more, so they go first.
fn renew_network(lab: &Locked<'_>, state: &mut State, wanted: Network) -> Result<()> {
    let old: Vec<_> = state.hosts.values().cloned().collect();
    state.network = None;
    state.save(lab)?;
    in_parallel(&old, |plan| host::stop(lab, plan))?;
    state.hosts.clear();
    network::remove(lab, &lab.namespace())?;
    network::make(lab, &wanted)?;
    state.network = Some(wanted);
    state.save(lab)
}

fn plans(lab: &Lab, state: &State, hosts: &[LabHost], images: &Images) -> BTreeMap<String, HostState> {
    let mut plans = State { hosts: state.hosts.clone(), ..State::default() };
    plans.hosts.retain(|name, _| hosts.iter().any(|host| host.name == *name));
    for host in hosts {
        let number = plans.hosts.get(&host.name).map_or_else(|| plans.free_number(), |old| old.number);
        let namespace = lab.host_namespace(&host.name);
        let (base, packages) = images.get(&host.name).cloned().unwrap_or_default();
        let cgroups = cgroup::planned(&namespace);
        let folder = lab.folder().join(&host.name);
        plans.hosts.insert(host.name.clone(), HostState { host: host.clone(), number, namespace, folder, base, packages, cgroups });
    }
    plans.hosts
}

fn make_key(lab: &Locked<'_>) -> Result<()> {
    let key = lab.private_key();
    if key.exists() && key.with_extension("pub").exists() {
        return Ok(());
    }
    let _ = std::fs::remove_file(&key);
    lab.run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", &lab.namespace(), "-f", &key.to_string_lossy()]).map(|_| ())
}

fn write_known_hosts(lab: &Lab, plans: &[HostState]) -> Result<()> {
    let path = lab.known_hosts();
    let text = plans.iter().filter_map(host::public_key).fold(String::new(), |text, line| text + &line + "\n");
    std::fs::write(&path, text).map_err(|error| Diagnostic::user(format!("cannot write `{}`: {error}", path.display())))
}

/// Does something for all hosts at once; of several failures the first is reported, with the names of the others.
pub fn in_parallel(plans: &[HostState], work: impl Fn(&HostState) -> Result<()> + Sync) -> Result<()> {
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = plans.iter().map(|plan| scope.spawn(|| work(plan))).collect();
        let panicked = |_| Err(Diagnostic::internal("a thread of the lab panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    let mut failures = results.into_iter().zip(plans).filter_map(|(result, plan)| result.err().map(|error| (error, &plan.host.name)));
    let Some((first, _)) = failures.next() else { return Ok(()) };
    let others: Vec<_> = failures.map(|(error, name)| format!("also on {name}: {error}")).collect();
    Err(first.details(others))
}
