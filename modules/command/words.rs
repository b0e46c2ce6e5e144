//! Command lines as users write them: lists of words, or strings that are split and never expanded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{ModuleError, Word};

/// A command: one string to be split, or its words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Line {
    /// To be split.
    Text(String),
    /// Taken as they are.
    Words(Vec<Word>),
}

impl Line {
    /// Returns the words.
    pub(crate) fn argv(&self) -> Result<Vec<String>, ModuleError> {
        let words = match self {
            Self::Text(text) => split(text)?,
            Self::Words(words) => words.iter().map(|word| word.text().into_owned()).collect(),
        };
        match words.first() {
            None => Err(ModuleError::argument("the command is empty")),
            Some(program) if program.is_empty() => Err(ModuleError::argument("the program's name is empty")),
            Some(_) => Ok(words),
        }
    }
}

/// Splits at white space. Quotes and backslashes hold characters together as they do in a shell; what a shell would expand
/// or act on is refused.
fn split(text: &str) -> Result<Vec<String>, ModuleError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter.is_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some('\'') => break,
                        Some(inner) => word.push(inner),
                        None => return Err(unclosed(text, '\'')),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some('"') => break,
                        Some('\\') => match letters.next() {
                            Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                            Some(other) => word.extend(['\\', other]),
                            None => return Err(unclosed(text, '"')),
                        },
                        Some(special @ ('$' | '`')) => return Err(needs_shell(text, special)),
                        Some(inner) => word.push(inner),
                        None => return Err(unclosed(text, '"')),
                    }
                }
            }
            '\\' => match letters.next() {
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err(ModuleError::argument(format!("`{text}` ends in a backslash"))),
            },
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' | '[' => return Err(needs_shell(text, letter)),
            '~' | '#' if word.is_none() => return Err(needs_shell(text, letter)),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

fn needs_shell(text: &str, special: char) -> ModuleError {
    ModuleError::argument(format!("`{special}` in `{text}` means something to a shell, and `command` uses none"))
        .hint("use `shell`, or quote it, or write the command as a list of words")
}

fn unclosed(text: &str, quote: char) -> ModuleError {
    ModuleError::argument(format!("the quote {quote} in `{text}` is not closed"))
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Line;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a command as a string or as a list of words")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Line, E> {
                Ok(Line::Text(text.to_owned()))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Line, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = sequence.next_element()? {
                    words.push(word);
                }
                Ok(Line::Words(words))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Line::Text(text.to_owned()).argv().unwrap()
    }

    fn refused(text: &str) -> String {
        Line::Text(text.to_owned()).argv().unwrap_err().message
    }

    #[test]
    fn a_string_is_split_at_white_space_and_quotes_hold_together() {
        assert_eq!(words("a b"), ["a", "b"]);
        assert_eq!(words("  a\t b\n c  "), ["a", "b", "c"]);
        assert_eq!(words("echo 'a b' \"c d\" e\\ f"), ["echo", "a b", "c d", "e f"]);
        assert_eq!(words("echo '' \"\""), ["echo", "", ""]);
        assert_eq!(words("echo '$HOME | *' \"a'b\" 'a\"b'"), ["echo", "$HOME | *", "a'b", "a\"b"]);
        assert_eq!(words(r#"echo "a\"b\\c\$d\n""#), ["echo", "a\"b\\c$d\\n"]);
        assert_eq!(words("a'b'\"c\"d"), ["abcd"]);
        assert_eq!(words("dd if=/dev/zero of=x~ a#b"), ["dd", "if=/dev/zero", "of=x~", "a#b"]);
    }

    #[test]
    fn what_only_a_shell_understands_is_refused() {
        for text in
            ["a | b", "a > b", "a && b", "a; b", "echo $HOME", "echo \"$HOME\"", "echo `id`", "ls *.txt", "ls ~/x", "a # b", "ls [ab]"]
        {
            let error = Line::Text(text.to_owned()).argv().unwrap_err();
            assert!(error.message.contains("means something to a shell"), "{text}: {error}");
            assert!(error.hint.unwrap().contains("`shell`"));
        }
        assert_eq!(refused("echo 'a"), "the quote ' in `echo 'a` is not closed");
        assert_eq!(refused("echo \"a\\"), "the quote \" in `echo \"a\\` is not closed");
        assert_eq!(refused("a \\"), "`a \\` ends in a backslash");
        assert_eq!(refused(" \n"), "the command is empty");
        assert_eq!(refused("'' a"), "the program's name is empty");
    }

    #[test]
    fn a_list_is_taken_as_it_is() {
        let line: Line = serde_json::from_str(r#"["echo", "$HOME | *", 6443, ""]"#).unwrap();
        assert_eq!(line.argv().unwrap(), ["echo", "$HOME | *", "6443", ""]);
        assert!(serde_json::from_str::<Line>("[true]").unwrap_err().to_string().contains("a string or a whole number"));
        assert!(serde_json::from_str::<Line>("7").unwrap_err().to_string().contains("a command as a string or as a list of words"));
    }
}
