//! Makes sure that a text file holds a line or a block of lines, or does not.
//!
//! **A line.** `line` shall be in the file, word for word. With `match`, a regular expression, the last line that it matches
//! becomes `line`; if none matches, `line` is added. Lines that match but are not the last are left alone. An expression that
//! does not match `line` itself (`^#Port`) has done its work as soon as `line` is there. With `state = "absent"`, every line that
//! equals `line` or that `match` matches is removed.
//!
//! **A block.** The lines of `block` stand between two marker lines, made of `marker` with `{mark}` replaced by BEGIN and END.
//! The block is found by its markers, so two blocks in one file need two different markers. A marker that is lost, doubled or in
//! the wrong order is an error, never a second block. With `state = "absent"`, the block goes with its markers.
//!
//! What is added goes to the end of the file, or behind the last line that `insert_after` matches, or before the last line that
//! `insert_before` matches; `insert_before = "BOF"` is the beginning of the file, `insert_after = "EOF"` its end. A file that has
//! lines, but none that matches there, is an error. What is in the file already stays where it is.
//!
//! Line endings stay as they are; a new line ends as its neighbour does, and a last line without a newline stays one. A missing
//! file is an error unless `create = true`. A link at `path` is refused: name the file that it points to.
//!
//! ```lua
//! host:line({ path = "/etc/ssh/sshd_config", match = "^#?PermitRootLogin ", line = "PermitRootLogin no", create = true })
//! host:line({ path = "/etc/fstab", block = "tmpfs /srv/scratch tmpfs size=1g 0 0", marker = "# {mark} scratch", create = true })
//! ```

use std::path::PathBuf;

use regex_lite::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::place::{self, Placement};
use crate::api::text::Text;
use crate::api::{Content, Controller, EntryKind, Inspect, Mode, Module, ModuleError, Proposal};

/// Marker of a block that names none.
const MARKER: &str = "# {mark} KPLAY MANAGED BLOCK";

/// Arguments of `line`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The file, absolute.
    path: PathBuf,
    /// The line, without its ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    line: Option<String>,
    /// Regular expression; the last line it matches becomes `line`. With state "absent": all lines it matches are removed.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    /// The lines of a block, instead of `line`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    block: Option<String>,
    /// The lines around a block; {mark} stands for BEGIN and END. Default: "# {mark} KPLAY MANAGED BLOCK".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    marker: Option<String>,
    /// What is added goes behind the last line that this regular expression matches, or to the end with "EOF", the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    insert_after: Option<String>,
    /// What is added goes before the last line that this regular expression matches, or to the beginning with "BOF".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    insert_before: Option<String>,
    /// Whether it shall be "present" or "absent".
    #[serde(default)]
    state: State,
    /// Make the file if it is missing.
    #[serde(default)]
    create: bool,
    /// Mode, as "0640" or "u+x,go-w". Default: what the file has, else 0644, or 0600 for a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    /// Owning user, by name or number. Default: what the file has, else the user the task runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// Owning group, by name or number. Default: what the file has, else that of the user the task runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Command that must succeed on the new content; %s stands for a private copy of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validate: Option<String>,
    /// With `create`: make missing folders above the file, with mode 0755.
    #[serde(default)]
    parents: bool,
    /// Never show the file's content.
    #[serde(default)]
    secret: bool,
}

/// Whether the line or block shall be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It shall be there.
    #[default]
    Present,
    /// It shall not be there.
    Absent,
}

impl Module for Line {
    const NAME: &'static str = "line";

    fn prepare(&mut self, controller: &dyn Controller) -> Result<(), ModuleError> {
        self.path = place::absolute_file(&self.path, "path")?;
        place::check_validate(self.validate.as_deref())?;
        self.refuse_unfit_arguments()?;
        for (argument, text) in [("match", &self.pattern), ("insert_after", &self.insert_after), ("insert_before", &self.insert_before)] {
            if let Some(text) = text {
                expression(argument, text)?;
            }
        }
        for text in [&self.line, &self.block].into_iter().flatten() {
            self.secret = place::is_secret(controller, self.secret, text.as_bytes());
        }
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let now = host.entry(&self.path)?;
        let before = match now.as_ref().map(|entry| &entry.kind) {
            Some(EntryKind::File) => host.read(&self.path, place::TEXT_LIMIT)?,
            Some(_) => return Err(place::in_the_way(&self.path, now.as_ref(), "path")),
            None if self.state == State::Absent => return Ok(Proposal::default()),
            None if self.create => Vec::new(),
            None => return Err(place::in_the_way(&self.path, None, "path").hint("add `create = true` to have it made")),
        };
        let after = self.edited(&before)?;
        let secret = self.secret || place::looks_like_key(&after);
        Placement {
            path: &self.path,
            argument: "path",
            content: Content::Inline(after),
            asked: (&self.mode, &self.owner, &self.group),
            default_mode: place::default_mode(secret),
            validate: self.validate.as_deref(),
            parents: self.parents,
            secret,
        }
        .changes(host)
        .map(Proposal::new)
    }

