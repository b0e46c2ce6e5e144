//! What kplay is to reach beside others, and what came out.

use crate::measure::{Sample, median};
use crate::report::{Figure, Row};

/// How kplay's time compares with another's, at a number of hosts.
enum Goal {
    /// At most this many times the other's time.
    Within(f64),
    /// At least this many times faster.
    Faster(f64),
}

const GOALS: &[(&str, usize, Goal, &str)] = &[
    ("libssh2-true", 1, Goal::Within(1.3), "at most 1.3 x"),
    ("libssh2-true", 10, Goal::Within(1.3), "at most 1.3 x"),
    ("libssh2-true", 50, Goal::Within(1.3), "at most 1.3 x"),
    ("script", 1, Goal::Within(1.0), "not slower"),
    ("script", 10, Goal::Within(1.0), "not slower"),
    ("script", 50, Goal::Within(1.0), "not slower"),
    ("rustible", 1, Goal::Faster(3.0), "3 x faster"),
    ("rustible", 50, Goal::Faster(1.3), "1.3 x faster"),
    ("rustible-default-kex", 1, Goal::Faster(4.0), "4 x faster"),
    ("rustible-default-kex", 10, Goal::Faster(4.0), "4 x faster"),
    ("rustible-default-kex", 50, Goal::Faster(4.0), "4 x faster"),
    ("pyinfra", 10, Goal::Faster(15.0), "15 x faster"),
    ("ansible-mitogen", 10, Goal::Faster(80.0), "80 x faster"),
    ("ansible", 10, Goal::Faster(400.0), "400 x faster"),
];

/// Every goal whose two contenders were measured, with the ratio of their medians.
pub fn ratios(rows: &[Row]) -> Vec<Figure> {
    let wall = |name: &str, hosts: usize| {
        let row = rows.iter().find(|row| row.name == name && row.hosts == hosts && !row.samples.is_empty())?;
        Some(median(&row.samples).0.wall.as_secs_f64())
    };
    let mut figures = Vec::new();
    for (name, hosts, goal, text) in GOALS {
        let (Some(own), Some(other)) = (wall("kplay", *hosts), wall(name, *hosts)) else { continue };
        let (value, reached) = match goal {
            Goal::Within(most) => (format!("{:.2} x its time", own / other), own / other <= *most),
            Goal::Faster(least) => (format!("{:.1} x faster", other / own), other / own >= *least),
        };
        figures.push(Figure { what: format!("{name}, {}", counted(*hosts)), value: value + verdict(reached), goal: text });
    }
    figures.extend(first_apply(rows));
    figures.extend(edit(rows));
    figures
}

/// From saving an edit of the playbook to the end of its forecast on one host.
fn edit(rows: &[Row]) -> Option<Figure> {
    let times = rows.iter().filter(|row| !row.edits.is_empty());
    let times: Vec<(&str, f64)> = times.map(|row| (row.name, median(&row.edits).0.wall.as_secs_f64())).collect();
    let (_, own) = times.iter().find(|(name, _)| *name == "kplay")?;
    let others: String = times.iter().filter(|(name, _)| *name != "kplay").map(|(name, time)| format!("; {name}: {time:.2} s")).collect();
    let value = format!("{own:.2} s{others}{}", verdict(*own < 0.3));
    Some(Figure { what: "an edit of the playbook, then a check, 1 host".to_owned(), value, goal: "below 0.3 s" })
}

/// The first run beside the later ones and what its bytes take, and beside everybody else's first run.
fn first_apply(rows: &[Row]) -> Vec<Figure> {
    let Some(most) = rows.iter().map(|row| row.hosts).max() else { return Vec::new() };
    let row = |name: &str| rows.iter().find(|row| row.name == name && row.hosts == most);
    let seconds = |samples: &[Sample]| (!samples.is_empty()).then(|| median(samples).0.wall.as_secs_f64());
    let mut figures = Vec::new();
    let Some((first, later)) = row("kplay").and_then(|own| Some((seconds(&own.firsts)?, seconds(&own.samples)?))) else { return figures };
    let carried = row("kplay").and_then(|own| seconds(&own.carried));
    if let Some((carried, login)) = carried.zip(row("libssh2-true").and_then(|bare| seconds(&bare.samples))) {
        let bytes = carried - login;
        let allowed = 2.0 * later + bytes;
        let value = format!("{first:.2} s; 2 x {later:.2} s + {bytes:.2} s = {allowed:.2} s{}", verdict(first <= allowed));
        let what = format!("first run, agent not there yet, {}", counted(most));
        figures.push(Figure { what, value, goal: "2 x a later run, and what libssh2 takes for the bytes" });
    }
    let others = rows.iter().filter(|row| row.hosts == most && row.name != "kplay");
    if let Some((time, name)) = others.filter_map(|row| Some((seconds(&row.firsts)?, row.name))).min_by(|a, b| a.0.total_cmp(&b.0)) {
        let value = format!("{first:.2} s; {name}: {time:.2} s{}", verdict(first < time));
        figures.push(Figure { what: format!("first run beside others', {}", counted(most)), value, goal: "faster than all" });
    }
    figures
}

fn counted(hosts: usize) -> String {
    if hosts == 1 { "1 host".to_owned() } else { format!("{hosts} hosts") }
}

fn verdict(reached: bool) -> &'static str {
    if reached { "" } else { " (missed)" }
}
