//! What can be managed: the modules, the contract they keep, and the agent that carries them to a host.

pub mod agent;
pub mod api;
pub mod archive;
pub mod cert;
pub mod command;
pub mod copy;
pub mod download;
pub mod fetch;
pub mod file;
pub mod file_diff;
pub mod hosts_file;
pub mod line;
pub mod shell;
pub mod stat;
pub mod systemd;
pub mod template;

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
    cert::Cert,
    command::Command,
    copy::Copy,
    download::Download,
    fetch::Fetch,
    file::File,
    file_diff::FileDiff,
    hosts_file::HostsFile,
    line::Line,
    shell::Shell,
    stat::Stat,
    systemd::Systemd,
    template::Template,
}

/// Returns the registry line of the module called `name`.
pub fn find(name: &str) -> Option<&'static Entry> {
    REGISTRY.iter().find(|entry| entry.name == name)
}

/// Returns a module's manual: the `//!` text at the head of its file.
pub fn manual(name: &str) -> Option<String> {
    let (_, source) = SOURCES.iter().find(|(module, _)| *module == name)?;
    let head = source.lines().take_while(|line| line.starts_with("//!"));
    Some(head.map(|line| line.trim_start_matches("//!").trim_start_matches(' ')).collect::<Vec<_>>().join("\n"))
}
