//! The manuals of the repository's roles: each lists the role's parameters as they are declared, and its example uses no others.
//!
//! `KPLAY_WRITE_MANUALS=1 cargo test --lib manuals_of_roles` writes the lists anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::{RoleManual, describe_role, traits};

/// The section of a README that lists what a role declares.
fn section(role: &RoleManual) -> String {
    let mut text = String::from("## Parameters\n\n| parameter | type | |\n|---|---|---|\n");
    let cell = |text: &str| text.replace('|', "\\|");
    for param in &role.params {
        let _ = writeln!(text, "| `{}` | {} | {} |", param.name, cell(&traits(param)), cell(&param.doc));
    }
    text
}

/// The parameters that a Lua text gives to a role, where it calls it with a table.
fn given(text: &str, role: &str) -> BTreeSet<String> {
    let Some((_, call)) = text.split_once(&format!("host:role(\"{role}\", {{")) else { return BTreeSet::new() };
    let (mut depth, mut word, mut names) = (1, String::new(), BTreeSet::new());
    for letter in call.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            '=' if depth == 1 => drop(names.insert(std::mem::take(&mut word))),
            letter if depth == 1 && (letter.is_alphanumeric() || letter == '_') => word.push(letter),
            ' ' => {}
            _ => word.clear(),
        }
        if depth == 0 {
            break;
        }
    }
    names
}

#[test]
fn manuals_of_roles_are_true() {
    let roles = Path::new(env!("CARGO_MANIFEST_DIR")).join("roles");
    for name in crate::lua::roles_below(std::slice::from_ref(&roles)) {
        let folder = roles.join(&name);
        let role = describe_role(&folder).unwrap();
        let file = folder.join("README.md");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(&format!("# {name}\n")) && text.contains("```lua\n"), "{name}: heading and example");
        assert!(!role.summary.is_empty() && !role.readme.is_empty(), "{name}");
        for param in &role.params {
            assert!(!param.doc.is_empty(), "{name}: `{}` is not described", param.name);
        }
        let known: BTreeSet<String> = role.params.iter().map(|param| param.name.clone()).collect();
        let unknown: Vec<_> = given(&text, &name).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "the example of {name} gives {unknown:?}, which are no parameters");

        let section = section(&role);
        if std::env::var_os("KPLAY_WRITE_MANUALS").is_some() {
            let above = text.split("## Parameters\n").next().unwrap().trim_end();
            std::fs::write(&file, format!("{above}\n\n{section}")).unwrap();
        } else {
            let hint = "write it anew: KPLAY_WRITE_MANUALS=1 cargo test --lib manuals_of_roles";
            assert!(text.ends_with(&section), "the README of {name} does not end with its parameters as declared; {hint}:\n{section}");
        }
    }
}