    #[cfg(test)]
    fn examples() -> Vec<crate::api::conformance::Example> {
        tests::examples()
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }
}

impl Line {
    fn refuse_unfit_arguments(&self) -> Result<(), ModuleError> {
        let refuse = |argument: &str, message: &str, hint: &str| Err(ModuleError::argument(message).at(argument).hint(hint));
        let line = self.line.is_some() || self.pattern.is_some();
        let block = self.block.is_some() || self.marker.is_some();
        if line && block {
            return refuse(if self.block.is_some() { "block" } else { "marker" }, "`line` and `block` exclude each other", "use two tasks");
        }
        if !line && !block {
            return Err(ModuleError::argument("neither `line` nor `block` is given"));
        }
        if self.state == State::Present && self.line.is_none() && self.block.is_none() {
            let (given, missing) = if line { ("match", "line") } else { ("marker", "block") };
            return refuse(
                given,
                &format!("`{given}` without `{missing}` says nothing about what shall be there"),
                &format!("add `{missing}`"),
            );
        }
        match self.line.as_deref() {
            Some("") => return refuse("line", "`line` is empty", "to remove empty lines, use `match = \"^$\"` with state \"absent\""),
            Some(text) if text.contains(['\n', '\r']) => {
                return refuse("line", "`line` holds a line break", "use `block` for several lines");
            }
            _ => {}
        }
        if self.pattern.as_deref() == Some("") {
            return refuse("match", "`match` is empty and would match every line", "write `^$` for empty lines");
        }
        if self.insert_after.is_some() && self.insert_before.is_some() {
            return refuse("insert_before", "`insert_after` and `insert_before` exclude each other", "leave one of them out");
        }
        if self.insert_after.as_deref() == Some("BOF") {
            return refuse("insert_after", "`insert_after` does not know \"BOF\"", "write `insert_before = \"BOF\"`");
        }
        if self.insert_before.as_deref() == Some("EOF") {
            return refuse("insert_before", "`insert_before` does not know \"EOF\"", "write `insert_after = \"EOF\"`");
        }
        let marker = self.marker.as_deref().unwrap_or(MARKER);
        if !marker.contains("{mark}") || marker.contains(['\n', '\r']) {
            return refuse("marker", "`marker` has to be one line with `{mark}` in it", "write for instance \"# {mark} my block\"");
        }
        let [begin, end] = self.markers();
        if self.block.as_ref().is_some_and(|block| block.lines().any(|line| line == begin || line == end)) {
            return refuse("block", "`block` holds one of its own markers", "leave the markers out, they are added");
        }
        Ok(())
    }

    /// Returns what becomes of a file's content.
    fn edited(&self, content: &[u8]) -> Result<Vec<u8>, ModuleError> {
        let mut text = Text::parse(content);
        if self.block.is_some() || self.marker.is_some() {
            self.edit_block(&mut text)?;
        } else {
            self.edit_line(&mut text)?;
        }
        Ok(text.to_bytes())
    }

    fn edit_line(&self, text: &mut Text) -> Result<(), ModuleError> {
        let pattern = self.pattern.as_deref().map(|pattern| expression("match", pattern)).transpose()?;
        let matches = |line: &[u8]| pattern.as_ref().is_some_and(|pattern| pattern.is_match(&String::from_utf8_lossy(line)));
        let line = self.line.as_deref().map(str::as_bytes);
        if self.state == State::Absent {
            text.retain(|_, found| Some(found) != line && !matches(found));
            return Ok(());
        }
        let Some(line) = line else { return Ok(()) };
        let there = text.iter().any(|found| found == line);
        // An expression that does not match its own replacement would find the next line each time it is asked.
        let done = there && !matches(line);
        let last = text.iter().rposition(matches);
        match last {
            _ if done => {}
            Some(at) => text.replace(at, line),
            None if there => {}
            None => text.insert(self.place_for_new(text)?, line),
        }
        Ok(())
    }

