//! Host patterns: `web`, `web*`, `a:b`, `a:&b`, `a:!b`, `~regex`, `web[0]`, `web[1:3]`, `all`.

use std::collections::HashSet;

use regex_lite::Regex;

use super::{Data, Host};
use crate::diagnostic::{Diagnostic, Result, nearest};

/// Returns the hosts that a pattern selects, each once. Whatever matches neither a host nor a group is an error.
pub fn select<'d>(data: &'d Data, pattern: &str) -> Result<Vec<&'d Host>> {
    let parts = split(data, pattern);
    if parts.is_empty() {
        return Err(Diagnostic::user("the host pattern is empty").hint("`all` means every host"));
    }
    let (excluded, rest): (Vec<_>, Vec<_>) = parts.iter().partition(|part| part.starts_with('!'));
    let (common, mut included): (Vec<_>, Vec<_>) = rest.into_iter().partition(|part| part.starts_with('&'));
    let all = "all".to_owned();
    if included.is_empty() {
        included.push(&all);
    }
    let mut hosts = Vec::new();
    let mut seen = HashSet::new();
    for part in included {
        hosts.extend(one(data, part)?.into_iter().filter(|host| seen.insert(*host)));
    }
    for part in common {
        let keep: HashSet<_> = one(data, &part[1..])?.into_iter().collect();
        hosts.retain(|host| keep.contains(host));
    }
    for part in excluded {
        let drop: HashSet<_> = one(data, &part[1..])?.into_iter().collect();
        hosts.retain(|host| !drop.contains(host));
    }
    Ok(hosts.into_iter().map(|host| &data.hosts[host]).collect())
}

/// Splits at commas, or else at colons outside brackets. The name of a host is never split, nor is a regular expression at its colons.
fn split(data: &Data, pattern: &str) -> Vec<String> {
    let known = |part: &str| data.host_index.contains_key(part);
    let pieces: Vec<&str> = if known(pattern) {
        vec![pattern]
    } else if pattern.contains(',') {
        pattern.split(',').collect()
    } else if pattern.starts_with('~') {
        vec![pattern]
    } else {
        let mut depth = 0_i32;
        pattern
            .split(move |letter| {
                depth += i32::from(letter == '[') - i32::from(letter == ']');
                letter == ':' && depth == 0
            })
            .collect()
    };
    pieces.into_iter().map(str::trim).filter(|piece| !piece.is_empty()).map(str::to_owned).collect()
}

/// Returns the hosts of one part, without its operator.
fn one(data: &Data, part: &str) -> Result<Vec<usize>> {
    if let Some(&host) = data.host_index.get(part) {
        return Ok(vec![host]);
    }
    if part == "127.0.0.1" || part == "::1" {
        return Ok(data.host_index.get("localhost").copied().into_iter().collect());
    }
    if let Some(expression) = part.strip_prefix('~') {
        let regex = Regex::new(&format!("^(?:{expression})"))
            .map_err(|error| Diagnostic::user(format!("`{part}` is no regular expression: {error}")))?;
        return matching(data, part, &|name| regex.is_match(name), true);
    }
    let (name, range) = subscript(part)?;
    let hosts = if name.contains(['*', '?', '[']) {
        matching(data, name, &|candidate| glob(name.as_bytes(), candidate.as_bytes()), true)?
    } else {
        matching(data, name, &|candidate| candidate == name, name.contains('.'))?
    };
    let Some((first, last)) = range else { return Ok(hosts) };
    let place = |index: i64| if index < 0 { index + hosts.len() as i64 } else { index };
    let (first, last) = (place(first), last.map_or(place(first), place));
    let (Ok(begin), Ok(end)) = (usize::try_from(first), usize::try_from(last)) else { return Err(out_of_range(part, hosts.len())) };
    if begin >= hosts.len() {
        return Err(out_of_range(part, hosts.len()));
    }
    Ok(hosts[begin..(end + 1).clamp(begin, hosts.len())].to_vec())
}

