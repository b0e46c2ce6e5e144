//! The measurements as plots: scalable vector graphics, written by hand because they are a few lines.

use std::fmt::Write as _;

use crate::measure::median;
use crate::report::Row;

const OWN: &str = "#c0392b";
const COLOURS: &[&str] = &["#34495e", "#2980b9", "#85c1e9", "#27ae60", "#82e0aa", "#8e44ad", "#d68910", "#7f8c8d"];

fn seconds(row: &Row) -> f64 {
    median(&row.samples).0.wall.as_secs_f64()
}

/// The powers of ten around all values, at least one decade.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    let least = least.log10().floor();
    (least, most.log10().ceil().max(least + 1.0))
}

fn head(width: usize, height: usize) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    )
}

/// One bar per contender and number of hosts, on a logarithmic scale.
pub fn bars(rows: &[Row]) -> String {
    const ROW: usize = 18;
    const LEFT: f64 = 230.0;
    const WIDTH: f64 = 520.0;
    let rows: Vec<&Row> = rows.iter().filter(|row| seconds(row) > 0.0).collect();
    let (least, most) = decades(rows.iter().map(|row| seconds(row)));
    let x = |time: f64| LEFT + WIDTH * (time.log10() - least) / (most - least);
    let height = (rows.len() + 2) * ROW;
    let mut text = head(820, height);
    let mut power = least;
    while power <= most {
        let (at, bottom, label) = (x(10_f64.powf(power)), height - ROW, 10_f64.powf(power));
        let _ = writeln!(
            text,
            "<path d=\"M{at:.1} 0V{bottom}\" stroke=\"#ccc\"/><text x=\"{at:.1}\" y=\"{}\" fill=\"#555\">{label} s</text>",
            height - 5
        );
        power += 1.0;
    }
    for (number, row) in rows.iter().enumerate() {
        let (time, y) = (seconds(row), number * ROW + 4);
        let colour = if row.name == "kplay" { OWN } else { "#5d7fa3" };
        let _ = writeln!(
            text,
            "<text x=\"{:.0}\" y=\"{}\" text-anchor=\"end\">{}, {} {}</text><rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"12\" \
             fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{time:.2}</text>",
            LEFT - 6.0,
            y + 11,
            row.name,
            row.hosts,
            if row.hosts == 1 { "host" } else { "hosts" },
            x(time) - LEFT,
            x(time) + 4.0,
            y + 11
        );
    }
    text + "</svg>\n"
}

/// One line per contender: seconds over hosts, both on a logarithmic scale.
pub fn growth(rows: &[Row]) -> String {
    const LEFT: f64 = 60.0;
    const TOP: f64 = 20.0;
    const WIDTH: f64 = 500.0;
    const HEIGHT: f64 = 380.0;
    let rows: Vec<&Row> = rows.iter().filter(|row| seconds(row) > 0.0).collect();
    let (low, high) = decades(rows.iter().map(|row| seconds(row)));
    let (few, many) = decades(rows.iter().map(|row| row.hosts as f64));
    let x = |hosts: f64| LEFT + WIDTH * (hosts.log10() - few) / (many - few);
    let y = |time: f64| TOP + HEIGHT * (high - time.log10()) / (high - low);
    let mut text = head(820, 440);
    let mut power = low;
    while power <= high {
        let (at, label) = (y(10_f64.powf(power)), 10_f64.powf(power));
        let _ = writeln!(
            text,
            "<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#ccc\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{label} s</text>",
            LEFT + WIDTH,
            LEFT - 6.0,
            at + 4.0
        );
        power += 1.0;
    }
    let mut counts: Vec<usize> = rows.iter().map(|row| row.hosts).collect();
    counts.sort_unstable();
    counts.dedup();
    for count in counts {
        let at = x(count as f64);
        let _ = writeln!(
            text,
            "<path d=\"M{at:.1} {TOP}V{}\" stroke=\"#eee\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{count}</text>",
            TOP + HEIGHT,
            TOP + HEIGHT + 18.0
        );
    }
    let mut names: Vec<&str> = Vec::new();
    for row in &rows {
        if !names.contains(&row.name) {
            names.push(row.name);
        }
    }
    let mut labels: Vec<(f64, &str, &str)> = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let colour = if *name == "kplay" { OWN } else { COLOURS[number % COLOURS.len()] };
        let points: Vec<(f64, f64)> =
            rows.iter().filter(|row| row.name == *name).map(|row| (x(row.hosts as f64), y(seconds(row)))).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(text, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", path.join(" "));
        for (x, y) in &points {
            let _ = writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        labels.extend(points.last().map(|(_, y)| (*y, *name, colour)));
    }
    // Labels keep a line's distance, so that contenders which are alike stay readable.
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = f64::NEG_INFINITY;
    for (at, name, colour) in labels {
        free = at.max(free + 15.0);
        let _ = writeln!(text, "<text x=\"{}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>", LEFT + WIDTH + 12.0, free + 4.0);
    }
    let _ = writeln!(text, "<text x=\"{}\" y=\"436\" text-anchor=\"middle\" fill=\"#555\">hosts</text>", LEFT + WIDTH / 2.0);
    text + "</svg>\n"
}
