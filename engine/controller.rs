//! This machine, as modules see it while they prepare a task: its files, templates, authorities, and what it keeps for hosts.

#![expect(clippy::disallowed_methods, reason = "this is where tasks get at the controller's disk")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kplay_modules::api::change::MemberKind;
use kplay_modules::api::error::plain;
use kplay_modules::api::module::{SignatureRequest, TreeEntry};
use kplay_modules::api::{Blob, Checksum, Controller, Digest, ModuleError, place};
use rayon::prelude::*;
use serde_json::{Map, Value};

use crate::blobs::Blobs;
use crate::diagnostic::Diagnostic;
use crate::files::{Files, Look};
use crate::secrets::Secrets;
use crate::template::{Failure, Scope, Templates};

/// What the controller can do for tasks beyond its own disk; behind it are `pki` and the download cache.
pub trait Services {
    /// Returns the certificate (PEM) of the authority kept in `folder`, making the authority if there is none yet; `None`
    /// when it would be made and this is a forecast.
    fn authority(&self, folder: &Path) -> Result<Option<String>, ModuleError>;
    /// Writes the authorities that were made, and returns their folders. Until then they are in memory alone.
    fn commit(&self) -> Result<Vec<PathBuf>, Box<Diagnostic>> {
        Ok(Vec::new())
    }
    /// See [`Controller::download`].
    fn download(&self, url: &str, checksum: &Checksum, ca: Option<&Path>, timeout: u64) -> Result<PathBuf, ModuleError>;
    /// See [`Controller::remembered`].
    fn remembered(&self, key: &str) -> Option<Vec<u8>> {
        let _ = key;
        None
    }
    /// See [`Controller::remember`].
    fn remember(&self, key: &str, value: &[u8]) {
        let _ = (key, value);
    }
}

/// What all preparations of a run share.
pub struct Local {
    blobs: Arc<Blobs>,
    services: Box<dyn Services>,
    templates: Templates,
    playbook_folder: PathBuf,
    files: Files,
    secrets: Secrets,
    pending: RefCell<BTreeMap<PathBuf, Vec<u8>>>,
    announced: RefCell<BTreeSet<PathBuf>>,
}

impl Local {
    /// Creates it for a playbook in `playbook_folder`; what is in `secrets`, then or later, must never be shown.
    pub fn new(blobs: Arc<Blobs>, services: Box<dyn Services>, playbook_folder: PathBuf, secrets: Secrets) -> Self {
        Self {
            blobs,
            services,
            templates: Templates::default(),
            playbook_folder,
            files: Files::new(secrets.clone()),
            secrets,
            pending: RefCell::default(),
            announced: RefCell::default(),
        }
    }

    /// Masks what must never be shown.
    pub fn mask(&self, text: &str) -> String {
        self.secrets.mask(text)
    }

    /// Declares a text secret, from now on and for all who share the secrets of the run.
    pub fn add_secret(&self, text: &str) {
        self.secrets.add([text]);
    }

    /// Keeps a new file of the controller's (a key made for hosts to share) in memory; it goes to the disk with [`Self::commit`].
    /// Until then, tasks find it as if it were there.
    pub fn add_file(&self, path: &Path, bytes: Vec<u8>) {
        self.pending.borrow_mut().insert(path.to_owned(), bytes);
    }

    /// Returns a file's content, be it on the disk or about to go there; `None` when there is none.
    pub fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>, ModuleError> {
        if let Some(bytes) = self.pending.borrow().get(path) {
            return Ok(Some(bytes.clone()));
        }
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot("read", path, &error)),
        }
    }

    /// Writes the authorities and files that are kept in memory, readable by their owner alone, and returns their paths.
    pub fn commit(&self) -> Result<Vec<PathBuf>, Box<Diagnostic>> {
        let authorities = self.services.commit()?;
        let pending = std::mem::take(&mut *self.pending.borrow_mut());
        for (path, bytes) in &pending {
            write_private(path, bytes)
                .map_err(|error| Diagnostic::user(format!("cannot write `{}` on the controller: {}", path.display(), plain(&error))))?;
        }
        Ok(authorities.into_iter().chain(pending.into_keys()).collect())
    }

    /// Returns the paths of files that a forecast would write, each once.
    pub fn announce(&self) -> Vec<PathBuf> {
        let mut announced = self.announced.borrow_mut();
        self.pending.borrow().keys().filter(|path| announced.insert((*path).clone())).cloned().collect()
    }

    fn exists(&self, path: &Path) -> bool {
        self.pending.borrow().contains_key(path) || path.exists()
    }
}

/// Writes a file of mode 0600 beside its place and renames it, so that nobody ever sees half a key.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.kplay-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

fn cannot(action: &str, path: &Path, error: &std::io::Error) -> ModuleError {
    ModuleError::argument(format!("cannot {action} `{}` on the controller: {}", path.display(), plain(error)))
}

