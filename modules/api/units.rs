//! What systemd makes of unit files, as far as a forecast can tell without asking it.

use std::path::{Path, PathBuf};

use super::inspect::Unit;

/// Folders of unit files, those of the administrator first.
pub const UNIT_FOLDERS: &[&str] =
    &["/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Endings that make a file name a unit's.
const ENDINGS: &[&str] =
    &[".service", ".socket", ".target", ".timer", ".path", ".mount", ".automount", ".swap", ".slice", ".scope", ".device"];

/// Returns the full name of a unit: `nginx` means `nginx.service`.
pub fn full_name(name: &str) -> String {
    if ENDINGS.iter().any(|ending| name.ends_with(ending)) { name.to_owned() } else { format!("{name}.service") }
}

/// What a path has to do with a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitPath {
    /// It is the unit's file.
    Fragment(String),
    /// It is a drop-in of the unit.
    DropIn(String),
}

/// Returns which unit a path belongs to, when it lies in one of systemd's folders.
pub fn unit_of(path: &Path) -> Option<UnitPath> {
    let folder = path.parent()?;
    let name = path.file_name()?.to_str()?;
    let is_unit_folder = |folder: &Path| UNIT_FOLDERS.iter().any(|known| folder == Path::new(known));
    if is_unit_folder(folder) {
        return ENDINGS.iter().any(|ending| name.ends_with(ending)).then(|| UnitPath::Fragment(name.to_owned()));
    }
    let unit = folder.file_name()?.to_str()?.strip_suffix(".d")?;
    let drop_in = name.ends_with(".conf") && is_unit_folder(folder.parent()?) && ENDINGS.iter().any(|ending| unit.ends_with(ending));
    drop_in.then(|| UnitPath::DropIn(unit.to_owned()))
}

/// Returns the unit that systemd would load from a unit file with this text: loaded and not running.
pub fn from_text(fragment: &Path, text: &str) -> Unit {
    let mut unit = Unit {
        load_state: "loaded".to_owned(),
        active_state: "inactive".to_owned(),
        sub_state: "dead".to_owned(),
        unit_file_state: "static".to_owned(),
        result: "success".to_owned(),
        fragment: Some(fragment.to_owned()),
        ..Unit::default()
    };
    if fragment.extension().is_some_and(|ending| ending == "service") {
        unit.kind = "simple".to_owned();
    }
    read_settings(&mut unit, text);
    unit
}

/// Takes from a unit file's or drop-in's text the settings that a forecast needs.
pub fn read_settings(unit: &mut Unit, text: &str) {
    let mut section = "";
    for line in joined(text).iter().map(|line| line.trim()) {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim());
        match (section, key) {
            ("Install", "WantedBy" | "RequiredBy" | "Alias" | "Also" | "UpheldBy")
                if unit.unit_file_state == "static" && !value.is_empty() =>
            {
                unit.unit_file_state = "disabled".to_owned();
            }
            ("Service", "Type") => unit.kind = value.to_owned(),
            ("Service", "ExecStart") => unit.exec_start = value.to_owned(),
            ("Service", "EnvironmentFile") if value.is_empty() => unit.environment_files.clear(),
            ("Service", "EnvironmentFile") => unit.environment_files.push(PathBuf::from(value.trim_start_matches('-'))),
            _ => {}
        }
    }
}

/// Returns the lines without comments, those that end in a backslash joined with the next.
fn joined(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        let (part, goes_on) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        match lines.last_mut() {
            Some(last) if open => {
                last.truncate(last.trim_end().len());
                last.push(' ');
                last.push_str(part.trim());
            }
            _ => lines.push(part.to_owned()),
        }
        open = goes_on;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_their_units() {
        let cases = [
            ("/etc/systemd/system/a.service", Some(UnitPath::Fragment("a.service".into()))),
            ("/usr/lib/systemd/system/b.timer", Some(UnitPath::Fragment("b.timer".into()))),
            ("/etc/systemd/system/a.service.d/10-x.conf", Some(UnitPath::DropIn("a.service".into()))),
            ("/etc/systemd/system/multi-user.target.wants/a.service", None),
            ("/etc/systemd/system/readme.txt", None),
            ("/etc/a.service", None),
        ];
        for (path, expected) in cases {
            assert_eq!(unit_of(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn a_unit_file_is_read() {
        let text = "[Unit]\nDescription=x\n[Service]\nType=notify\nEnvironmentFile=-/etc/default/x\nExecStart=/usr/bin/x \\\n  --flag \\\n# not this\n  --more\n[Install]\nWantedBy=multi-user.target\n";
        let unit = from_text(Path::new("/etc/systemd/system/x.service"), text);
        assert_eq!((unit.kind.as_str(), unit.unit_file_state.as_str()), ("notify", "disabled"));
        assert_eq!(unit.exec_start, "/usr/bin/x --flag --more");
        assert_eq!(unit.environment_files, [PathBuf::from("/etc/default/x")]);
        assert_eq!(from_text(Path::new("/etc/systemd/system/y.service"), "[Service]\nExecStart=/y\n").unit_file_state, "static");
    }
}
