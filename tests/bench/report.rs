//! What was measured, as a table, a plot, and a section of the README.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Outcome;
use crate::contender::first_line;
use crate::measure::{Sample, median};

/// One contender with one number of hosts.
pub struct Row {
    /// Who.
    pub name: &'static str,
    /// How many hosts.
    pub hosts: usize,
    /// The run that made everything, for those that do.
    pub first: Option<Sample>,
    /// Runs that changed nothing.
    pub samples: Vec<Sample>,
}

/// One figure of kplay alone.
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
            text += "| | hosts | no change, s | spread, s | against kplay | processor here, ms a host | on the host, ms | memory, MB | first run, s |\n|---|---|---|---|---|---|---|---|---|\n";
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
                "| {} | {} | {} | {} | {ratio} | {} | {} | {} | {} |",
                row.name,
                row.hosts,
                seconds(sample.wall),
                seconds(spread),
                each(sample.controller),
                each(sample.hosts),
                sample.memory / 1_000_000,
                row.first.map_or(String::new(), |first| seconds(first.wall)),
            );
        }
        if !self.figures.is_empty() {
            text += "\n| kplay alone | measured | goal |\n|---|---|---|\n";
            for figure in &self.figures {
                let _ = writeln!(text, "| {} | {} | {} |", figure.what, figure.value, figure.goal);
            }
        }
        let _ = write!(text, "\nMedians of runs that took turns; {}. {}.\n", self.versions.join("; "), machine());
        text
    }

    /// A plot of the runs that change nothing: one bar per contender and number of hosts, on a logarithmic scale.
    pub fn svg(&self) -> String {
        const ROW: usize = 18;
        const LEFT: f64 = 230.0;
        const WIDTH: f64 = 520.0;
        let times: Vec<(String, f64)> = self
            .rows
            .iter()
            .map(|row| (format!("{}, {} hosts", row.name, row.hosts), median(&row.samples).0.wall.as_secs_f64()))
            .filter(|(_, time)| *time > 0.0)
            .collect();
        let least = times.iter().map(|(_, time)| *time).fold(f64::INFINITY, f64::min).log10().floor();
        let most = times.iter().map(|(_, time)| *time).fold(0.0, f64::max).log10().ceil().max(least + 1.0);
        let x = |time: f64| LEFT + WIDTH * (time.log10() - least) / (most - least);
        let height = (times.len() + 2) * ROW;
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 820 {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"820\" height=\"{height}\" fill=\"#fff\"/>\n"
        );
        let mut power = least;
        while power <= most {
            let at = x(10_f64.powf(power));
            let _ = writeln!(
                text,
                "<path d=\"M{at:.1} 0V{}\" stroke=\"#ccc\"/><text x=\"{at:.1}\" y=\"{}\" fill=\"#555\">{} s</text>",
                height - ROW,
                height - 5,
                10_f64.powf(power)
            );
            power += 1.0;
        }
        for (number, (label, time)) in times.iter().enumerate() {
            let y = number * ROW + 4;
            let colour = if label.starts_with("kplay,") { "#c0392b" } else { "#5d7fa3" };
            let _ = writeln!(
                text,
                "<text x=\"{:.0}\" y=\"{}\" text-anchor=\"end\">{label}</text><rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"12\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{time:.2}</text>",
                LEFT - 6.0,
                y + 11,
                x(*time) - LEFT,
                x(*time) + 4.0,
                y + 11
            );
        }
        text + "</svg>\n"
    }

    /// Puts the tables between the marks of PERFORMANCE.md, and the plot beside the benchmark.
    pub fn write(&self) -> Outcome<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        fs::write(root.join("tests/bench/no-change.svg"), self.svg())?;
        let path = root.join("PERFORMANCE.md");
        let text = fs::read_to_string(&path)?;
        let (head, rest) = text.split_once(BEGIN).ok_or("PERFORMANCE.md has lost its marks")?;
        let (_, tail) = rest.split_once(END).ok_or("PERFORMANCE.md has lost its marks")?;
        Ok(fs::write(&path, format!("{head}{BEGIN}\n\n{}\n{END}{tail}", self.markdown()))?)
    }
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
