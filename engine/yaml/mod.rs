//! YAML read strictly, into a tree that remembers where each value stands.
//!
//! Duplicate keys, numbers with a leading zero and unknown tags are errors with a position; `yes` and `no` are strings.
//! Anchors, aliases and merge keys work. A file holds one document.

mod reader;
mod scalar;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Place};

pub use reader::parse;

/// A file that has been read.
#[derive(Debug, Clone)]
pub struct Document {
    /// The file, as the user would name it.
    pub file: Arc<Path>,
    /// What it holds; an empty file holds null.
    pub root: Node,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where.
    pub span: Span,
    /// Whether it was marked `!unsafe`: braces in it are plain text.
    pub literal: bool,
}

/// A value of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number or a fraction.
    Number(serde_json::Number),
    /// Text.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values in their order; no key occurs twice.
    Map(Vec<(Key, Node)>),
}

/// The key of a mapping; numbers and booleans are taken as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its text.
    pub name: String,
    /// Where.
    pub span: Span,
    /// Whether it is a string and not, say, a number.
    pub is_string: bool,
}

/// Line, column (characters, from 1) and length in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// Length on its first line; 0 where there is nothing to underline.
    pub length: u32,
}

impl Document {
    /// Returns the place of a span of this document.
    pub fn place(&self, span: Span) -> Place {
        Place { file: self.file.to_path_buf(), line: span.line, column: span.column, length: span.length }
    }

    /// Creates an error about a span of this document.
    pub fn error(&self, span: Span, message: impl Into<String>) -> Box<Diagnostic> {
        Diagnostic::user(message).at(self.place(span))
    }
}

impl Node {
    /// Returns the value without its positions.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => serde_json::Value::Bool(*value),
            Value::Number(value) => serde_json::Value::Number(value.clone()),
            Value::String(value) => serde_json::Value::String(value.clone()),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect(),
        }
    }

    /// Returns whether any part of the value was marked `!unsafe`.
    pub fn has_literal(&self) -> bool {
        self.literal
            || match &self.value {
                Value::List(items) => items.iter().any(Self::has_literal),
                Value::Map(entries) => entries.iter().any(|(_, node)| node.has_literal()),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
            }
    }

    /// Returns the word users know the kind by, for messages: `a list`.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}
