//! What crosses the wire: fifty tasks are one connection, one channel, one request, and nothing that the host has already.

use std::fs;
use std::path::Path;

use kplay_modules::agent::wire::{Decoder, ToAgent};

use crate::support::agents::real_agent_folder;
use crate::support::kplay::Kplay;
use crate::support::sshd::{Sshd, executable, user_name};

const FIFTY: &str = r#"
    play { name = "fifty", hosts = "all", run = function(host)
      for i = 1, 10 do host:file({ path = "/d" .. i, state = "directory" }) end
      for i = 1, 20 do host:template({ src = "t.j2", dest = "/t" .. i, vars = { number = i } }) end
      for i = 1, 5 do host:copy({ src = "big" .. i, dest = "/big" .. i }) end
      for i = 1, 5 do host:line({ path = "/t" .. i, line = "more" }) end
      for i = 1, 5 do host:file({ path = "/l" .. i, state = "link", target = "t" .. i }) end
      for i = 1, 5 do host:command({ command = { "touch", ROOT .. "/c" .. i }, creates = "/c" .. i }) end
    end }
"#;

/// Sends an agent that writes down all it is told, and returns the messages of the last session.
fn listening_agents(folder: &Path) {
    let real = real_agent_folder().join("kplay-agent-x86_64-unknown-linux-musl");
    let script = format!("#!/bin/sh\ntee {}/heard.$$ | {} \"$@\"\n", folder.display(), real.display());
    fs::create_dir(folder.join("agents")).unwrap();
    for name in ["kplay-agent", "kplay-agent-x86_64-unknown-linux-musl"] {
        fs::write(folder.join("agents").join(name), &script).unwrap();
        executable(&folder.join("agents").join(name));
    }
}

fn heard(folder: &Path) -> Vec<ToAgent> {
    let mut messages = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("heard.") {
            let mut decoder = Decoder::default();
            decoder.push(&fs::read(entry.path()).unwrap());
            while let Some(message) = decoder.next().unwrap() {
                messages.push(message);
            }
            fs::remove_file(entry.path()).unwrap();
        }
    }
    messages
}

#[test]
fn fifty_tasks_are_one_connection_one_channel_and_one_request() {
    let sshd = Sshd::with("LogLevel VERBOSE");
    let kplay = Kplay::new();
    let folder = kplay.folder().to_owned();
    listening_agents(&folder);
    fs::create_dir_all(folder.join(".ssh")).unwrap();
    fs::copy(sshd.known_hosts(), folder.join(".ssh/known_hosts")).unwrap();
    let root = folder.join("host");
    fs::create_dir(&root).unwrap();
    for i in 1..=5 {
        fs::write(folder.join(format!("big{i}")), vec![b'0' + i; 100_000]).unwrap();
    }
    let inventory = format!(
        "all:\n  hosts:\n    h1: {{ address: 127.0.0.1, port: {}, user: {}, private_key: \"{}\", agent_folder: \"{}\", root: \"{}\" }}\n",
        sshd.port,
        user_name(),
        sshd.key().display(),
        sshd.home().display(),
        root.display()
    );
    let agents = folder.join("agents").to_string_lossy().into_owned();
    let kplay = kplay.inventory(&inventory).file("t.j2", &"number {{ number }} of a template\n".repeat(30));
    // Commands run outside of `root`, as everything does that kplay does not do itself.
    let play = FIFTY.replace("ROOT", &format!("\"{}\"", root.display()));
    let first = kplay.playbook(&play).env("KPLAY_AGENT_DIR", &agents).stdout_has("changed=50").run();
    heard(&folder);

    let before = sshd.log();
    // The five line edits work on files that the templates write anew: these ten tasks change something on every run.
    let play = play
        .replace("for i = 1, 5 do host:line", "for i = 21, 25 do host:copy({ dest = \"/t\" .. i, content = \"a\\nmore\\n\" }) host:line");
    let converged = first.then().file("play.lua", &play).args(["play.lua"]).env("KPLAY_AGENT_DIR", &agents).any_stdout().run();
    heard(&folder);
    let middle = sshd.log();
    assert!(middle.len() > before.len());
    let again = converged.then().args(["play.lua"]).env("KPLAY_AGENT_DIR", &agents).stdout_has("changed=0").run();
    let log = &sshd.log()[middle.len()..];
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
    assert_eq!(log.matches("Starting session").count(), 1, "{log}");
    let messages = heard(&folder);
    let requests: Vec<usize> = messages
        .iter()
        .filter_map(|message| if let ToAgent::Request(request) = message { Some(request.tasks.len()) } else { None })
        .collect();
    assert_eq!(requests, [55], "{}", again.stdout);
    let contents = messages.iter().filter(|message| matches!(message, ToAgent::Blob { .. })).count();
    assert_eq!(contents, 0, "a host that has everything is sent nothing");
}
