//! Turns the parser's events into a tree: anchors, aliases, merge keys, tags, duplicate keys.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, Span as RawSpan, Tag};

use super::scalar::resolve;
use super::{Document, Key, Node, Span, Value};
use crate::diagnostic::{Diagnostic, Place, Result};

/// Deepest nesting that is read.
const DEPTH: usize = 100;
/// Most values that aliases may multiply a document to.
const NODES: usize = 1_000_000;

/// Reads the text of `file`, which holds one document. Fails with the place of the first mistake.
pub fn parse(file: &Path, text: &str) -> Result<Document> {
    let file: Arc<Path> = file.into();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { file: file.clone(), text, parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let root = reader.document()?;
    Ok(Document { file, root })
}

struct Reader<'t> {
    file: Arc<Path>,
    text: &'t str,
    parser: Parser<'t, serde_saphyr::granit_parser::StrInput<'t>>,
    /// What each anchor stands for, and how many values that are.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn document(&mut self) -> Result<Node> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(self.error(self.span(&span), "a second document begins here, but one file holds one document"));
                }
                Event::DocumentStart(..) => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, &span, 0)?);
                }
                _ => return Err(self.error(self.span(&span), "the document has ended, but more follows")),
            }
        }
        Ok(root.unwrap_or(Node { value: Value::Null, span: Span { line: 1, column: 1, length: 0 }, literal: false }))
    }

    /// Returns the next event that is data.
    fn next(&mut self) -> Result<(Event<'t>, RawSpan)> {
        loop {
            match self.parser.next() {
                Some(Ok((Event::Comment(..) | Event::Anchor(..), _))) => {}
                Some(Ok(next)) => return Ok(next),
                Some(Err(error)) => {
                    let marker = *error.marker();
                    return Err(self.error(self.at(marker, 0), error.info()));
                }
                None => return Ok((Event::StreamEnd, RawSpan::empty(Marker::new(0, 1, 0)))),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, raw: &RawSpan, depth: usize) -> Result<Node> {
        let span = self.span(raw);
        self.nodes += 1;
        if depth > DEPTH || self.nodes > NODES {
            return Err(self.error(span, if depth > DEPTH { "nested too deeply" } else { "aliases multiply to too many values" }));
        }
        let before = self.nodes;
        let (value, anchor, literal) = match event {
            Event::Alias(id) => {
                let Some((node, count)) = self.anchors.get(&id) else {
                    return Err(self.error(span, "an alias within the value that it stands for"));
                };
                self.nodes += count;
                return Ok(node.clone());
            }
            Event::Scalar(text, style, anchor, tag) => {
                let literal = tag.as_deref().is_some_and(is_unsafe);
                (self.scalar(&text, style, tag.as_deref(), raw, span)?, anchor, literal)
            }
            Event::SequenceStart(_, anchor, tag) => {
                let literal = self.collection_tag(tag.as_deref(), "seq", raw)?;
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, raw) => items.push(self.node(event, &raw, depth + 1)?),
                    }
                }
                (Value::List(items), anchor, literal)
            }
            Event::MappingStart(_, anchor, tag) => {
                let literal = self.collection_tag(tag.as_deref(), "map", raw)?;
                (self.mapping(depth)?, anchor, literal)
            }
            _ => return Err(self.error(span, "expected a value")),
        };
        let node = Node { value, span, literal };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before + 1));
        }
        Ok(node)
    }

    fn mapping(&mut self, depth: usize) -> Result<Value> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut lines = HashMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, raw) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let plain = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let node = self.node(event, &raw, depth + 1)?;
            let key = self.key(&node)?;
            let (event, raw) = self.next()?;
            let value = self.node(event, &raw, depth + 1)?;
            if plain {
                merged.extend(self.merge(value)?);
                continue;
            }
            if let Some(line) = lines.insert(key.name.clone(), key.span.line) {
                return Err(self.error(key.span, format!("the key `{}` is given twice, first in line {line}", key.name)));
            }
            entries.push((key, value));
        }
        if merged.is_empty() {
            return Ok(Value::Map(entries));
        }
        // Merged keys come first, as in the readers that this feature comes from; what is written out wins.
        let mut seen: HashSet<String> = HashSet::new();
        let mut all: Vec<_> =
            merged.into_iter().filter(|(key, _)| !lines.contains_key(&key.name) && seen.insert(key.name.clone())).collect();
        all.extend(entries);
        Ok(Value::Map(all))
    }

    /// Returns the entries that `<<` stands for; of several mappings the first one wins.
    fn merge(&self, node: Node) -> Result<Vec<(Key, Node)>> {
        match node.value {
            Value::Map(entries) => Ok(entries),
            Value::List(items) => {
                let mut all = Vec::new();
                for item in items {
                    all.extend(self.merge(item)?);
                }
                Ok(all)
            }
            _ => Err(self.error(node.span, format!("`<<` merges a mapping or a list of them, not {}", node.kind()))),
        }
    }

    fn key(&self, node: &Node) -> Result<Key> {
        let name = match &node.value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Null => "null".to_owned(),
            Value::List(_) | Value::Map(_) => return Err(self.error(node.span, format!("a key has to be a string, not {}", node.kind()))),
        };
        Ok(Key { name, span: node.span, is_string: matches!(node.value, Value::String(_)) })
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, raw: &RawSpan, span: Span) -> Result<Value> {
        let plain = || resolve(text).map_err(|why| self.error(span, why.message(text)).hint(why.hint(text)));
        let Some(tag) = tag else {
            return if style == ScalarStyle::Plain { plain() } else { Ok(Value::String(text.to_owned())) };
        };
        match tag.core_suffix() {
            Some("str") => return Ok(Value::String(text.to_owned())),
            Some("int" | "float" | "bool" | "null") => return plain(),
            _ if is_unsafe(tag) || tag.to_string() == "!" => return Ok(Value::String(text.to_owned())),
            _ => {}
        }
        Err(self.unknown_tag(tag, raw))
    }

    /// Checks the tag of a list or mapping; returns whether it says `!unsafe`.
    fn collection_tag(&self, tag: Option<&Tag>, core: &str, raw: &RawSpan) -> Result<bool> {
        match tag {
            None => Ok(false),
            Some(tag) if is_unsafe(tag) => Ok(true),
            Some(tag) if tag.core_suffix() == Some(core) => Ok(false),
            Some(tag) => Err(self.unknown_tag(tag, raw)),
        }
    }

    fn unknown_tag(&self, tag: &Tag, raw: &RawSpan) -> Box<Diagnostic> {
        let span = raw.tag_span().map_or_else(|| self.span(raw), |tag| self.span(&tag));
        let name = tag.to_string();
        if name.starts_with("!vault") {
            return self
                .error(span, "this value is encrypted by ansible-vault, which kplay does not read")
                .hint("decrypt it with `ansible-vault decrypt` or `ansible-vault view`, put it into a file of its own")
                .hint("then encrypt that file for kplay: `kplay vault encrypt group_vars/GROUP/secrets.yaml`");
        }
        self.error(span, format!("unknown tag `{name}`")).hint("of YAML's tags only those of its core and `!unsafe` are known")
    }

    fn span(&self, raw: &RawSpan) -> Span {
        let source = raw.slice(self.text).unwrap_or_default();
        let line = source.lines().next().unwrap_or_default().trim_end();
        self.at(raw.start, line.chars().count())
    }

    fn at(&self, marker: Marker, length: usize) -> Span {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Span { line: number(marker.line()), column: number(marker.col() + 1), length: number(length) }
    }

    fn error(&self, span: Span, message: impl Into<String>) -> Box<Diagnostic> {
        Diagnostic::user(message).at(Place { file: self.file.to_path_buf(), line: span.line, column: span.column, length: span.length })
    }
}

fn is_unsafe(tag: &Tag) -> bool {
    tag.to_string() == "!unsafe"
}
