//! Secrets in whole runs: those of encrypted files, those that roles declare while hosts are at work, and those of authorities.

use crate::hosts;
use crate::support::agents::real_agent_folder;
use crate::support::kplay::Kplay;

const PASSPHRASE: &str = "what opens the authority";

#[test]
fn what_a_role_declares_secret_is_masked_from_then_on() {
    let role = r#"
        return {
          summary = "an application",
          params = { token = { type = "string", secret = true, required = true } },
          run = function(host, p)
            print("the token is " .. p.token)
            host:file({ path = "/" .. p.token, state = "touch" })
          end,
        }
    "#;
    let play = r#"
        play { name = "roles", hosts = "all", run = function(host)
          host:role("app", { token = "token-of-" .. host.name })
        end }
    "#;
    let kplay = hosts(&["a", "b"]).file("roles/app/role.lua", role).playbook(play);
    let ran = kplay.args(["--diff", "--events", "events.jsonl"]).any_stdout().stderr_has("").run();
    assert!(ran.path("a/token-of-a").exists() && ran.path("b/token-of-b").exists());
    for (place, shown) in [("stdout", &ran.stdout), ("stderr", &ran.stderr), ("events", &ran.text("events.jsonl"))] {
        assert!(!shown.contains("token-of-"), "{place}: {shown}");
    }
    assert!(ran.stdout.contains("the token is ********"), "{}", ran.stdout);
}

#[test]
fn what_exec_prints_is_masked() {
    let encrypted = Kplay::new()
        .file("inventory.yaml", "all: {hosts: {h: {connection: local}}}")
        .file("group_vars/all/secrets.yaml", "db_password: correct horse\n")
        .env("KPLAY_VAULT_PASSWORD", "pass")
        .args(["vault", "encrypt", "group_vars/all/secrets.yaml"])
        .any_stdout()
        .run();
    encrypted
        .then()
        .env("KPLAY_VAULT_PASSWORD", "pass")
        .env("KPLAY_AGENT_DIR", &real_agent_folder().to_string_lossy())
        .args(["exec", "all", "-i", "inventory.yaml", "--", "sh", "-c", "echo correct horse; echo and correct horse >&2"])
        .stdout("h | exit code 0\n********\nand ********\n")
        .run();
}

#[test]
fn what_is_cut_short_is_masked_before() {
    let play = r#"
        secret("correct horse battery staple")
        play { name = "cuts", hosts = "all", run = function(host)
          host:command({ command = { "echo", string.rep("x", 64), "correct horse battery staple" } })
          host:command({ command = { "echo", string.rep("x", 180), "correct horse battery staple" } }, { name = "long" })
        end }
    "#;
    let ran = hosts(&["a"]).playbook(play).args(["--list-tasks"]).any_stdout().run();
    assert!(ran.stdout.contains("x ********") && !ran.stdout.contains("correct"), "{}", ran.stdout);
    let ran = ran.then().args(["play.lua", "--events", "events.jsonl"]).any_stdout().run();
    for shown in [&ran.stdout, &ran.text("events.jsonl")] {
        assert!(shown.contains("run echo xxx") && !shown.contains("correct"), "{shown}");
    }
}

#[test]
fn listed_tasks_are_masked() {
    let play = r#"
        local pass = secret("correct horse battery staple")
        play { name = "to list", hosts = "all", run = function(host)
          host:file({ path = "/x", state = "touch" }, { name = "log in with " .. pass })
        end }
    "#;
    hosts(&["a"]).playbook(play).args(["--list-tasks"]).stdout("to list  (1 host)\n  a\n    log in with ********  play.lua:3\n").run();
}

#[test]
fn an_authority_is_made_and_opened_with_its_passphrase() {
    let play = r#"
        play { name = "certificates", hosts = "all", run = function(host)
          host:cert({ authority = "pki/demo", path = "/app.pem", key = "/app-key.pem", common_name = "app", usages = "server" })
        end }
    "#;
    let made = hosts(&["a"]).playbook(play).env("KPLAY_CA_PASSPHRASE", PASSPHRASE).stdout_has("changed=1").run();
    assert!(made.path("pki/demo/ca-key.pem.age").exists() && !made.path("pki/demo/ca-key.pem").exists());
    std::fs::remove_file(made.path("a/app.pem")).unwrap();
    let refused = made.then().args(["play.lua"]).any_stdout().stderr_has("put the passphrase into `KPLAY_CA_PASSPHRASE`").status(1).run();
    refused.then().args(["play.lua"]).env("KPLAY_CA_PASSPHRASE", PASSPHRASE).stdout_has("changed=1").run();
}

#[test]
fn a_file_that_was_looked_into_is_searched_again_for_new_secrets() {
    let play = r#"
        play { name = "files", hosts = "all", run = function(host)
          host:copy({ src = "settings", dest = "/before" })
          secret("correct horse battery")
          host:copy({ src = "settings", dest = "/after" })
        end }
    "#;
    let ran = hosts(&["a"]).file("settings", "password: correct horse battery\n").playbook(play).any_stdout().run();
    let mode = |name: &str| std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(ran.path(name)).unwrap()) & 0o777;
    assert_eq!((mode("a/before"), mode("a/after")), (0o644, 0o600));
}
