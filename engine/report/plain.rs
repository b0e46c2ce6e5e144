//! The report where there is no terminal: lines, in the order in which things happen, and nothing that moves.

use std::io::Write;

use super::event::{Event, Reporter};
use super::text::Narrator;

/// Writes lines.
pub struct Plain<W> {
    narrator: Narrator,
    output: W,
}

impl<W: Write + Send> Plain<W> {
    /// Creates a report that goes to `output`.
    pub fn new(narrator: Narrator, output: W) -> Self {
        Self { narrator, output }
    }
}

impl<W: Write + Send> Reporter for Plain<W> {
    fn report(&mut self, event: &Event) {
        let text = self.narrator.tell(event);
        if !text.is_empty() {
            // Whoever read this may have gone; the run goes on.
            let _ = self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush());
        }
    }
}
