//! systemd's units: what `systemctl show` says of them, and what `systemctl VERB` does to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::time::ClockId;

use super::Machine;
use super::commands::run_quietly;
use crate::api::change::{Record, Recorded, UnitAction};
use crate::api::error::ModuleError;
use crate::api::inspect::{Command, Unit};

/// What is asked of systemd; one call yields all of it.
const PROPERTIES: &str = "Id,Names,LoadState,ActiveState,SubState,UnitFileState,Type,Result,NeedDaemonReload,InvocationID,MainPID,\
    ActiveEnterTimestampMonotonic,StateChangeTimestampMonotonic,FragmentPath,DropInPaths,EnvironmentFiles,ExecStart";
/// Seconds for systemd to answer a question.
const ANSWER: u64 = 30;
/// Clock ticks a second in `/proc/PID/stat`, the same on all of Linux's architectures that systemd runs on.
const TICKS: i64 = 100;
/// How long a unit that only forks is watched for failing at once, milliseconds.
const SETTLE: u64 = 300;
/// How many lines of its log explain why a unit failed.
const SHOWN: usize = 15;

/// What systemd said since the last change, and which units it is worth asking about in one go.
#[derive(Debug, Default)]
pub(super) struct Cache {
    units: BTreeMap<String, Unit>,
    asked: BTreeSet<String>,
}

impl Cache {
    /// Forgets what was said; the next question asks about all units that have been of interest.
    pub(super) fn forget(&mut self) {
        self.units.clear();
    }
}

impl Machine {
    pub(super) fn find_unit(&self, name: &str) -> Result<Unit, ModuleError> {
        let name = full_name(name)?;
        if self.root.is_some() {
            return self.assumed_unit(&name);
        }
        self.require_systemd()?;
        let mut cache = self.units.borrow_mut();
        if !cache.units.contains_key(&name) {
            cache.asked.insert(name.clone());
            let missing: Vec<String> = cache.asked.iter().filter(|asked| !cache.units.contains_key(*asked)).cloned().collect();
            for (asked, mut unit) in missing.iter().zip(show(&missing)?) {
                if unit.need_daemon_reload {
                    // systemd tells of those that it has read, and a new one counts from the next time on.
                    unit.drop_ins = self.drop_ins(asked)?;
                }
                cache.units.insert(asked.clone(), unit);
            }
        }
        cache.units.get(&name).cloned().ok_or_else(|| ModuleError::host(format!("systemd says nothing about the unit `{name}`")))
    }

    /// Performs an action on a unit and waits for systemd's job; `timeout` 0 leaves the time limit to the unit.
    pub(super) fn act_on_unit(&self, unit: &str, action: UnitAction, record: Option<&Record>, timeout: u64) -> Result<(), ModuleError> {
        let name = full_name(unit)?;
        let recorded = record.map(|record| self.take(record)).transpose()?;
        if self.root.is_some() {
            self.assume_action(&name, action)?;
        } else {
            let failed = self.find_unit(&name)?.active_state == "failed";
            if failed && matches!(action, UnitAction::Start | UnitAction::Restart) {
                // It may have failed so often that systemd would not even try; whoever starts it now has a reason.
                run_quietly(&Command::new(["systemctl", "reset-failed", "--", &name]))?;
            }
            systemctl(&name, action, timeout)?;
        }
        let (Some(record), Some(recorded)) = (record, recorded) else { return Ok(()) };
        self.units.borrow_mut().forget();
        let Unit { invocation, state_changed, .. } = self.find_unit(&name)?;
        self.keep_record(&record.key, &Recorded { invocation, state_changed, ..recorded })
    }

    pub(super) fn reload_daemon(&self) -> Result<(), ModuleError> {
        if self.root.is_some() {
            return Ok(());
        }
        self.require_systemd()?;
        let mut command = Command::new(["systemctl", "daemon-reload"]);
        command.timeout = 120;
        let output = run_quietly(&command)?;
        if output.success() {
            return Ok(());
        }
        Err(ModuleError::host(format!("systemd could not read its unit files again: {}", output.ending())).details(lines(&output.stderr)))
    }

    fn require_systemd(&self) -> Result<(), ModuleError> {
        if Path::new("/run/systemd/system").is_dir() {
            return Ok(());
        }
        Err(ModuleError::host("this host was not booted with systemd, so that it has no units")
            .hint("`host.facts.init` tells; use `when` to leave such hosts out"))
    }
}

/// Returns the unit's full name, and refuses what cannot be one.
fn full_name(name: &str) -> Result<String, ModuleError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    if name.is_empty() || name.starts_with('-') || name.len() > 255 || !name.bytes().all(allowed) {
        return Err(ModuleError::argument(format!("`{name}` is not the name of a unit")).at("name"));
    }
    Ok(crate::api::units::full_name(name))
}

