//! What `-i` takes: a file, a folder, an executable or a list of hosts; several are merged in their order.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kplay_modules::api::error::plain;

use super::build::Builder;
use super::variables::Variables;
use super::vars_files::VarsFiles;
use super::{Inventory, dynamic, host_file, range};
use crate::diagnostic::{Diagnostic, Place, Result};
use crate::yaml;

/// Endings of files that a folder of inventories may hold for other purposes.
const IGNORED: [&str; 12] = [".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst", ".orig", ".cfg", ".retry"];

/// How long a pipe is read on whose program has ended.
const LINGER: Duration = Duration::from_secs(1);

/// What to read.
pub struct Sources<'d> {
    /// Arguments of `-i`, lowest precedence first.
    pub inventories: &'d [String],
    /// The playbook's folder, whose `group_vars` and `host_vars` are read after the inventories' own.
    pub playbook_folder: Option<&'d Path>,
    /// Variables of the command line; they win over all others.
    pub extra: &'d Variables,
    /// How long an executable may take.
    pub timeout: Duration,
    /// Opens encrypted files of variables.
    pub decrypt: &'d dyn Decrypt,
}

/// Opens encrypted files.
pub trait Decrypt {
    /// Returns the plain content of `file`, which holds `bytes`.
    fn decrypt(&self, file: &Path, bytes: &[u8]) -> Result<Vec<u8>>;
}

/// Reads all sources into one inventory.
pub fn load(sources: &Sources<'_>) -> Result<Inventory> {
    let mut builder = Builder::new();
    // A folder that is named twice counts where it is named last.
    let mut folders: Vec<PathBuf> = Vec::new();
    let mut add_folder = |folder: PathBuf| {
        let real = |path: &Path| if path.as_os_str().is_empty() { Path::new(".").canonicalize() } else { path.canonicalize() }.ok();
        folders.retain(|known| real(known) != real(&folder));
        folders.push(folder);
    };
    for source in sources.inventories {
        let path = Path::new(source);
        if source.contains(',') && !path.exists() {
            builder.begin_source(None);
            host_list(&mut builder, source)?;
            continue;
        }
        if path.is_dir() {
            add_folder(path.to_path_buf());
        } else {
            add_folder(path.parent().unwrap_or(Path::new("")).to_path_buf());
        }
        add_path(&mut builder, path, sources.timeout)?;
    }
    if let Some(folder) = sources.playbook_folder {
        add_folder(folder.to_path_buf());
    }
    let mut files = VarsFiles::new(&folders, sources.decrypt)?;
    builder.finish(&mut files, sources.extra, sources.inventories.to_vec())
}

/// Adds `a,b,c` and `a,`: hosts in no group.
fn host_list(builder: &mut Builder, list: &str) -> Result<()> {
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let (name, port) = range::split_port(name).map_err(|why| Diagnostic::user(format!("`-i {list}` names no host: {why}")))?;
        let host = builder.lone_host(name);
        if let Some(port) = port {
            let value = serde_json::Value::from(port);
            let file = Path::new("-i").into();
            builder.host_variable(host, "ansible_port", super::Variable { value, literal: false, secret: false, file, line: 0 });
        }
    }
    Ok(())
}

/// Adds a file, or all inventories in a folder.
fn add_path(builder: &mut Builder, path: &Path, timeout: Duration) -> Result<()> {
    let metadata = metadata(path)?;
    if metadata.is_dir() {
        for entry in entries(path)? {
            add_path(builder, &entry, timeout)?;
        }
        return Ok(());
    }
    builder.begin_source(Some(path.to_path_buf()));
    let ending = path.extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    let is_yaml = matches!(ending, "yaml" | "yml" | "json");
    let may_run = metadata.permissions().mode() & 0o111 != 0;
    if may_run && (!is_yaml || read_file(path)?.starts_with(b"#!")) {
        let text = run(path, &["--list"], timeout)?;
        return dynamic::add(builder, path, &text, &|host| run(path, &["--host", host], timeout));
    }
    let text =
        String::from_utf8(read_file(path)?).map_err(|_| Diagnostic::user("the inventory is not UTF-8 text").at(Place::line(path, 0)))?;
    if let Some(line) = ini_line(&text).filter(|_| !is_yaml).or((ending == "ini").then_some(1)) {
        let shown = path.display();
        return Err(Diagnostic::user("this is an INI inventory, which kplay does not read")
            .at(Place::line(path, line))
            .hint(format!("convert it once: `ansible-inventory -i {shown} --list --yaml --export --output inventory.yaml`")));
    }
    if ending == "toml" {
        let shown = path.display();
        return Err(Diagnostic::user("this is a TOML inventory, which kplay does not read")
            .at(Place::line(path, 0))
            .hint(format!("convert it once: `ansible-inventory -i {shown} --list --yaml --export --output inventory.yaml`")));
    }
    host_file::add(builder, &yaml::parse(path, &text)?)
}