/// One task's preparation. Collects what its host will be allowed to ask for.
pub struct Preparation<'a> {
    local: &'a Local,
    role: Option<&'a Path>,
    host: &'a str,
    scope: &'a dyn Fn() -> Scope,
    /// Files that the task has looked into: it sees one state of each.
    looked: RefCell<HashMap<PathBuf, Look>>,
    /// What the task came to.
    pub collected: Collected,
}

/// See [`Preparation`].
#[derive(Default)]
pub struct Collected {
    /// Contents that the task names.
    pub blobs: RefCell<Vec<Digest>>,
    /// The certificate that the task may ask for.
    pub signature: RefCell<Option<SignatureRequest>>,
    /// Where on the controller a file goes that the task delivers.
    pub delivers: RefCell<Option<PathBuf>>,
    /// Whether the result depends on the host, and so is not to be used for others.
    pub personal: Cell<bool>,
    /// Whether the preparation failed for want of the host's facts.
    pub needs_facts: Cell<bool>,
    /// What was wrong with a template, with its place.
    pub template_error: RefCell<Option<Box<Diagnostic>>>,
}

impl<'a> Preparation<'a> {
    /// Begins the preparation of a task for `host` that is called from the role in the folder `role`. `scope` is what templates see.
    pub fn new(local: &'a Local, host: &'a str, role: Option<&'a Path>, scope: &'a dyn Fn() -> Scope) -> Self {
        Self { local, role, host, scope, looked: RefCell::default(), collected: Collected::default() }
    }

    fn keep(&self, blob: Blob) -> Blob {
        let mut blobs = self.collected.blobs.borrow_mut();
        if !blobs.contains(&blob.digest) {
            blobs.push(blob.digest);
        }
        blob
    }
}

