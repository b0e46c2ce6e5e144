//! A variable with its origin, and the layers that variables are stacked in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::diagnostic::{Place, Result};
use crate::yaml::{self, Document, Node};

/// Variables by name.
pub type Variables = BTreeMap<String, Variable>;

/// A variable as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// Its value; templates in it are not rendered.
    pub value: Value,
    /// Whether braces in it are plain text.
    pub literal: bool,
    /// Whether it came out of an encrypted file.
    pub secret: bool,
    /// The file that it stands in.
    pub file: Arc<Path>,
    /// Its line, from 1; 0 when only the file is known.
    pub line: u32,
}

/// The variables that one file gives to one owner.
#[derive(Debug)]
pub struct Layer {
    /// Whose they are.
    pub owner: Owner,
    /// The variables.
    pub variables: Variables,
}

/// Whose variables a layer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A group's.
    Group(String),
    /// A host's.
    Host,
    /// Given on the command line with `-e`.
    CommandLine,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Group(name) => write!(f, "group {name}"),
            Self::Host => f.write_str("host"),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

impl Variable {
    /// Creates a variable from a value of a YAML file; `line` is that of its key.
    pub fn new(document: &Document, line: u32, node: &Node) -> Self {
        Self { value: node.to_json(), literal: node.has_literal(), secret: false, file: document.file.clone(), line }
    }

    /// Returns where the variable was written: of an encrypted one the file alone, since a line of it would be quoted as it lies there.
    pub fn place(&self) -> Place {
        Place::line(self.file.to_path_buf(), if self.secret { 0 } else { self.line })
    }
}

/// Reads a file of variables: a mapping, or nothing.
pub fn read_variables(file: &Path, text: &str) -> Result<Variables> {
    let document = yaml::parse(file, text)?;
    let entries = match &document.root.value {
        yaml::Value::Null => return Ok(Variables::new()),
        yaml::Value::Map(entries) => entries,
        _ => {
            return Err(document
                .error(document.root.span, format!("a file of variables holds a mapping, not {}", document.root.kind()))
                .hint("write one `name: value` a line"));
        }
    };
    Ok(entries.iter().map(|(key, node)| (key.name.clone(), Variable::new(&document, key.span.line, node))).collect())
}
