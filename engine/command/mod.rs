//! One file for each command; here it is only decided which one it is.

mod completions;
mod contact;
mod doc;
mod exec;
mod host_keys;
mod inventory;
mod lab;
mod list;
mod new;
mod play;
mod runs;
mod undo;
mod vars;
mod vault;

use std::ffi::OsString;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::config::{Environment, Screen};
use crate::diagnostic::{Kind, Result, exit_code};
use crate::report::printer::Printer;

/// Does what the arguments say; returns the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let environment: Environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { exit_code::REFUSED } else { exit_code::DONE };
        }
    };
    let printer = Printer::new(Screen::detect(&environment, cli.verbosity()));
    run(cli, &environment, printer).unwrap_or_else(|error| {
        printer.error(&error);
        match error.kind {
            Kind::User | Kind::Internal => exit_code::REFUSED,
            Kind::Host => exit_code::FAILED,
            Kind::Unreachable => exit_code::UNREACHABLE,
        }
    })
}

fn run(cli: Cli, environment: &Environment, printer: Printer) -> Result<u8> {
    match cli.command {
        None => play::run(&crate::config::Play::new(&cli.play, environment)?, printer),
        Some(Command::Exec(arguments)) => exec::run(&arguments, environment, printer),
        Some(Command::Inventory(arguments)) => inventory::run(&arguments, environment, printer),
        Some(Command::Vars(arguments)) => vars::run(&arguments, environment, printer),
        Some(Command::Doc(arguments)) => doc::run(&arguments, printer),
        Some(Command::Lab(arguments)) => lab::of_inventory(&arguments, environment),
        Some(Command::Undo(arguments)) => undo::run(&arguments, environment, printer),
        Some(Command::Runs(arguments)) => runs::run(&arguments, environment, printer),
        Some(Command::Vault(arguments)) => vault::run(&arguments, environment, printer),
        Some(Command::HostKeys(arguments)) => host_keys::run(&arguments, environment, printer),
        Some(Command::New(arguments)) => new::run(&arguments, printer),
        Some(Command::Completions(arguments)) => Ok(completions::run(&arguments, printer)),
    }
}
