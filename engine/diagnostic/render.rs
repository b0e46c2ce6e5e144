//! Draws a diagnostic: message, place with the source line and a caret, call chain, details, hints.

use super::{Diagnostic, Place};

/// Returns the diagnostic as text, ending in a newline. Source lines are read from the files the places name.
pub fn render(diagnostic: &Diagnostic, color: bool) -> String {
    let paint = |code: &str, text: &str| if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let mut text = format!("{}{} {}\n", paint("1;31", "error"), paint("1", ":"), paint("1", &diagnostic.message));
    let margin = diagnostic.place.as_ref().map_or(1, |place| place.line.to_string().len());
    let pad = " ".repeat(margin);
    let blue = |mark: &str| paint("1;34", mark);
    if let Some(place) = &diagnostic.place {
        text += &format!("{pad}{} {}\n", blue("-->"), shown(place));
        if let Some(source) = source_line(place) {
            let (before, marker) = underline(place, &source);
            text += &format!("{pad} {}\n", blue("|"));
            text += &format!("{} {} {source}\n", blue(&place.line.to_string()), blue("|"));
            if !marker.is_empty() {
                text += &format!("{pad} {} {before}{}\n", blue("|"), paint("1;31", &marker));
            }
        }
    }
    for place in &diagnostic.chain {
        text += &format!("{pad} {} called from {}\n", blue("="), shown(place));
    }
    if let Some(host) = &diagnostic.host {
        text += &format!("{pad} {} host: {host}\n", blue("="));
    }
    for line in &diagnostic.details {
        text += &format!("{pad} {} {line}\n", blue("|"));
    }
    for hint in &diagnostic.hints {
        text += &format!("{pad} {} {}: {hint}\n", blue("="), paint("1;36", "hint"));
    }
    text
}

fn shown(place: &Place) -> String {
    let file = place.file.display();
    match (place.line, place.column) {
        (0, _) => file.to_string(),
        (line, 0) => format!("{file}:{line}"),
        (line, column) => format!("{file}:{line}:{column}"),
    }
}

/// Reads the line that a place names; a file that has gone since simply has no snippet.
#[expect(clippy::disallowed_methods, reason = "the renderer shows lines of the user's own files")]
fn source_line(place: &Place) -> Option<String> {
    let index = usize::try_from(place.line).ok()?.checked_sub(1)?;
    let text = std::fs::read_to_string(&place.file).ok()?;
    text.lines().nth(index).map(|line| line.replace('\t', " "))
}

/// Returns the blanks before the marker, and the marker.
fn underline(place: &Place, source: &str) -> (String, String) {
    let Some(start) = usize::try_from(place.column).ok().and_then(|column| column.checked_sub(1)) else {
        return (String::new(), String::new());
    };
    let room = source.chars().count().saturating_sub(start).max(1);
    let length = usize::try_from(place.length).unwrap_or(1).clamp(1, room);
    (" ".repeat(start), "^".repeat(length))
}
