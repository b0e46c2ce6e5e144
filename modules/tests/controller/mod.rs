//! A controller for tests: starts the real agent, speaks the protocol, prepares tasks and hands out contents.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kplay_modules::agent::wire::{self, BecomeMethod, Hello, Outcome, Request, RunEntry, Task, ToAgent, ToController, VERSION};
use kplay_modules::api::fake::Desk;
use kplay_modules::api::{Digest, Facts};
use serde_json::Value;

/// The agent under test and what its controller knows.
pub struct Agent {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    run: String,
    facts: Facts,
    next: u32,
    contents: BTreeMap<Digest, Vec<u8>>,
    asked: usize,
}

static RUNS: AtomicU32 = AtomicU32::new(0);

impl Agent {
    /// Starts an agent that works below `root`, and greets it.
    pub fn start(root: &Path, check: bool) -> Self {
        Self::start_with(root, |hello| hello.check = check)
    }

    /// Starts an agent that is greeted otherwise.
    pub fn start_with(root: &Path, change: impl FnOnce(&mut Hello)) -> Self {
        let mut agent = Self::greet(root, change);
        match agent.until(|_| true) {
            ToController::Ready { facts, .. } => agent.facts = facts,
            other => panic!("not ready: {other:?}"),
        }
        agent
    }

    /// Starts an agent and greets it, without waiting for its answer.
    pub fn greet(root: &Path, change: impl FnOnce(&mut Hello)) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kplay-agent"))
            .args(["serve", "0123"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut marker = [0; 12];
        output.read_exact(&mut marker).unwrap();
        assert_eq!(&marker, b"\x01KPLAY:0123\n");
        let run = format!("20260101-000000-{:04}", RUNS.fetch_add(1, Ordering::SeqCst));
        let mut hello = Hello {
            version: VERSION.into(),
            run: run.clone(),
            by: "tester@here".into(),
            check: false,
            diff: false,
            root: Some(root.to_owned()),
            become_method: BecomeMethod::Sudo,
            become_password: None,
        };
        change(&mut hello);
        let input = child.stdin.take();
        let mut agent = Self { child, input, output, run, facts: Facts::default(), next: 0, contents: BTreeMap::new(), asked: 0 };
        agent.send(&ToAgent::Hello(hello));
        agent
    }

    /// Returns the next bytes, whatever they mean.
    pub fn hear(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.output.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn run(&self) -> &str {
        &self.run
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Returns how often a content was asked for.
    pub fn asked(&self) -> usize {
        self.asked
    }

    /// Prepares a task as a controller does; local files are those of this machine.
    pub fn task(&mut self, module: &str, arguments: Value) -> Task {
        let mut desk = Desk::new();
        if let Some(source) = arguments.get("src").and_then(Value::as_str) {
            desk = desk.file(source, std::fs::read(source).unwrap());
        }
        let entry = kplay_modules::find(module).unwrap();
        let mut made = (entry.parse)(arguments).unwrap_or_else(|error| panic!("{module}: {error:?}"));
        made.prepare(&desk).unwrap_or_else(|error| panic!("{module}: {error:?}"));
        self.contents.extend(desk.blobs());
        let id = self.next;
        self.next += 1;
        Task { id, module: module.into(), arguments: made.to_json().unwrap(), name: format!("{module} {id}"), ..Task::default() }
    }

    /// Answers questions for a content with another one.
    pub fn lie(&mut self, digest: Digest, bytes: &[u8]) {
        self.contents.insert(digest, bytes.to_vec());
    }

    pub fn send(&mut self, message: &ToAgent) {
        let input = self.input.as_mut().unwrap();
        wire::write(input, message).unwrap();
        input.flush().unwrap();
    }

    pub fn send_request(&mut self, tasks: Vec<Task>) {
        self.send(&ToAgent::Request(Request { id: 7, tasks }));
    }

    pub fn request(&mut self, tasks: Vec<Task>) -> Vec<Outcome> {
        self.send_request(tasks);
        self.outcomes()
    }

    pub fn undo(&mut self, run: &str) -> Vec<Outcome> {
        self.send(&ToAgent::Undo { run: run.into() });
        self.outcomes()
    }

    pub fn runs(&mut self) -> Vec<RunEntry> {
        self.send(&ToAgent::ListRuns);
        match self.until(|_| true) {
            ToController::Runs(runs) => runs,
            other => panic!("no runs: {other:?}"),
        }
    }

    /// Returns all outcomes up to `Done`.
    pub fn outcomes(&mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        loop {
            match self.until(|message| matches!(message, ToController::Outcome(_) | ToController::Done { .. } | ToController::Fatal(_))) {
                ToController::Outcome(outcome) => outcomes.push(outcome),
                ToController::Fatal(error) => panic!("fatal: {error:?}"),
                _ => return outcomes,
            }
        }
    }

    /// Reads messages up to the wanted one, and answers questions meanwhile.
    pub fn until(&mut self, wanted: impl Fn(&ToController) -> bool) -> ToController {
        loop {
            let message: ToController = wire::read(&mut self.output).unwrap().expect("the agent has ended");
            if let ToController::NeedBlob { digest, .. } = &message {
                self.asked += 1;
                self.hand_out(*digest);
            }
            if wanted(&message) {
                return message;
            }
        }
    }

    /// Returns the digest of the content that is asked for next, without answering.
    pub fn question(&mut self) -> Digest {
        match wire::read(&mut self.output).unwrap() {
            Some(ToController::NeedBlob { digest, .. }) => digest,
            other => panic!("no question: {other:?}"),
        }
    }

    /// Answers a question for a content.
    pub fn hand_out(&mut self, digest: Digest) {
        let Some(bytes) = self.contents.get(&digest).cloned() else {
            return self.send(&ToAgent::NoBlob { digest, message: "there is no such content".into() });
        };
        let parts: Vec<&[u8]> = if bytes.is_empty() { vec![&[]] } else { bytes.chunks(100_000).collect() };
        for (number, part) in parts.iter().enumerate() {
            let last = number + 1 == parts.len();
            self.send(&ToAgent::Blob { digest, offset: number as u64 * 100_000, bytes: part.to_vec(), deflated: false, last });
        }
    }

    /// Ends the session properly.
    pub fn bye(mut self) {
        self.send(&ToAgent::Bye);
        self.input = None;
        assert!(self.child.wait().unwrap().success());
    }

    /// Closes the connection without a word. Returns whether the agent ends in time.
    pub fn hang_up(mut self, time: Duration) -> bool {
        self.input = None;
        let until = Instant::now() + time;
        while Instant::now() < until {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
