//! Asking sudo, with and without a password, and making sense of its refusals.

use std::process::Command;

use super::asking::{Asked, Prompt, Refused, installed, start, wait};
use crate::api::ModuleError;

/// Starts the agent through sudo: without a password first, with it when sudo wants one.
pub(super) fn ask(password: Option<&str>, me: &str, user: &str, agent: &[&str], marker: &str) -> Result<Asked, ModuleError> {
    let refused = match wait(start(command(&["-n"], user, agent)?)?, marker, None) {
        Ok(asked) => return Ok(asked),
        Err(refused) => refused,
    };
    let Some(password) = password.filter(|_| wants_password(&refused.said)) else { return Err(explain(&refused, me, user, false)) };
    let token = format!("[kplay-{marker}]");
    let prompt = Prompt { token: &token, password };
    wait(start(command(&["-S", "-p", &token], user, agent)?)?, marker, Some(prompt)).map_err(|refused| explain(&refused, me, user, true))
}

fn command(options: &[&str], user: &str, agent: &[&str]) -> Result<Command, ModuleError> {
    let mut command = Command::new(installed("sudo")?);
    // Its messages are recognised, so that they must not be translated.
    command.args(options).args(["-u", user, "--"]).args(agent).current_dir("/").env("LC_ALL", "C");
    Ok(command)
}

fn wants_password(said: &str) -> bool {
    ["a password is required", "password is required", "a terminal is required", "interactive authentication is required"]
        .iter()
        .any(|text| said.contains(text))
}

/// Says what sudo's refusal means and what to do about it.
pub(super) fn explain(refused: &Refused, me: &str, user: &str, with_password: bool) -> ModuleError {
    let said = &refused.said;
    let rule = format!("{me} ALL=({user}) NOPASSWD: ALL");
    let has = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    let error = if has(&["is not in the sudoers", "may not run sudo", "is not allowed to", "not allowed to execute"]) {
        ModuleError::host(format!("`{me}` may not become `{user}` with sudo"))
            .hint(format!("add a rule with `visudo` on the host: `{rule}`"))
    } else if has(&["must have a tty", "no tty present"]) {
        ModuleError::host("sudo wants a terminal on this host").hint("take `requiretty` out of /etc/sudoers with `visudo`")
    } else if has(&["unknown user"]) {
        ModuleError::host(format!("there is no user `{user}` to become on this host"))
    } else if with_password && (refused.ending.contains("password is wrong") || has(&["incorrect password", "Sorry, try again"])) {
        ModuleError::host(format!("sudo refuses the password of `{me}`")).hint("give the right one with `-K`")
    } else if wants_password(said) {
        ModuleError::host(format!("sudo wants the password of `{me}`, and none was given"))
            .hint(format!("give it with `-K`, or add a rule with `visudo` on the host: `{rule}`"))
    } else {
        ModuleError::host(format!("`{me}` cannot become `{user}` with sudo: {}", refused.ending))
    };
    // A lecture, if there was one, ends with an empty line.
    error.details(said.rsplit("\n\n").next().into_iter().flat_map(str::lines).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let cases = [
            ("sudo: a password is required", "", false, "sudo wants the password of `bob`, and none was given", "-K"),
            ("bob is not in the sudoers file.", "", false, "`bob` may not become `root` with sudo", "NOPASSWD"),
            ("Sorry, user bob is not allowed to execute '/x' as root on h.", "", false, "`bob` may not become `root` with sudo", "visudo"),
            ("sudo: sorry, you must have a tty to run sudo", "", false, "sudo wants a terminal on this host", "requiretty"),
            ("Sorry, try again.", "the password is wrong", true, "sudo refuses the password of `bob`", "-K"),
            ("sudo: error in /etc/sudo.conf", "exit status: 1", false, "`bob` cannot become `root` with sudo: exit status: 1", ""),
        ];
        for (said, ending, with_password, message, hint) in cases {
            let error = explain(&Refused { said: said.into(), ending: ending.into() }, "bob", "root", with_password);
            assert_eq!(error.message, message);
            assert!(error.hint.unwrap_or_default().contains(hint), "{said}");
        }
    }
}
