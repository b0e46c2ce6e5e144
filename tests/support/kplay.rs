//! A terminal session as a test: files in a folder of their own, a command line, and exactly what it prints.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex_lite::Regex;
use tempfile::TempDir;

/// The program under test.
pub const KPLAY: &str = env!("CARGO_BIN_EXE_kplay");

/// One command line that is about to be run. Whatever is not expected must not be printed.
#[must_use = "nothing happens before `run`"]
pub struct Kplay {
    folder: TempDir,
    inventory: bool,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    input: Option<String>,
    /// What a terminal shows, and what is typed then.
    typed: Option<(String, String)>,
    stdout: Expected,
    stderr: Expected,
    status: i32,
}

/// What a stream has to hold.
enum Expected {
    /// Exactly this.
    Exactly(String),
    /// This somewhere in it.
    Containing(Vec<String>),
    /// Whatever the test looks at itself.
    Anything,
}

/// A command line that has been run.
pub struct Ran {
    folder: TempDir,
    /// Standard output, what differs from run to run replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    inventory: bool,
}

impl Kplay {
    /// Begins in an empty folder.
    pub fn new() -> Self {
        Self::within(tempfile::Builder::new().prefix("kplay-test").tempdir().unwrap(), false)
    }

    fn within(folder: TempDir, inventory: bool) -> Self {
        Self {
            folder,
            inventory,
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            input: None,
            typed: None,
            stdout: Expected::Exactly(String::new()),
            stderr: Expected::Exactly(String::new()),
            status: 0,
        }
    }

    /// Writes a file; the text's common indentation is removed.
    pub fn file(self, name: &str, text: &str) -> Self {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, unindent(text)).unwrap();
        self
    }

    /// Writes a program.
    pub fn program(self, name: &str, text: &str) -> Self {
        let path = self.folder.path().join(name);
        let written = self.file(name, text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        written
    }

    /// Writes `inventory.yaml` and names it on the command line.
    pub fn inventory(mut self, text: &str) -> Self {
        self.inventory = true;
        self.file("inventory.yaml", text)
    }

    /// Writes `play.lua` and runs it.
    pub fn playbook(mut self, text: &str) -> Self {
        self.arguments.insert(0, "play.lua".to_owned());
        self.file("play.lua", text)
    }

    /// Adds arguments.
    pub fn args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.arguments.extend(arguments.map(str::to_owned));
        self
    }

    /// Sets a variable of the environment, which is empty otherwise.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Gives standard input.
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    /// Sits at a terminal: types a line when it shows this.
    pub fn typed(mut self, prompt: &str, line: &str) -> Self {
        self.typed = Some((prompt.to_owned(), line.to_owned()));
        self
    }

    /// Says what is printed on standard output, exactly; the text's common indentation is removed.
    pub fn stdout(mut self, text: &str) -> Self {
        self.stdout = Expected::Exactly(unindent(text));
        self
    }

    /// Says what is printed on standard error, exactly; the text's common indentation is removed.
    pub fn stderr(mut self, text: &str) -> Self {
        self.stderr = Expected::Exactly(unindent(text));
        self
    }

    /// Says what standard output holds among other things.
    pub fn stdout_has(mut self, part: &str) -> Self {
        self.stdout = add(self.stdout, part);
        self
    }

    /// Says what standard error holds among other things.
    pub fn stderr_has(mut self, part: &str) -> Self {
        self.stderr = add(self.stderr, part);
        self
    }

    /// Leaves standard output to the test.
    pub fn any_stdout(mut self) -> Self {
        self.stdout = Expected::Anything;
        self
    }

    /// Says how it ends; 0 otherwise.
    pub fn status(mut self, code: i32) -> Self {
        self.status = code;
        self
    }

    /// Leaves the inventory out of the command line.
    pub fn forget_inventory(&mut self) {
        self.inventory = false;
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the command line and compares.
    #[track_caller]
    pub fn run(self) -> Ran {
        let mut command = Command::new(if self.typed.is_some() { "script" } else { KPLAY });
        let (first, rest) = self.arguments.split_at(self.arguments.len().min(1));
        let inventory: &[&str] = if self.inventory { &["-i", "inventory.yaml"] } else { &[] };
        let arguments = first.iter().map(String::as_str).chain(inventory.iter().copied()).chain(rest.iter().map(String::as_str));
        if self.typed.is_some() {
            // util-linux's `script` gives it a terminal; what it prints goes to files all the same.
            let words: Vec<String> = arguments.map(|word| format!("'{word}'")).collect();
            command.args(["-qec", &format!("'{KPLAY}' {} >.stdout 2>.stderr", words.join(" ")), "/dev/null"]);
        } else {
            command.args(arguments);
        }
        command.current_dir(self.folder.path()).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.folder.path());
        command.envs(&self.environment).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        if let Some((prompt, line)) = &self.typed {
            let (mut keyboard, screen) = (child.stdin.take().unwrap(), child.stdout.as_mut().unwrap());
            let mut shown = Vec::new();
            while !shown.ends_with(prompt.as_bytes()) {
                let mut byte = [0];
                assert_eq!(screen.read(&mut byte).unwrap(), 1, "no `{prompt}`: {}", String::from_utf8_lossy(&shown));
                shown.extend(byte);
            }
            keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
        } else if let (Some(mut pipe), Some(input)) = (child.stdin.take(), &self.input) {
            pipe.write_all(input.as_bytes()).unwrap();
        }
        let mut output = child.wait_with_output().unwrap();
        if self.typed.is_some() {
            output.stdout = fs::read(self.folder.path().join(".stdout")).unwrap();
            output.stderr = fs::read(self.folder.path().join(".stderr")).unwrap();
        }
        let ran = Ran {
            stdout: steady(&String::from_utf8_lossy(&output.stdout), self.folder.path()),
            stderr: steady(&String::from_utf8_lossy(&output.stderr), self.folder.path()),
            folder: self.folder,
            inventory: self.inventory,
        };
        let shown = format!("kplay {}\n--- stdout\n{}--- stderr\n{}", self.arguments.join(" "), ran.stdout, ran.stderr);
        assert_eq!(output.status.code(), Some(self.status), "{shown}");
        compare(&self.stdout, &ran.stdout, "stdout", &shown);
        compare(&self.stderr, &ran.stderr, "stderr", &shown);
        ran
    }
}

