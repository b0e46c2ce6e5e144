//! What holds for every file: a sentence at its head, its length, its place in the tree, what it may use, what it may not say.
#![allow(clippy::disallowed_methods, reason = "it reads the sources")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, in lines.
const LIMIT: usize = 500;

/// What each part of the controller may use. Data flows one way: whoever is higher up in this list knows nothing of those below.
const EDGES: &[(&str, &[&str])] = &[
    ("diagnostic", &[]),
    ("secrets", &["diagnostic"]),
    ("files", &["secrets"]),
    ("blobs", &["files"]),
    ("outputs", &["secrets"]),
    ("yaml", &["diagnostic"]),
    ("pki", &["diagnostic"]),
    ("template", &["diagnostic", "yaml"]),
    ("transport", &["diagnostic"]),
    ("lab", &["diagnostic", "transport"]),
    ("inventory", &["diagnostic", "secrets", "template", "transport", "yaml"]),
    ("vault", &["diagnostic", "inventory"]),
    ("cli", &[]),
    ("config", &["cli", "diagnostic", "inventory", "lab", "transport", "vault", "yaml"]),
    ("report", &["config", "diagnostic", "secrets"]),
    ("plan", &["diagnostic", "outputs", "report"]),
    ("controller", &["blobs", "diagnostic", "files", "secrets", "template"]),
    ("lua", &["blobs", "controller", "diagnostic", "inventory", "outputs", "plan", "report", "secrets", "template", "yaml"]),
    ("schedule", &["blobs", "diagnostic", "outputs", "plan", "report", "transport"]),
    ("services", &["controller", "diagnostic", "pki"]),
    (
        "command",
        &[
            "blobs",
            "cli",
            "config",
            "controller",
            "diagnostic",
            "inventory",
            "lab",
            "lua",
            "outputs",
            "pki",
            "plan",
            "report",
            "schedule",
            "secrets",
            "services",
            "transport",
            "vault",
        ],
    ),
];

/// Names that say nothing about what is in a file.
const NAMES: [&str; 5] = ["utils", "common", "misc", "imp", "helpers"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns all files with this ending below the folders of ours, by their path from the root.
fn files(ending: &str) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for folder in ["engine", "modules", "tests", "playbooks", "roles"] {
        collect(&root().join(folder), ending, &mut found);
    }
    found
}

fn collect(folder: &Path, ending: &str, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, ending, found);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.insert(path.strip_prefix(root()).unwrap().to_path_buf(), fs::read_to_string(&path).unwrap());
        }
    }
}