/// Asks systemd about units, and returns what it says in the same order.
fn show(names: &[String]) -> Result<Vec<Unit>, ModuleError> {
    let words = ["systemctl", "show", "--no-pager", "--property", PROPERTIES, "--"].map(str::to_owned);
    let mut command = Command::new(words.into_iter().chain(names.iter().cloned()));
    command.timeout = ANSWER;
    let output = run_quietly(&command)?;
    if !output.success() {
        return Err(
            ModuleError::host(format!("systemd does not answer: `systemctl show`: {}", output.ending())).details(lines(&output.stderr))
        );
    }
    let units: Vec<Unit> = output.stdout.split("\n\n").map(parse).collect();
    if units.len() != names.len() {
        return Err(ModuleError::host(format!("systemd was asked about {} units and answered about {}", names.len(), units.len())));
    }
    Ok(units)
}

fn parse(text: &str) -> Unit {
    let mut unit = Unit::default();
    let mut active_since = 0;
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let word = value.to_owned();
        match key {
            "LoadState" => unit.load_state = word,
            "ActiveState" => unit.active_state = word,
            "SubState" => unit.sub_state = word,
            "UnitFileState" => unit.unit_file_state = word,
            "Type" => unit.kind = word,
            "Result" => unit.result = word,
            "NeedDaemonReload" => unit.need_daemon_reload = value == "yes",
            "InvocationID" => unit.invocation = word,
            "MainPID" => unit.main_pid = value.parse().unwrap_or(0),
            "ActiveEnterTimestampMonotonic" => active_since = value.parse().unwrap_or(0),
            "StateChangeTimestampMonotonic" => {
                let at: i64 = value.parse().unwrap_or(0);
                unit.state_changed = if at == 0 { 0 } else { since_boot(ClockId::Monotonic, at * 1000) };
            }
            "FragmentPath" if !value.is_empty() => unit.fragment = Some(value.into()),
            "DropInPaths" => unit.drop_ins = value.split_whitespace().map(PathBuf::from).collect(),
            "EnvironmentFiles" => unit.environment_files.extend(environment_file(value)),
            "ExecStart" => join_command(&mut unit.exec_start, command_line(value)),
            _ => {}
        }
    }
    if unit.main_pid != 0 {
        unit.executable = executable(unit.main_pid);
        unit.started = process_started(unit.main_pid).unwrap_or(0);
    } else if unit.active_state == "active" {
        // A oneshot unit that stays active has no process; what it did, it did when it became active.
        unit.started = since_boot(ClockId::Monotonic, active_since * 1000);
    }
    unit
}

/// `EnvironmentFiles=/etc/default/etcd (ignore_errors=yes)`
fn environment_file(value: &str) -> Option<PathBuf> {
    let path = value.rsplit_once(" (ignore_errors=").map_or(value, |(path, _)| path).trim_start_matches('-');
    Some(path).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// `{ path=/usr/sbin/nginx ; argv[]=/usr/sbin/nginx -g daemon on; ; ignore_errors=no ; … }`
fn command_line(value: &str) -> &str {
    let Some((_, rest)) = value.split_once("argv[]=") else { return value };
    rest.split_once(" ; ignore_errors=").map_or(rest, |(line, _)| line)
}

fn join_command(commands: &mut String, more: &str) {
    if !commands.is_empty() && !more.is_empty() {
        commands.push_str(" ; ");
    }
    commands.push_str(more);
}

fn executable(process: u32) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/{process}/exe")).ok()?;
    // A program that has been replaced since is still of interest by its path.
    Some(match path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(path) => path.into(),
        None => path,
    })
}

/// Returns when a process started, nanoseconds since 1970, never later than it did.
fn process_started(process: u32) -> Option<i64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything; the start time is the 22nd.
    let ticks: i64 = text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    Some(since_boot(ClockId::Boottime, ticks * (1_000_000_000 / TICKS)))
}

/// Turns a time of one of the clocks that begin at boot into nanoseconds since 1970.
fn since_boot(clock: ClockId, nanoseconds: i64) -> i64 {
    let now = |clock| {
        let time = rustix::time::clock_gettime(clock);
        time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
    };
    now(ClockId::Realtime) - now(clock) + nanoseconds
}

