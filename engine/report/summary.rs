//! One line for each change: stable text, the same in a forecast and in what is then done.

use std::path::Path;

use kplay_modules::api::change::{Packages, Run, UserSpec, WriteFile};
use kplay_modules::api::{Attributes, Change, Entry, EntryKind, Owner};

use crate::secrets::Secrets;

/// What a change does, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What kind of thing is changed: `file`, `unit`, `package` …
    pub kind: &'static str,
    /// What is done to it: `create`, `update`, `remove`, `restart` …
    pub action: &'static str,
    /// Name of the property that names it (`path`, `unit` …), and its value.
    pub subject: (&'static str, String),
    /// All of it in one line.
    pub text: String,
}

/// Describes a change; `secrets` are masked in what is cut short.
pub fn summary(change: &Change, secrets: &Secrets) -> Summary {
    let path = |path: &Path| ("path", path.display().to_string());
    let made = |kind, action, subject, text| Summary { kind, action, subject, text };
    match change {
        Change::WriteFile(write) => {
            let action = if write.before.is_some() { "update" } else { "create" };
            made("file", action, path(&write.path), write_file(write))
        }
        Change::SetAttributes { path: entry, before, after } => {
            made("attributes", "update", path(entry), format!("set {} of {}", attributes(before, after), entry.display()))
        }
        Change::MakeDirectory { path: folder, attributes } => {
            made("directory", "create", path(folder), format!("make directory {} (mode {})", folder.display(), mode(attributes)))
        }
        Change::Symlink { path: link, target, before } => {
            let action = if before.is_some() { "update" } else { "create" };
            let was = before.as_ref().map(|entry| format!(", was {}", was(entry))).unwrap_or_default();
            made("link", action, path(link), format!("link {} to {}{was}", link.display(), target.display()))
        }
        Change::Remove { path: entry, before } => {
            let below = if before.kind == EntryKind::Directory { " and all below it" } else { "" };
            made(kind_of(before), "remove", path(entry), format!("remove {} {}{below}", before.kind.word(), entry.display()))
        }
        Change::Touch { path: file } => made("file", "touch", path(file), format!("touch {}", file.display())),
        Change::Unpack(unpack) => {
            let text =
                format!("unpack {} of {} into {}", count(unpack.members.len(), "entry", "entries"), unpack.name, unpack.dest.display());
            made("archive", "unpack", path(&unpack.dest), text)
        }
        Change::Download(download) => {
            let text = format!("download {} to {}", without_password(&download.url), download.path.display());
            made("file", if download.before.is_some() { "update" } else { "create" }, path(&download.path), text)
        }
        Change::Fetch { path: file, dest, content } => {
            let text = format!("fetch {} to {} ({})", file.display(), dest.display(), bytes(content.size));
            made("fetch", "fetch", path(file), text)
        }
        Change::Unit { unit, action, reason, .. } => {
            made("unit", action.verb(), ("unit", unit.clone()), with_reason(format!("{} {unit}", action.verb()), reason))
        }
        Change::ReloadDaemon { reason } => {
            let text = with_reason("make systemd read its unit files again".to_owned(), reason);
            made("systemd", "daemon-reload", ("unit", "systemd".to_owned()), text)
        }
        Change::SetKernelParameter { key, before, after } => {
            made("kernel-parameter", "update", ("key", key.clone()), format!("set {key} = {after}, was {before}"))
        }
        Change::Packages(packages) => {
            let action = match (packages.install.is_empty(), packages.remove.is_empty()) {
                (_, true) => "install",
                (true, false) if packages.purge => "purge",
                (true, false) => "remove",
                (false, false) => "change",
            };
            let names: Vec<_> = packages.install.iter().chain(&packages.remove).map(String::as_str).collect();
            made("package", action, ("packages", names.join(" ")), self::packages(packages))
        }
        Change::User { name, before, after, remove_home } => {
            let (action, text) = user(name, before.as_ref(), after.as_ref(), *remove_home);
            made("user", action, ("user", name.clone()), text)
        }
        Change::Group { name, before, after } => {
            let (action, text) = match (before, after) {
                (_, None) => ("remove", format!("remove group {name}")),
                (None, Some(spec)) => {
                    let gid = spec.gid.map(|gid| format!(" (gid {gid})")).unwrap_or_default();
                    ("create", format!("create {}group {name}{gid}", if spec.system { "system " } else { "" }))
                }
                (Some(before), Some(spec)) => (
                    "update",
                    format!("change group {name}: gid {before} -> {}", spec.gid.map_or_else(|| "any".to_owned(), |gid| gid.to_string())),
                ),
            };
            made("group", action, ("group", name.clone()), text)
        }
        Change::IssueCertificate(issue) => {
            let key = if issue.new_key { format!(" with a new {} key", issue.key_type) } else { String::new() };
            let text = format!("issue certificate {} for {}{key}", issue.certificate.display(), issue.common_name);
            let action = if issue.certificate_before.is_some() { "update" } else { "create" };
            made("certificate", action, path(&issue.certificate), with_reason(text, &issue.reason))
        }
        Change::Run(run) => {
            let shown = command(run, secrets);
            made("command", "run", ("command", shown.clone()), format!("run {shown}"))
        }
    }
}

