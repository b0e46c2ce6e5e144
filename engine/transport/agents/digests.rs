//! Digests of agents, remembered between runs: a run whose hosts have their agent need not read it.
#![expect(clippy::disallowed_methods, reason = "agents and the file that remembers them lie on disk")]

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kplay_modules::api::Digest;

/// Lines of the file, the newest first: programs of a few builds.
const LINES: usize = 16;

/// Returns digest and size of a file, from `remembered` where the file is still the same.
pub(super) fn of(path: &Path, remembered: Option<&Path>) -> io::Result<(Digest, u64)> {
    let metadata = std::fs::metadata(path)?;
    let key = key(path, &metadata);
    let known = remembered.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    if let Some(digest) = known.lines().find_map(|line| Digest::from_hex(line.strip_prefix(&key)?.strip_prefix(' ')?)) {
        return Ok((digest, metadata.len()));
    }
    let (digest, size) = Digest::of_reader(&mut File::open(path)?)?;
    // A file that is being written may still change without getting another time.
    let settled = metadata.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() >= 2));
    if let Some(file) = remembered.filter(|_| settled && size == metadata.len()) {
        let lines: Vec<&str> = known.lines().take(LINES - 1).collect();
        // To forget it costs time and nothing else.
        let _ = write(file, &format!("{key} {}\n{}\n", digest.hex(), lines.join("\n")));
    }
    Ok((digest, size))
}

/// What is another when the file is: it cannot be written without its change time being set.
fn key(path: &Path, metadata: &Metadata) -> String {
    format!(
        "{}:{}:{}:{}.{}:{}.{}",
        path.display(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    )
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let beside = folder.join(format!(".agents-{}", std::process::id()));
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, file)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_digest_is_remembered_until_the_file_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let (path, remembered) = (folder.path().join("agent"), folder.path().join("state/agents"));
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        };
        write("one");
        assert_eq!(of(&path, Some(&remembered)).unwrap(), (Digest::of(b"one"), 3));
        let lie = std::fs::read_to_string(&remembered).unwrap().replace(&Digest::of(b"one").hex(), &Digest::of(b"lie").hex());
        std::fs::write(&remembered, lie).unwrap();
        assert_eq!(of(&path, Some(&remembered)).unwrap(), (Digest::of(b"lie"), 3), "it has been looked up, not read");
        write("two");
        assert_eq!(of(&path, Some(&remembered)).unwrap(), (Digest::of(b"two"), 3));
        assert_eq!(of(&path, None).unwrap(), (Digest::of(b"two"), 3));
        assert!(std::fs::read_to_string(&remembered).unwrap().lines().count() >= 2);
    }
}
