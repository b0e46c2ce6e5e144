//! What a role says of itself, without a playbook or an inventory: for its manual.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kplay_modules::api::{Checksum, ModuleError};
use mlua::{MultiValue, Table, Value as LuaValue};
use serde_json::Value;

use super::error::diagnostic;
use super::role::{Param, Role};
use super::{Options, Program};
use crate::controller::Services;
use crate::diagnostic::{Diagnostic, Place, Result};
use crate::inventory::{Decrypt, Inventory, Sources, Variables};
use crate::secrets::Secrets;

/// A role's manual.
#[derive(Debug, Clone, PartialEq)]
pub struct RoleManual {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub folder: PathBuf,
    /// What it is for, in a line.
    pub summary: String,
    /// What its `README.md` says, without heading and list of parameters; empty when there is none.
    pub readme: String,
    /// Its parameters, by name.
    pub params: Vec<ParamManual>,
}

/// One parameter of a role.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamManual {
    /// Its name.
    pub name: String,
    /// Its type, with that of its items: `list of string`.
    pub kind: String,
    /// Whether it must be given.
    pub required: bool,
    /// Whether its value is never shown.
    pub secret: bool,
    /// Its value when none is given.
    pub default: Option<Value>,
    /// The only values that it may have.
    pub choices: Vec<Value>,
    /// What it is for.
    pub doc: String,
}

/// Returns the names of the roles in these folders, sorted.
pub fn roles_below(paths: &[PathBuf]) -> Vec<String> {
    super::role::list(paths)
}

/// Reads the role in a folder.
pub fn describe_role(folder: &Path) -> Result<RoleManual> {
    struct Nothing;
    impl Services for Nothing {
        fn authority(&self, _: &Path) -> std::result::Result<Option<String>, ModuleError> {
            Ok(None)
        }
        fn download(&self, url: &str, _: &Checksum, _: Option<&Path>, _: u64) -> std::result::Result<PathBuf, ModuleError> {
            Err(ModuleError::argument(format!("`{url}` is not downloaded for a manual")))
        }
    }
    impl Decrypt for Nothing {
        fn decrypt(&self, file: &Path, _: &[u8]) -> Result<Vec<u8>> {
            Err(Diagnostic::user(format!("`{}` is encrypted", file.display())))
        }
    }
    let extra = Variables::new();
    let sources = Sources {
        inventories: &["localhost,".to_owned()],
        playbook_folder: None,
        extra: &extra,
        timeout: Duration::ZERO,
        decrypt: &Nothing,
    };
    let inventory = Inventory::load(&sources)?;
    let file = folder.join("role.lua");
    // What roles share lies beside them.
    let role_paths = folder.parent().map(Path::to_owned).into_iter().collect();
    let options = Options { check: true, role_paths, ..Options::default() };
    let services = Box::new(Nothing);
    let program = Program::open(&file, options, &inventory, Arc::default(), services, &Secrets::default()).map_err(internal)?;
    let classes = program.classes()?;
    let environment: Table = classes.environment.call(folder.to_string_lossy().as_ref()).map_err(internal)?;
    let chunk = super::library::load_file(&program.lua, &program.shared, &file, environment)?;
    program.shared.clock.borrow_mut().start(program.shared.options.time_limit);
    let results: Vec<_> = classes.load.call::<MultiValue>(chunk).map_err(internal)?.into_iter().collect();
    let returned = results.get(1).unwrap_or(&LuaValue::Nil);
    if results.first() != Some(&LuaValue::Boolean(true)) {
        return Err(diagnostic(returned).diagnostic);
    }
    let name = std::path::absolute(folder).ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())).unwrap_or_default();
    let role = Role::read(classes, &name, folder, returned).map_err(|problem| {
        let place = program.shared.sources.returned(&file, &problem.path, problem.part);
        let mut error = Diagnostic::user(problem.message).at(place.unwrap_or_else(|| Place::line(&file, 0)));
        error.hints = problem.hints;
        error
    })?;
    let readme = program.shared.local.read_file(&folder.join("README.md")).map_err(|error| Diagnostic::user(error.message))?;
    Ok(RoleManual {
        readme: readme.map(|text| body(&String::from_utf8_lossy(&text))).unwrap_or_default(),
        name: role.name,
        folder: role.folder,
        summary: role.summary,
        params: role.params.into_iter().map(|(name, param)| describe(name, param)).collect(),
    })
}

/// Returns a README's text without its heading, and without its list of parameters: those are shown as they are declared.
fn body(readme: &str) -> String {
    let text = readme.split("## Parameters\n").next().unwrap_or_default();
    let lines = text.lines().enumerate().filter(|(number, line)| !(*number == 0 && line.starts_with("# ")));
    lines.map(|(_, line)| format!("{line}\n")).collect::<String>().trim().to_owned()
}

fn describe(name: String, param: Param) -> ParamManual {
    let kind = match &param.items {
        Some(items) => format!("{} of {}", param.r#type.word(), items.r#type.word()),
        None => param.r#type.word().to_owned(),
    };
    let Param { required, secret, default, choices, doc, .. } = param;
    ParamManual { name, kind, required, secret, default, choices, doc }
}

fn internal(error: impl std::fmt::Display) -> Box<Diagnostic> {
    Diagnostic::internal(error.to_string())
}