/// Fails with one line for each of the offences.
#[track_caller]
fn none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn every_file_begins_with_a_sentence() {
    let bad = |text: &str| !text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 20);
    none(
        &files("rs")
            .iter()
            .filter(|(_, text)| bad(text))
            .map(|(path, _)| format!("{} has no `//!` sentence", path.display()))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn no_file_is_too_long() {
    let all = files("rs").into_iter().chain(files("lua"));
    let long = all.map(|(path, text)| (path, text.lines().count())).filter(|(_, lines)| *lines > LIMIT);
    none(&long.map(|(path, lines)| format!("{} has {lines} lines, more than {LIMIT}", path.display())).collect::<Vec<_>>());
}

#[test]
fn files_are_named_after_what_is_in_them() {
    let vague = |path: &Path| NAMES.iter().any(|name| path.file_stem().is_some_and(|stem| stem == *name));
    none(&files("rs").keys().filter(|path| vague(path)).map(|path| format!("{} says nothing", path.display())).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_to_be_done() {
    let words =
        [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["dbg", "!("], ["todo", "!("], ["unimplemented", "!("]].map(|word| word.concat());
    let mut found = Vec::new();
    for (path, text) in files("rs").into_iter().chain(files("lua")) {
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{} has `{word}`", path.display(), number + 1));
            }
        }
    }
    none(&found);
}

/// A file that no `mod` names is never compiled, and a test in it never runs.
#[test]
fn no_file_is_forgotten() {
    let sources = files("rs");
    let manifests: String = ["Cargo.toml", "modules/Cargo.toml", "tests/bench/Cargo.toml", "tests/demo/Cargo.toml"]
        .map(|name| fs::read_to_string(root().join(name)).unwrap())
        .concat();
    let is_root = |path: &Path| {
        // Cargo finds the tests of `modules` by itself.
        if path.parent() == Some(Path::new("modules/tests")) {
            return true;
        }
        let inside = ["modules", "tests/bench", "tests/demo"].iter().find_map(|folder| path.strip_prefix(folder).ok()).unwrap_or(path);
        let named = |key: &str| manifests.contains(&format!("{key} = \"{}\"", inside.display()));
        named("path") || named("build") || manifests.contains(&format!("path = \"{}\"", path.display()))
    };
    let mut forgotten = Vec::new();
    for path in sources.keys().filter(|path| !is_root(path)) {
        let (folder, stem) = (path.parent().unwrap(), path.file_stem().unwrap().to_string_lossy());
        let (folder, name) = if stem == "mod" {
            (folder.parent().unwrap(), folder.file_name().unwrap().to_string_lossy().into_owned())
        } else {
            (folder, stem.into_owned())
        };
        let parents = [folder.join("mod.rs"), folder.join("lib.rs"), folder.join("main.rs"), folder.with_extension("rs")];
        let named = |text: &String| {
            text.lines().any(|line| {
                line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ")
                    == format!("mod {name};")
            })
        };
        let by_path = sources
            .values()
            .any(|text| text.contains(&format!("{}\"]", path.file_name().unwrap().to_string_lossy())) && text.contains("#[path"));
        let shared = path.starts_with("tests/support") && name == "support";
        if !parents.iter().filter_map(|parent| sources.get(parent)).any(named) && !shared && !by_path {
            forgotten.push(format!("{} is named by no `mod`", path.display()));
        }
    }
    none(&forgotten);
}

/// A key or a recording that a trial by hand has left beside `Cargo.toml` is soon part of the project.
#[test]
fn the_root_holds_manuals_and_settings_alone() {
    let stray = |path: &PathBuf| {
        path.is_file() && !path.extension().is_some_and(|ending| ["md", "toml", "lock"].iter().any(|known| ending == *known))
    };
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    none(
        &entries
            .filter(|path| !hidden(path) && stray(path))
            .map(|path| format!("{} does not belong there", path.display()))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn modules_are_the_files_and_the_registry() {
    let registry = fs::read_to_string(root().join("modules/lib.rs")).unwrap();
    let block = registry.split("registry! {").nth(1).unwrap().split('}').next().unwrap();
    let listed: BTreeSet<String> = block.lines().filter_map(|line| Some(line.trim().split_once("::")?.0.to_owned())).collect();
    let there: BTreeSet<String> = fs::read_dir(root().join("modules"))
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .filter(|name| name != "lib")
        .collect();
    assert_eq!(listed, there);
}

#[test]
fn data_flows_one_way() {
    let mut uses: BTreeMap<String, BTreeSet<(String, PathBuf)>> = BTreeMap::new();
    for (path, text) in files("rs") {
        let Ok(inside) = path.strip_prefix("engine") else { continue };
        let part = inside.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
        if part == "lib" || part == "main" {
            continue;
        }
        let entry = uses.entry(part.clone()).or_default();
        for used in text.split("crate::").skip(1) {
            let names = match used.strip_prefix('{') {
                Some(list) => {
                    list.split('}').next().unwrap().split(',').map(|item| item.trim().split("::").next().unwrap().to_owned()).collect()
                }
                None => vec![
                    used.chars()
                        .take_while(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || *letter == '_')
                        .collect::<String>(),
                ],
            };
            entry.extend(
                names
                    .into_iter()
                    .filter(|name| *name != part && EDGES.iter().any(|(known, _)| known == name))
                    .map(|name| (name, path.clone())),
            );
        }
    }
    let mut wrong = Vec::new();
    for (part, used) in uses {
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == part) else {
            wrong.push(format!("engine/{part} has no line in the table of edges"));
            continue;
        };
        let unused = allowed.iter().filter(|name| !used.iter().any(|(other, _)| other == *name));
        wrong.extend(unused.map(|name| format!("`{part}` does not use `{name}`: take it out of the table")));
        wrong.extend(
            used.into_iter()
                .filter(|(name, _)| !allowed.contains(&name.as_str()))
                .map(|(name, path)| format!("{} uses `{name}`, which `{part}` may not", path.display())),
        );
    }
    none(&wrong);
    let order: Vec<_> = EDGES.iter().map(|(part, _)| *part).collect();
    let place = |name: &str| order.iter().position(|part| *part == name);
    for (part, allowed) in EDGES {
        assert!(allowed.iter().all(|used| place(used) < place(part)), "`{part}` would use something below it");
    }
}
