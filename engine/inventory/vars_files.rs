//! The folders `group_vars` and `host_vars`, beside an inventory or a playbook.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kplay_modules::api::error::plain;

use super::source::{Decrypt, read_file};
use super::variables::{Layer, Owner, Variables, read_variables};
use crate::diagnostic::{Diagnostic, Place, Result};
use crate::secrets::Secrets;

/// Endings of files of variables; of several files of one name the first in this order is read.
const ENDINGS: [&str; 4] = ["", "yml", "yaml", "json"];

/// Finds and reads files of variables. Each folder is listed once, each file is read once.
pub struct VarsFiles<'d> {
    folders: Vec<Folder>,
    decrypt: &'d dyn Decrypt,
    secrets: Secrets,
    warnings: Vec<String>,
    layers: HashMap<PathBuf, Arc<Layer>>,
}

/// The files of one `group_vars` and one `host_vars`, by the name that they belong to.
struct Folder {
    groups: BTreeMap<String, Vec<PathBuf>>,
    hosts: BTreeMap<String, Vec<PathBuf>>,
}

impl<'d> VarsFiles<'d> {
    /// Lists `group_vars` and `host_vars` in each of `folders`, lowest precedence first.
    pub fn new(folders: &[PathBuf], decrypt: &'d dyn Decrypt) -> Result<Self> {
        let mut warnings = Vec::new();
        let folders = folders
            .iter()
            .map(|folder| {
                Ok(Folder {
                    groups: list(&folder.join("group_vars"), &mut warnings)?,
                    hosts: list(&folder.join("host_vars"), &mut warnings)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { folders, decrypt, secrets: Secrets::default(), warnings, layers: HashMap::new() })
    }

    /// Returns the layers of the groups, which are sorted, folder by folder.
    pub fn of_groups(&mut self, groups: &[&str]) -> Result<Vec<Arc<Layer>>> {
        let files: Vec<_> = self
            .folders
            .iter()
            .flat_map(|folder| groups.iter().map(move |group| (folder, *group)))
            .flat_map(|(folder, group)| folder.groups.get(group).into_iter().flatten().map(move |file| (file.clone(), group)))
            .collect();
        files.into_iter().map(|(file, group)| self.layer(file, || Owner::Group(group.to_owned()))).collect()
    }

    /// Returns the layers of the host, folder by folder.
    pub fn of_host(&mut self, host: &str) -> Result<Vec<Arc<Layer>>> {
        let files: Vec<_> = self.folders.iter().filter_map(|folder| folder.hosts.get(host)).flatten().cloned().collect();
        files.into_iter().map(|file| self.layer(file, || Owner::Host)).collect()
    }

    /// Returns the values that came out of encrypted files.
    pub fn secrets(&self) -> Secrets {
        self.secrets.clone()
    }

    /// Returns what was found odd.
    pub fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    fn layer(&mut self, file: PathBuf, owner: impl FnOnce() -> Owner) -> Result<Arc<Layer>> {
        if let Some(layer) = self.layers.get(&file) {
            return Ok(layer.clone());
        }
        let variables = self.read(&file)?;
        let layer = Arc::new(Layer { owner: owner(), variables });
        self.layers.insert(file, layer.clone());
        Ok(layer)
    }

    fn read(&mut self, file: &Path) -> Result<Variables> {
        let bytes = read_file(file)?;
        if file.extension().is_none_or(|ending| ending != "age") {
            return read_variables(file, &text_of(file, bytes)?);
        }
        let text = text_of(file, self.decrypt.decrypt(file, &bytes)?)?;
        // A line of what was encrypted is no line of the file, which the renderer would quote.
        let mut variables = read_variables(file, &text).map_err(|mut error| {
            if let Some(place) = error.place.replace(Place::line(file, 0)) {
                error.message = format!("{} (line {} of what is encrypted)", without_quotes(&error.message), place.line);
                error.hints = vec![format!("`kplay vault edit {}` opens it", file.display())];
            }
            error
        })?;
        for variable in variables.values_mut() {
            variable.secret = true;
            self.secrets.add_value(&variable.value);
        }
        Ok(variables)
    }
}

fn text_of(file: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Diagnostic::user("the file is not UTF-8 text").at(Place::line(file, 0)))
}

/// Leaves out what a message quotes.
fn without_quotes(message: &str) -> String {
    message.split('`').enumerate().map(|(index, part)| if index % 2 == 1 { "`…`" } else { part }).collect()
}

/// Lists a folder of variables: for each name a file, a folder of files, or either of them encrypted.
#[expect(clippy::disallowed_methods, reason = "the inventory owns its folders of variables")]
fn list(folder: &Path, warnings: &mut Vec<String>) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(Diagnostic::user(format!("cannot read the folder: {}", plain(&error))).at(Place::line(folder, 0))),
    };
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    let mut plain: BTreeMap<String, Vec<(usize, PathBuf)>> = BTreeMap::new();
    let mut encrypted: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for name in names.iter().filter(|name| !name.starts_with('.') && !name.ends_with('~')) {
        let path = folder.join(name);
        if let Some(inner) = name.strip_suffix(".age") {
            let stem = ENDINGS[1..].iter().find_map(|ending| inner.strip_suffix(ending)?.strip_suffix('.')).unwrap_or(inner);
            encrypted.entry(stem.to_owned()).or_default().push(path);
            continue;
        }
        // `web.example` is a host of that name as well as a file without a known ending.
        plain.entry(name.clone()).or_default().push((0, path.clone()));
        if let Some((stem, ending)) = name.rsplit_once('.')
            && let Some(rank) = ENDINGS.iter().position(|known| *known == ending)
        {
            plain.entry(stem.to_owned()).or_default().push((rank, path));
        }
    }
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (name, mut paths) in plain {
        paths.sort();
        if let Some((_, first)) = paths.first() {
            for (_, ignored) in &paths[1..] {
                warnings.push(format!("`{}` is not read, since there is `{}`", ignored.display(), first.display()));
            }
            let files = if first.is_dir() { files_below(first)? } else { vec![first.clone()] };
            found.entry(name).or_default().extend(files);
        }
    }
    for (name, paths) in encrypted {
        found.entry(name).or_default().extend(paths);
    }
    Ok(found)
}

/// Returns the files of variables in a folder and in folders below it, sorted, folders and files mixed.
#[expect(clippy::disallowed_methods, reason = "the inventory owns its folders of variables")]
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| Diagnostic::user(format!("cannot read the folder: {}", plain(&error))).at(Place::line(folder, 0));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let name = path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
        if name.is_empty() || name.starts_with('.') || name.ends_with('~') {
            continue;
        }
        let ending = name.strip_suffix(".age").unwrap_or(name).rsplit_once('.').map_or("", |(_, ending)| ending);
        if path.is_dir() {
            if ending.is_empty() {
                files.extend(files_below(&path)?);
            }
        } else if ENDINGS.contains(&ending) {
            files.push(path);
        }
    }
    Ok(files)
}
