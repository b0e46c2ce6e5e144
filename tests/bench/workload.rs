//! The fifty tasks that everybody does on every host, and what a host must look like afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::Outcome;
use crate::contender::Ground;

/// Folders, templates, files, line edits, links and guarded commands of a host.
pub const TASKS: usize = DIRECTORIES + TEMPLATES + FILES + LINES + LINKS + COMMANDS;
/// Number of directories.
pub const DIRECTORIES: usize = 10;
/// Number of templates of about a kilobyte.
pub const TEMPLATES: usize = 20;
/// Number of files of 100 kB.
pub const FILES: usize = 5;
/// Number of edited files.
pub const LINES: usize = 5;
/// Number of links.
pub const LINKS: usize = 5;
/// Number of commands that run only once.
pub const COMMANDS: usize = 5;

/// The template, in the language that all of Jinja's heirs share. It has no newline at its end, which they treat differently.
pub fn template() -> String {
    let lines: String = (1..=20).map(|line| format!("setting_{line:02} = value of line {line:02} on its host\n")).collect();
    format!("# {{{{ label }}}}, file {{{{ number }}}}\n{lines}# end")
}

/// What the template gives for a host and a file.
pub fn rendered(label: &str, number: usize) -> String {
    template().replace("{{ label }}", label).replace("{{ number }}", &number.to_string())
}

/// The content of file `number`: 100 kB that hardly compress.
pub fn content(number: usize) -> Vec<u8> {
    let mut state = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b' ' + u8::try_from(state % 90).unwrap_or_default()
    };
    (0..100_000).map(|_| next()).collect()
}

/// Writes template and files where playbooks find them: `t.j2`, `big1`, ….
pub fn write_sources(folder: &Path) -> Outcome<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("t.j2"), template())?;
    for number in 1..=FILES {
        fs::write(folder.join(format!("big{number}")), content(number))?;
    }
    Ok(())
}

/// The name of host `number`, counted from 1.
pub fn label(number: usize) -> String {
    format!("h{number}")
}

/// Where one contender's host `number` has its files.
pub fn tree(trees: &Path, contender: &str, number: usize) -> PathBuf {
    trees.join(contender).join(label(number))
}

/// Empties the trees of a contender and puts into each what is there beforehand: the files whose lines are edited.
pub fn empty_trees(ground: &Ground, contender: &str, hosts: usize) -> Outcome<()> {
    let trees = &ground.trees;
    if trees.join(contender).exists() {
        ground.fleet.put_aside(&trees.join(contender))?;
    }
    for number in 1..=hosts {
        let tree = tree(trees, contender, number);
        fs::create_dir_all(&tree)?;
        for line in 1..=LINES {
            let path = tree.join(format!("e{line}"));
            fs::write(&path, "alpha\nbeta\n")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

/// Compares a host's tree with what the fifty tasks are to make of it: every name, kind, mode, target and byte.
pub fn verify(tree: &Path, number: usize) -> Outcome<()> {
    let mut wanted = BTreeMap::new();
    let mut want = |name: String, mode: u32, content: Vec<u8>| wanted.insert(name, (mode, content));
    for i in 1..=DIRECTORIES {
        want(format!("d{i}"), 0o040_755, Vec::new());
    }
    for i in 1..=TEMPLATES {
        want(format!("t{i}"), 0o100_644, rendered(&label(number), i).into_bytes());
    }
    for i in 1..=FILES {
        want(format!("big{i}"), 0o100_644, content(i));
    }
    for i in 1..=LINES {
        want(format!("e{i}"), 0o100_644, format!("alpha\nbeta\nkey = {i}\n").into_bytes());
    }
    for i in 1..=LINKS {
        want(format!("l{i}"), 0o120_777, tree.join(format!("t{i}")).to_string_lossy().into_owned().into_bytes());
    }
    for i in 1..=COMMANDS {
        want(format!("c{i}"), 0o100_644, Vec::new());
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(tree)? {
        let path = entry?.path();
        let about = path.symlink_metadata()?;
        let content = if about.is_symlink() {
            fs::read_link(&path)?.to_string_lossy().into_owned().into_bytes()
        } else if about.is_file() {
            fs::read(&path)?
        } else {
            Vec::new()
        };
        found.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), (about.mode(), content));
    }
    let names: std::collections::BTreeSet<_> = wanted.keys().chain(found.keys()).collect();
    match names.into_iter().find(|name| wanted.get(*name) != found.get(*name)) {
        None => Ok(()),
        Some(name) => Err(format!("`{}` is not what it has to be", tree.join(name).display()).into()),
    }
}