impl Ran {
    /// Goes on in the same folder, with the same inventory.
    pub fn then(self) -> Kplay {
        Kplay::within(self.folder, self.inventory)
    }

    /// Returns the path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the text of a file in the folder.
    #[track_caller]
    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

fn add(expected: Expected, part: &str) -> Expected {
    match expected {
        Expected::Containing(mut parts) => {
            parts.push(part.to_owned());
            Expected::Containing(parts)
        }
        Expected::Exactly(_) | Expected::Anything => Expected::Containing(vec![part.to_owned()]),
    }
}

#[track_caller]
fn compare(expected: &Expected, found: &str, stream: &str, shown: &str) {
    match expected {
        Expected::Exactly(text) => assert!(text == found, "{stream} differs; expected\n{text}--- found\n{found}---\n{shown}"),
        Expected::Containing(parts) => {
            for part in parts {
                assert!(found.contains(part.as_str()), "{stream} lacks `{part}`\n{shown}");
            }
        }
        Expected::Anything => {}
    }
}

/// Replaces the folder, names of runs, and durations.
fn steady(text: &str, folder: &Path) -> String {
    let text = text.replace(&*folder.to_string_lossy(), "FOLDER");
    let text = Regex::new(r"\d{8}-\d{6}-[0-9a-f]{4}").unwrap().replace_all(&text, "RUN").into_owned();
    Regex::new(r"\b(\d+ min )?\d+(\.\d+)? s\b").unwrap().replace_all(&text, "TIME").into_owned()
}

/// Removes a first line break and the indentation that all lines share.
pub fn unindent(text: &str) -> String {
    let text = text.strip_prefix('\n').unwrap_or(text);
    let indentation = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let shared = text.lines().filter(|line| !line.trim().is_empty()).map(indentation).min().unwrap_or(0);
    let mut result: String = text.lines().map(|line| line.get(shared..).unwrap_or_default().to_owned() + "\n").collect();
    if !text.ends_with('\n') && !text.lines().next_back().unwrap_or_default().trim().is_empty() {
        result.pop();
    } else if !text.ends_with('\n') {
        // The last line holds nothing but the indentation of the closing quotes.
        result.truncate(result.trim_end_matches('\n').len() + 1);
    }
    result
}
