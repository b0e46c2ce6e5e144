//! Events as text, for terminals and for what takes their place: only what changed, failed or is unknown is told.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;

use kplay_modules::agent::wire::{Certainty, ChangeReport, Status};

use super::diff::{Line, LineKind, Lookup, diff, printable};
use super::event::{Counts, Event, Level, Recap, TaskFinished};
use super::summary::{count, summary};
use crate::diagnostic::{Diagnostic, Place, render};
use crate::secrets::Secrets;

/// Host names are padded up to this width, so that tasks stand below each other.
const WIDEST: usize = 24;
/// Most changes listed of one task without `-v`.
const CHANGES: usize = 20;
/// Most lines shown of a command's output.
const OUTPUT: usize = 200;

/// How to tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// With colors.
    pub color: bool,
    /// How often `-v` was given.
    pub verbose: u8,
    /// With contents before and after.
    pub diff: bool,
}

/// Turns events into text. Keeps what later events need of earlier ones.
pub struct Narrator {
    style: Style,
    lookup: Lookup,
    secrets: Secrets,
    check: bool,
    width: usize,
    /// What has been told in this play of changes that take more than a line, and on which host.
    told: HashMap<(Place, String), String>,
    /// Whether a task has failed when it was at changing something, or had done so in vain.
    half_done: bool,
}

/// Colors by meaning.
#[derive(Debug, Clone, Copy)]
pub enum Paint {
    /// Headings.
    Bold,
    /// What is less important.
    Dim,
    /// What is as it should be, or added.
    Good,
    /// What changed.
    Change,
    /// What failed, or is removed.
    Bad,
    /// What is not known.
    Doubt,
}

