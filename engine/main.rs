//! The `kplay` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(kplay::command::main(std::env::args_os()))
}
