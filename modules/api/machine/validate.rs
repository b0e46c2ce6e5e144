//! Trying content before it is written: a command of the user's sees a private copy.

use std::path::{Path, PathBuf};

use super::Machine;
use super::staged::Staged;
use crate::api::error::ModuleError;
use crate::api::inspect::{Command, CommandOutput};
use crate::api::types::Content;

/// A folder that goes away with its content.
struct Private(PathBuf);

impl Drop for Private {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Machine {
    /// Runs `command` on a private copy of `content`, which has the file's own name, since some programs go by that
    /// (`systemd-analyze verify`).
    pub(super) fn try_content(&self, command: &str, path: &Path, content: &Content) -> Result<CommandOutput, ModuleError> {
        let mut argv = words(command).map_err(|error| ModuleError::argument(error).at("validate"))?;
        if !argv.iter().any(|word| word.contains("%s")) {
            return Err(ModuleError::argument(format!("`{command}` does not say where the file's name goes"))
                .at("validate")
                .hint("write `%s` in its place: \"nginx -t -c %s\""));
        }
        let inside = self.runs_inside(argv.first().map_or("", String::as_str));
        let temporary = self.place(Path::new("/tmp"), true)?;
        let temporary = match inside {
            _ if temporary.is_dir() => temporary,
            true => self.place(Path::new("/"), true)?,
            false => std::env::temp_dir(),
        };
        let failed = |error: std::io::Error| ModuleError::io("write a copy for `validate` in", &temporary, &error);
        let (folder, _) = super::staged::unique(&temporary.join("copy"), |name| {
            std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(name)?;
            Ok(Private(name.to_owned()))
        })
        .map_err(failed)?;
        let copy = folder.0.join(path.file_name().unwrap_or(path.as_os_str()));
        let Content::Inline(bytes) = content else {
            return Err(ModuleError::unknown(format!("the new content of `{}` is not on the host yet", path.display())));
        };
        let mut staged = Staged::beside(&copy).map_err(failed)?;
        staged.fill(&mut bytes.as_slice()).map_err(failed)?;
        staged.put().map_err(failed)?;
        let seen = self.root.as_deref().filter(|_| inside).and_then(|root| copy.strip_prefix(root).ok());
        let name = seen.map_or_else(|| copy.clone(), |below| Path::new("/").join(below)).display().to_string();
        for word in &mut argv {
            *word = word.replace("%s", &name);
        }
        self.run_command(&Command::new(argv))
    }
}

/// Splits a command line into words: white space separates, quotes and backslashes keep together. Nothing is expanded.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(letters.next()),
            (Some(_), letter) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (None, letter) => word.get_or_insert_default().push(letter),
        }
    }
    if let Some(open) = quote {
        return Err(format!("the command `{line}` has a {open} that is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(words(r#"sh -c 'a "b"' "c d" e\ f ''"#).unwrap(), ["sh", "-c", r#"a "b""#, "c d", "e f", ""]);
        assert!(words("sh -c 'a").is_err());
    }
}
