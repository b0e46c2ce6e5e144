//! The report on a terminal: the same lines, and below them a bar for each host at work and a line of totals.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use kplay_modules::agent::wire::Status;

use super::diff::printable;
use super::event::{Event, Reporter};
use super::summary::count;
use super::text::Narrator;

/// Most hosts that have a row of their own; the totals speak for the others.
const ROWS: usize = 12;
/// A host's row.
const ROW: &str = "  {spinner} {prefix}  {bar:16.cyan/dim} {pos:>3}/{len:<3}  {wide_msg:.dim}";
/// The line of totals.
const TOTALS: &str = "  {spinner} {msg} {elapsed:.dim}";
/// How often the spinners turn.
const TICK: Duration = Duration::from_millis(120);

/// Writes lines and draws what is under way.
pub struct Terminal {
    narrator: Narrator,
    progress: MultiProgress,
    totals: ProgressBar,
    rows: BTreeMap<String, ProgressBar>,
    /// Hosts of the play that are at work, by what they do.
    working: BTreeMap<String, Work>,
    counts: Totals,
    /// Width of the longest host name of the play.
    width: usize,
}

/// Tasks of a host: those that were sent to it, and those that have ended.
#[derive(Debug, Default)]
struct Work {
    sent: u64,
    done: u64,
    task: String,
}

#[derive(Debug, Default)]
struct Totals {
    hosts: usize,
    ok: u64,
    changed: u64,
    failed: u64,
}

impl Terminal {
    /// Creates a report on standard output; what moves is drawn on standard error.
    pub fn new(narrator: Narrator) -> Self {
        let progress = MultiProgress::new();
        let totals = progress.add(ProgressBar::new_spinner().with_style(style(TOTALS)));
        totals.enable_steady_tick(TICK);
        Self { narrator, progress, totals, rows: BTreeMap::new(), working: BTreeMap::new(), counts: Totals::default(), width: 0 }
    }

    fn follow(&mut self, event: &Event) {
        match event {
            Event::RunStarted { hosts, .. } => self.counts.hosts = *hosts,
            Event::PlayStarted { hosts, .. } => {
                self.width = hosts.iter().map(|host| host.chars().count()).max().unwrap_or(0);
                self.working = hosts.iter().map(|host| (host.clone(), Work::default())).collect();
                self.rows.values().for_each(ProgressBar::finish_and_clear);
                self.rows.clear();
            }
            Event::HostConnected { host, .. } => self.show(host, "connected"),
            Event::RequestSent { host, tasks } => {
                if let Some(work) = self.working.get_mut(host) {
                    work.sent += *tasks as u64;
                }
                self.show(host, "");
            }
            Event::TaskStarted { host, task } => {
                let task = task.clone();
                self.show(host, &task);
            }
            Event::TaskFinished(task) => {
                match task.status {
                    Status::Ok | Status::Skipped | Status::Unknown => self.counts.ok += 1,
                    Status::Changed => self.counts.changed += 1,
                    Status::Failed if task.ignored => self.counts.ok += 1,
                    Status::Failed => self.counts.failed += 1,
                }
                if let Some(work) = self.working.get_mut(&task.host) {
                    work.done += 1;
                }
                self.show(&task.host, &task.task);
            }
            Event::HostUnreachable { host, .. } | Event::HostFailed { host, .. } | Event::ForecastEnded { host, .. } => {
                self.working.remove(host);
                if let Some(row) = self.rows.remove(host) {
                    row.finish_and_clear();
                }
            }
            Event::Recap(_) | Event::Refused { .. } => {
                self.rows.values().for_each(ProgressBar::finish_and_clear);
                self.totals.finish_and_clear();
                let _ = self.progress.clear();
                return;
            }
            Event::UndoStarted { .. }
            | Event::UndoEnded { .. }
            | Event::BatchStarted { .. }
            | Event::Message { .. }
            | Event::PlayAborted { .. } => {}
        }
        let Totals { hosts, ok, changed, failed } = &self.counts;
        self.totals.set_message(format!("{}  ok={ok} changed={changed} failed={failed}", count(*hosts, "host", "hosts")));
    }

    /// Shows what a host does, in its row if there is one or room for one. A host that has done all that was sent gives its row up.
    fn show(&mut self, host: &str, task: &str) {
        let Some(work) = self.working.get_mut(host) else { return };
        work.task = self.narrator.mask(&printable(task));
        if work.done >= work.sent && work.sent > 0 {
            if let Some(row) = self.rows.remove(host) {
                row.finish_and_clear();
            }
            return;
        }
        let row = match self.rows.get(host) {
            Some(row) => row,
            None if self.rows.len() >= ROWS => return,
            None => {
                let row = self.progress.insert_before(&self.totals, ProgressBar::new(0).with_style(style(ROW)));
                row.enable_steady_tick(TICK);
                self.rows.entry(host.to_owned()).or_insert(row)
            }
        };
        row.set_length(work.sent);
        row.set_position(work.done);
        row.set_prefix(format!("{host:width$}", width = self.width));
        row.set_message(work.task.clone());
    }
}

impl Reporter for Terminal {
    fn report(&mut self, event: &Event) {
        self.follow(event);
        let text = self.narrator.tell(event);
        if text.is_empty() {
            return;
        }
        self.progress.suspend(|| {
            let mut output = std::io::stdout().lock();
            let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
        });
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
