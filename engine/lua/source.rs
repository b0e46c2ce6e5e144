//! The text of playbooks and roles: read once, cut into tokens, so that an error can point at the very word it is about.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::diagnostic::Place;

/// A step into nested tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// A field.
    Key(String),
    /// A position in a list, from 1 as in Lua.
    Index(usize),
}

/// What to underline of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its name (of a list item, the item).
    Key,
    /// Its value, as far as it stands on one line.
    Value,
}

/// Returns the steps of a path as serde writes it: `members[0].name`, positions from 0.
pub(crate) fn parse_path(path: &str) -> Vec<Segment> {
    let mut segments = Vec::new();
    for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
        segments.push(match part.strip_suffix(']').and_then(|index| index.parse::<usize>().ok()) {
            Some(index) => Segment::Index(index + 1),
            None => Segment::Key(part.to_owned()),
        });
    }
    segments
}

/// Returns a path as a playbook's author would write it: `members[1].name`, positions from 1.
pub(crate) fn show_path(path: &[Segment]) -> String {
    path.iter().fold(String::new(), |mut shown, segment| {
        match segment {
            Segment::Key(key) if shown.is_empty() => shown += key,
            Segment::Key(key) => shown += &format!(".{key}"),
            Segment::Index(index) => shown += &format!("[{index}]"),
        }
        shown
    })
}

/// All sources of a run. Chunk names are `@` and the file as its user names it.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    files: RefCell<HashMap<PathBuf, Rc<Tokens>>>,
}

impl Sources {
    /// Takes a file's text, which has just been read to be run.
    pub(crate) fn add(&self, file: &Path, text: &str) {
        self.files.borrow_mut().insert(file.to_owned(), Rc::new(Tokens::new(text)));
    }

    /// Returns where the function or method `name` is called in a line; the line alone when it is not to be found there.
    pub(crate) fn call(&self, file: &Path, line: u32, name: &str) -> Place {
        let found = self.tokens(file).and_then(|tokens| {
            let call = tokens.calls(line, name).next()?;
            Some(tokens.place(file, call, call))
        });
        found.unwrap_or_else(|| Place::line(file, line))
    }

    /// Returns where argument number `argument` (from 0, `self` not counted) of a call has a field.
    pub(crate) fn field(&self, file: &Path, line: u32, name: &str, argument: usize, path: &[Segment], part: Part) -> Option<Place> {
        let tokens = self.tokens(file)?;
        let mut calls = tokens.calls(line, name);
        calls.find_map(|call| {
            let value = tokens.argument(call + 1, argument)?;
            let (first, last) = tokens.field(value, path, part)?;
            Some(tokens.place(file, first, last))
        })
    }

    /// Returns where the table that a file returns has a field.
    pub(crate) fn returned(&self, file: &Path, path: &[Segment], part: Part) -> Option<Place> {
        let tokens = self.tokens(file)?;
        let start = tokens.all.iter().rposition(|token| token.text == "return" && token.column == 1)? + 1;
        let (first, last) = tokens.field((start, tokens.all.len()), path, part)?;
        Some(tokens.place(file, first, last))
    }

    /// Returns where a word stands in a line; nothing when it stands there more than once, since either may be meant.
    pub(crate) fn word(&self, file: &Path, line: u32, word: &str) -> Option<Place> {
        let tokens = self.tokens(file)?;
        let mut found = (0..tokens.all.len()).filter(|index| tokens.all[*index].line == line && tokens.all[*index].text == word);
        let index = found.next()?;
        found.next().is_none().then(|| tokens.place(file, index, index))
    }

    fn tokens(&self, file: &Path) -> Option<Rc<Tokens>> {
        self.files.borrow().get(file).cloned()
    }
}

/// A file cut into tokens, comments left out.
#[derive(Debug)]
struct Tokens {
    all: Vec<Token>,
}

/// A name, keyword, number or operator with its text; a string with its content.
#[derive(Debug)]
struct Token {
    text: String,
    string: bool,
    line: u32,
    column: u32,
    length: u32,
}

impl Tokens {
    fn new(text: &str) -> Self {
        let mut cutter = Cutter { rest: text, line: 1, column: 1, tokens: Vec::new() };
        cutter.run();
        Self { all: cutter.tokens }
    }

    fn is(&self, index: usize, text: &str) -> bool {
        self.all.get(index).is_some_and(|token| !token.string && token.text == text)
    }

    /// Returns the places of `name` before an argument list that begins in `line`.
    fn calls(&self, line: u32, name: &str) -> impl Iterator<Item = usize> {
        let fits = move |index: &usize| {
            let opens =
                self.all.get(index + 1).is_some_and(|next| next.line == line && (next.string || matches!(next.text.as_str(), "(" | "{")));
            opens && self.is(*index, name)
        };
        (0..self.all.len()).filter(fits)
    }

