//! Usage: mistakes end with 1 and say what to do, help ends with 0.

use crate::support::kplay::Kplay;

#[test]
fn unknown_options_are_refused_with_1() {
    Kplay::new()
        .args(["--chek"])
        .stderr(
            "
            error: unexpected argument '--chek' found

              tip: a similar argument exists: '--check'

            Usage: kplay PLAYBOOK -i INVENTORY [OPTIONS]
                   kplay COMMAND …

            For more information, try '--help'.
            ",
        )
        .status(1)
        .run();
    Kplay::new().args(["inventory", "--lst"]).stderr_has("a similar argument exists: '--list'").status(1).run();
    Kplay::new().args(["exec", "all"]).stderr_has("required arguments were not provided").status(1).run();
}

#[test]
fn help_ends_with_0() {
    Kplay::new().args(["--help"]).stdout_has("Exit codes: 0 done").stdout_has("-l, --limit <PATTERN>").run();
    Kplay::new().args(["vault", "--help"]).stdout_has("Make an age identity").run();
    Kplay::new().args(["--version"]).stdout("kplay 0.1.0\n").run();
}

#[test]
fn a_missing_playbook_is_named_and_a_mistyped_command_guessed() {
    Kplay::new().args(["site.lua"]).stderr("error: the playbook `site.lua` does not exist\n").status(1).run();
    Kplay::new()
        .args(["inventry"])
        .stderr(
            "
            error: the playbook `inventry` does not exist
              = hint: did you mean the command `kplay inventory`?
            ",
        )
        .status(1)
        .run();
}

#[test]
fn a_forecast_alone_has_an_exit_code_for_changes() {
    Kplay::new().args(["site.lua", "--exit-code"]).stderr_has("--check").status(1).run();
}

#[test]
fn variables_of_the_command_line_win_and_are_checked() {
    let session = Kplay::new()
        .inventory("all: {vars: {a: 1, b: 1, c: 1, d: 1}, hosts: {h: {a: 2, b: 2, c: 2}}}")
        .file("more.yaml", "c: [from, file]\n")
        .args(["vars", "h", "-e", "a=text with = and spaces", "-e", "{b: 5}", "-e", "@more.yaml"])
        .stdout(
            r#"
            a = "text with = and spaces"
                -e                command line
                inventory.yaml:1  host, overridden: 2
                inventory.yaml:1  group all, overridden: 1
            b = 5
                -e                command line
                inventory.yaml:1  host, overridden: 2
                inventory.yaml:1  group all, overridden: 1
            c = ["from","file"]
                more.yaml:1       command line
                inventory.yaml:1  host, overridden: 2
                inventory.yaml:1  group all, overridden: 1
            d = 1
                inventory.yaml:1  group all
            "#,
        )
        .run();
    session
        .then()
        .args(["vars", "h", "-e", "a"])
        .stderr(
            "
            error: `-e a` gives no value
              = hint: write `-e name=text`, `-e '{name: value}'` or `-e @FILE`
            ",
        )
        .status(1)
        .run();
}

#[test]
fn the_environment_names_an_inventory_and_is_checked() {
    let session = Kplay::new()
        .file("hosts.yaml", "all: {hosts: {h: {a: 1}}}")
        .args(["vars", "h", "a"])
        .env("KPLAY_INVENTORY", "hosts.yaml")
        .stdout("a = 1\n    hosts.yaml:1  host\n")
        .run();
    session
        .then()
        .args(["inventory", "-i", "hosts.yaml"])
        .env("KPLAY_FORKS", "many")
        .stderr("error: `KPLAY_FORKS` has to be a number above 0, not `many`\n")
        .status(1)
        .run();
}

#[test]
fn completions_know_every_command() {
    let script = Kplay::new().args(["completions", "bash"]).any_stdout().run().stdout;
    for command in ["exec", "inventory", "vars", "doc", "lab", "undo", "runs", "vault", "host-keys", "new"] {
        assert!(script.contains(&format!("kplay__{}", command.replace('-', "__"))) || script.contains(command), "{command}");
    }
}
