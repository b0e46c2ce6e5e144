//! What cannot work, though keepalived may take it: found in the arguments alone, or by a look at the host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use super::{Failback, Instance, Keepalived, Peer, Script, State};
use crate::api::{EntryKind, Inspect, ModuleError};

/// Longest password that keepalived does not cut off.
const PASSWORD: usize = 8;
/// Longest name of an interface.
const INTERFACE: usize = 15;
/// Where the kernel lists the interfaces.
const INTERFACES: &str = "/sys/class/net";
/// Name of the script that looks whether a port is listened on; of no use without one.
const PORT_CHECK: &str = "check_port.sh";

fn refuse(place: &str, message: impl Into<String>) -> ModuleError {
    ModuleError::argument(message).at(place)
}

/// Looks at the arguments.
pub(super) fn of_arguments(conf: &Keepalived) -> Result<(), ModuleError> {
    if conf.instances.is_empty() {
        return Err(refuse("instances", "there is no instance: keepalived would do nothing"));
    }
    for (keyword, value) in &conf.global_defs {
        let place = format!("global_defs.{keyword}");
        if keyword.is_empty() || !keyword.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
            return Err(refuse(&place, format!("`{keyword}` is no keyword of keepalived")));
        }
        plain(&value.text(), &place, "the value")?;
    }
    for (name, script) in &conf.scripts {
        of_script(conf, name, script)?;
    }
    for (name, instance) in &conf.instances {
        of_instance(conf, name, instance)?;
    }
    for name in conf.scripts.keys() {
        if !conf.instances.values().any(|instance| instance.track_script.0.contains(name)) {
            return Err(refuse(&format!("scripts.{name}"), format!("no instance tracks the script `{name}`: it would decide nothing"))
                .hint(format!("name it in the `track_script` of an instance: {}", listed(conf.instances.keys()))));
        }
    }
    apart(conf)
}

fn of_script(conf: &Keepalived, name: &str, script: &Script) -> Result<(), ModuleError> {
    let place = |field: &str| format!("scripts.{name}.{field}");
    word(name, &format!("scripts.{name}"), "a script")?;
    plain(&script.script, &place("script"), "a script")?;
    let mut words = script.script.split_whitespace();
    let program = Path::new(words.next().unwrap_or_default());
    if !program.is_absolute() {
        return Err(refuse(&place("script"), format!("`{}` does not begin with an absolute path", script.script)));
    }
    let port = words.next();
    if program.ends_with(PORT_CHECK) && !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
        let seen = port.map_or_else(|| "no port".to_owned(), |port| format!("`{port}`, which is no port"));
        return Err(refuse(&place("script"), format!("`{}` is given {seen}: it would never succeed", program.display()))
            .hint(format!("write \"{} 7443\"", program.display())));
    }
    within(script.interval, 1..=86_400, &place("interval"), "interval")?;
    for (field, value) in [("timeout", script.timeout), ("fall", script.fall), ("rise", script.rise)] {
        value.map_or(Ok(()), |value| within(value, 1..=86_400, &place(field), field))?;
    }
    match (conf.failback, script.weight) {
        (_, None) => Ok(()),
        (Failback::Manual, Some(_)) => Err(refuse(
            &place("weight"),
            format!("with `failback = \"manual\"` the script `{name}` can have no `weight`: a lower priority alone moves no address, since no host takes one from another"),
        )
        .hint("leave `weight` out: the instance is then given up when the script fails")),
        (Failback::Automatic, Some(0)) => {
            Err(refuse(&place("weight"), format!("with a weight of 0 the script `{name}` takes the instance out, whatever its priority"))
                .hint("leave `weight` out if that is meant"))
        }
        (Failback::Automatic, Some(weight)) => within(weight, -253..=253, &place("weight"), "weight"),
    }
}

