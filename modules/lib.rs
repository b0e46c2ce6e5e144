//! What can be managed: the modules, the contract they keep, and the agent that carries them to a host.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they need"))]

pub mod agent;
pub mod api;
pub mod archive;
pub mod assert;
pub mod cert;
pub mod command;
pub mod copy;
pub mod download;
pub mod fetch;
pub mod file;
pub mod file_diff;
pub mod group;
pub mod hosts_file;
pub mod keepalived;
pub mod kubeconfig;
pub mod line;
pub mod package;
pub mod shell;
pub mod stat;
pub mod sysctl;
pub mod systemd;
pub mod template;
pub mod user;
pub mod wait_for;

use api::module::Entry;

/// Makes the registry, and beside it the modules' sources, of which the manuals are the heads. Only the controller looks at
/// those, so the agent does not carry them.
macro_rules! registry {
    ($($name:ident :: $module:ident),* $(,)?) => {
        /// All modules, by name. `Host:NAME`, `kplay doc`, completions and the conformance tests are derived from this list.
        pub const REGISTRY: &[Entry] = &[$(api::module::entry::<$name::$module>()),*];

        /// Name and source text of each module's file.
        pub const SOURCES: &[(&str, &str)] = &[$((stringify!($name), include_str!(concat!(stringify!($name), ".rs")))),*];
    };
}

// One line a module, sorted: `file::File,` is the type `File` in `file.rs`.
registry! {
    archive::Archive,
    assert::Assert,
    cert::Cert,
    command::Command,
    copy::Copy,
    download::Download,
    fetch::Fetch,
    file::File,
    file_diff::FileDiff,
    group::Group,
    hosts_file::HostsFile,
    keepalived::Keepalived,
    kubeconfig::Kubeconfig,
    line::Line,
    package::Package,
    shell::Shell,
    stat::Stat,
    sysctl::Sysctl,
    systemd::Systemd,
    template::Template,
    user::User,
    wait_for::WaitFor,
}

/// Returns the registry line of the module called `name`.
pub fn find(name: &str) -> Option<&'static Entry> {
    REGISTRY.iter().find(|entry| entry.name == name)
}

/// Returns a module's manual: the `//!` text at the head of its file.
pub fn manual(name: &str) -> Option<String> {
    let (_, source) = SOURCES.iter().find(|(module, _)| *module == name)?;
    let head = source.lines().take_while(|line| line.starts_with("//!"));
    let text = |line: &'static str| line.strip_prefix("//! ").unwrap_or_default();
    Some(head.map(text).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_sorted_and_names_are_those_of_the_files() {
        let names: Vec<&str> = REGISTRY.iter().map(|entry| entry.name).collect();
        let files: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, files);
        assert!(names.is_sorted(), "{names:?}");
    }

    #[test]
    fn every_module_has_a_manual_with_an_example() {
        for entry in REGISTRY {
            let manual = manual(entry.name).unwrap();
            let first = manual.lines().next().unwrap();
            assert!(first.ends_with('.') && first.len() <= 140, "`{}`: the manual begins with one sentence, not `{first}`", entry.name);
            let examples = manual
                .split("```lua\n")
                .skip(1)
                .filter(|rest| rest.split("```").next().is_some_and(|code| code.contains(&format!("host:{}(", entry.name))));
            assert!(examples.count() > 0, "`{}`: the manual has no example that calls it", entry.name);
        }
        assert!(manual("no_such_module").is_none());
    }

    #[test]
    fn every_argument_is_described() {
        for entry in REGISTRY {
            let schema = (entry.schema)().to_value();
            let arguments = schema["properties"].as_object().unwrap();
            assert!(!arguments.is_empty(), "{}", entry.name);
            for (argument, description) in arguments {
                let text = description["description"].as_str().unwrap_or_default();
                assert!(text.ends_with('.'), "`{}` of `{}` is described as `{text}`", argument, entry.name);
            }
            assert_eq!(schema["additionalProperties"], false, "`{}` takes unknown arguments", entry.name);
        }
    }
}
