//! A controller in memory, for testing how modules prepare their arguments.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::api::change::MemberKind;
use crate::api::checksum::Checksum;
use crate::api::error::ModuleError;
use crate::api::module::{Controller, SignatureRequest, TreeEntry};
use crate::api::types::{Blob, Digest};

/// A controller whose files are in memory. Names are looked up as given, then below `files/` and `templates/`.
#[derive(Debug, Default)]
pub struct Desk {
    files: BTreeMap<PathBuf, (Vec<u8>, u32)>,
    links: BTreeMap<PathBuf, PathBuf>,
    secrets: Vec<String>,
    downloads: BTreeMap<String, PathBuf>,
    authorities: BTreeMap<PathBuf, String>,
    blobs: RefCell<BTreeMap<Digest, Vec<u8>>>,
    expected: RefCell<Vec<SignatureRequest>>,
    files_expected: RefCell<Vec<PathBuf>>,
}

impl Desk {
    /// Creates a controller without files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a local file, mode 0644.
    #[must_use]
    pub fn file(self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Self {
        self.file_with(path, content, 0o644)
    }

    /// Adds a local file.
    #[must_use]
    pub fn file_with(mut self, path: impl AsRef<Path>, content: impl AsRef<[u8]>, mode: u32) -> Self {
        self.files.insert(path.as_ref().to_owned(), (content.as_ref().to_vec(), mode));
        self
    }

    /// Adds a local link.
    #[must_use]
    pub fn link(mut self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Self {
        self.links.insert(path.as_ref().to_owned(), target.as_ref().to_owned());
        self
    }

    /// Returns the texts declared secret.
    pub fn secrets(&self) -> &[String] {
        &self.secrets
    }

    /// Declares a text secret.
    #[must_use]
    pub fn secret(mut self, text: &str) -> Self {
        self.secrets.push(text.to_owned());
        self
    }

    /// Says where the download of `url` lies.
    #[must_use]
    pub fn downloaded(mut self, url: &str, path: impl AsRef<Path>) -> Self {
        self.downloads.insert(url.to_owned(), path.as_ref().to_owned());
        self
    }

    /// Adds an authority's certificate (PEM).
    #[must_use]
    pub fn authority(mut self, folder: impl AsRef<Path>, certificate: &str) -> Self {
        self.authorities.insert(folder.as_ref().to_owned(), certificate.to_owned());
        self
    }

    /// Returns what has been registered for hosts to ask for.
    pub fn blobs(&self) -> BTreeMap<Digest, Vec<u8>> {
        self.blobs.borrow().clone()
    }

    /// Returns the places where files may be delivered to.
    pub fn expected_files(&self) -> Vec<PathBuf> {
        self.files_expected.borrow().clone()
    }

    /// Returns the signatures that modules have announced.
    pub fn expected_signatures(&self) -> Vec<SignatureRequest> {
        self.expected.borrow().clone()
    }
}

impl Controller for Desk {
    fn find(&self, name: &str, folder: &str) -> Result<PathBuf, ModuleError> {
        let exists = |path: &PathBuf| self.files.keys().chain(self.links.keys()).any(|known| known.starts_with(path));
        let candidates = [PathBuf::from(name), Path::new(folder).join(name)];
        candidates.into_iter().find(exists).ok_or_else(|| {
            ModuleError::argument(format!("cannot find `{name}`"))
                .details([format!("looked for `{name}`"), format!("looked for `{folder}/{name}`")])
        })
    }

    fn host(&self) -> &str {
        "fake"
    }

    fn destination(&self, name: &str) -> PathBuf {
        Path::new("/controller").join(name)
    }

    fn entry(&self, path: &Path) -> Result<Option<TreeEntry>, ModuleError> {
        let found = |kind, mode| Ok(Some(TreeEntry { path: path.to_owned(), kind, mode }));
        let path = self.links.get(path).map_or(path, PathBuf::as_path);
        match self.files.get(path) {
            Some((content, mode)) => found(MemberKind::File(Digest::of(content), content.len() as u64), *mode),
            None if self.files.keys().any(|file| file.starts_with(path)) => found(MemberKind::Directory, 0o755),
            None => Ok(None),
        }
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ModuleError> {
        let known = self.files.get(path).map(|(content, _)| content.clone());
        known.ok_or_else(|| ModuleError::argument(format!("cannot read `{}`: no such file or directory", path.display())))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn std::io::Read>, ModuleError> {
        Ok(Box::new(std::io::Cursor::new(self.read(path)?)))
    }

    fn blob_of_file(&self, path: &Path, secret: bool) -> Result<Blob, ModuleError> {
        Ok(self.blob(self.read(path)?, secret))
    }

    fn blob(&self, bytes: Vec<u8>, secret: bool) -> Blob {
        let blob = Blob { digest: Digest::of(&bytes), size: bytes.len() as u64, secret };
        self.blobs.borrow_mut().insert(blob.digest, bytes);
        blob
    }

    fn tree(&self, folder: &Path) -> Result<Vec<TreeEntry>, ModuleError> {
        let mut entries = BTreeMap::new();
        let below = |path: &Path| path.strip_prefix(folder).ok().map(Path::to_owned);
        let everything = self.files.keys().chain(self.links.keys());
        for parent in
            everything.filter_map(|path| below(path)).flat_map(|path| path.ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>())
        {
            if !parent.as_os_str().is_empty() {
                entries.insert(parent, (MemberKind::Directory, 0o755));
            }
        }
        for (path, (content, mode)) in self.files.iter().filter_map(|(path, file)| Some((below(path)?, file))) {
            entries.insert(path, (MemberKind::File(Digest::of(content), content.len() as u64), *mode));
        }
        for (path, target) in self.links.iter().filter_map(|(path, target)| Some((below(path)?, target))) {
            entries.insert(path, (MemberKind::Symlink(target.clone()), 0o777));
        }
        Ok(entries.into_iter().map(|(path, (kind, mode))| TreeEntry { path, kind, mode }).collect())
    }

    /// Replaces `{{ name }}`: enough to tell that a template was rendered; the real renderer has its own tests.
    fn render(&self, template: &Path, vars: &Map<String, Value>) -> Result<Vec<u8>, ModuleError> {
        let mut text = String::from_utf8_lossy(&self.read(template)?).into_owned();
        for (name, value) in vars {
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text = text.replace(&format!("{{{{ {name} }}}}"), &shown);
        }
        match text.find("{{") {
            Some(at) => Err(ModuleError::argument(format!("undefined name at `{}`", text[at..].lines().next().unwrap_or_default()))),
            None => Ok(text.into_bytes()),
        }
    }

    fn is_secret(&self, text: &[u8]) -> bool {
        let text = String::from_utf8_lossy(text);
        self.secrets.iter().any(|secret| text.contains(secret.as_str()))
    }

    fn download(&self, url: &str, _checksum: &Checksum, _ca: Option<&Path>, _timeout: u64) -> Result<PathBuf, ModuleError> {
        self.downloads.get(url).cloned().ok_or_else(|| ModuleError::argument(format!("cannot download `{url}`: not found")))
    }

    fn authority(&self, folder: &Path) -> Result<Option<String>, ModuleError> {
        Ok(self.authorities.get(folder).cloned())
    }

    fn expect_signature(&self, request: SignatureRequest) {
        self.expected.borrow_mut().push(request);
    }

    fn expect_file(&self, dest: &Path) {
        self.files_expected.borrow_mut().push(dest.to_owned());
    }
}
