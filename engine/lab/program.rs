//! Runs the machine's own programs for the lab and turns their failures into errors that show what they said.

use std::ffi::OsStr;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::diagnostic::{Diagnostic, Result};

/// How many lines of a failed program's output are shown.
const TAIL: usize = 12;

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// The program is missing or fails; the error shows the last lines that it wrote.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Result<String> {
    run_with_input(Stdio::null(), program, arguments)
}

/// Runs a program like [`run`], with something to read.
///
/// # Errors
/// Those of [`run`].
pub fn run_with_input<S: AsRef<OsStr>>(input: Stdio, program: &str, arguments: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(input);
    let output = command.output().map_err(|error| cannot_run(program, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(failed(&command, &output.status.to_string(), &String::from_utf8_lossy(&said)))
}

/// Runs a program that takes long, in namespaces of its own for mounts and processes: whatever it mounts or starts ends
/// with it, and it ends with kplay, however kplay ends. Its output goes to `log`.
///
/// # Errors
/// The program is missing or fails; the error shows the log's last lines and names the log.
pub fn run_contained<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>, log: &Path) -> Result<()> {
    let wrong = |error: std::io::Error| Diagnostic::user(format!("cannot write `{}`: {error}", log.display()));
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--propagation",
        "private",
    ]);
    let file = std::fs::File::create(log).map_err(wrong)?;
    command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone().map_err(wrong)?).stderr(file);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    let status = command.status().map_err(|error| cannot_run("setpriv", &error))?;
    if status.success() {
        Ok(())
    } else {
        Err(failed(&command, &status.to_string(), &tail_of(log)).hint(format!("the whole log is `{}`", log.display())))
    }
}

/// Returns the last lines of a file, as far as it can be read.
pub fn tail_of(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(16 << 10)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// Returns the last lines of a text, without terminal colours and empty lines.
pub fn last_lines(text: &str, count: usize) -> Vec<String> {
    let plain = |line: &str| {
        let mut parts = line.split('\x1b');
        let first = parts.next().unwrap_or_default().to_owned();
        let rest = parts.map(|part| part.find(|letter: char| letter.is_ascii_alphabetic()).map_or("", |end| &part[end + 1..]));
        (first + &rest.collect::<String>()).trim_end().to_owned()
    };
    let lines: Vec<_> = text.split(['\n', '\r']).map(plain).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

fn failed(command: &Command, ending: &str, said: &str) -> Box<Diagnostic> {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    Diagnostic::host(format!("`{}` ended with {ending}", words.join(" "))).details(last_lines(said, TAIL))
}

fn cannot_run(program: &str, error: &std::io::Error) -> Box<Diagnostic> {
    Diagnostic::user(format!("cannot run `{program}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_what_the_program_said() {
        let error = run("sh", ["-c", "echo one; echo two >&2; exit 3"]).unwrap_err();
        assert!(error.message.contains("exit status: 3"), "{error}");
        assert_eq!(error.details, ["one", "two"]);
        assert!(run("no-such-program", [""; 0]).unwrap_err().message.contains("no-such-program"));
    }

    #[test]
    fn lines_lose_their_colours() {
        assert_eq!(last_lines("a\n\n[\x1b[0;32m  OK  \x1b[0m] up\r\n", 5), ["a", "[  OK  ] up"]);
        assert_eq!(last_lines("a\nb\nc", 2), ["b", "c"]);
    }
}