fn of_instance(conf: &Keepalived, name: &str, instance: &Instance) -> Result<(), ModuleError> {
    let place = |field: &str| format!("instances.{name}.{field}");
    word(name, &format!("instances.{name}"), "an instance")?;
    let interface = &instance.interface;
    if interface.is_empty() || interface.len() > INTERFACE || interface.contains(|letter: char| letter == '/' || !letter.is_ascii_graphic())
    {
        return Err(refuse(&place("interface"), format!("`{interface}` is not the name of an interface")));
    }
    within(instance.virtual_router_id, 1..=255, &place("virtual_router_id"), "virtual_router_id")?;
    within(instance.priority, 1..=254, &place("priority"), "priority")?;
    within(instance.advert_int, 1..=255, &place("advert_int"), "advert_int")?;
    if (conf.failback, instance.state) == (Failback::Manual, Some(State::Master)) {
        return Err(refuse(
            &place("state"),
            "`failback = \"manual\"` needs `nopreempt`, which keepalived ignores with state MASTER: the address would float back",
        )
        .hint("leave `state` out; the instance with the highest priority gets the address at the first start"));
    }
    let shared = addresses_of(name, instance)?;
    of_peers(name, instance, &shared)?;
    if let Some(password) = &instance.auth_pass {
        of_password(password, &place("auth_pass"), shared.iter().any(IpAddr::is_ipv6))?;
    }
    for script in &instance.track_script.0 {
        if !conf.scripts.contains_key(script) {
            let error = refuse(&place("track_script"), format!("there is no script `{script}`"));
            return Err(error.hint(format!("`scripts` holds {}", listed(conf.scripts.keys()))));
        }
    }
    if conf.failback == Failback::Automatic {
        of_priorities(conf, name, instance)?;
    }
    Ok(())
}

/// Returns an instance's virtual addresses.
fn addresses_of(name: &str, instance: &Instance) -> Result<Vec<IpAddr>, ModuleError> {
    let place = format!("instances.{name}.virtual_ipaddress");
    let mut shared = Vec::new();
    for text in &instance.virtual_ipaddress.0 {
        let (address, prefix) = text.split_once('/').map_or((text.as_str(), None), |(address, prefix)| (address, Some(prefix)));
        let parsed: IpAddr = address.parse().map_err(|_| refuse(&place, format!("`{text}` is no IP address")))?;
        let longest = if parsed.is_ipv4() { 32 } else { 128 };
        if prefix.is_some_and(|prefix| !prefix.parse::<u8>().is_ok_and(|length| (1..=longest).contains(&length))) {
            return Err(refuse(&place, format!("`{text}` has no prefix length between 1 and {longest}")));
        }
        if shared.contains(&parsed) {
            return Err(refuse(&place, format!("`{address}` is listed twice")));
        }
        if shared.first().is_some_and(|first: &IpAddr| first.is_ipv4() != parsed.is_ipv4()) {
            return Err(refuse(&place, "an instance has either IPv4 or IPv6 addresses").hint("make two instances"));
        }
        shared.push(parsed);
    }
    if shared.is_empty() {
        return Err(refuse(&place, format!("the instance `{name}` has no address to hold")));
    }
    Ok(shared)
}