    /// Returns the tokens `[start, end)` of an argument, `open` being the first token after the called name.
    fn argument(&self, open: usize, number: usize) -> Option<(usize, usize)> {
        if !self.is(open, "(") {
            // `f { … }` and `f "…"` have one argument and no brackets.
            return (number == 0).then(|| (open, self.skip(open)));
        }
        let mut start = open + 1;
        for _ in 0..number {
            start = self.end_of_item(start);
            if !self.is(start, ",") {
                return None;
            }
            start += 1;
        }
        let end = self.end_of_item(start);
        (end > start).then_some((start, end))
    }

    /// Finds a field of the table constructor that the tokens `[start, end)` are.
    fn field(&self, (start, end): (usize, usize), path: &[Segment], part: Part) -> Option<(usize, usize)> {
        let Some((segment, rest)) = path.split_first() else { return self.on_one_line(start, end) };
        if !self.is(start, "{") {
            return None;
        }
        let mut position = 0;
        let mut at = start + 1;
        while at < end && !self.is(at, "}") {
            let item_end = self.end_of_item(at);
            let bracketed =
                self.is(at, "[") && self.all.get(at + 1).is_some_and(|token| token.string) && self.is(at + 2, "]") && self.is(at + 3, "=");
            let (key, value) = match self.all.get(at) {
                Some(token) if !token.string && self.is(at + 1, "=") => (Some((at, token)), at + 2),
                _ if bracketed => (self.all.get(at + 1).map(|token| (at + 1, token)), at + 4),
                _ => (None, at),
            };
            let found = match (key, segment) {
                (Some((index, token)), Segment::Key(name)) if token.text == *name => Some(index),
                (None, Segment::Index(index)) => {
                    position += 1;
                    (position == *index).then_some(at)
                }
                _ => None,
            };
            if let Some(index) = found {
                return match (rest.is_empty(), part, key.is_some()) {
                    (true, Part::Key, true) => Some((index, index)),
                    (true, ..) => self.on_one_line(value, item_end),
                    // A value that is no table constructor has its fields elsewhere: the key is as near as one gets.
                    (false, ..) => self.field((value, item_end), rest, part).or(Some((index, index))),
                };
            }
            at = if self.is(item_end, ",") || self.is(item_end, ";") { item_end + 1 } else { item_end.max(at + 1) };
        }
        None
    }

    /// Returns the first and last token of `[start, end)`, cut at the end of the first line.
    fn on_one_line(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        let line = self.all.get(start)?.line;
        let last = (start..end).take_while(|index| self.all.get(*index).is_some_and(|token| token.line == line)).last()?;
        Some((start, last))
    }

    /// Returns the first token after an item of a list: a comma, a semicolon or the closing bracket.
    fn end_of_item(&self, mut at: usize) -> usize {
        while let Some(token) = self.all.get(at) {
            if !token.string && matches!(token.text.as_str(), "," | ";" | ")" | "}" | "]") {
                break;
            }
            at = self.skip(at);
        }
        at
    }

    /// Returns the token after `at` and, if it opens brackets or a block, after all that belongs to it.
    fn skip(&self, at: usize) -> usize {
        let change = |index: usize| match self.all.get(index) {
            Some(token) if !token.string => match token.text.as_str() {
                "(" | "{" | "[" | "function" | "if" | "do" | "repeat" => 1,
                ")" | "}" | "]" | "end" | "until" => -1,
                _ => 0,
            },
            _ => 0,
        };
        let mut depth = change(at);
        let mut next = at + 1;
        while depth > 0 && next < self.all.len() {
            depth += change(next);
            next += 1;
        }
        next
    }

    fn place(&self, file: &Path, first: usize, last: usize) -> Place {
        let (first, last) = (&self.all[first], &self.all[last]);
        Place { file: file.to_owned(), line: first.line, column: first.column, length: last.column + last.length - first.column }
    }
}

struct Cutter<'a> {
    rest: &'a str,
    line: u32,
    column: u32,
    tokens: Vec<Token>,
}

