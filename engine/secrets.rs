//! Secret strings, and the mask that is put over them wherever something is shown or written.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use serde_json::Value;

use crate::diagnostic::Diagnostic;
use kplay_modules::api::base64;

/// What is shown instead of a secret.
pub const MASK: &str = "********";
/// Shorter strings, such as `yes` or `80`, are no secrets: hiding them would hide everything.
const SHORTEST: usize = 4;
/// Shorter spellings than this are masked only where they stand alone: `root` hides no part of `chroot`.
const SHORTEST_PART: usize = 6;
/// Words that tell nothing, whoever encrypts them.
const TELL_NOTHING: [&str; 4] = ["true", "false", "null", "none"];

/// A set of secret strings. Clones share it, so that what is added while hosts are at work is masked from then on.
#[derive(Debug, Clone, Default)]
pub struct Secrets(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// As they were declared.
    texts: BTreeSet<String>,
    /// What is masked for them, the longest first: a secret may be part of another.
    masked: Vec<String>,
}

impl Secrets {
    /// Returns how many there are: what has been searched for fewer has to be searched again.
    pub fn count(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).texts.len()
    }

    /// Adds secrets, in every form that they take on the way to a screen or a file.
    pub fn add<S: AsRef<str>>(&self, secrets: impl IntoIterator<Item = S>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = known.masked.len();
        for secret in secrets {
            let secret = secret.as_ref().trim();
            let length = secret.chars().count();
            if length >= SHORTEST && !TELL_NOTHING.contains(&secret) && !known.texts.contains(secret) {
                known.texts.insert(secret.to_owned());
                known.masked.extend(forms(secret));
            }
        }
        if known.masked.len() > before {
            known.masked.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            known.masked.dedup();
        }
    }

    /// Returns whether the content of a file holds a secret.
    pub fn are_in(&self, content: &[u8]) -> bool {
        self.known().texts.iter().any(|secret| content.windows(secret.len()).any(|window| window == secret.as_bytes()))
    }

    /// Masks all secrets in a text.
    pub fn mask(&self, text: &str) -> String {
        let known = self.known();
        let mut masked = text.to_owned();
        for secret in known.masked.iter().filter(|secret| text.contains(secret.as_str())) {
            masked =
                if secret.chars().count() < SHORTEST_PART { mask_words(&masked, secret) } else { masked.replace(secret.as_str(), MASK) };
        }
        masked
    }

    /// Adds every string and number in a value.
    pub fn add_value(&self, value: &Value) {
        let mut texts = Vec::new();
        collect(value, &mut texts);
        self.add(texts);
    }

    /// Returns whether any string or number of `value` stands in `text` and is masked there.
    pub fn shows(&self, text: &str, value: &Value) -> bool {
        let mut texts = Vec::new();
        collect(value, &mut texts);
        texts.iter().any(|secret| text.contains(secret.as_str()) && !self.mask(text).contains(secret.as_str()))
    }

    /// Masks all secrets in what an error says.
    #[must_use]
    pub fn mask_error(&self, mut error: Box<Diagnostic>) -> Box<Diagnostic> {
        error.message = self.mask(&error.message);
        for line in error.details.iter_mut().chain(&mut error.hints) {
            *line = self.mask(line);
        }
        error
    }

    /// Masks all secrets in the strings of a value. Keys are kplay's own words or names, which are not secret.
    pub fn mask_value(&self, value: &mut Value) {
        if self.known().masked.is_empty() {
            return;
        }
        match value {
            Value::String(text) => *text = self.mask(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask_value(item)),
            Value::Object(entries) => entries.values_mut().for_each(|value| self.mask_value(value)),
            Value::Number(number) => {
                let text = number.to_string();
                // A short one is rather one of kplay's own, such as an exit code or milliseconds.
                if text.len() >= SHORTEST_PART && self.mask(&text) != text {
                    *value = Value::String(MASK.to_owned());
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds every string and number in `value` to `texts`.
fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Number(number) => texts.push(number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Object(entries) => entries.values().for_each(|value| collect(value, texts)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Masks a short secret where no letter, digit or underscore touches it.
fn mask_words(text: &str, secret: &str) -> String {
    let touches = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    let mut masked = String::with_capacity(text.len());
    let mut done = 0;
    for (start, _) in text.match_indices(secret) {
        let end = start + secret.len();
        if !touches(text[..start].chars().next_back()) && !touches(text[end..].chars().next()) {
            masked += &text[done..start];
            masked += MASK;
            done = end;
        }
    }
    masked + &text[done..]
}

/// Returns the secret itself, its lines (short ones are words such as `data:`, which are no secret by themselves), and how JSON,
/// shells, URLs and base64 spell it.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    forms.extend(secret.lines().map(str::trim).filter(|line| line.chars().count() >= SHORTEST_PART).map(str::to_owned));
    let json = Value::from(secret).to_string();
    forms.push(json.trim_matches('"').to_owned());
    forms.push(secret.replace('\'', r"'\''"));
    forms.push(secret.escape_debug().to_string());
    forms.push(percent(secret));
    let encoded = base64::encode(secret.as_bytes());
    forms.push(encoded.trim_end_matches('=').to_owned());
    forms.push(base64::encode(format!("{secret}\n").as_bytes()).trim_end_matches('=').to_owned());
    forms
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_in_every_spelling() {
        let secrets = Secrets::default();
        secrets.add(["s3cr\"et'word", "tiny", "abc", "true", "line one\nline two", "12345678"]);
        for text in [
            "password is s3cr\"et'word!",
            r#"{"password": "s3cr\"et'word"}"#,
            r#"echo 's3cr"et'\''word'"#,
            "http://u:s3cr%22et%27word@x/",
            &format!("data: {}", base64::encode(b"s3cr\"et'word")),
            "+line two",
        ] {
            assert!(secrets.mask(text).contains(MASK), "{text}");
            assert!(!secrets.mask(text).contains("word!"), "{text}");
        }
        assert_eq!(secrets.mask("pin=tiny; destiny, tiny_x, tiny"), "pin=********; destiny, tiny_x, ********");
        assert_eq!(secrets.mask("abc is true"), "abc is true");
        assert!(secrets.are_in(b"pin = tiny\n") && !secrets.are_in(b"nothing\n"));
        let mut value = serde_json::json!({ "changed": 12_345_678, "list": ["line one"] });
        secrets.mask_value(&mut value);
        assert_eq!(value, serde_json::json!({ "changed": MASK, "list": [MASK] }));
    }
}
