//! Changing users and groups: by the system's own tools, or in the files themselves below a root and where there are none.

use super::Machine;
use super::commands::{find_program, run_quietly};
use crate::api::change::{GroupSpec, UserSpec};
use crate::api::error::ModuleError;
use crate::api::inspect::Command;

impl Machine {
    pub(super) fn change_user(
        &self,
        name: &str,
        before: Option<&UserSpec>,
        after: Option<&UserSpec>,
        remove_home: bool,
    ) -> Result<(), ModuleError> {
        check_name(name)?;
        let exists = self.find_user(name)?.is_some();
        if self.edits_accounts() {
            return self.edit_user(name, before, after, remove_home);
        }
        match after {
            None if !exists => Ok(()),
            None => self.delete_user(name, remove_home),
            Some(spec) if exists => self.modify_user(name, spec),
            Some(spec) => self.add_user(name, spec),
        }
    }

    pub(super) fn change_group(&self, name: &str, after: Option<&GroupSpec>) -> Result<(), ModuleError> {
        check_name(name)?;
        let exists = self.find_group(name)?.is_some();
        if self.edits_accounts() {
            return self.edit_group(name, after);
        }
        let number = after.and_then(|spec| spec.gid).map(|gid| gid.to_string());
        let mut words = match after {
            None if !exists => return Ok(()),
            None => vec!["groupdel"],
            Some(_) if exists && number.is_none() => return Ok(()),
            Some(_) if exists => vec!["groupmod"],
            Some(spec) if spec.system => vec!["groupadd", "-r"],
            Some(_) => vec!["groupadd"],
        };
        words.extend(number.iter().flat_map(|number| ["-g", number]));
        words.extend(["--", name]);
        account_tool(&words, None)
    }

    /// Below a root nothing of the machine's own must change, and on small systems there is nobody to ask.
    fn edits_accounts(&self) -> bool {
        self.root.is_some() || find_program("useradd").is_none()
    }

    fn add_user(&self, name: &str, spec: &UserSpec) -> Result<(), ModuleError> {
        let mut words = vec!["useradd".to_owned()];
        words.extend(spec.system.then(|| "-r".to_owned()));
        words.push(if spec.create_home { "-m" } else { "-M" }.to_owned());
        // A group of the user's name that is there already is meant; useradd would refuse it.
        let group = match &spec.group {
            Some(group) => Some(group.clone()),
            None => self.find_group(name)?.map(|group| group.name),
        };
        words.extend(options(&UserSpec { group, ..spec.clone() }));
        words.extend(["--".to_owned(), name.to_owned()]);
        account_tool(&words, None)?;
        set_password(name, spec).and_then(|()| set_aging(name, spec)).inspect_err(|_| {
            // A task that fails leaves nothing of itself behind.
            let _ = account_tool(&["userdel", "--", name], None);
        })
    }

    fn modify_user(&self, name: &str, spec: &UserSpec) -> Result<(), ModuleError> {
        let mut words = vec!["usermod".to_owned()];
        words.extend(options(spec));
        if words.len() > 1 {
            words.extend(["--".to_owned(), name.to_owned()]);
            account_tool(&words, None)?;
        }
        if spec.create_home
            && let Some(user) = self.find_user(name)?
        {
            self.make_home(&user, spec)?;
        }
        set_password(name, spec)?;
        set_aging(name, spec)
    }

    fn delete_user(&self, name: &str, remove_home: bool) -> Result<(), ModuleError> {
        let home = self.find_user(name)?.map(|user| user.home);
        account_tool(&["userdel", "--", name], None)?;
        // userdel's own removal fails for homes that are missing, shared or not the user's; ours says what it does.
        match home.filter(|home| remove_home && home.components().count() > 1) {
            Some(home) => self.remove(&home),
            None => Ok(()),
        }
    }
}

/// Refuses names that would break the files they are written to, or read as options.
fn check_name(name: &str) -> Result<(), ModuleError> {
    let strange = |letter: char| letter.is_whitespace() || letter.is_control() || ":,/\\".contains(letter);
    if name.is_empty() || name.len() > 256 || name.starts_with('-') || name.contains(strange) {
        return Err(ModuleError::argument(format!("`{name}` cannot be the name of an account")).at("name"));
    }
    Ok(())
}

/// Returns the options that useradd and usermod share.
fn options(spec: &UserSpec) -> Vec<String> {
    let pairs = [
        ("-u", spec.uid.map(|uid| uid.to_string())),
        ("-g", spec.group.clone()),
        ("-G", spec.groups.as_ref().map(|groups| groups.join(","))),
        ("-d", spec.home.as_ref().map(|home| home.display().to_string())),
        ("-s", spec.shell.clone()),
        ("-c", spec.comment.clone()),
    ];
    pairs.into_iter().filter_map(|(option, value)| Some([option.to_owned(), value?])).flatten().collect()
}

/// Sets a password hash. It goes through standard input: command lines can be read by everybody on the host.
fn set_password(name: &str, spec: &UserSpec) -> Result<(), ModuleError> {
    match &spec.password_hash {
        Some(hash) => account_tool(&["chpasswd", "-e"], Some(format!("{name}:{hash}\n"))),
        None => Ok(()),
    }
}

/// Brings back when a password was changed and how it ages.
fn set_aging(name: &str, spec: &UserSpec) -> Result<(), ModuleError> {
    match &spec.aging {
        Some(aging) => {
            account_tool(&[vec!["chage".to_owned()], aging_options(aging), vec!["--".to_owned(), name.to_owned()]].concat(), None)
        }
        None => Ok(()),
    }
}

/// Returns chage's options for the fields of `/etc/shadow` behind the hash; -1 empties one.
fn aging_options(aging: &str) -> Vec<String> {
    let fields = aging.split(':').chain(std::iter::repeat(""));
    let pairs = ["-d", "-m", "-M", "-W", "-I", "-E"].into_iter().zip(fields);
    pairs.flat_map(|(option, field)| [option.to_owned(), if field.is_empty() { "-1" } else { field }.to_owned()]).collect()
}

fn account_tool<S: AsRef<str>>(words: &[S], input: Option<String>) -> Result<(), ModuleError> {
    let mut command = Command::new(words.iter().map(|word| word.as_ref().to_owned()));
    command.input = input;
    let output = run_quietly(&command)?;
    if output.success() {
        return Ok(());
    }
    let program = words.first().map_or("", AsRef::as_ref);
    let said = output.stderr.lines().next().unwrap_or_default();
    let said = said.strip_prefix(program).map_or(said, |said| said.trim_start_matches([':', ' ']));
    let said = if said.is_empty() { output.ending() } else { said.to_owned() };
    Err(ModuleError::host(format!("`{program}` failed: {said}")))
}

#[cfg(test)]
mod tests;