/// Looks at the addresses and priorities of an instance's hosts.
fn of_peers(name: &str, instance: &Instance, shared: &[IpAddr]) -> Result<(), ModuleError> {
    let parse = |text: &str, place: &str| text.parse::<IpAddr>().map_err(|_| refuse(place, format!("`{text}` is no IP address")));
    let mut known: Vec<IpAddr> = Vec::new();
    let own = instance.address.as_ref().map(|text| (text, format!("instances.{name}.address"), "this host's own address"));
    let peer = |(at, peer): (usize, &'_ Peer)| (peer.address.clone(), format!("instances.{name}.peers[{}].address", at + 1));
    let peers = instance.peers.iter().enumerate().map(peer);
    let all = own.into_iter().map(|(text, place, whose)| (text.clone(), place, whose));
    for (text, place, whose) in all.chain(peers.map(|(text, place)| (text, place, "the address of another host"))) {
        let address = parse(&text, &place)?;
        if shared.contains(&address) {
            return Err(refuse(&format!("instances.{name}.virtual_ipaddress"), format!("`{text}` is {whose}, so that it cannot move"))
                .hint("a virtual address belongs to no host; choose one that nobody has"));
        }
        if shared.iter().any(|shared| shared.is_ipv4() != address.is_ipv4()) {
            return Err(refuse(&place, format!("`{text}` is not of the same family as the virtual addresses")));
        }
        if known.contains(&address) {
            return Err(refuse(&place, format!("`{text}` is named twice: own and peers' addresses all differ")));
        }
        known.push(address);
    }
    if instance.unicast && instance.peers.is_empty() {
        return Err(refuse(&format!("instances.{name}.unicast"), "announcements are to go to `peers` alone, and there are none"));
    }
    for (at, peer) in instance.peers.iter().enumerate() {
        let place = format!("instances.{name}.peers[{}].priority", at + 1);
        let Some(priority) = peer.priority else { continue };
        within(priority, 1..=254, &place, "priority")?;
        if priority == instance.priority {
            let message =
                format!("`{}` has the priority {priority}, too: which host gets the address would depend on theirs", peer.address);
            return Err(refuse(&place, message).hint("give every host of a virtual router a priority of its own"));
        }
    }
    Ok(())
}

fn of_password(password: &str, place: &str, ipv6: bool) -> Result<(), ModuleError> {
    let length = password.chars().count();
    if length > PASSWORD {
        return Err(refuse(place, format!("`auth_pass` has {length} characters, of which keepalived would drop all after the eighth")));
    }
    if ipv6 {
        return Err(refuse(place, "announcements for IPv6 addresses have no password: VRRP 3 knows none"));
    }
    let strange = |letter: char| !letter.is_ascii_graphic() || "\"'#!$@{}\\".contains(letter);
    if password.is_empty() || password.contains(strange) {
        return Err(refuse(place, "`auth_pass` is empty, or holds a character that means something else in keepalived's configuration")
            .hint("use letters and digits"));
    }
    Ok(())
}

/// With automatic failback, a host whose script fails has to fall below the next one.
fn of_priorities(conf: &Keepalived, name: &str, instance: &Instance) -> Result<(), ModuleError> {
    let priorities = || instance.peers.iter().filter_map(|peer| peer.priority);
    if instance.state == Some(State::Master)
        && let Some(higher) = priorities().find(|priority| *priority > instance.priority)
    {
        let message = format!("state MASTER, with the priority {} below {higher} of another host, lasts a moment only", instance.priority);
        return Err(refuse(&format!("instances.{name}.state"), message).hint("leave `state` out"));
    }
    let Some(next) = priorities().filter(|priority| *priority < instance.priority).max() else { return Ok(()) };
    let distance = instance.priority - next;
    for script in &instance.track_script.0 {
        let Some(weight) = conf.scripts.get(script).and_then(|script| script.weight) else { continue };
        if weight.abs() <= distance {
            let message = format!(
                "when `{script}` fails, the weight {weight} is not enough: priority {} minus {} is not below {next} of the next host",
                instance.priority,
                weight.abs()
            );
            let enough = if weight < 0 { -distance - 10 } else { distance + 10 };
            return Err(refuse(&format!("scripts.{script}.weight"), message).hint(format!("use {enough}, or priorities closer together")));
        }
    }
    Ok(())
}

/// Refuses instances that get in each other's way.
fn apart(conf: &Keepalived) -> Result<(), ModuleError> {
    let mut routers: BTreeMap<(&str, i64, bool), &str> = BTreeMap::new();
    let mut holders: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (name, instance) in &conf.instances {
        let shared = addresses_of(name, instance)?;
        let ipv6 = shared.iter().any(IpAddr::is_ipv6);
        if let Some(other) = routers.insert((&instance.interface, instance.virtual_router_id, ipv6), name) {
            let (id, interface) = (instance.virtual_router_id, &instance.interface);
            let message = format!(
                "`{other}` and `{name}` both are virtual router {id} on `{interface}`: each would take the other's announcements for its own"
            );
            return Err(refuse(&format!("instances.{name}.virtual_router_id"), message).hint("give each instance a number of its own"));
        }
        for address in shared {
            if let Some(other) = holders.insert(address, name) {
                let message = format!("`{address}` is held by `{other}` and `{name}`");
                return Err(refuse(&format!("instances.{name}.virtual_ipaddress"), message));
            }
        }
    }
    Ok(())
}

/// Looks at the host: interfaces, own addresses, scripts. A folder that stands for a host has no interfaces to look at.
pub(super) fn of_host(conf: &Keepalived, host: &dyn Inspect) -> Result<(), ModuleError> {
    if host.target(Path::new(INTERFACES))?.is_some() {
        for (name, instance) in &conf.instances {
            of_interface(name, instance, host)?;
        }
    }
    for (name, script) in &conf.scripts {
        let program = script.script.split_whitespace().next().unwrap_or_default();
        let place = format!("scripts.{name}.script");
        match host.target(Path::new(program))? {
            Some(entry) if entry.kind == EntryKind::File && entry.attributes.mode & 0o111 == 0 => {
                return Err(ModuleError::host(format!("`{program}` may not be executed")).at(&place).hint("give it mode 0755"));
            }
            Some(entry) if entry.kind == EntryKind::File => {}
            Some(_) => return Err(ModuleError::host(format!("`{program}` is no program")).at(&place)),
            None => {
                return Err(ModuleError::host(format!("there is no `{program}` on this host"))
                    .at(&place)
                    .hint("put it in place before this task, with mode 0755: keepalived leaves out scripts that it does not find"));
            }
        }
    }
    Ok(())
}

fn of_interface(name: &str, instance: &Instance, host: &dyn Inspect) -> Result<(), ModuleError> {
    let interface = &instance.interface;
    if !host.exists(&Path::new(INTERFACES).join(interface))? {
        let there = host.list(Path::new(INTERFACES))?;
        return Err(ModuleError::host(format!("this host has no interface `{interface}`"))
            .at(&format!("instances.{name}.interface"))
            .hint(format!("it has {}", listed(there.iter()))));
    }
    let Some(own) = &instance.address else { return Ok(()) };
    let mut others = host.facts().addresses.iter().filter(|(other, addresses)| *other != interface && addresses.contains(own));
    match (host.facts().addresses.get(interface), others.next()) {
        (Some(addresses), _) if addresses.contains(own) => Ok(()),
        (_, Some((other, _))) => Err(ModuleError::host(format!("`{own}` is an address of `{other}`, not of `{interface}`"))
            .at(&format!("instances.{name}.interface"))),
        (Some(addresses), None) => Err(ModuleError::host(format!("`{own}` is not an address of `{interface}`"))
            .at(&format!("instances.{name}.address"))
            .hint(format!("it has {}", listed(addresses.iter())))),
        // Not known when the facts were taken, or not yet.
        (None, None) => Ok(()),
    }
}

fn within(value: i64, range: RangeInclusive<i64>, place: &str, what: &str) -> Result<(), ModuleError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(refuse(place, format!("`{what}` is {value}, and has to be between {} and {}", range.start(), range.end())))
}

/// Refuses names that keepalived would read as several words, or as something else.
fn word(name: &str, place: &str, what: &str) -> Result<(), ModuleError> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
        return Err(refuse(place, format!("`{name}` cannot be the name of {what}")).hint("use letters, digits, `_`, `-` and dots"));
    }
    Ok(())
}

/// Refuses text that would end a line, a quotation or a block, or begin a comment.
fn plain(text: &str, place: &str, what: &str) -> Result<(), ModuleError> {
    match text.chars().find(|letter| letter.is_control() || "\"#!{}$".contains(*letter)) {
        Some(letter) => Err(refuse(place, format!("{what} holds `{}`, which means something to keepalived", letter.escape_default()))),
        None => Ok(()),
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() { "none".to_owned() } else { quoted.join(", ") }
}