fn out_of_range(part: &str, count: usize) -> Box<Diagnostic> {
    Diagnostic::user(format!("`{part}` asks for a host that is not there: the group has {count}"))
}

/// The first host and, for a range, the last one; negative numbers count from the end.
type Subscript = (i64, Option<i64>);

/// Splits `web[0]`, `web[-1]`, `web[1:3]` and `web[1:]`; anything else in brackets is part of a glob.
fn subscript(part: &str) -> Result<(&str, Option<Subscript>)> {
    let Some((name, inside)) = part.strip_suffix(']').and_then(|part| part.rsplit_once('[')).filter(|(name, _)| !name.is_empty()) else {
        return Ok((part, None));
    };
    let number = |text: &str| text.parse::<i64>().ok();
    let range = match inside.split_once(':') {
        None => number(inside).map(|first| (first, None)),
        Some((first, last)) => match (number(first), if last.is_empty() { Some(-1) } else { number(last) }) {
            (Some(first), Some(last)) if first >= 0 => Some((first, Some(last))),
            _ => None,
        },
    };
    match range {
        Some(range) => Ok((name, Some(range))),
        None if inside.contains(':') => Err(Diagnostic::user(format!("`{part}` is no host pattern")).hint("a range is written `web[0:2]`")),
        None => Ok((part, None)),
    }
}

/// Returns the hosts of all matching groups, then, with `hosts_too` or when no group matches, the matching hosts.
fn matching(data: &Data, shown: &str, matches: &dyn Fn(&str) -> bool, hosts_too: bool) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut any_group = false;
    for group in data.groups.iter().filter(|group| matches(&group.name)) {
        any_group = true;
        found.extend(data.descend(group).into_iter().filter(|host| seen.insert(*host)));
    }
    if !any_group || hosts_too {
        let named = data.hosts.iter().filter(|host| !host.implicit && matches(&host.name)).map(|host| host.number);
        found.extend(named.filter(|host| seen.insert(*host)));
    }
    if any_group || !found.is_empty() {
        return Ok(found);
    }
    let error = Diagnostic::user(format!("no host or group matches `{shown}`"));
    let names = data.groups.iter().map(|group| group.name.as_str()).chain(data.host_index.keys().map(String::as_str));
    Err(match nearest(shown, names) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None if data.sources.is_empty() => error.hint("no inventory was read; name one with `-i`"),
        None => error.hint("`kplay inventory --graph` shows hosts and groups"),
    })
}

/// Returns whether a shell pattern of `*`, `?`, `[a-z]` and `[!a-z]` matches the whole text.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => glob(rest, text) || !text.is_empty() && glob(pattern, &text[1..]),
        ([b'?', rest @ ..], [_, after @ ..]) => glob(rest, after),
        ([b'[', rest @ ..], [letter, after @ ..]) => match class(rest, *letter) {
            Some((holds, rest)) => holds && glob(rest, after),
            None => *letter == b'[' && glob(rest, after),
        },
        ([literal, rest @ ..], [letter, after @ ..]) => literal == letter && glob(rest, after),
        _ => false,
    }
}

/// Judges a letter by the class that begins behind `[`; returns what follows the class. `None` when the bracket is never closed.
fn class(pattern: &[u8], letter: u8) -> Option<(bool, &[u8])> {
    let (negated, set) = match pattern {
        [b'!' | b'^', set @ ..] => (true, set),
        _ => (false, pattern),
    };
    let end = set.iter().skip(1).position(|byte| *byte == b']')? + 1;
    let mut inside = &set[..end];
    let mut holds = false;
    while let [first, rest @ ..] = inside {
        if let [b'-', last, rest @ ..] = rest {
            holds |= (*first..=*last).contains(&letter);
            inside = rest;
        } else {
            holds |= *first == letter;
            inside = rest;
        }
    }
    Some((holds != negated, &set[end + 1..]))
}