impl Cutter<'_> {
    fn run(&mut self) {
        while let Some(first) = self.rest.chars().next() {
            if first.is_whitespace() {
                self.take(first.len_utf8());
            } else if self.rest.starts_with("--") {
                let long = long_bracket(&self.rest[2..]);
                let end = long.map_or_else(|| self.rest.find('\n').unwrap_or(self.rest.len()), |(_, end)| end + 2);
                self.take(end);
            } else if let Some((content, end)) = long_bracket(self.rest) {
                self.push(end, content, true);
            } else if first == '"' || first == '\'' {
                let end = short_string(self.rest, first);
                let content = self.rest[1..end].trim_end_matches(first).to_owned();
                self.push(end, content, true);
            } else if first.is_alphanumeric() || first == '_' {
                let end = self.rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(self.rest.len());
                self.push(end, self.rest[..end].to_owned(), false);
            } else {
                // Two-letter operators matter only where a lone `=` would be mistaken for an assignment.
                let end =
                    if ["==", "~=", "<=", ">="].iter().any(|operator| self.rest.starts_with(operator)) { 2 } else { first.len_utf8() };
                self.push(end, self.rest[..end].to_owned(), false);
            }
        }
    }

    fn push(&mut self, end: usize, text: String, string: bool) {
        let taken = &self.rest[..end];
        let length = u32::try_from(taken.lines().next().unwrap_or_default().chars().count()).unwrap_or(1);
        self.tokens.push(Token { text, string, line: self.line, column: self.column, length });
        self.take(end);
    }

    fn take(&mut self, end: usize) {
        let (taken, rest) = self.rest.split_at(end);
        for letter in taken.chars() {
            if letter == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.rest = rest;
    }
}

/// Reads `[[…]]` or `[=[…]=]`; returns the content and where it ends.
fn long_bracket(text: &str) -> Option<(String, usize)> {
    let level = text.strip_prefix('[')?.bytes().take_while(|byte| *byte == b'=').count();
    let inside = text.get(level + 1..)?.strip_prefix('[')?;
    let close = format!("]{}]", "=".repeat(level));
    let length = inside.find(&close).unwrap_or(inside.len());
    Some((inside[..length].to_owned(), (level + 2 + length + close.len()).min(text.len())))
}

/// Returns where a quoted string ends, its closing quote included.
fn short_string(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' => return index,
            _ if letter == quote => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"play { name = "x", run = function(host)
  -- host:file({ path = "in a comment" })
  if host.name == "a" then host:debug("file", 1) end
  host:file({
    path = [[/long]],
    ["mode"] = "0644", nested = { { deep = 1 }, { deep = f(1, 2) } },
  }, { when = function() local a, b = 1, 2 end, tags = "t" })
end }
"#;

    fn shown(place: Option<Place>) -> String {
        let Some(place) = place else { return "nowhere".to_owned() };
        let line = TEXT.lines().nth(place.line as usize - 1).unwrap();
        let text: String = line.chars().skip(place.column as usize - 1).take(place.length as usize).collect();
        format!("{}:{}", place.line, text)
    }

    fn field(argument: usize, path: &str, part: Part) -> String {
        let sources = Sources::default();
        sources.add(Path::new("p.lua"), TEXT);
        shown(sources.field(Path::new("p.lua"), 4, "file", argument, &parse_path(path), part))
    }

    #[test]
    fn fields_of_a_call_are_found_through_strings_comments_and_functions() {
        assert_eq!(field(0, "path", Part::Key), "5:path");
        assert_eq!(field(0, "path", Part::Value), "5:[[/long]]");
        assert_eq!(field(0, "mode", Part::Key), "6:\"mode\"");
        assert_eq!(field(0, "nested[1].deep", Part::Value), "6:f(1, 2)");
        assert_eq!(field(0, "nested[1]", Part::Value), "6:{ deep = f(1, 2) }");
        assert_eq!(field(0, "absent", Part::Key), "nowhere");
        assert_eq!(field(1, "tags", Part::Value), "7:\"t\"");
    }

    #[test]
    fn calls_and_words_are_found_by_line() {
        let sources = Sources::default();
        let file = Path::new("p.lua");
        sources.add(file, TEXT);
        assert_eq!(shown(Some(sources.call(file, 4, "file"))), "4:file");
        assert_eq!(sources.call(file, 3, "file").column, 0, "a string that looks like the name is no call");
        assert_eq!(shown(sources.field(file, 1, "play", 0, &parse_path("run"), Part::Key)), "1:run");
        assert_eq!(shown(sources.word(file, 3, "name")), "3:name");
        assert_eq!(shown(sources.word(file, 3, "host")), "nowhere", "it stands there twice");
    }

    #[test]
    fn no_text_makes_the_cutter_panic() {
        for text in ["\"", "'\\", "[[", "[==[", "--[[", "ä = {", "f(", "{ [\"a\"", "]", "--", "[=", "return"] {
            let sources = Sources::default();
            sources.add(Path::new("p"), text);
            sources.field(Path::new("p"), 1, "f", 0, &parse_path("a"), Part::Key);
            sources.returned(Path::new("p"), &parse_path("a"), Part::Key);
        }
    }
}
