//! What was measured, as tables: all of it for PERFORMANCE.md, the short one for the README.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Outcome;
use crate::contender::first_line;
use crate::measure::{Sample, median};
use crate::{goals, plot};

/// One contender with one number of hosts.
pub struct Row {
    /// Who.
    pub name: &'static str,
    /// How many hosts.
    pub hosts: usize,
    /// Runs that made everything, on hosts that had never seen the contender; none of those that only look.
    pub firsts: Vec<Sample>,
    /// Runs that changed nothing.
    pub samples: Vec<Sample>,
    /// Bare libssh2 carrying what a first run has to, and nothing else.
    pub carried: Vec<Sample>,
    /// Forecasts of a playbook that was edited just before.
    pub edits: Vec<Sample>,
}

impl Row {
    /// The middle one of the first runs.
    pub fn first(&self) -> Option<Sample> {
        (!self.firsts.is_empty()).then(|| median(&self.firsts).0)
    }
}

/// One figure that has a goal.
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// What came out, with its unit.
    pub value: String,
    /// What it was to be.
    pub goal: &'static str,
}

/// Everything that one run of the benchmark found.
pub struct Report {
    /// Contenders by hosts.
    pub rows: Vec<Row>,
    /// kplay alone.
    pub figures: Vec<Figure>,
    /// Who took part, in which release.
    pub versions: Vec<String>,
}

const BEGIN: &str = "<!-- measured -->";
const END: &str = "<!-- /measured -->";

fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.3}") } else { format!("{seconds:.1}") }
}

impl Report {
    /// All tables.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        if !self.rows.is_empty() {
            text += "| | hosts | runs | no change, s | spread, s | against kplay | processor here, ms a host | on the host, ms | memory, MB | first run, s |\n|---|---|---|---|---|---|---|---|---|---|\n";
        }
        for row in &self.rows {
            let (sample, spread) = median(&row.samples);
            let kplay =
                self.rows.iter().find(|other| other.name == "kplay" && other.hosts == row.hosts).map(|other| median(&other.samples).0.wall);
            let ratio = kplay
                .filter(|kplay| !kplay.is_zero())
                .map_or("".to_owned(), |kplay| format!("{:.2}", sample.wall.as_secs_f64() / kplay.as_secs_f64()));
            let each = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1000.0 / row.hosts as f64);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {ratio} | {} | {} | {} | {} |",
                row.name,
                row.hosts,
                row.samples.len(),
                seconds(sample.wall),
                seconds(spread),
                each(sample.controller),
                each(sample.hosts),
                sample.memory / 1_000_000,
                row.first().map_or(String::new(), |first| seconds(first.wall)),
            );
        }
        let ratios = goals::ratios(&self.rows);
        for (title, figures) in [("kplay beside others", &ratios), ("kplay alone", &self.figures)] {
            if !figures.is_empty() {
                let _ = write!(text, "\n| {title} | measured | goal |\n|---|---|---|\n");
                for figure in figures {
                    let _ = writeln!(text, "| {} | {} | {} |", figure.what, figure.value, figure.goal);
                }
            }
        }
        let _ = write!(text, "\nMedians of runs that took turns; {}. {}.\n", self.versions.join("; "), machine());
        text
    }

    /// Seconds of each contender by number of hosts.
    fn summary(&self) -> String {
        let mut hosts: Vec<usize> = self.rows.iter().map(|row| row.hosts).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let mut names: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !names.contains(&row.name) {
                names.push(row.name);
            }
        }
        let mut text = String::from("| fifty tasks a host, nothing to change, seconds |");
        for count in &hosts {
            let _ = write!(text, " {count} {} |", if *count == 1 { "host" } else { "hosts" });
        }
        text += "\n|---|";
        text += &"---|".repeat(hosts.len());
        for name in names {
            let _ = write!(text, "\n| {name} |");
            for count in &hosts {
                let found = self.rows.iter().find(|row| row.name == name && row.hosts == *count);
                let _ = write!(text, " {} |", found.map_or(String::new(), |row| seconds(median(&row.samples).0.wall)));
            }
        }
        let _ = write!(text, "\n\n{}. {}.\n", self.versions.join("; "), machine());
        text
    }

    /// Puts the tables between the marks of PERFORMANCE.md and of the README, and the plots beside the benchmark.
    pub fn write(&self) -> Outcome<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        fs::write(root.join("tests/bench/no-change.svg"), plot::bars(&self.rows))?;
        fs::write(root.join("tests/bench/growth.svg"), plot::growth(&self.rows))?;
        between_marks(&root.join("PERFORMANCE.md"), &self.markdown())?;
        between_marks(&root.join("README.md"), &self.summary())
    }
}

/// Replaces what stands between the marks of a file.
fn between_marks(path: &Path, content: &str) -> Outcome<()> {
    let text = fs::read_to_string(path)?;
    let lost = || format!("{} has lost its marks `{BEGIN}` and `{END}`", path.display());
    let (head, rest) = text.split_once(BEGIN).ok_or_else(lost)?;
    let (_, tail) = rest.split_once(END).ok_or_else(lost)?;
    Ok(fs::write(path, format!("{head}{BEGIN}\n\n{content}\n{END}{tail}"))?)
}

/// Date, processor and kernel.
fn machine() -> String {
    let date = first_line(Command::new("date").arg("+%F"));
    let kernel = first_line(Command::new("uname").arg("-sr"));
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{date}, {cores} processors ({model}), {kernel}, hosts and controller on the same machine")
}
