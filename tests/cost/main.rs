//! What fixed runs cost, counted and not timed: system calls of the agent for each further task that changes nothing.
//!
//! Runs by name, since it needs strace: `cargo test --test cost`.
#![allow(clippy::disallowed_methods, reason = "tests read files and start programs")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use support::agents::real_agent_folder;
use support::kplay::Kplay;
use support::sshd::executable;

/// Sends an agent that strace watches, and returns where it writes.
fn watched_agents(folder: &Path) -> String {
    let real = real_agent_folder().join("kplay-agent-x86_64-unknown-linux-musl");
    let trace = folder.join("trace");
    let script = format!("#!/bin/sh\nexec strace -qq -f -o {} {} \"$@\"\n", trace.display(), real.display());
    fs::create_dir_all(folder.join("agents")).unwrap();
    for name in ["kplay-agent", "kplay-agent-x86_64-unknown-linux-musl"] {
        fs::write(folder.join("agents").join(name), &script).unwrap();
        executable(&folder.join("agents").join(name));
    }
    folder.join("agents").to_string_lossy().into_owned()
}

/// System calls by name. What threads say to each other depends on who is faster, and is left out.
fn calls(trace: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(trace).unwrap().lines() {
        let call = line.split_once(' ').map_or("", |(_, rest)| rest.trim_start());
        let Some((name, _)) = call.split_once('(') else { continue };
        let timing = [
            "futex",
            "sched_yield",
            "nanosleep",
            "clock_nanosleep",
            "poll",
            "ppoll",
            "brk",
            "mmap",
            "munmap",
            "madvise",
            "mremap",
            "mprotect",
        ];
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !timing.contains(&name) {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Runs a playbook until nothing is left to do and returns the system calls of such a run.
fn settled(body: &str, tasks: usize) -> BTreeMap<String, usize> {
    let kplay = Kplay::new();
    let folder = kplay.folder().to_owned();
    let agents = watched_agents(&folder);
    let root = folder.join("host");
    fs::create_dir(&root).unwrap();
    let inventory = format!(
        "all:\n  hosts:\n    h1: {{ connection: local, agent_folder: \"{}\", root: \"{}\" }}\n",
        folder.join("sent").display(),
        root.display()
    );
    fs::create_dir(folder.join("sent")).unwrap();
    let play = format!("play {{ hosts = \"all\", run = function(host) for i = 1, {tasks} do {body} end end }}\n");
    let first = kplay.inventory(&inventory).playbook(&play).env("KPLAY_AGENT_DIR", &agents).any_stdout().run();
    fs::remove_file(folder.join("trace")).unwrap();
    let again = first.then().args(["play.lua"]).env("KPLAY_AGENT_DIR", &agents).stdout_has("changed=0").run();
    calls(&again.path("trace"))
}

/// System calls that each further task of a kind costs a host where nothing is to be changed.
fn each(body: &str) -> f64 {
    let sum = |counts: &BTreeMap<String, usize>| counts.values().sum::<usize>();
    let (few, many) = (settled(body, 20), settled(body, 120));
    println!("{body}: {:.2} system calls", (sum(&many) - sum(&few)) as f64 / 100.0);
    (sum(&many) - sum(&few)) as f64 / 100.0
}

#[test]
fn a_task_that_changes_nothing_costs_few_system_calls() {
    let mut worse = Vec::new();
    for (body, most) in [
        (r#"host:file({ path = "/d" .. i, state = "directory", mode = "0755" })"#, 1.1),
        (r#"host:file({ path = "/l" .. i, state = "link", target = "/x" })"#, 2.1),
        (r#"host:copy({ dest = "/t" .. i, content = ("number " .. i .. "\n"):rep(90), mode = "0644" })"#, 10.1),
        (r#"host:line({ path = "/d" .. i, line = "key = " .. i, create = true })"#, 18.1),
        (r#"host:command({ command = { "true" }, creates = "/" })"#, 2.1),
    ] {
        let found = each(body);
        if found > most {
            worse.push(format!("{found} system calls for each `{body}`, at most {most} were"));
        }
    }
    assert!(worse.is_empty(), "{}", worse.join("\n"));
}