    fn edit_block(&self, text: &mut Text) -> Result<(), ModuleError> {
        let [begin, end] = self.markers();
        let block = self.block.as_deref().filter(|block| !block.is_empty());
        let lines = block.map(|block| block.strip_suffix('\n').unwrap_or(block).split('\n')).into_iter().flatten();
        let lines = lines.map(|line| line.strip_suffix('\r').unwrap_or(line));
        let wanted = std::iter::once(begin.as_str()).chain(lines).chain([end.as_str()]);
        let found = self.find_block(text, &begin, &end)?;
        if self.state == State::Absent {
            text.retain(|at, _| found.is_none_or(|(first, last)| at < first || at > last));
            return Ok(());
        }
        let wanted: Vec<&[u8]> = wanted.map(str::as_bytes).collect();
        let at = match found {
            Some((first, last)) if text.iter().skip(first).take(last - first + 1).eq(wanted.iter().copied()) => return Ok(()),
            // The marker stays and lends its ending to the new lines.
            Some((first, last)) => {
                text.retain(|at, _| at <= first || at > last);
                first
            }
            None => {
                let at = self.place_for_new(text)?;
                text.insert(at, wanted[0]);
                at
            }
        };
        for (offset, line) in wanted.iter().enumerate().skip(1) {
            text.insert(at + offset, line);
        }
        Ok(())
    }

    /// Returns the numbers of the marker lines; `None` when neither is there.
    fn find_block(&self, text: &Text, begin: &str, end: &str) -> Result<Option<(usize, usize)>, ModuleError> {
        let find =
            |marker: &str| text.iter().enumerate().filter(|(_, line)| *line == marker.as_bytes()).map(|(at, _)| at).collect::<Vec<_>>();
        let (begins, ends) = (find(begin), find(end));
        let wrong = |what: String| {
            let message = format!("the markers of the block in `{}` are damaged: {what}", self.path.display());
            Err(ModuleError::host(message).at("marker").hint("mend the file by hand: one BEGIN and one END line, in that order, or none"))
        };
        let numbers = |at: &[usize]| at.iter().map(|at| (at + 1).to_string()).collect::<Vec<_>>().join(" and ");
        match (begins.as_slice(), ends.as_slice()) {
            ([], []) => Ok(None),
            ([first], [last]) if first < last => Ok(Some((*first, *last))),
            ([first], [last]) => wrong(format!("`{end}` in line {} comes before `{begin}` in line {}", last + 1, first + 1)),
            ([_, _, ..], _) => wrong(format!("`{begin}` stands in lines {}", numbers(&begins))),
            (_, [_, _, ..]) => wrong(format!("`{end}` stands in lines {}", numbers(&ends))),
            ([first], []) => wrong(format!("`{begin}` in line {} has no `{end}`", first + 1)),
            ([], [last]) => wrong(format!("`{end}` in line {} has no `{begin}`", last + 1)),
        }
    }

    /// Returns the number that a new line is to have.
    fn place_for_new(&self, text: &Text) -> Result<usize, ModuleError> {
        let (argument, pattern, offset) = match (self.insert_after.as_deref(), self.insert_before.as_deref()) {
            (None | Some("EOF"), None) => return Ok(text.len()),
            (_, Some("BOF")) => return Ok(0),
            (Some(pattern), _) => ("insert_after", pattern, 1),
            (None, Some(pattern)) => ("insert_before", pattern, 0),
        };
        let expression = expression(argument, pattern)?;
        match text.shown().rposition(|line| expression.is_match(&line)) {
            Some(at) => Ok(at + offset),
            None if text.is_empty() => Ok(0),
            None => Err(ModuleError::host(format!("no line of `{}` matches `{pattern}`", self.path.display()))
                .at(argument)
                .hint("nothing is added at a place that was not asked for; change the expression, or leave it out to add at the end")),
        }
    }

    /// Returns the lines that begin and end the block.
    fn markers(&self) -> [String; 2] {
        let marker = self.marker.as_deref().unwrap_or(MARKER);
        ["BEGIN", "END"].map(|mark| marker.replace("{mark}", mark))
    }
}

/// Reads a regular expression.
fn expression(argument: &str, text: &str) -> Result<Regex, ModuleError> {
    Regex::new(text).map_err(|error| ModuleError::argument(format!("`{argument}` is not a regular expression: {error}")).at(argument))
}

#[cfg(test)]
mod tests;
