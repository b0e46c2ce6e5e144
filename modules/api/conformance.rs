//! What every module promises, tested for every module of the registry on the cases that the modules themselves give.

use serde_json::{Value, json};

use super::change::Change;
use super::error::{ErrorKind, ModuleError};
use super::fake::{Desk, Fake};
use super::forecast::{Certainty, Forecast, Purpose, Support, Sureness};
use super::module::{AnyModule, Proposal};
use super::perform::{Perform, Upstream};
use super::types::Blob;
use crate::REGISTRY;
use crate::agent::serve::report::{Manner, report};

/// Signs a certification request (DER) for a case.
type Signer = fn(&[u8]) -> Result<String, ModuleError>;

/// A module's arguments and the host and controller that they are tried on.
pub struct Example {
    name: &'static str,
    arguments: Value,
    host: Fake,
    desk: Desk,
    signer: Option<Signer>,
}

impl Example {
    /// Creates a case on an empty host, with a controller that has no files.
    pub fn new(name: &'static str, arguments: Value) -> Self {
        Self { name, arguments, host: Fake::new(), desk: Desk::new(), signer: None }
    }

    /// Says what is there on the host before.
    #[must_use]
    pub fn on(mut self, host: Fake) -> Self {
        self.host = host;
        self
    }

    /// Says what is there on the controller.
    #[must_use]
    pub fn desk(mut self, desk: Desk) -> Self {
        self.desk = desk;
        self
    }

    /// Says how certificates are signed.
    #[must_use]
    pub fn signer(mut self, signer: Signer) -> Self {
        self.signer = Some(signer);
        self
    }

    /// Returns name, arguments, host and controller.
    pub fn parts(self) -> (&'static str, Value, Fake, Desk) {
        (self.name, self.arguments, self.host, self.desk)
    }
}

impl Upstream for &Example {
    fn blob(&mut self, blob: &Blob) -> Result<Box<dyn std::io::Read + '_>, ModuleError> {
        match self.desk.blobs().remove(&blob.digest) {
            Some(bytes) => Ok(Box::new(std::io::Cursor::new(bytes))),
            None => Err(ModuleError::host(format!("no blob {}", blob.digest.hex()))),
        }
    }

    fn sign(&mut self, request: &[u8]) -> Result<String, ModuleError> {
        self.signer.map_or_else(|| Err(ModuleError::host("nobody signs")), |signer| signer(request))
    }

    fn deliver(&mut self, content: &mut dyn std::io::Read) -> Result<(), ModuleError> {
        std::io::copy(content, &mut std::io::sink()).map(|_| ()).map_err(|error| ModuleError::host(error.to_string()))
    }
}

impl Support for Desk {
    fn content(&self, blob: &Blob) -> Result<Vec<u8>, ModuleError> {
        self.blobs().remove(&blob.digest).ok_or_else(|| ModuleError::unknown("the content is not at hand"))
    }
}

/// Runs `test` on every case of every module, and says which one failed.
fn every(test: impl Fn(&Example, &dyn AnyModule, &str)) {
    for entry in REGISTRY {
        for example in (entry.examples)() {
            let place = format!("{}: {}", entry.name, example.name);
            let mut module = (entry.parse)(example.arguments.clone()).unwrap_or_else(|error| panic!("{place}: {error}"));
            module.prepare(&example.desk).unwrap_or_else(|error| panic!("{place}: {error:?}"));
            // What travels is JSON: the agent sees the module as it comes out of that.
            let sent: Value = serde_json::from_str(&module.to_json().unwrap()).unwrap();
            let arrived =
                (entry.parse)(sent).unwrap_or_else(|error| panic!("{place}: what `prepare` made is refused by the host: {error}"));
            test(&example, &*arrived, &place);
        }
    }
}

fn host_of(example: &Example) -> Fake {
    let mut host = example.host.clone();
    host.take_blobs(&example.desk);
    host
}

fn check(module: &dyn AnyModule, host: &Fake, place: &str) -> Proposal {
    module.check(host).unwrap_or_else(|error| panic!("{place}: {error:?}"))
}

fn perform(host: &mut Fake, changes: &[Change], mut upstream: &Example, place: &str) -> Vec<Change> {
    let mut undo = Vec::new();
    for change in changes {
        undo.splice(0..0, host.invert(change).unwrap_or_default());
        host.perform(change, &mut upstream).unwrap_or_else(|error| panic!("{place}: {change:?}: {error:?}"));
    }
    undo
}

#[test]
fn every_module_has_a_case_that_changes_something_or_says_what_it_saw() {
    for entry in REGISTRY {
        assert!(!(entry.examples)().is_empty(), "`{}` has no `examples()`: see `Module::examples` in `api/module.rs`", entry.name);
    }
    every(|example, module, place| {
        let proposal = check(module, &host_of(example), place);
        assert!(
            !proposal.changes.is_empty() || !proposal.output.is_empty() || entry_only_looks(place),
            "{place}: neither changes nor output"
        );
    });
}

/// Modules whose only result is that the host is as it should be.
fn entry_only_looks(place: &str) -> bool {
    ["assert", "wait_for"].iter().any(|name| place.starts_with(name))
}

#[test]
fn a_check_changes_nothing_and_says_the_same_twice() {
    every(|example, module, place| {
        let host = host_of(example);
        let before = host.state();
        let first = check(module, &host, place);
        assert_eq!(first, check(module, &host, place), "{place}");
        assert_eq!((host.state(), host.log()), (before, example.host.log()), "{place}");
    });
}

