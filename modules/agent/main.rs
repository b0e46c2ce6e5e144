//! The agent: a thin program over the library, frames on standard input and output.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use kplay_modules::agent::serve::serve;
use kplay_modules::agent::trust::{DISTRUSTS, is_trusted};
use kplay_modules::agent::wire::VERSION;

/// musl's allocator gives memory back to the kernel at once and gets it again, page by page.
#[global_allocator]
static MEMORY: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// What it says when it is called in another way.
const USAGE: &str = "usage: kplay-agent serve [MARKER [PLACE]] | --version\n";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--version"] => say(&format!("kplay-agent {} (protocol {VERSION})\n", env!("CARGO_PKG_VERSION"))),
        ["serve"] => run(),
        ["serve", marker] => greet(marker),
        // Nobody has looked at this place before.
        ["serve", marker, place] if is_trusted(Path::new(place)) => greet(marker),
        ["serve", _, _] => ExitCode::from(DISTRUSTS),
        _ => {
            let _ = std::io::stderr().write_all(USAGE.as_bytes());
            ExitCode::from(2)
        }
    }
}

/// Whatever a login shell prints comes before this line, frames come after it.
fn greet(marker: &str) -> ExitCode {
    match say(&format!("\u{1}KPLAY:{marker}\n")) {
        ExitCode::SUCCESS => run(),
        failure => failure,
    }
}

fn run() -> ExitCode {
    // The standard library has set SIGPIPE to be ignored, and gives commands the default back: a controller that is gone is
    // an error of the next write, which is noticed, and no reason to die in the middle of a change.
    if serve(std::io::stdin(), std::io::stdout()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(text: &str) -> ExitCode {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
