//! Encrypted files: made, shown, changed, read with the inventory, and never shown in clear by accident.

use crate::support::kplay::Kplay;

#[test]
fn a_file_of_variables_is_encrypted_read_and_masked() {
    let session = Kplay::new()
        .inventory("all: {hosts: {h: {user_of_db: app}}}")
        .file("group_vars/all/secrets.yaml", "db_password: correct horse\n")
        .file("pass", "the passphrase\n")
        .args(["vault", "encrypt", "--vault-password-file", "pass", "group_vars/all/secrets.yaml"]);
    // `vault` takes no inventory.
    let session = without_inventory(session).stdout("group_vars/all/secrets.yaml is now group_vars/all/secrets.yaml.age\n").run();
    assert!(!session.path("group_vars/all/secrets.yaml").exists());
    assert!(!session.text("group_vars/all/secrets.yaml.age").contains("correct"));
    let session = session
        .then()
        .args(["vault", "view", "group_vars/all/secrets.yaml.age"])
        .env("KPLAY_VAULT_PASSWORD", "the passphrase")
        .stdout("db_password: correct horse\n")
        .run();
    let session = session
        .then()
        .args(["vars", "-i", "inventory.yaml", "h"])
        .env("KPLAY_VAULT_PASSWORD_FILE", "pass")
        .stdout(
            r#"
            db_password = ********
                group_vars/all/secrets.yaml.age:1  group all
            user_of_db = "app"
                inventory.yaml:1  host
            "#,
        )
        .run();
    let session = session
        .then()
        .args(["inventory", "-i", "inventory.yaml", "--host", "h", "--vault-password-file", "pass"])
        .stdout("{\n    \"db_password\": \"********\",\n    \"user_of_db\": \"app\"\n}\n")
        .run();
    let session = session
        .then()
        .args(["vars", "-i", "inventory.yaml", "h"])
        .env("KPLAY_VAULT_PASSWORD", "wrong")
        .stderr("error: the passphrase does not open the file\n --> group_vars/all/secrets.yaml.age\n")
        .status(1)
        .run();
    session
        .then()
        .args(["vault", "decrypt", "--vault-password-file", "pass", "group_vars/all/secrets.yaml.age"])
        .stdout("group_vars/all/secrets.yaml.age is now group_vars/all/secrets.yaml\n")
        .run();
}

#[test]
fn identities_open_what_is_encrypted_to_them() {
    let session = Kplay::new().args(["vault", "keygen", "key"]).any_stdout().run();
    let recipient = session.stdout.trim().to_owned();
    assert!(recipient.starts_with("age1"), "{recipient}");
    let session = session
        .then()
        .file("s.yaml", "a: 1\n")
        .args(["vault", "encrypt", "--recipient", &recipient, "s.yaml"])
        .stdout("s.yaml is now s.yaml.age\n")
        .run();
    let session = session.then().args(["vault", "view", "s.yaml.age", "--vault-identity", "key"]).stdout("a: 1\n").run();
    let session = session
        .then()
        .args(["vault", "view", "s.yaml.age"])
        .stderr(
            "
            error: the file is encrypted to age recipients, and no identity is given
             --> s.yaml.age
              = hint: name a file of identities with `--vault-identity` or `KPLAY_VAULT_IDENTITY`
            ",
        )
        .status(1)
        .run();
    let session = session.then().args(["vault", "keygen", "key"]).stderr("error: cannot write `key`: file exists\n").status(1).run();
    let session = session
        .then()
        .program("editor", "#!/bin/sh\necho 'b: 2' >> \"$1\"\n")
        .args(["vault", "edit", "s.yaml.age", "--vault-identity", "key", "--recipient", &recipient])
        .env("EDITOR", "./editor")
        .stdout("s.yaml.age is encrypted\n")
        .run();
    session.then().args(["vault", "view", "s.yaml.age", "--vault-identity", "key"]).stdout("a: 1\nb: 2\n").run();
}

#[test]
fn mistakes_inside_an_encrypted_file_do_not_show_it() {
    let session = Kplay::new()
        .file("host_vars/h.yaml", "a: 1\na: topsecret\n")
        .args(["vault", "encrypt", "host_vars/h.yaml"])
        .env("KPLAY_VAULT_PASSWORD", "pass")
        .any_stdout()
        .run();
    session
        .then()
        .file("hosts.yaml", "all: {hosts: {h: }}")
        .args(["inventory", "-i", "hosts.yaml"])
        .env("KPLAY_VAULT_PASSWORD", "pass")
        .stderr(
            "
            error: the key `…` is given twice, first in line 1 (line 2 of what is encrypted)
             --> host_vars/h.yaml.age
              = hint: `kplay vault edit host_vars/h.yaml.age` opens it
            ",
        )
        .status(1)
        .run();
}

#[test]
fn without_a_terminal_nobody_is_asked() {
    let session = Kplay::new()
        .file("s.yaml", "a: 1\n")
        .args(["vault", "encrypt", "s.yaml"])
        .stderr_has("cannot ask for the passphrase")
        .status(1)
        .run();
    assert_eq!(session.text("s.yaml"), "a: 1\n");
}

fn without_inventory(mut session: Kplay) -> Kplay {
    session.forget_inventory();
    session
}