#[test]
fn a_converging_module_asked_again_proposes_nothing() {
    every(|example, module, place| {
        let mut host = host_of(example);
        let proposal = check(module, &host, place);
        perform(&mut host, &proposal.changes, example, place);
        if !proposal.repeating {
            assert_eq!(check(module, &host, place).changes, [], "{place}");
        }
    });
}

#[test]
fn an_apply_performs_what_the_check_said_and_nothing_else() {
    every(|example, module, place| {
        let mut host = host_of(example);
        let before = host.log().len();
        let proposal = check(module, &host, place);
        perform(&mut host, &proposal.changes, example, place);
        // What a command does is its own affair.
        if proposal.changes.iter().any(|change| matches!(change, Change::Run(_))) {
            return;
        }
        // Unpacking a folder is logged as what it is made of.
        let changes =
            host.log().iter().skip(before).filter(|line| !line.starts_with("attributes") && !line.starts_with("directory")).count();
        let folders = |change: &&Change| matches!(change, Change::MakeDirectory { .. } | Change::SetAttributes { .. });
        assert_eq!(changes, proposal.changes.iter().filter(|change| !folders(change)).count(), "{place}: {:?}", host.log());
    });
}

#[test]
fn a_forecast_of_a_case_agrees_with_its_apply() {
    every(|example, module, place| {
        let base = host_of(example);
        let proposal = check(module, &base, place);
        let mut forecast = Forecast::new(&base, &example.desk, Purpose::Check);
        for change in &proposal.changes {
            if forecast.fold(change, &Sureness::default(), place).is_err() {
                return;
            }
        }
        forecast.begin(module.paths());
        if let (Ok(again), Certainty::Exact) = (module.check(&forecast), forecast.sureness().certainty)
            && !proposal.repeating
        {
            assert_eq!(again.changes, [], "{place}: foreseen to propose again");
        }
    });
}

#[test]
fn secrets_reach_no_report() {
    const SECRET: &str = "correct-horse-battery";
    let cases = [
        ("copy", json!({ "dest": "/etc/x", "content": format!("key = {SECRET}\n") })),
        ("template", json!({ "src": "x.j2", "dest": "/etc/x", "vars": { "password": SECRET } })),
        ("line", json!({ "path": "/etc/x", "line": format!("key = {SECRET}"), "create": true })),
        ("line", json!({ "path": "/etc/x", "block": format!("key = {SECRET}"), "create": true })),
        (
            "keepalived",
            json!({ "instances": { "a": {
                "interface": "e", "virtual_router_id": 1, "priority": 1, "virtual_ipaddress": "10.0.0.1", "auth_pass": &SECRET[..8],
            } }, "dest": "/etc/keepalived.conf" }),
        ),
        ("user", json!({ "name": "app", "password_hash": format!("$6${SECRET}") })),
        ("command", json!({ "command": ["login", SECRET], "sensitive": true })),
        ("shell", json!({ "command": format!("login {SECRET}"), "sensitive": true })),
    ];
    for (name, arguments) in cases {
        let desk = Desk::new().secret(SECRET).file("templates/x.j2", "key = {{ password }}\n");
        let entry = crate::find(name).unwrap_or_else(|| panic!("there is no module `{name}`"));
        let mut module = (entry.parse)(arguments).unwrap();
        module.prepare(&desk).unwrap();
        let mut host = Fake::new();
        host.take_blobs(&desk);
        let proposal = check(&*module, &host, name);
        assert!(!proposal.changes.is_empty(), "{name}");
        for change in &proposal.changes {
            let told = report(&host, change, Manner { diff: true, sensitive: false });
            let shown = |bytes: &Option<Vec<u8>>| String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
            let text = format!("{:?}{}{}", told.change, shown(&told.before), shown(&told.after));
            assert!(!text.contains(&SECRET[..8]), "{name}: {text}");
        }
    }
}

#[test]
fn undoing_brings_the_first_state_back() {
    every(|example, module, place| {
        let mut host = host_of(example);
        let first = host.state();
        let changes = check(module, &host, place).changes;
        // Commands and packages bring what no inverse knows of.
        let known = |change: &Change| !matches!(change, Change::Run(_) | Change::Packages(_));
        if changes.iter().all(known) {
            let undo = perform(&mut host, &changes, example, place);
            perform(&mut host, &undo, example, place);
            assert_eq!(host.state(), first, "{place}");
        }
    });
}

#[test]
fn unknown_arguments_are_refused() {
    for entry in REGISTRY {
        for example in (entry.examples)() {
            let mut arguments = example.arguments.clone();
            if let Value::Object(map) = &mut arguments {
                map.insert("no_such_argument".into(), json!(1));
            }
            let error = (entry.parse)(arguments).err().unwrap_or_else(|| panic!("`{}` takes `no_such_argument`", entry.name));
            assert!(error.to_string().contains("no_such_argument"), "{}: {error}", entry.name);
        }
    }
}

#[test]
fn an_error_of_a_check_is_for_those_who_act() {
    // On a host without anything but `/`, no module may claim that a forecast cannot know.
    every(|example, module, place| {
        let mut bare = Fake::new();
        bare.take_blobs(&example.desk);
        if let Err(error) = module.check(&bare) {
            assert_ne!(error.kind, ErrorKind::Unknown, "{place}: {error:?}");
            assert!(!error.message.is_empty() && !error.message.ends_with('.'), "{place}: {error:?}");
        }
    });
}
