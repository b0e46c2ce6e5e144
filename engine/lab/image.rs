//! What labs share and keep: Debian trees, packages with their index, the Kubernetes archive. Each is built once, under a
//! name that says it is not finished, and gets its own name when it is.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kplay_modules::api::Digest;

use super::layout::lock;
use super::settings::{LabHost, LabSettings};
use super::{Say, mounts, program};
use crate::diagnostic::{Diagnostic, Result};

/// What every tree holds: systemd as init, sshd, and what an operator expects on a server.
const PACKAGES: &[&str] =
    &["systemd", "systemd-sysv", "dbus", "openssh-server", "iproute2", "procps", "kmod", "sudo", "ca-certificates", "curl", "netbase"];

/// Raised whenever `finish` does something else, so that trees made before are not taken for today's.
const EDITION: &str = "1";

/// Name of the archive that the Kubernetes build leaves.
const KUBERNETES: &str = "kubernetes-server-linux-amd64.tar.gz";

/// Makes sure that the tree of a host's settings is in the cache, and returns its path.
///
/// # Errors
/// debootstrap fails.
pub fn base(cache: &Path, settings: &LabSettings, say: Say<'_>) -> Result<PathBuf> {
    let include: BTreeSet<&str> = PACKAGES.iter().copied().chain(settings.include.iter().map(String::as_str)).collect();
    let include = include.into_iter().collect::<Vec<_>>().join(",");
    let key = key(&[EDITION, &settings.suite, &settings.mirror, &include]);
    build(cache, &format!("base-{}-{key}", settings.suite), |part, log| {
        say(&format!("making a Debian {} tree (a minute, once)", settings.suite));
        let words = ["debootstrap", "--variant=minbase", &format!("--include={include}"), &settings.suite].map(std::ffi::OsString::from);
        program::run_contained(words.into_iter().chain([part.into(), settings.mirror.clone().into()]), log)?;
        finish(part).map_err(|error| Diagnostic::host(format!("cannot finish the tree `{}`: {error}", part.display())))
    })
}

/// Makes sure that the packages of all `hosts` with this tree are in the cache as an apt source, and returns its folder.
/// `None` when they want none.
///
/// # Errors
/// A package is unknown, or cannot be fetched.
pub fn packages(cache: &Path, base: &Path, hosts: &[&LabHost], say: Say<'_>) -> Result<Option<PathBuf>> {
    let wanted: BTreeSet<&str> = hosts.iter().flat_map(|host| host.settings.packages.iter().map(String::as_str)).collect();
    let Some(settings) = hosts.first().map(|host| &host.settings).filter(|_| !wanted.is_empty()) else { return Ok(None) };
    let wanted: Vec<&str> = wanted.into_iter().collect();
    let tree = base.file_name().unwrap_or_default().to_string_lossy();
    let key = key(&[EDITION, &tree, &wanted.join(" ")]);
    let built = build(cache, &format!("packages-{}-{key}", settings.suite), |part, log| {
        say(&format!("fetching {}", wanted.join(" ")));
        let scratch = part.with_extension("scratch");
        let words = ["sh", "-euc", FETCH, "fetch"].map(std::ffi::OsString::from).into_iter();
        let paths = [base.into(), scratch.clone().into(), part.into()];
        let source = [settings.mirror.clone().into(), settings.suite.clone().into()];
        let result = program::run_contained(words.chain(paths).chain(source).chain(wanted.iter().map(Into::into)), log);
        remove_tree(&scratch)?;
        result
    })?;
    Ok(Some(built))
}

/// Makes sure that the Kubernetes server archive and its checksum are in the cache.
///
/// # Errors
/// The build fails.
pub fn kubernetes(cache: &Path, say: Say<'_>) -> Result<()> {
    const RECIPE: &str = include_str!("kubernetes.sh");
    let made_by = cache.join(format!("{KUBERNETES}.recipe"));
    let today = key(&[RECIPE]);
    // One that another release of kplay has built may lack what this one's recipe mends.
    let there = || {
        cache.join(KUBERNETES).exists()
            && cache.join(format!("{KUBERNETES}.sha512")).exists()
            && std::fs::read_to_string(&made_by).is_ok_and(|recipe| recipe.trim() == today)
    };
    if there() {
        return Ok(());
    }
    let _lock = lock(&cache.join("lock"))?;
    if there() {
        return Ok(());
    }
    let log = cache.join("kubernetes.log");
    say(&format!("building Kubernetes from Debian's source package (about a quarter of an hour, once; log: {})", log.display()));
    let words = ["sh", "-c", RECIPE, "kubernetes.sh"].map(std::ffi::OsString::from);
    program::run_contained(words.into_iter().chain([cache.into()]), &log)?;
    std::fs::write(&made_by, &today).map_err(|error| Diagnostic::user(format!("cannot write `{}`: {error}", made_by.display())))?;
    if there() { Ok(()) } else { Err(Diagnostic::host("the Kubernetes build left no archive").hint(format!("see `{}`", log.display()))) }
}

/// Removes what builds that were cut off have left.
///
/// # Errors
/// It cannot be removed.
pub fn sweep(cache: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(cache) else { return Ok(()) };
    let left: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| is_unfinished(path)).collect();
    if left.is_empty() {
        return Ok(());
    }
    let _lock = lock(&cache.join("lock"))?;
    left.iter().try_for_each(|path| remove_tree(path))
}

