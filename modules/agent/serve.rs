//! The serving loop: frames in, frames out, one session.
//!
//! ```text
//! Hello -> [Waits] Ready; Request -> Started*, Outcome*, Done; Undo, UndoTasks -> Outcome*, Done; ListRuns -> Runs; Gather -> Facts
//! ```
//!
//! A thread only reads (`serve/link.rs`), so that a stop is seen while work goes on; everything else happens on the caller's
//! thread: check mode in `serve/foresee.rs`, apply in `serve/work.rs`, other users' tasks in `serve/relay.rs`.

mod foresee;
mod identities;
pub mod link;
mod partial;
mod relay;
pub(crate) mod report;
mod session;
mod supply;
mod task;
mod undo;
mod work;

#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::wire::{Hello, ToAgent, ToController, VERSION};
use crate::api::forecast::{Forecast, Purpose};
use crate::api::journal::await_orphan;
use crate::api::machine::Machine;
use crate::api::{Inspect, ModuleError};
use link::Link;
use session::{Fatal, Session};

/// Serves one session on the real host. Returns whether it came to a good end; the controller has been told when not.
pub fn serve(input: impl Read + Send + 'static, output: impl Write + 'static) -> bool {
    let link = Link::new(input, output);
    match begin(&link) {
        Ok(()) => true,
        Err(Fatal(error)) => {
            link.send(&ToController::Fatal(error));
            false
        }
    }
}

fn begin(link: &Link) -> Result<(), Fatal> {
    let hello = match link.next() {
        Some(ToAgent::Hello(hello)) => hello,
        Some(_) => return Err(Fatal(ModuleError::host("the controller did not greet"))),
        None => {
            if link.stop().is_foreign() {
                // All that the controller can understand is of which build this agent is.
                link.introduce();
            }
            return match link.broken() {
                Some(why) => Err(Fatal(ModuleError::host(format!("cannot understand the controller: {why}")))),
                None => Ok(()),
            };
        }
    };
    let state = Machine::state_folder(hello.root.as_deref());
    trusted(&state)?;
    let open = || Machine::new(hello.root.clone(), state.clone(), &hello.run);
    if !hello.check {
        link.keep_in(&state);
        await_orphan(&state, |why| link.send(&ToController::Waits(why)), || link.is_stopped());
    }
    let mut machine = open();
    link.send(&ToController::Ready { version: VERSION.to_owned(), facts: machine.facts().clone() });
    serve_on(link, &hello, &mut machine, || open().facts().clone())
}

fn serve_on(link: &Link, hello: &Hello, machine: &mut Machine, gather: impl Fn() -> crate::api::Facts) -> Result<(), Fatal> {
    let state = Machine::state_folder(hello.root.as_deref());
    if hello.check {
        let forecast = Forecast::new(&*machine, link, Purpose::Check);
        Session::<Machine>::check(link, hello, state, forecast).run(gather)
    } else {
        Session::apply(link, hello, state, machine).run(gather)
    }
}

/// Fails when the state folder is another user's: what is recorded there decides what is restarted and undone.
fn trusted(state: &Path) -> Result<(), Fatal> {
    let Ok(found) = std::fs::symlink_metadata(state) else { return Ok(()) };
    if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    let message = format!("the agent's state folder `{}` is not a folder that only its own user can write to", state.display());
    Err(Fatal(ModuleError::host(message).hint("look at who made it, then remove it or give it to the user that tasks run as")))
}
