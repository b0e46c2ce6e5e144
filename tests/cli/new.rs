//! `kplay new`: what it writes is there, and nothing is overwritten.

use crate::support::kplay::Kplay;

#[test]
fn a_project_has_an_inventory_that_can_be_read() {
    let session = Kplay::new()
        .args(["new", "project", "shop"])
        .stdout(
            "
            wrote shop/inventory.yaml
            wrote shop/roles/motto/role.lua
            wrote shop/roles/motto/templates/motto.j2
            wrote shop/sandbox/.gitignore
            wrote shop/site.lua
            ",
        )
        .run();
    let session = session
        .then()
        .args(["vars", "-i", "shop/inventory.yaml", "sandbox", "root"])
        .stdout(
            r#"
            root = "FOLDER/shop/sandbox"
                shop/inventory.yaml:5  host, written as "{{ inventory_dir }}/sandbox"
            "#,
        )
        .run();
    session.then().args(["new", "project", "shop"]).stderr("error: `shop/inventory.yaml` exists already\n").status(1).run();
}

#[test]
fn a_role_has_a_name_that_can_be_called() {
    Kplay::new()
        .args(["new", "role", "web server"])
        .stderr("error: `web server` is no name of a role\n  = hint: it consists of letters, digits, `-` and `_`\n")
        .status(1)
        .run();
    let session = Kplay::new().args(["new", "role", "web"]).any_stdout().run();
    assert!(session.text("roles/web/role.lua").contains("templates") || session.path("roles/web/templates/web.j2").exists());
}