/// Runs `systemctl VERB UNIT` and, where that fails, explains why.
fn systemctl(name: &str, action: UnitAction, timeout: u64) -> Result<(), ModuleError> {
    if matches!(action, UnitAction::Start | UnitAction::Restart) {
        // A unit that failed too often in a short time is refused until its failures are forgotten.
        let mut forget = Command::new(["systemctl", "--no-ask-password", "reset-failed", "--", name]);
        forget.timeout = ANSWER;
        let _ = run_quietly(&forget);
    }
    let mut command = Command::new(["systemctl", "--no-ask-password", action.verb(), "--", name]);
    command.timeout = timeout;
    let output = run_quietly(&command)?;
    let starts = matches!(action, UnitAction::Start | UnitAction::Restart | UnitAction::Reload);
    let said = format!("cannot {} `{name}`: ", action.verb());
    match (output.success(), starts) {
        (true, true) => watch(name, action),
        (true, false) => Ok(()),
        (false, true) => Err(explain(name, &said, &reason(&output.stderr, &output.ending()))),
        (false, false) => {
            let error = ModuleError::host(said + &reason(&output.stderr, &output.ending()));
            let error = error.details(lines(&output.stderr).into_iter().skip(1));
            // Masking puts a link where the administrator's own unit files lie.
            let in_the_way = action == UnitAction::Mask && output.stderr.contains("already exists");
            Err(if in_the_way { error.hint("remove that file first, or disable the unit instead of masking it") } else { error })
        }
    }
}

/// A unit of a type that only forks counts as started before its program has looked at its configuration. Looks on for a
/// moment, so that the task which started it fails rather than a later one.
fn watch(name: &str, action: UnitAction) -> Result<(), ModuleError> {
    let names = [name.to_owned()];
    let mut waited = 0;
    while let Some(unit) = show(&names)?.pop() {
        if unit.active_state == "failed" || unit.sub_state == "auto-restart" {
            return Err(explain(name, &format!("`{name}` failed right after its {}: ", action.verb()), &unit.result));
        }
        if !matches!(unit.kind.as_str(), "simple" | "exec" | "idle") || waited >= SETTLE || action == UnitAction::Reload {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        waited += 100;
    }
    Ok(())
}

/// Says what systemd and the unit's own log know of a failed start.
fn explain(name: &str, said: &str, reason: &str) -> ModuleError {
    let mut details = Vec::new();
    if let Some(unit) = show(&[name.to_owned()]).ok().and_then(|mut units| units.pop()) {
        details.push(unit.condition());
        if !unit.exec_start.is_empty() {
            details.push(format!("ExecStart: {}", unit.exec_start));
        }
        if unit.load_state == "not-found" {
            return ModuleError::host(format!("{said}there is no such unit")).hint("install it, or write its unit file and reload systemd");
        }
        if unit.load_state == "masked" {
            return ModuleError::host(format!("{said}the unit is masked")).hint("set `masked = false`");
        }
    }
    details.extend(log(name));
    ModuleError::host(format!("{said}{reason}")).details(details)
}

/// Returns what a unit last said.
pub(super) fn log(name: &str) -> Vec<String> {
    // What a program says as it dies may not have reached the journal yet.
    let _ = last_lines(&["journalctl", "--sync"]);
    let log = last_lines(&["journalctl", "-u", name, "-n", "2000", "--no-pager", "-o", "cat", "-q"])
        .or_else(|| last_lines(&["systemctl", "status", "--no-pager", "-n", "15", "--", name]));
    let log = without_traces(log.unwrap_or_default());
    let older = log.len().saturating_sub(SHOWN);
    log.into_iter().skip(older).collect()
}

/// Leaves out the stacks of goroutines: a Go program that dies says why before it prints them, and they may be hundreds of lines.
fn without_traces(mut lines: Vec<String>) -> Vec<String> {
    let place = |line: &String| line.starts_with('\t') && line.contains(".go:");
    let header = |line: &str| line.starts_with("goroutine ") && line.ends_with("]:");
    let after = lines.iter().skip(1).map(place).chain([false]);
    let noise: Vec<bool> = lines.iter().zip(after).map(|(line, after)| header(line) || place(line) || after).collect();
    let mut noise = noise.into_iter();
    lines.retain(|_| !noise.next().unwrap_or_default());
    lines
}

fn last_lines(argv: &[&str]) -> Option<Vec<String>> {
    let mut command = Command::new(argv.iter().copied());
    command.timeout = ANSWER;
    Some(lines(&run_quietly(&command).ok()?.stdout)).filter(|lines| !lines.is_empty())
}

/// Returns what systemctl complains of, without its repeating what it was told to do.
fn reason(stderr: &str, ending: &str) -> String {
    let line = stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or(ending).trim();
    let said = line.strip_prefix("Failed to ").and_then(|line| line.split_once(": ")).map_or(line, |(_, said)| said);
    said.trim_end_matches('.').to_owned()
}

fn lines(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
