//! What the operator sees of a run: one vocabulary of events, and the siblings that show it.

pub mod diff;
pub mod event;
pub mod jsonl;
mod pem;
pub mod plain;
pub mod printer;
pub mod summary;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod text;

use std::path::Path;

use kplay_modules::api::error::plain as reason;

use crate::config::Screen;
use crate::diagnostic::{Diagnostic, Result};
use crate::secrets::Secrets;
use event::{Event, Reporter};

pub use diff::Lookup;

/// Passes every event on to all reports of a run.
pub struct Reporters(Vec<Box<dyn Reporter>>);

impl Reporters {
    /// Creates the reports of a run: on the screen, and in `events` when a file is named (`-` is standard output, and the
    /// screen's report then goes to standard error).
    pub fn new(screen: Screen, diff: bool, events: Option<&Path>, secrets: &Secrets, lookup: Lookup) -> Result<Self> {
        let to_output = events.is_some_and(|path| path == Path::new("-"));
        let style = text::Style { color: if to_output { screen.error_color } else { screen.color }, verbose: screen.verbose, diff };
        let narrator = text::Narrator::new(style, lookup.clone(), secrets.clone());
        let mut reporters: Vec<Box<dyn Reporter>> = vec![if to_output {
            Box::new(plain::Plain::new(narrator, std::io::stderr()))
        } else if screen.interactive {
            Box::new(terminal::Terminal::new(narrator))
        } else {
            Box::new(plain::Plain::new(narrator, std::io::stdout()))
        }];
        if let Some(path) = events {
            reporters.push(self::events(path, secrets, diff.then_some(lookup))?);
        }
        Ok(Self(reporters))
    }
}

impl Reporter for Reporters {
    fn report(&mut self, event: &Event) {
        for reporter in &mut self.0 {
            reporter.report(event);
        }
    }

    fn failure(&self) -> Option<Box<Diagnostic>> {
        self.0.iter().find_map(|reporter| reporter.failure())
    }
}

/// Creates the report of a run as JSON Lines, in a file or on standard output (`-`).
pub fn events(path: &Path, secrets: &Secrets, diff: Option<Lookup>) -> Result<Box<dyn Reporter>> {
    Ok(if path == Path::new("-") {
        Box::new(jsonl::JsonLines::new(std::io::stdout(), secrets.clone(), diff))
    } else {
        Box::new(jsonl::JsonLines::new(create(path)?, secrets.clone(), diff))
    })
}

/// Writes, where events are wanted, that a run was refused before it had any other report. That this cannot be written is no news
/// beside the error itself.
pub fn refused(path: Option<&Path>, check: bool, error: &Diagnostic) {
    if let Some(Ok(mut events)) = path.map(|path| events(path, &Secrets::default(), None)) {
        events.report(&Event::Refused { run: String::new(), check, errors: vec![error.clone()] });
    }
}

#[expect(clippy::disallowed_methods, reason = "reports are written where the user says")]
fn create(path: &Path) -> Result<std::fs::File> {
    std::fs::File::create(path)
        .map_err(|error| Diagnostic::user(format!("cannot write events to `{}`: {}", path.display(), reason(&error))))
}