impl Style {
    /// Colors a text, if there are colors.
    pub fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Bold => "1",
            Paint::Dim => "2",
            Paint::Good => "32",
            Paint::Change => "33",
            Paint::Bad => "1;31",
            Paint::Doubt => "35",
        };
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Narrator {
    /// Creates a narrator that finds contents for diffs with `lookup` and masks `secrets`.
    pub fn new(style: Style, lookup: Lookup, secrets: Secrets) -> Self {
        Self { style, lookup, secrets, check: false, width: 0, told: HashMap::new(), half_done: false }
    }

    /// Returns what is to be said about an event: whole lines, or nothing.
    pub fn tell(&mut self, event: &Event) -> String {
        let text = self.plainly(event);
        self.mask(&text)
    }

    /// Masks all secrets in a text.
    pub fn mask(&self, text: &str) -> String {
        self.secrets.mask(text)
    }

    fn plainly(&mut self, event: &Event) -> String {
        match event {
            Event::RunStarted { check, .. } => {
                self.check = *check;
                String::new()
            }
            Event::PlayStarted { play, hosts } => {
                self.told.clear();
                self.width = hosts.iter().map(|host| host.chars().count()).max().unwrap_or(0).min(WIDEST);
                let forecast = if self.check { ", forecast" } else { "" };
                let hosts = if hosts.is_empty() { "no hosts".to_owned() } else { count(hosts.len(), "host", "hosts") };
                format!(
                    "{} {}\n",
                    self.style.paint(Paint::Bold, &format!("PLAY {}", printable(play))),
                    self.style.paint(Paint::Dim, &format!("({hosts}{forecast})"))
                )
            }
            Event::BatchStarted { batch, of, hosts } => {
                let text = format!("batch {batch} of {of}: {}", hosts.join(" "));
                format!("{}\n", self.style.paint(Paint::Dim, &text))
            }
            Event::HostConnected { host, millis, agent_sent } if self.style.verbose > 0 => {
                let agent = if *agent_sent { ", agent sent" } else { "" };
                self.line(' ', Paint::Dim, host, &format!("connected in {}{agent}", seconds(*millis)))
            }
            Event::TaskFinished(task) => self.task(task),
            Event::HostUnreachable { host, error } => self.line('!', Paint::Bad, host, "unreachable") + &self.error(error),
            Event::HostFailed { host, error } => self.line('!', Paint::Bad, host, "failed") + &self.error(error),
            Event::ForecastEnded { host, error } => self.line('?', Paint::Doubt, host, "the forecast ends here") + &self.error(error),
            Event::UndoStarted { host, failed } => {
                let whose = if host == failed { "it".to_owned() } else { printable(failed) };
                self.line('<', Paint::Change, host, &format!("takes back what this play did, since {whose} failed"))
            }
            Event::UndoEnded { host, complete: true, .. } => self.line('<', Paint::Good, host, "is as it was before this play"),
            Event::UndoEnded { host, .. } => self.line('!', Paint::Bad, host, "could not take everything back: see above what is left"),
            Event::Message { host, level, text } => self.message(host.as_deref(), *level, text),
            Event::PlayAborted { play, reason } => {
                format!("{}\n", self.style.paint(Paint::Bad, &format!("the play {} ends: {reason}", printable(play))))
            }
            Event::Recap(recap) => self.recap(recap),
            // Who refuses a run says why.
            Event::HostConnected { .. } | Event::RequestSent { .. } | Event::TaskStarted { .. } | Event::Refused { .. } => String::new(),
        }
    }

    /// Returns `mark host  text`.
    fn line(&self, mark: char, paint: Paint, host: &str, text: &str) -> String {
        let width = self.width;
        let head = if host.is_empty() { mark.to_string() } else { format!("{mark} {:width$} ", printable(host)) };
        format!("{} {text}\n", self.style.paint(paint, head.trim_end_matches('\n')))
    }

    fn task(&mut self, task: &TaskFinished) -> String {
        self.half_done |= task.status == Status::Failed && !task.changes.is_empty() && !self.check;
        let name = printable(&task.task);
        let role = task.role.as_ref().map(|role| self.style.paint(Paint::Dim, &format!("  [{role}]"))).unwrap_or_default();
        let because = task.because.as_ref().map(|because| printable(because));
        let verbose = self.style.verbose > 0;
        let mut changes = self.changes(&task.changes, task.sensitive, task.module == "undo");
        let before = if task.error.is_none() && !verbose { self.told_before(task, &changes) } else { None };
        let before = before.map_or_else(String::new, |host| {
            changes.clear();
            self.style.paint(Paint::Dim, &format!("  (as on {host})"))
        });
        let mut text = match task.status {
            Status::Ok if verbose => self.line('=', Paint::Good, &task.host, &format!("{name}{role}")),
            Status::Skipped if verbose => {
                let why = because.map(|because| format!(": {because}")).unwrap_or_default();
                self.line('-', Paint::Dim, &task.host, &format!("{name}{role} (skipped{why})"))
            }
            Status::Ok | Status::Skipped => return String::new(),
            Status::Changed => {
                let doubt = match task.certainty {
                    Certainty::Exact => String::new(),
                    Certainty::Assumed => self.doubt("assumed", because.as_deref()),
                    Certainty::Unknown => self.doubt("unknown", because.as_deref()),
                };
                self.line('~', Paint::Change, &task.host, &format!("{name}{role}{doubt}{before}"))
            }
            Status::Unknown => {
                let doubt = self.doubt("unknown", because.as_deref());
                self.line('?', Paint::Doubt, &task.host, &format!("{name}{role}{doubt}{before}"))
            }
            Status::Failed => {
                let ignored = if task.ignored { " (ignored)" } else { "" };
                self.line('!', Paint::Bad, &task.host, &format!("{name}{role}{ignored}"))
            }
        };
        text += &changes;
        if let Some(error) = &task.error {
            text += &self.error(error);
        }
        if verbose && !task.sensitive {
            text += &self.output(task);
        }
        text
    }

    /// Returns the host on which the same call has made the very same changes, when they take more than a line to tell.
    fn told_before(&mut self, task: &TaskFinished, changes: &str) -> Option<String> {
        if changes.lines().count() < 2 {
            return None;
        }
        match self.told.entry((task.place.clone(), format!("{}\n{changes}", task.task))) {
            Entry::Occupied(told) => Some(told.get().clone()).filter(|host| *host != task.host),
            Entry::Vacant(place) => {
                place.insert(task.host.clone());
                None
            }
        }
    }

    fn doubt(&self, word: &str, because: Option<&str>) -> String {
        let because = because.map(|because| format!(": {because}")).unwrap_or_default();
        self.style.paint(Paint::Doubt, &format!("  ({word}{because})"))
    }

    fn changes(&self, changes: &[ChangeReport], sensitive: bool, undo: bool) -> String {
        let mut text = String::new();
        let shown = if self.style.verbose > 0 { changes.len() } else { CHANGES };
        for report in changes.iter().take(shown) {
            let mut what = summary(&report.change, &self.secrets).text;
            // What an undo makes has been there before.
            if let Some(made) = what.strip_prefix("create ").or_else(|| what.strip_prefix("make ")).filter(|_| undo) {
                what = format!("restore {made}");
            }
            let _ = writeln!(text, "    {}", printable(&what));
            if !self.style.diff {
                continue;
            }
            if sensitive {
                text += "      the content is not to be shown\n";
                continue;
            }
            for line in diff(report, &self.lookup) {
                let _ = writeln!(text, "      {}", self.diff_line(&line));
            }
        }
        if changes.len() > shown {
            let _ = writeln!(text, "    … {} more", changes.len() - shown);
        }
        text
    }

    fn diff_line(&self, line: &Line) -> String {
        match line.kind {
            LineKind::Head => self.style.paint(Paint::Bold, &line.text),
            LineKind::Added => self.style.paint(Paint::Good, &line.text),
            LineKind::Removed => self.style.paint(Paint::Bad, &line.text),
            LineKind::Note => self.style.paint(Paint::Dim, &line.text),
            LineKind::Same => line.text.clone(),
        }
    }

    /// Renders an error below the line that names its host.
    fn error(&self, error: &Diagnostic) -> String {
        let mut error = error.clone();
        error.host = None;
        render(&error, self.style.color).lines().fold(String::new(), |text, line| text + "    " + line + "\n")
    }

    fn output(&self, task: &TaskFinished) -> String {
        let mut text = String::new();
        for stream in ["stdout", "stderr"] {
            let Some(content) = task.output.get(stream).and_then(serde_json::Value::as_str).filter(|content| !content.is_empty()) else {
                continue;
            };
            for line in content.lines().take(OUTPUT) {
                let _ = writeln!(text, "    {} {}", self.style.paint(Paint::Dim, &format!("{stream}|")), printable(line));
            }
            let lines = content.lines().count();
            // Where a part is left out, it is said in a line of its own how much, and where all of it is.
            let left_out = content.lines().skip(OUTPUT).find(|line| line.starts_with("[… ") && line.ends_with(" …]"));
            let _ = match left_out {
                Some(line) => writeln!(text, "    {}", printable(line)),
                None if lines > OUTPUT => writeln!(text, "    … {} more lines", lines - OUTPUT),
                None => Ok(()),
            };
        }
        text
    }

    fn message(&self, host: Option<&str>, level: Level, text: &str) -> String {
        let text = printable(text);
        match level {
            Level::Debug if self.style.verbose < 2 => String::new(),
            Level::Debug => self.line('.', Paint::Dim, host.unwrap_or_default(), &text),
            Level::Info => self.line(' ', Paint::Dim, host.unwrap_or_default(), &text),
            Level::Warning => self.line('#', Paint::Change, host.unwrap_or_default(), &format!("warning: {text}")),
        }
    }

    fn recap(&self, recap: &Recap) -> String {
        let mut text = format!("{}\n", self.style.paint(Paint::Bold, "RECAP"));
        let rows: Vec<_> = recap.hosts.iter().map(|(host, counts)| (host, cells(counts, recap.check))).collect();
        let width = rows.iter().map(|(host, _)| host.chars().count()).max().unwrap_or(0);
        let columns = rows.iter().map(|(_, cells)| cells.len()).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns)
            .map(|column| rows.iter().filter_map(|(_, cells)| cells.get(column)).map(|(cell, _)| cell.len()).max().unwrap_or(0))
            .collect();
        for (host, cells) in &rows {
            let mut line = format!("  {host:width$}");
            for ((cell, paint), width) in cells.iter().zip(&widths) {
                let padding = " ".repeat(width - cell.len());
                let cell = paint.map_or_else(|| cell.clone(), |paint| self.style.paint(paint, cell));
                line += &format!("  {cell}{padding}");
            }
            text += line.trim_end();
            text.push('\n');
        }
        text + &self.verdict(recap) + "\n"
    }

    /// Returns the last line: what it comes to, and what can be done about it.
    fn verdict(&self, recap: &Recap) -> String {
        let changed: u32 = recap.hosts.values().map(|counts| counts.changed).sum();
        let hosts_changed = recap.hosts.values().filter(|counts| counts.changed > 0).count();
        let failed = recap.hosts.values().filter(|counts| counts.failed > 0 || counts.unreachable).count();
        let on = count(hosts_changed, "host", "hosts");
        let tasks = count(usize::try_from(changed).unwrap_or(usize::MAX), "task", "tasks");
        let mut parts = Vec::new();
        if recap.interrupted {
            parts.push("interrupted".to_owned());
        }
        parts.push(match (recap.check, changed) {
            (true, 0) => "nothing would change".to_owned(),
            (true, _) => format!("{tasks} would change {on}"),
            (false, 0) if self.half_done => "failed tasks may have left changes".to_owned(),
            (false, 0) => "nothing changed".to_owned(),
            (false, _) => format!("{tasks} changed {on}"),
        });
        if failed > 0 {
            parts.push(format!("{} failed", count(failed, "host", "hosts")));
        }
        let mut line = format!("{}, in {}", parts.join(", "), seconds(recap.millis));
        if !recap.check && changed > 0 {
            line += &format!("; undo with: kplay undo {}", recap.run);
        }
        self.style.paint(if failed > 0 || recap.interrupted { Paint::Bad } else { Paint::Bold }, &line)
    }
}

/// Returns the cells of a host's row; those that are rare are there only when they count something.
fn cells(counts: &Counts, check: bool) -> Vec<(String, Option<Paint>)> {
    let cell = |name: &str, number: u32, paint: Paint| (format!("{name}={number}"), (number > 0).then_some(paint));
    let mut cells = vec![
        cell("ok", counts.ok, Paint::Good),
        cell("changed", counts.changed, Paint::Change),
        cell("failed", counts.failed, Paint::Bad),
        cell("skipped", counts.skipped, Paint::Dim),
    ];
    if check || counts.unknown > 0 {
        cells.push(cell("unknown", counts.unknown, Paint::Doubt));
    }
    if counts.unreachable {
        cells.push(("unreachable".to_owned(), Some(Paint::Bad)));
    }
    cells
}

/// Returns milliseconds as `0.21 s`, `3.2 s`, `2 min 5 s`.
pub fn seconds(millis: u64) -> String {
    match millis {
        0..1_000 => format!("0.{:02} s", millis / 10),
        1_000..120_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        _ => format!("{} min {} s", millis / 60_000, millis % 60_000 / 1000),
    }
}