/// Removes a folder with all that is below it, unless something is mounted there.
///
/// # Errors
/// It cannot be removed.
pub fn remove_tree(folder: &Path) -> Result<()> {
    mounts::unmount_below(folder)?;
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Diagnostic::host(format!("cannot remove `{}`: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// Fetches packages in a copy of the tree that is thrown away. The mounts are seen in here only and end with the script.
/// usage: fetch TREE SCRATCH DESTINATION MIRROR SUITE PACKAGE...
const FETCH: &str = r#"
tree=$1 scratch=$2 dest=$3 mirror=$4 suite=$5
shift 5
mkdir -p "$scratch/upper" "$scratch/work" "$scratch/root" "$dest/partial"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
mount -t proc proc "$scratch/root/proc"
mount --bind "$dest" "$scratch/root/srv/apt"
cat /etc/resolv.conf > "$scratch/root/etc/resolv.conf"
echo "deb $mirror $suite main" > "$scratch/root/etc/apt/sources.list"
within() { chroot "$scratch/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy="$http_proxy"} "$@"; }
within apt-get -q update
within apt-get -qy --no-install-recommends -o APT::Sandbox::User=root -o Dir::Cache::archives=/srv/apt --download-only install "$@"
within apt-get -qy --no-install-recommends -o APT::Sandbox::User=root install apt-utils
rm -rf "$dest/partial" "$dest/lock"
within sh -ec 'cd /srv/apt && apt-ftparchive packages . > Packages'
"#;

/// Builds `cache/NAME` unless it is there: `make` fills a folder of another name, which gets this one when it is complete.
fn build(cache: &Path, name: &str, make: impl Fn(&Path, &Path) -> Result<()>) -> Result<PathBuf> {
    let done = cache.join(name);
    if done.exists() {
        return Ok(done);
    }
    let _lock = lock(&cache.join("lock"))?;
    if done.exists() {
        return Ok(done);
    }
    let part = cache.join(format!("{name}.part"));
    remove_tree(&part)?;
    let wrong = |error: std::io::Error| {
        Diagnostic::user(format!("cannot make `{}`: {error}", done.display())).hint("set KPLAY_CACHE to another folder")
    };
    std::fs::create_dir_all(&part).map_err(wrong)?;
    // A build that failed explains itself in its log; what it has left is removed by the next one, or by `down`.
    make(&part, &cache.join(format!("{name}.log")))?;
    std::fs::rename(&part, &done).map_err(wrong)?;
    Ok(done)
}

/// Makes a fresh tree into what hosts can share: nothing in it is unique, and packages come from the lab alone.
fn finish(tree: &Path) -> std::io::Result<()> {
    let absent = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let empty = |folder: &str, unwanted: &dyn Fn(&str) -> bool| -> std::io::Result<()> {
        for entry in std::fs::read_dir(tree.join(folder))?.flatten() {
            if unwanted(&entry.file_name().to_string_lossy()) {
                if entry.file_type()?.is_dir() { std::fs::remove_dir_all(entry.path())? } else { std::fs::remove_file(entry.path())? }
            }
        }
        Ok(())
    };
    empty("etc/ssh", &|name| name.starts_with("ssh_host_"))?;
    empty("var/lib/apt/lists", &|name| name != "lock")?;
    empty("var/cache/apt/archives", &|name| name.ends_with(".deb"))?;
    absent(std::fs::remove_file(tree.join("var/lib/dbus/machine-id")))?;
    std::fs::write(tree.join("etc/machine-id"), "")?;
    std::fs::write(tree.join("etc/resolv.conf"), "# a lab has no way out and no name server\n")?;
    std::fs::write(tree.join("etc/apt/sources.list"), "")?;
    std::fs::create_dir_all(tree.join("srv/apt"))?;
    // With this folder journald keeps the journal on disk, where it can be read when a host does not answer.
    std::fs::create_dir_all(tree.join("var/log/journal"))?;
    std::fs::create_dir_all(tree.join("root/.ssh"))?;
    std::fs::set_permissions(tree.join("root/.ssh"), std::fs::Permissions::from_mode(0o700))
}

fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    (name.starts_with("base-") || name.starts_with("packages-")) && (name.ends_with(".part") || name.ends_with(".scratch"))
}

fn key(parts: &[&str]) -> String {
    Digest::of(parts.join("\0").as_bytes()).hex()[..10].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_fails_leaves_nothing_under_its_name() {
        let cache = tempfile::tempdir().unwrap();
        let fail = |part: &Path, _: &Path| {
            std::fs::write(part.join("half"), "").unwrap();
            Err(Diagnostic::host("broken"))
        };
        assert!(build(cache.path(), "base-x-1", fail).is_err());
        assert!(!cache.path().join("base-x-1").exists());
        sweep(cache.path()).unwrap();
        assert!(!cache.path().join("base-x-1.part").exists());
        let made = build(cache.path(), "base-x-1", |part, _| {
            std::fs::write(part.join("whole"), "").map_err(|error| Diagnostic::host(error.to_string()))
        })
        .unwrap();
        assert!(made.join("whole").exists());
        assert_eq!(build(cache.path(), "base-x-1", |_, _| unreachable!()).unwrap(), made);
    }
}
