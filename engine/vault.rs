//! Encrypted files: age's format as text, opened by a passphrase or by age identities.

use std::fmt;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::{ExposeSecret, SecretString};
use age::{DecryptError, Decryptor, Encryptor, IdentityFile, Recipient};
use kplay_modules::api::error::plain;

use crate::diagnostic::{Diagnostic, Place, Result};
use crate::inventory::Decrypt;

/// What opens encrypted files; the first that is given counts.
#[derive(Clone, Default)]
pub struct Keys {
    /// The passphrase itself.
    pub password: Option<String>,
    /// A file whose first line is the passphrase.
    pub password_file: Option<PathBuf>,
    /// Files of age identities.
    pub identities: Vec<PathBuf>,
}

/// Opens and makes encrypted files. Asks for the passphrase at most once, and only when one is needed.
#[derive(Debug, Clone, Default)]
pub struct Vault {
    keys: Keys,
    password: Arc<Mutex<Option<SecretString>>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "…");
        f.debug_struct("Keys")
            .field("password", &password)
            .field("password_file", &self.password_file)
            .field("identities", &self.identities)
            .finish()
    }
}

impl Vault {
    /// Creates a vault that is opened by `keys`.
    pub fn new(keys: Keys) -> Self {
        Self { keys, password: Arc::default() }
    }

    /// Encrypts to the recipients, or with the passphrase when there are none; `confirm` makes who types it type it twice.
    pub fn encrypt(&self, plain_content: &[u8], recipients: &[String], confirm: bool) -> Result<Vec<u8>> {
        let recipients: Vec<Box<dyn Recipient>> = if recipients.is_empty() {
            vec![Box::new(age::scrypt::Recipient::new(self.password(confirm)?))]
        } else {
            recipients.iter().map(|text| recipient(text)).collect::<Result<_>>()?
        };
        let failed = |error: &dyn fmt::Display| Diagnostic::internal(format!("cannot encrypt: {error}"));
        let encryptor = Encryptor::with_recipients(recipients.iter().map(|recipient| recipient.as_ref() as &dyn Recipient))
            .map_err(|error| failed(&error))?;
        let mut encrypted = Vec::new();
        let write = || -> std::io::Result<()> {
            let mut writer = encryptor.wrap_output(ArmoredWriter::wrap_output(&mut encrypted, Format::AsciiArmor)?)?;
            writer.write_all(plain_content)?;
            writer.finish()?.finish()?;
            Ok(())
        };
        write().map_err(|error| failed(&error))?;
        Ok(encrypted)
    }

    /// Returns whether the file is opened by a passphrase; others are opened by identities.
    pub fn is_password(file: &Path, bytes: &[u8]) -> Result<bool> {
        Ok(open(file, bytes)?.is_scrypt())
    }

    /// Returns the passphrase: from the keys, or from whoever sits at the terminal.
    fn password(&self, confirm: bool) -> Result<SecretString> {
        let mut known = self.password.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(password) = known.as_ref() {
            return Ok(password.clone());
        }
        let password = match (&self.keys.password, &self.keys.password_file) {
            (Some(password), _) => password.clone(),
            (None, Some(file)) => read(file)?.lines().next().unwrap_or_default().to_owned(),
            (None, None) => {
                let password = ask("passphrase of the vault: ")?;
                if confirm && ask("once more: ")? != password {
                    return Err(Diagnostic::user("the two passphrases differ"));
                }
                password
            }
        };
        if password.is_empty() {
            return Err(Diagnostic::user("the passphrase of the vault is empty"));
        }
        let password = SecretString::from(password);
        *known = Some(password.clone());
        Ok(password)
    }

    fn identities(&self, file: &Path) -> Result<Vec<Box<dyn age::Identity + Send + Sync>>> {
        if self.keys.identities.is_empty() {
            return Err(Diagnostic::user("the file is encrypted to age recipients, and no identity is given")
                .at(Place::line(file, 0))
                .hint("name a file of identities with `--vault-identity` or `KPLAY_VAULT_IDENTITY`"));
        }
        let mut all = Vec::new();
        for path in &self.keys.identities {
            let wrong = |why: String| Diagnostic::user(format!("cannot use the identities: {why}")).at(Place::line(path, 0));
            let text = read(path)?;
            let parsed = IdentityFile::from_buffer(BufReader::new(text.as_bytes())).map_err(|error| wrong(plain(&error)))?;
            all.extend(parsed.into_identities().map_err(|error| wrong(error.to_string()))?);
        }
        Ok(all)
    }
}

