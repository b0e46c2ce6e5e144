//! Runs one program and tells what it cost: time on the clock, processor time here and on the hosts, memory.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;

use crate::Outcome;
use crate::fleet::Fleet;

/// What one run cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Time on the clock.
    pub wall: Duration,
    /// Processor time of the program and its children.
    pub controller: Duration,
    /// Processor time of the hosts.
    pub hosts: Duration,
    /// Most memory that one process of the program held, bytes.
    pub memory: u64,
}

/// Runs a program to its end. It must succeed; what it printed comes back with the cost.
pub fn run(fleet: &Fleet, command: &Command, scratch: &Path) -> Outcome<(Sample, String)> {
    let cost = scratch.join("cost.json");
    let before = fleet.processor();
    // A process in between waits for this program alone, so that its own children's usage is that of the program.
    let mut wrapped = Command::new(std::env::current_exe()?);
    wrapped.arg("wrapped").arg(&cost).arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    let output = wrapped.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{command:?} failed with {}:\n{text}", output.status).into());
    }
    let hosts = settled(fleet).saturating_sub(before);
    let cost: serde_json::Value = serde_json::from_slice(&fs::read(&cost)?)?;
    let micros = |key: &str| Duration::from_micros(cost[key].as_u64().unwrap_or_default());
    let memory = cost["memory"].as_u64().unwrap_or_default();
    Ok((Sample { wall: micros("wall"), controller: micros("processor"), hosts, memory }, text))
}

/// Waits until this machine has nothing to do any more, ten seconds at most, so that what one contender leaves running, here or on
/// hosts, does not slow the next one down; returns the hosts' processor time.
fn settled(fleet: &Fleet) -> Duration {
    let mut seen = busy();
    for _ in 0..40 {
        std::thread::sleep(Duration::from_millis(250));
        let now = busy();
        if now.saturating_sub(seen) <= 2 {
            break;
        }
        seen = now;
    }
    fleet.processor()
}

/// Clock ticks that this machine's processors have worked, for programs and for the kernel.
fn busy() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1);
    fields.enumerate().filter(|(place, _)| [0, 1, 2].contains(place)).filter_map(|(_, ticks)| ticks.parse::<u64>().ok()).sum()
}

/// The process in between: runs the rest of the arguments and writes what they cost.
pub fn wrapped(arguments: &[String]) -> Outcome<u8> {
    let [file, program, rest @ ..] = arguments else { return Err("usage: wrapped FILE PROGRAM [ARGUMENT]...".into()) };
    let begin = Instant::now();
    let status = Command::new(program).args(rest).status()?;
    let wall = begin.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let cost = json!({
        "wall": u64::try_from(wall.as_micros())?,
        "processor": micros(usage.user_time()) + micros(usage.system_time()),
        "memory": usage.max_rss() * 1024,
    });
    fs::write(file, cost.to_string())?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The middle one by time on the clock, and how far apart the fastest and the slowest are.
pub fn median(samples: &[Sample]) -> (Sample, Duration) {
    let mut sorted = samples.to_vec();
    sorted.sort_by_key(|sample| sample.wall);
    let spread = sorted.last().zip(sorted.first()).map_or(Duration::ZERO, |(last, first)| last.wall - first.wall);
    (sorted.get(sorted.len() / 2).copied().unwrap_or_default(), spread)
}