impl Controller for Preparation<'_> {
    fn find(&self, name: &str, folder: &str) -> Result<PathBuf, ModuleError> {
        let path = Path::new(name);
        if name.is_empty() {
            return Err(ModuleError::argument("an empty name names no file"));
        }
        let base = &self.local.playbook_folder;
        let places = if path.is_absolute() {
            vec![path.to_owned()]
        } else {
            let in_role = self.role.map(|role| role.join(folder).join(path));
            in_role.into_iter().chain([base.join(folder).join(path), base.join(path)]).collect()
        };
        places.iter().find(|place| self.local.exists(place)).cloned().ok_or_else(|| {
            let error = ModuleError::argument(format!("there is no `{name}` on the controller"));
            let error = error.details(places.iter().map(|place| format!("looked for {}", place.display())));
            match places.iter().find_map(|place| similar(place)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            }
        })
    }

    fn host(&self) -> &str {
        self.collected.personal.set(true);
        self.host
    }

    fn destination(&self, name: &str) -> PathBuf {
        std::path::absolute(name).unwrap_or_else(|_| PathBuf::from(name))
    }

    fn entry(&self, path: &Path) -> Result<Option<TreeEntry>, ModuleError> {
        if let Some(bytes) = self.local.pending.borrow().get(path) {
            let kind = MemberKind::File(Digest::of(bytes), bytes.len() as u64);
            return Ok(Some(TreeEntry { path: path.to_owned(), kind, mode: 0o600 }));
        }
        let meta = match std::fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot("read", path, &error)),
        };
        let kind = if meta.is_dir() { MemberKind::Directory } else { file_kind(&self.look_into(path, &meta)?) };
        Ok(Some(TreeEntry { path: path.to_owned(), kind, mode: meta.mode() & 0o7777 }))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ModuleError> {
        self.local.read_file(path)?.ok_or_else(|| cannot("read", path, &std::io::ErrorKind::NotFound.into()))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn Read>, ModuleError> {
        if let Some(bytes) = self.local.pending.borrow().get(path) {
            return Ok(Box::new(std::io::Cursor::new(bytes.clone())));
        }
        let file = std::fs::File::open(path).map_err(|error| cannot("read", path, &error))?;
        Ok(Box::new(file))
    }

    fn blob_of_file(&self, path: &Path, secret: bool) -> Result<Blob, ModuleError> {
        let pending = self.local.pending.borrow().get(path).cloned();
        Ok(self.keep(match pending {
            Some(bytes) => self.local.blobs.add_bytes(bytes, secret),
            None => self.local.blobs.add_file(path, &self.look(path)?, secret),
        }))
    }

    fn blob(&self, bytes: Vec<u8>, secret: bool) -> Blob {
        self.keep(self.local.blobs.add_bytes(bytes, secret))
    }

    fn tree(&self, folder: &Path) -> Result<Vec<TreeEntry>, ModuleError> {
        /// Files that are not worth another thread.
        const FEW: usize = 64;
        let mut entries = Vec::new();
        let mut files = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(relative) = folders.pop() {
            let full = folder.join(&relative);
            let listing = std::fs::read_dir(&full).map_err(|error| cannot("list", &full, &error))?;
            for item in listing {
                let item = item.map_err(|error| cannot("list", &full, &error))?;
                let path = relative.join(item.file_name());
                let meta = item.metadata().map_err(|error| cannot("read", &item.path(), &error))?;
                let kind = if meta.is_dir() {
                    folders.push(path.clone());
                    MemberKind::Directory
                } else if meta.is_symlink() {
                    MemberKind::Symlink(std::fs::read_link(item.path()).map_err(|error| cannot("read", &item.path(), &error))?)
                } else if meta.is_file() {
                    files.push((path, item.path(), meta));
                    continue;
                } else {
                    return Err(ModuleError::argument(format!("`{}` is a device, socket or pipe", item.path().display())));
                };
                entries.push(TreeEntry { path, kind, mode: meta.mode() & 0o7777 });
            }
        }
        let known = &self.local.files;
        let look = |(_, full, meta): &(PathBuf, PathBuf, Metadata)| known.look(full, meta).map_err(|error| cannot("read", full, &error));
        let looks: Vec<Look> = files.par_iter().with_min_len(FEW).map(look).collect::<Result<_, _>>()?;
        let mut looked = self.looked.borrow_mut();
        for ((path, full, meta), look) in files.into_iter().zip(looks) {
            entries.push(TreeEntry { path, kind: file_kind(&look), mode: meta.mode() & 0o7777 });
            looked.insert(full, look);
        }
        // By components, so that a folder comes right before what is in it.
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    fn render(&self, template: &Path, vars: &Map<String, Value>) -> Result<Vec<u8>, ModuleError> {
        self.collected.personal.set(true);
        let mut scope = (self.scope)();
        if !vars.is_empty() {
            scope.layers.insert(0, Arc::new(vars.clone()));
        }
        match self.local.templates.render(template, &scope) {
            Ok(text) => Ok(text.into_bytes()),
            Err(Failure::NeedsFacts) => {
                self.collected.needs_facts.set(true);
                Err(ModuleError::argument("the host's facts are not known yet"))
            }
            Err(Failure::Wrong(error)) => {
                let message = error.message.clone();
                *self.collected.template_error.borrow_mut() = Some(error);
                Err(ModuleError::argument(message))
            }
        }
    }

    fn is_secret(&self, text: &[u8]) -> bool {
        self.local.secrets.are_in(text)
    }

    fn is_secret_file(&self, path: &Path) -> Result<bool, ModuleError> {
        let search = || Ok(place::is_secret(self, false, &self.read(path)?));
        // What is about to be written is not what lies there.
        if self.local.pending.borrow().contains_key(path) {
            return search();
        }
        self.look(path)?.secret.map_or_else(search, Ok)
    }

    fn download(&self, url: &str, checksum: &Checksum, ca: Option<&Path>, timeout: u64) -> Result<PathBuf, ModuleError> {
        self.local.services.download(url, checksum, ca, timeout)
    }

    fn remembered(&self, key: &str) -> Option<Vec<u8>> {
        self.local.services.remembered(key)
    }

    fn remember(&self, key: &str, value: &[u8]) {
        self.local.services.remember(key, value);
    }

    fn authority(&self, folder: &Path) -> Result<Option<String>, ModuleError> {
        self.local.services.authority(folder)
    }

    fn expect_signature(&self, request: SignatureRequest) {
        *self.collected.signature.borrow_mut() = Some(request);
    }

    fn expect_file(&self, dest: &Path) {
        self.collected.personal.set(true);
        *self.collected.delivers.borrow_mut() = Some(dest.to_owned());
    }
}

impl Preparation<'_> {
    /// Looks into a file, unless the task has done so already.
    fn look(&self, path: &Path) -> Result<Look, ModuleError> {
        if let Some(look) = self.looked.borrow().get(path) {
            return Ok(*look);
        }
        let meta = std::fs::metadata(path).map_err(|error| cannot("read", path, &error))?;
        self.look_into(path, &meta)
    }

    fn look_into(&self, path: &Path, meta: &Metadata) -> Result<Look, ModuleError> {
        let look = self.local.files.look(path, meta).map_err(|error| cannot("read", path, &error))?;
        self.looked.borrow_mut().insert(path.to_owned(), look);
        Ok(look)
    }
}

fn file_kind(look: &Look) -> MemberKind {
    MemberKind::File(look.digest, look.size)
}

/// Returns the name in the same folder that is nearest to that of `path`.
fn similar(path: &Path) -> Option<String> {
    let names: Vec<_> =
        std::fs::read_dir(path.parent()?).ok()?.flatten().map(|item| item.file_name().to_string_lossy().into_owned()).collect();
    let name = path.file_name()?.to_string_lossy();
    crate::diagnostic::nearest(&name, names.iter().map(String::as_str)).map(str::to_owned)
}