impl Decrypt for Vault {
    fn decrypt(&self, file: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
        let decryptor = open(file, bytes)?;
        let by_password = decryptor.is_scrypt();
        let opened = if by_password {
            let identity = age::scrypt::Identity::new(self.password(false)?);
            decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
        } else {
            let identities = self.identities(file)?;
            decryptor.decrypt(identities.iter().map(|identity| identity.as_ref() as &dyn age::Identity))
        };
        let mut content = Vec::new();
        let opened = opened.map_err(|error| {
            let message = match error {
                DecryptError::DecryptionFailed | DecryptError::NoMatchingKeys | DecryptError::KeyDecryptionFailed if by_password => {
                    "the passphrase does not open the file".to_owned()
                }
                DecryptError::NoMatchingKeys => "none of the identities opens the file".to_owned(),
                other => format!("cannot decrypt the file: {other}"),
            };
            Diagnostic::user(message).at(Place::line(file, 0))
        });
        opened?
            .read_to_end(&mut content)
            .map_err(|error| Diagnostic::user(format!("the encrypted file is damaged: {}", plain(&error))).at(Place::line(file, 0)))?;
        Ok(content)
    }
}

/// Makes an age identity; returns the text of its file, and its recipient.
pub fn generate() -> (String, String) {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    (format!("# recipient: {recipient}\n{}\n", identity.to_string().expose_secret()), recipient)
}

/// Asks whoever sits at the terminal, without showing what is typed.
pub fn ask(prompt: &str) -> Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
    let failed = |error: &std::io::Error| {
        Diagnostic::user(format!("cannot ask for the {}: {}", prompt.trim_end_matches(": "), plain(error)))
            .hint("without a terminal, passwords come from files or the environment")
    };
    let mut terminal = terminal().map_err(|error| failed(&error))?;
    let before = tcgetattr(&terminal).map_err(|error| failed(&error.into()))?;
    let mut quiet = before.clone();
    // Ctrl-C comes as a character, so that the terminal is put right again before the program ends.
    quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
    quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(&terminal, OptionalActions::Flush, &quiet).map_err(|error| failed(&error.into()))?;
    let typed = terminal.write_all(prompt.as_bytes()).and_then(|()| read_line(&mut terminal));
    let restored = tcsetattr(&terminal, OptionalActions::Flush, &before);
    let _ = terminal.write_all(b"\n");
    restored.map_err(|error| failed(&error.into()))?;
    match typed.map_err(|error| failed(&error))? {
        Some(bytes) => String::from_utf8(bytes).map_err(|_| Diagnostic::user("what was typed is not UTF-8")),
        None => Err(Diagnostic::user("interrupted")),
    }
}

/// Reads up to Enter; `None` after Ctrl-C or Ctrl-D.
fn read_line(terminal: &mut impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        if terminal.read(&mut byte)? == 0 {
            return Ok(None);
        }
        match byte[0] {
            b'\n' | b'\r' => return Ok(Some(line)),
            3 | 4 => return Ok(None),
            8 | 127 => {
                // A whole character, not a byte of it.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            21 => line.clear(),
            other => line.push(other),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "passwords are asked for at the terminal, wherever input comes from")]
fn terminal() -> std::io::Result<std::fs::File> {
    std::fs::File::options().read(true).write(true).open("/dev/tty")
}

#[expect(clippy::disallowed_methods, reason = "the vault reads the keys that it is told of")]
fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file)
        .map_err(|error| Diagnostic::user(format!("cannot read the file: {}", plain(&error))).at(Place::line(file, 0)))
}

fn recipient(text: &str) -> Result<Box<dyn Recipient>> {
    let parsed: age::x25519::Recipient =
        text.parse().map_err(|why: &str| Diagnostic::user(format!("`{text}` is no age recipient: {why}")).hint("it begins with `age1`"))?;
    Ok(Box::new(parsed))
}

fn open<'b>(file: &Path, bytes: &'b [u8]) -> Result<Decryptor<ArmoredReader<BufReader<&'b [u8]>>>> {
    Decryptor::new_buffered(ArmoredReader::new(bytes)).map_err(|error| {
        Diagnostic::user(format!("the file is not encrypted by age: {error}"))
            .at(Place::line(file, 0))
            .hint("`kplay vault encrypt FILE` encrypts a file")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_is_opened_by_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (identity, to) = generate();
        let file = folder.path().join("key");
        std::fs::write(&file, identity).unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, generate().0).unwrap();
        let vault = |identity: &Path| Vault::new(Keys { identities: vec![identity.to_path_buf()], ..Keys::default() });
        let encrypted = vault(&file).encrypt(b"password: x\n", &[to], false).unwrap();
        assert!(encrypted.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----\n"));
        assert_eq!(vault(&file).decrypt(Path::new("s.age"), &encrypted).unwrap(), b"password: x\n");
        let error = vault(&other).decrypt(Path::new("s.age"), &encrypted).unwrap_err();
        assert_eq!(error.message, "none of the identities opens the file");
        assert!(
            vault(&file).decrypt(Path::new("s.age"), b"plain: text\n").unwrap_err().message.starts_with("the file is not encrypted by age")
        );
    }

    #[test]
    fn lines_are_typed_with_corrections() {
        let line = |typed: &[u8]| read_line(&mut &typed[..]).unwrap().map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(line(b"ab\x7fc\n").as_deref(), Some("ac"));
        assert_eq!(line("a\u{e9}\x7fb\r".as_bytes()).as_deref(), Some("ab"));
        assert_eq!(line(b"ab\x15c\n").as_deref(), Some("c"));
        assert_eq!(line(b"ab\x03"), None);
    }
}
