//! The one place that writes to standard output and standard error.

use std::io::Write;

use crate::config::Screen;
use crate::diagnostic::{Diagnostic, render};

/// Writes texts and errors. That nobody reads any more (`kplay … | head`) is no error.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    screen: Screen,
}

impl Printer {
    /// Creates a printer for the terminal, or for what takes its place.
    pub fn new(screen: Screen) -> Self {
        Self { screen }
    }

    /// Returns how things are shown.
    pub fn screen(self) -> Screen {
        self.screen
    }

    /// Writes to standard output.
    pub fn text(self, text: &str) {
        let mut output = std::io::stdout().lock();
        let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    }

    /// Writes to standard error.
    pub fn note(self, text: &str) {
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// Shows an error.
    pub fn error(self, diagnostic: &Diagnostic) {
        self.note(&render(diagnostic, self.screen.error_color));
    }

    /// Shows a warning.
    pub fn warning(self, message: &str) {
        let mark = if self.screen.error_color { "\x1b[1;33mwarning\x1b[0m" } else { "warning" };
        self.note(&format!("{mark}: {message}\n"));
    }
}