/// Returns a number of bytes as people read it.
pub fn bytes(count: u64) -> String {
    let (unit, divisor) = match count {
        0..1_000 => return format!("{count} B"),
        1_000..1_000_000 => ("kB", 1_000.0),
        1_000_000..1_000_000_000 => ("MB", 1_000_000.0),
        _ => ("GB", 1_000_000_000.0),
    };
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let shown = count as f64 / divisor;
    format!("{shown:.1} {unit}")
}

/// Returns `1 entry`, `2 entries`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

fn write_file(write: &WriteFile) -> String {
    let shown = write.path.display();
    let size = bytes(write.content.size());
    let Some(before) = &write.before else {
        return format!("create {shown} ({size}, mode {})", mode(&write.attributes));
    };
    if before.kind != EntryKind::File {
        return format!("replace {shown}, {}, by a file ({size}, mode {})", was(before), mode(&write.attributes));
    }
    let rest = if before.attributes == write.attributes {
        String::new()
    } else {
        format!(", {}", attributes(&before.attributes, &write.attributes))
    };
    format!("update {shown} ({} -> {size}{rest})", bytes(before.size))
}

fn with_reason(text: String, reason: &str) -> String {
    if reason.is_empty() { text } else { format!("{text} ({reason})") }
}

fn was(entry: &Entry) -> String {
    match &entry.kind {
        EntryKind::Symlink(target) => format!("a link to {}", target.display()),
        other => format!("a {}", other.word()),
    }
}

fn kind_of(entry: &Entry) -> &'static str {
    match entry.kind {
        EntryKind::Directory => "directory",
        EntryKind::Symlink(_) => "link",
        EntryKind::File | EntryKind::Other => "file",
    }
}

fn mode(attributes: &Attributes) -> String {
    format!("{:04o}", attributes.mode)
}

fn attributes(before: &Attributes, after: &Attributes) -> String {
    let owner = |owner: &Owner| match owner {
        Owner::Id(id) => id.to_string(),
        Owner::Named(name) => name.clone(),
    };
    let mut parts = Vec::new();
    if before.mode != after.mode {
        parts.push(format!("mode {} -> {}", mode(before), mode(after)));
    }
    if before.owner != after.owner {
        parts.push(format!("owner {} -> {}", owner(&before.owner), owner(&after.owner)));
    }
    if before.group != after.group {
        parts.push(format!("group {} -> {}", owner(&before.group), owner(&after.group)));
    }
    parts.join(", ")
}

fn packages(packages: &Packages) -> String {
    let name = |package: &str| package.split('=').next().unwrap_or_default().to_owned();
    let installed: Vec<_> = packages
        .install
        .iter()
        .map(|package| match packages.before.get(&name(package)) {
            Some(version) => format!("{package}, was {version}"),
            None => package.clone(),
        })
        .collect();
    let mut parts = Vec::new();
    if !installed.is_empty() {
        parts.push(format!("install {}", installed.join(", ")));
    }
    if !packages.remove.is_empty() {
        parts.push(format!("{} {}", if packages.purge { "purge" } else { "remove" }, packages.remove.join(", ")));
    }
    if packages.update {
        parts.insert(0, "fetch package lists".to_owned());
    }
    parts.join("; ")
}

fn user(name: &str, before: Option<&UserSpec>, after: Option<&UserSpec>, remove_home: bool) -> (&'static str, String) {
    let Some(after) = after else {
        return ("remove", format!("remove user {name}{}", if remove_home { " and the home directory" } else { "" }));
    };
    let empty = UserSpec::default();
    let was = before.unwrap_or(&empty);
    let mut parts = Vec::new();
    let mut field = |label: &str, was: Option<String>, shall: Option<String>| {
        if let Some(shall) = shall
            && was.as_ref() != Some(&shall)
        {
            parts.push(match (was, before) {
                (Some(was), Some(_)) => format!("{label} {was} -> {shall}"),
                _ => format!("{label} {shall}"),
            });
        }
    };
    let groups = |spec: &UserSpec| spec.groups.as_ref().map(|groups| groups.join(" "));
    let shown = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    field("uid", was.uid.map(|uid| uid.to_string()), after.uid.map(|uid| uid.to_string()));
    field("group", was.group.clone(), after.group.clone());
    field("groups", groups(was), groups(after));
    field("home", shown(&was.home), shown(&after.home));
    field("shell", was.shell.clone(), after.shell.clone());
    field("comment", was.comment.clone(), after.comment.clone());
    if after.password_hash.is_some() && was.password_hash != after.password_hash {
        parts.push("a new password".to_owned());
    }
    let details = parts.join(", ");
    match before {
        None => {
            let system = if after.system { "system " } else { "" };
            (
                "create",
                if details.is_empty() { format!("create {system}user {name}") } else { format!("create {system}user {name} ({details})") },
            )
        }
        Some(_) => ("update", format!("change user {name}: {details}")),
    }
}

fn command(run: &Run, secrets: &Secrets) -> String {
    // Masked first: of a secret that is cut in two, neither half would be known as one.
    if run.secret { "a command that is not to be shown".to_owned() } else { one_line(&secrets.mask(&run.command.shown())) }
}

/// Keeps a script of several lines from breaking the one line of a summary.
fn one_line(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let short: String = first.chars().take(200).collect();
    if lines.next().is_some() || short.len() < first.len() { format!("{short} …") } else { short }
}

/// Drops `user:password@` out of a URL.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}