/// Returns the line of the first `[group]` of an INI file.
fn ini_line(text: &str) -> Option<u32> {
    let index = text.lines().position(|line| {
        let line = line.trim_end();
        line.starts_with('[') && line.ends_with(']') && !line.contains([',', '{', '"'])
    })?;
    u32::try_from(index + 1).ok()
}

fn metadata(path: &Path) -> Result<std::fs::Metadata> {
    std::fs::metadata(path).map_err(|error| {
        let diagnostic = Diagnostic::user(format!("cannot read the inventory `{}`: {}", path.display(), plain(&error)));
        if error.kind() == std::io::ErrorKind::NotFound && !path.to_string_lossy().contains(['/', '.']) {
            diagnostic.hint(format!("a host is named with a comma: `-i {},`", path.display()))
        } else {
            diagnostic
        }
    })
}

/// Returns the inventories in a folder, sorted by name.
#[expect(clippy::disallowed_methods, reason = "the inventory owns its files")]
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| Diagnostic::user(format!("cannot read the folder: {}", plain(&error))).at(Place::line(folder, 0));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        let other = matches!(name.as_str(), "group_vars" | "host_vars" | "vars_plugins") || name.ends_with(".age");
        if !other && !name.starts_with('.') && !IGNORED.iter().any(|ending| name.ends_with(ending)) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Reads a file that the user named or that belongs to the inventory.
#[expect(clippy::disallowed_methods, reason = "the inventory owns its files")]
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Diagnostic::user(format!("cannot read the file: {}", plain(&error))).at(Place::line(path, 0)))
}

/// Runs an inventory executable and returns what it prints.
#[expect(clippy::disallowed_methods, reason = "an inventory may be a program")]
fn run(program: &Path, arguments: &[&str], timeout: Duration) -> Result<String> {
    let here = || Place::line(program, 0);
    let path = if program.components().count() == 1 { Path::new(".").join(program) } else { program.to_path_buf() };
    let mut child = Command::new(path)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| Diagnostic::user(format!("cannot run the inventory program: {}", plain(&error))).at(here()))?;
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    let deadline = Instant::now() + timeout;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
                if let Some(group) = group {
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                let _ = child.wait();
                return Err(Diagnostic::user(format!("the inventory program took longer than {} s", timeout.as_secs()))
                    .at(here())
                    .hint("`KPLAY_INVENTORY_TIMEOUT` sets another limit, in seconds"));
            }
            Err(error) => return Err(Diagnostic::user(format!("the inventory program was lost: {}", plain(&error))).at(here())),
        }
    };
    let (stdout, stderr) = (stdout.map(Drain::end).unwrap_or_default(), stderr.map(Drain::end).unwrap_or_default());
    if !status.success() {
        let lines: Vec<_> = String::from_utf8_lossy(&stderr).lines().take(20).map(str::to_owned).collect();
        return Err(Diagnostic::user(format!("the inventory program failed with {status}")).at(here()).details(lines));
    }
    String::from_utf8(stdout).map_err(|_| Diagnostic::user("the inventory program printed something that is not UTF-8").at(here()))
}

/// What comes out of a pipe, read on a thread.
struct Drain {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

impl Drain {
    /// Returns what has come. Who still holds the pipe when the program is gone was left behind by it, and is not waited for.
    fn end(self) -> Vec<u8> {
        let _ = self.ended.recv_timeout(LINGER);
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> Drain {
    let bytes = Arc::<Mutex<Vec<u8>>>::default();
    let (done, ended) = channel();
    let come = Arc::clone(&bytes);
    std::thread::spawn(move || {
        let mut part = [0; 8192];
        while let Ok(length @ 1..) = pipe.read(&mut part) {
            come.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&part[..length]);
        }
        let _ = done.send(());
    });
    Drain { bytes, ended }
}
