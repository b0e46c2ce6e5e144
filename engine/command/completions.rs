//! `kplay completions`: a script that teaches a shell to complete kplay's commands and options.

use clap::CommandFactory;

use crate::cli::{Cli, Completions};
use crate::diagnostic::exit_code;
use crate::report::printer::Printer;

/// Prints the script.
pub fn run(arguments: &Completions, printer: Printer) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "kplay", &mut script);
    printer.text(&String::from_utf8_lossy(&script));
    exit_code::DONE
}
