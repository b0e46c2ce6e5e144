//! What commands print: short texts stay in memory, long ones lie in a folder of the run until a playbook reads them.
#![expect(clippy::disallowed_methods, reason = "long outputs are files of the run")]

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::secrets::Secrets;

/// Bytes of a text from which on it goes to a file.
const LONG: usize = 64 << 10;
/// Bytes of each of its ends that reports show.
const SHOWN: usize = 8 << 10;
/// Runs whose texts are kept.
const RUNS: usize = 20;

/// Fields of a result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    fields: Map<String, Value>,
    /// Fields that lie in files.
    files: BTreeMap<String, PathBuf>,
}

impl From<Map<String, Value>> for Output {
    fn from(fields: Map<String, Value>) -> Self {
        Self { fields, files: BTreeMap::new() }
    }
}

impl Output {
    /// Returns a field, whole.
    pub fn get(&self, name: &str) -> std::io::Result<Option<Value>> {
        match self.files.get(name) {
            Some(path) => std::fs::read_to_string(path).map(|text| Some(Value::String(text))),
            None => Ok(self.fields.get(name).cloned()),
        }
    }

    /// Returns the names of all fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }
}

/// The folder of a run.
#[derive(Debug)]
pub struct Outputs {
    folder: PathBuf,
    secrets: Secrets,
}

impl Outputs {
    /// Names the folder of a run below the controller's state; it is made when a text is long.
    pub fn new(state: &Path, run: &str, secrets: Secrets) -> Self {
        Self { folder: state.join("runs").join(run), secrets }
    }

    /// Takes the fields of a result; returns them for the playbook, and for reports: these show both ends of a long text and say
    /// where all of it is. Texts with secrets in them never go to a file; they stay in memory, as all do when the disk is full.
    pub fn keep(&self, host: &str, task: u32, mut fields: Map<String, Value>) -> (Output, Map<String, Value>) {
        let mut files = BTreeMap::new();
        for (name, value) in &mut fields {
            let Value::String(text) = value else { continue };
            if text.len() <= LONG || self.secrets.are_in(text.as_bytes()) {
                continue;
            }
            let path = self.folder.join(host.replace('/', "_")).join(format!("{task}.{}", name.replace('/', "_")));
            if self.write(&path, text).is_ok() {
                *text = ends(text, &path);
                files.insert(name.clone(), path);
            }
        }
        (Output { fields: fields.clone(), files }, fields)
    }

    fn write(&self, path: &Path, text: &str) -> std::io::Result<()> {
        if !self.folder.is_dir() {
            self.make_room();
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap_or(&self.folder))?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes()).inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
    }

    /// Removes the folders of the oldest runs; their names begin with their time.
    fn make_room(&self) {
        let runs = self.folder.parent().unwrap_or(&self.folder);
        let mut folders: Vec<PathBuf> = std::fs::read_dir(runs).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        folders.sort();
        for old in folders.iter().rev().skip(RUNS - 1) {
            let _ = std::fs::remove_dir_all(old);
        }
    }
}

/// Returns both ends of a text, and says where all of it is.
fn ends(text: &str, path: &Path) -> String {
    let head = text.floor_char_boundary(SHOWN);
    let tail = text.ceil_char_boundary(text.len() - SHOWN);
    let (first, last) = (&text[..head], &text[tail..]);
    format!("{first}\n[… {} bytes left out; all of it is in {} …]\n{last}", tail - head, path.display())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(text: &str) -> Map<String, Value> {
        json!({ "stdout": text, "code": 0 }).as_object().cloned().unwrap()
    }

    #[test]
    fn a_long_text_is_shown_by_its_ends_and_read_whole() {
        let state = tempfile::tempdir().unwrap();
        let outputs = Outputs::new(state.path(), "r1", Secrets::default());
        let text = format!("first\n{}last\n", "äöü und so weiter\n".repeat(10_000));
        let (output, shown) = outputs.keep("h1", 7, fields(&text));
        assert_eq!(output.get("stdout").unwrap(), Some(Value::String(text.clone())));
        assert_eq!(output.get("code").unwrap(), Some(json!(0)));
        let path = state.path().join("runs/r1/h1/7.stdout");
        let shown = shown["stdout"].as_str().unwrap();
        assert!(shown.len() < 3 * SHOWN && shown.starts_with("first\n") && shown.ends_with("last\n"), "{shown}");
        assert!(shown.contains(&format!("all of it is in {}", path.display())), "{shown}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    }

    #[test]
    fn short_texts_and_secrets_go_to_no_file() {
        let state = tempfile::tempdir().unwrap();
        let secrets = Secrets::default();
        secrets.add(["hunter2hunter2"]);
        let outputs = Outputs::new(state.path(), "r1", secrets);
        for text in ["short".to_owned(), format!("{}hunter2hunter2", "x".repeat(LONG))] {
            let (output, shown) = outputs.keep("h1", 7, fields(&text));
            assert_eq!(output.get("stdout").unwrap(), Some(Value::String(text)));
            assert_eq!(Some(shown["stdout"].clone()), output.get("stdout").unwrap());
        }
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_newest_runs_are_kept() {
        let state = tempfile::tempdir().unwrap();
        for run in 0..30 {
            Outputs::new(state.path(), &format!("2026-{run:02}"), Secrets::default()).keep("h1", 1, fields(&"x".repeat(LONG + 1)));
        }
        let mut kept: Vec<_> = std::fs::read_dir(state.path().join("runs")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        kept.sort();
        assert_eq!((kept.len(), kept[0].to_str()), (RUNS, Some("2026-10")));
    }
}
