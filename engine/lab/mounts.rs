//! Mounts of a lab: overlays of its hosts, found again in the kernel's own list.

use std::ffi::CString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::diagnostic::{Diagnostic, Result};

/// Mounts `lower` with changes kept in `folder/upper` at `folder/root`.
///
/// # Errors
/// The kernel refuses; paths that its options cannot hold are refused before.
pub fn overlay(lower: &Path, folder: &Path) -> Result<()> {
    let (upper, work, root) = (folder.join("upper"), folder.join("work"), folder.join("root"));
    for path in [lower, &upper] {
        if path.as_os_str().as_bytes().iter().any(|byte| b",:\\\0".contains(byte)) {
            return Err(Diagnostic::user(format!(
                "`{}` cannot be used for a lab: overlay mounts allow no `,`, `:` or `\\` in paths",
                path.display()
            ))
            .hint("set KPLAY_CACHE to another folder"));
        }
    }
    let plain = [
        b"lowerdir=",
        lower.as_os_str().as_bytes(),
        b",upperdir=",
        upper.as_os_str().as_bytes(),
        b",workdir=",
        work.as_os_str().as_bytes(),
    ]
    .concat();
    // The hosts are thrown away: what they sync need not reach the disk. Kernels before 5.10 do not know the option.
    let volatile = [plain.as_slice(), b",volatile"].concat();
    let mount = |options: Vec<u8>| {
        let options = CString::new(options).map_err(|_| Errno::INVAL)?;
        rustix::mount::mount("overlay", &root, "overlay", MountFlags::empty(), Some(options.as_c_str()))
    };
    mount(volatile).or_else(|_| mount(plain)).map_err(|error| {
        Diagnostic::user(format!("cannot mount an overlay at `{}`: {error}", root.display()))
            .hint("the cache folder must be on a file system like ext4 or xfs, not itself on an overlay; set KPLAY_CACHE")
    })
}

/// Unmounts all that is mounted at `folder` or below it, innermost first, waiting a little for processes that are ending.
///
/// # Errors
/// Something stays mounted.
pub fn unmount_below(folder: &Path) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let Some(mount) = below(folder).pop() else { return Ok(()) };
        match rustix::mount::unmount(&mount, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::BUSY) if Instant::now() < end => std::thread::sleep(Duration::from_millis(50)),
            // Somebody has a shell in there: the mount is out of sight now, and gone as soon as they leave.
            Err(Errno::BUSY) => detach(&mount)?,
            Err(error) => return Err(Diagnostic::host(format!("cannot unmount `{}`: {error}", mount.display()))),
        }
    }
}

/// Returns the mounts at `folder` or below it, in the order they were made.
pub fn below(folder: &Path) -> Vec<PathBuf> {
    let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    mount_points(&text).into_iter().filter(|point| point.starts_with(folder)).collect()
}

fn detach(mount: &Path) -> Result<()> {
    rustix::mount::unmount(mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .map_err(|error| Diagnostic::host(format!("cannot unmount `{}`: {error}", mount.display())))
}

/// Reads the mount points of a mountinfo table; blanks in paths are written as `\040` there.
fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    let unescape = |field: &[u8]| {
        let mut bytes = Vec::with_capacity(field.len());
        let mut rest = field;
        while let Some((first, tail)) = rest.split_first() {
            let octal = (*first == b'\\').then(|| tail.get(..3)).flatten().and_then(|digits| std::str::from_utf8(digits).ok());
            match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
                Some(byte) => {
                    bytes.push(byte);
                    rest = &tail[3..];
                }
                None => {
                    bytes.push(*first);
                    rest = tail;
                }
            }
        }
        PathBuf::from(std::ffi::OsString::from_vec(bytes))
    };
    table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(unescape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let table = b"22 1 0:20 / /proc rw - proc proc rw\n30 1 0:39 / /var/my\\040lab/root rw shared:1 - overlay overlay rw\n";
        assert_eq!(mount_points(table), [PathBuf::from("/proc"), PathBuf::from("/var/my lab/root")]);
    }

    #[test]
    fn paths_that_options_cannot_hold_are_refused() {
        let error = overlay(Path::new("/a,b"), Path::new("/c")).unwrap_err();
        assert!(error.hints[0].contains("KPLAY_CACHE"));
    }
}
