//! `kplay new`: files to begin with, which run as they are.

use std::path::{Path, PathBuf};

use kplay_modules::api::error::plain;

use crate::cli::{self, NewWhat};
use crate::diagnostic::{Diagnostic, Result, exit_code};
use crate::report::printer::Printer;

const INVENTORY: &str = r#"# Hosts, their groups and variables. `kplay vars HOST` explains where a value comes from.
all:
  hosts:
    # This machine, acting below a folder: nothing outside of it is touched.
    sandbox: {connection: local, root: "{{ inventory_dir }}/sandbox"}
    # A real host:
    # web1: {address: 192.0.2.10, user: admin, become: true}
  vars:
    motto: managed by kplay
"#;

const PLAYBOOK: &str = r#"-- What hosts shall be like. Try it: kplay PLAYBOOK -i inventory.yaml --check --diff
play {
  name = "NAME",
  hosts = "all",
  run = function(host)
    host:file({ path = "/etc/kplay", state = "directory", mode = "0755", parents = true })
    host:copy({ dest = "/etc/kplay/motto", content = "managed by kplay\n", mode = "0644" })
  end,
}
"#;

const PROJECT_PLAYBOOK: &str = r#"-- What hosts shall be like. Try it: kplay site.lua -i inventory.yaml --check --diff
play {
  name = "site",
  hosts = "all",
  run = function(host)
    host:role("motto", { text = host.vars.motto })
  end,
}
"#;

const ROLE: &str = r#"-- Parameters are checked like the arguments of modules; `kplay doc roles/NAME` prints them.
return {
  summary = "Writes a file that says who manages the host",
  params = {
    text = { type = "string", default = "managed by kplay", doc = "what the file says" },
  },
  run = function(host, p)
    host:file({ path = "/etc/kplay", state = "directory", mode = "0755", parents = true })
    host:template({ src = "NAME.j2", dest = "/etc/kplay/NAME", mode = "0644", vars = { text = p.text } })
  end,
}
"#;

const TEMPLATE: &str = "{{ text }}\n";

/// Writes the files; none of them may be there already.
pub fn run(arguments: &cli::New, printer: Printer) -> Result<u8> {
    let files = match &arguments.what {
        NewWhat::Project { folder } => {
            let mut files = role("motto", &folder.join("roles"));
            files.push((folder.join("inventory.yaml"), INVENTORY.to_owned()));
            files.push((folder.join("sandbox/.gitignore"), "*\n".to_owned()));
            files.push((folder.join("site.lua"), PROJECT_PLAYBOOK.to_owned()));
            files.sort();
            files
        }
        NewWhat::Playbook { file } => {
            let name = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
            vec![(file.clone(), PLAYBOOK.replace("NAME", &name))]
        }
        NewWhat::Role { name } => {
            let valid = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
            if name.is_empty() || !name.chars().all(valid) {
                return Err(Diagnostic::user(format!("`{name}` is no name of a role")).hint("it consists of letters, digits, `-` and `_`"));
            }
            role(name, Path::new("roles"))
        }
    };
    if let Some((file, _)) = files.iter().find(|(file, _)| file.exists()) {
        return Err(Diagnostic::user(format!("`{}` exists already", file.display())));
    }
    for (file, text) in &files {
        write(file, text)?;
        printer.text(&format!("wrote {}\n", file.display()));
    }
    Ok(exit_code::DONE)
}

fn role(name: &str, folder: &Path) -> Vec<(PathBuf, String)> {
    let folder = folder.join(name);
    vec![(folder.join("role.lua"), ROLE.replace("NAME", name)), (folder.join(format!("templates/{name}.j2")), TEMPLATE.to_owned())]
}

#[expect(clippy::disallowed_methods, reason = "this command writes files of the user's")]
fn write(file: &Path, text: &str) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(file, text))
        .map_err(|error| Diagnostic::user(format!("cannot write `{}`: {}", file.display(), plain(&error))))
}
