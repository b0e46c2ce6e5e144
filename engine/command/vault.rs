//! `kplay vault`: makes, shows and changes encrypted files.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use kplay_modules::api::error::plain;

use crate::cli;
use crate::config::{Environment, vault_keys};
use crate::diagnostic::{Diagnostic, Place, Result, exit_code};
use crate::inventory::Decrypt;
use crate::report::printer::Printer;
use crate::vault::{Vault, generate};

/// Does what was asked for.
pub fn run(arguments: &cli::Vault, environment: &Environment, printer: Printer) -> Result<u8> {
    let open = |keys: &cli::VaultKeys| Vault::new(vault_keys(keys.vault_password_file.as_deref(), &keys.vault_identity, environment));
    match &arguments.action {
        cli::VaultAction::Encrypt { files, recipient, keys } => {
            let vault = open(keys);
            for file in files {
                let target = encrypted_name(file)?;
                let encrypted = vault.encrypt(&read(file)?, recipient, true)?;
                write_new(&target, &encrypted, 0o644)?;
                remove(file)?;
                printer.text(&format!("{} is now {}\n", file.display(), target.display()));
            }
        }
        cli::VaultAction::Decrypt { files, keys } => {
            let vault = open(keys);
            for file in files {
                let target = plain_name(file)?;
                let content = vault.decrypt(file, &read(file)?)?;
                write_new(&target, &content, 0o600)?;
                remove(file)?;
                printer.text(&format!("{} is now {}\n", file.display(), target.display()));
            }
        }
        cli::VaultAction::View { file, keys } => {
            let content = open(keys).decrypt(file, &read(file)?)?;
            printer.text(&String::from_utf8_lossy(&content));
        }
        cli::VaultAction::Edit { file, recipient, keys } => edit(file, recipient, &open(keys), environment, printer)?,
        cli::VaultAction::Keygen { file } => {
            let (identity, recipient) = generate();
            write_new(file, identity.as_bytes(), 0o600)?;
            printer.text(&format!("{recipient}\n"));
        }
    }
    Ok(exit_code::DONE)
}

/// Opens the content in an editor; what is saved is encrypted as it was before.
#[expect(clippy::disallowed_methods, reason = "the user's editor is a program")]
fn edit(file: &Path, recipients: &[String], vault: &Vault, environment: &Environment, printer: Printer) -> Result<()> {
    plain_name(file)?;
    let before = if file.exists() { Some(read(file)?) } else { None };
    let content = match &before {
        Some(bytes) => {
            if recipients.is_empty() && !Vault::is_password(file, bytes)? {
                return Err(Diagnostic::user("the file is encrypted to age recipients, which it does not name")
                    .at(Place::line(file, 0))
                    .hint("name them again with `--recipient`"));
            }
            vault.decrypt(file, bytes)?
        }
        None => Vec::new(),
    };
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| environment.get(*name).filter(|value| !value.is_empty()));
    let editor = editor.map_or("vi", String::as_str);
    // A folder of our own in memory, where there is one: editors leave copies beside what they edit.
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let folder =
        tempfile::Builder::new().prefix("kplay-vault-").tempdir_in(base).map_err(|error| failed(file, "make a folder for", &error))?;
    let name = plain_name(file)?.file_name().map_or_else(|| PathBuf::from("vault"), PathBuf::from);
    let open = folder.path().join(name);
    write_new(&open, &content, 0o600)?;
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(&open)
        .status()
        .map_err(|error| Diagnostic::user(format!("cannot start the editor `{editor}`: {}", plain(&error))))?;
    if !status.success() {
        return Err(Diagnostic::user(format!("the editor `{editor}` ended with {status}; the file is as it was")));
    }
    let after = read(&open)?;
    if after == content {
        printer.text(&format!("{} is unchanged\n", file.display()));
        return Ok(());
    }
    let encrypted = vault.encrypt(&after, recipients, before.is_none())?;
    let beside = file.with_extension("age.new");
    write_new(&beside, &encrypted, 0o644)?;
    std::fs::rename(&beside, file).map_err(|error| failed(file, "replace", &error))?;
    printer.text(&format!("{} is encrypted\n", file.display()));
    Ok(())
}

fn encrypted_name(file: &Path) -> Result<PathBuf> {
    if file.extension().is_some_and(|ending| ending == "age") {
        return Err(Diagnostic::user(format!("`{}` is encrypted already", file.display())));
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".age");
    Ok(name.into())
}

fn plain_name(file: &Path) -> Result<PathBuf> {
    if file.extension().is_none_or(|ending| ending != "age") {
        return Err(Diagnostic::user(format!("the name of an encrypted file ends in `.age`; `{}` does not", file.display())));
    }
    Ok(file.with_extension(""))
}

#[expect(clippy::disallowed_methods, reason = "this command is about files of the user's")]
fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(|error| failed(file, "read", &error))
}

/// Writes a file that must not be there yet, and flushes it before its original is removed.
#[expect(clippy::disallowed_methods, reason = "this command is about files of the user's")]
fn write_new(file: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::io::Write as _;
    let write = || -> std::io::Result<()> {
        let mut open = std::fs::File::options().write(true).create_new(true).mode(mode).open(file)?;
        open.set_permissions(std::fs::Permissions::from_mode(mode))?;
        open.write_all(bytes)?;
        open.sync_all()
    };
    write().map_err(|error| failed(file, "write", &error))
}

#[expect(clippy::disallowed_methods, reason = "this command is about files of the user's")]
fn remove(file: &Path) -> Result<()> {
    std::fs::remove_file(file).map_err(|error| failed(file, "remove", &error))
}

fn failed(file: &Path, verb: &str, error: &std::io::Error) -> Box<Diagnostic> {
    Diagnostic::user(format!("cannot {verb} `{}`: {}", file.display(), plain(error)))
}
