//! Each mistake stops with its place, a caret, and what to do.

use crate::support::kplay::Kplay;

#[track_caller]
fn refused(inventory: &str, message: &str) {
    Kplay::new().inventory(inventory).args(["inventory"]).stderr(message).status(1).run();
}

#[test]
fn a_key_given_twice() {
    refused(
        "
        all:
          hosts:
            web1: {port: 22}
            web2:
            web1: {port: 23}
        ",
        "
        error: the key `web1` is given twice, first in line 3
         --> inventory.yaml:5:5
          |
        5 |     web1: {port: 23}
          |     ^^^^
        ",
    );
}

#[test]
fn a_number_with_a_leading_zero() {
    refused(
        "
        all:
          vars:
            mode: 0644
        ",
        "
        error: the number `0644` begins with a zero, which some readers of YAML take as octal and some as decimal
         --> inventory.yaml:3:11
          |
        3 |     mode: 0644
          |           ^^^^
          = hint: quote it: \"0644\"
        ",
    );
}

#[test]
fn an_unknown_key_in_a_group() {
    refused(
        "
        all:
          childern:
            web:
        ",
        "
        error: unknown key `childern` in the group `all`
         --> inventory.yaml:2:3
          |
        2 |   childern:
          |   ^^^^^^^^
          = hint: did you mean `children`?
        ",
    );
}

#[test]
fn groups_that_contain_each_other() {
    refused(
        "
        a: {children: {b: }}
        b:
          children:
            a:
        ",
        "
        error: groups contain each other: `a` contains `b` contains `a`
         --> inventory.yaml:1:16
          |
        1 | a: {children: {b: }}
          |                ^
        ",
    );
}

#[test]
fn a_value_that_ansible_vault_encrypted() {
    refused(
        "
        all:
          vars:
            password: !vault |
              $ANSIBLE_VAULT;1.1;AES256
              6162
        ",
        "
        error: this value is encrypted by ansible-vault, which kplay does not read
         --> inventory.yaml:3:15
          |
        3 |     password: !vault |
          |               ^^^^^^
          = hint: decrypt it with `ansible-vault decrypt` or `ansible-vault view`, put it into a file of its own
          = hint: then encrypt that file for kplay: `kplay vault encrypt group_vars/GROUP/secrets.yaml`
        ",
    );
}

#[test]
fn a_template_with_an_unknown_variable() {
    Kplay::new()
        .inventory(
            "
            all:
              vars:
                etcd_port: 2379
                url: https://x:{{ etcd_prt }}/
              hosts: {h: }
            ",
        )
        .args(["vars", "h", "url"])
        .stderr(
            "
            error: cannot render the variable `url`: `etcd_prt` is undefined
             --> inventory.yaml:4
              |
            4 |     url: https://x:{{ etcd_prt }}/
              = host: h
              = hint: did you mean `etcd_port`?
            ",
        )
        .status(1)
        .run();
}

#[test]
fn yaml_that_is_none() {
    Kplay::new()
        .inventory("all:\n  hosts: {a: 1, b\n  vars: {}\n")
        .args(["inventory"])
        .stderr_has("error: ")
        .stderr_has(" --> inventory.yaml:")
        .status(1)
        .run();
}
