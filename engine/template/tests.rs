//! What templates print, and what they say when they cannot.

use super::*;
use serde_json::json;

/// An inventory of one host.
#[derive(Debug)]
struct Single;

impl World for Single {
    fn groups(&self) -> Vec<(String, Vec<String>)> {
        vec![("masters".to_owned(), self.hosts())]
    }
    fn hosts(&self) -> Vec<String> {
        vec!["h1".to_owned()]
    }
    fn variables(&self, host: &str) -> Option<Arc<dyn Layer>> {
        let vars = json!({ "color": "red" });
        (host == "h1").then(|| Arc::new(vars.as_object().cloned().unwrap()) as Arc<dyn Layer>)
    }
}

fn scope() -> Scope {
    let vars = json!({
        "name": "web", "port": 80, "flag": true, "empty": null, "list": ["a", "b"],
        "svc": { "name": "api", "cidr": "192.168.0.0/16" }, "ratio": 0.5, "quoted": "<a> & \"b\"",
    });
    Scope {
        layers: vec![Arc::new(vars.as_object().cloned().unwrap())],
        host: "h1".to_owned(),
        groups: vec!["masters".to_owned()],
        facts: None,
        world: Arc::new(Single),
    }
}

fn render(text: &str) -> String {
    match Templates::default().render_text("t.j2", text, &scope()) {
        Ok(text) => text,
        Err(Failure::NeedsFacts) => "needs facts".to_owned(),
        Err(Failure::Wrong(error)) => {
            let place = error.place.map(|place| format!(" at {}:{}+{}", place.line, place.column, place.length)).unwrap_or_default();
            let hints: String = error.hints.iter().map(|hint| format!(" ({hint})")).collect();
            format!("error: {}{place}{hints}", error.message)
        }
    }
}

#[test]
fn values_print_as_configuration_files_write_them() {
    assert_eq!(render("{{ name }}:{{ port }} {{ flag }} {{ not flag }} {{ ratio }}\n"), "web:80 true false 0.5\n");
    assert_eq!(render("{% if flag %}\n  yes\n{% endif %}\nend\n"), "  yes\nend\n", "blocks leave no lines behind");
    assert_eq!(render("{{ quoted }}"), "<a> & \"b\"", "nothing is escaped");
    assert_eq!(render("{{ host.name }} {{ inventory_hostname }} {{ group_names[0] }}"), "h1 h1 masters");
    assert_eq!(render("{{ hostvars[groups.masters[0]].color }} {{ hostvars | length }}"), "red 1");
    assert_eq!(render("{{ list | join(',') }} {{ list | to_json }}"), "a,b [\"a\",\"b\"]");
}

#[test]
fn what_has_no_obvious_form_is_refused() {
    assert_eq!(render("{{ list }}"), "error: cannot print a list; use `| join(\",\")` or `| to_json` at 1:4+4");
    assert_eq!(render("{{ svc }}"), "error: cannot print a mapping; name one of its fields or use `| to_json` at 1:4+3");
    assert!(render("{{ empty }}").starts_with("error: cannot print a value that is none"));
}

#[test]
fn an_undefined_name_is_placed_and_the_nearest_is_named() {
    assert_eq!(render("a\n{{ nmae }}"), "error: `nmae` is undefined at 2:4+4 (did you mean `name`?)");
    assert_eq!(render("{{ svc.nam }}"), "error: `svc.nam` is undefined at 1:4+7 (did you mean `svc.name`?)");
    assert_eq!(render("{{ name.n }}"), "error: `name.n` is undefined at 1:4+6");
    assert_eq!(render("{% if prot %}{% endif %}"), "error: `prot` is undefined at 1:7+4 (did you mean `port`?)");
    assert_eq!(render("{{ nothing | default('x') }}"), "x");
    assert_eq!(render("{% if nothing is defined %}{% endif %}"), "");
}

#[test]
fn broken_syntax_is_placed() {
    assert!(render("ok\n{% if flag %}\n").starts_with("error: syntax error:"), "{}", render("ok\n{% if flag %}\n"));
    assert!(render("{{ name | upcase }}").contains("upcase"), "{}", render("{{ name | upcase }}"));
    let endless = render("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}");
    assert!(endless.starts_with("error: the template does not come to an end at 1:"), "{endless}");
}

#[test]
fn facts_that_are_not_known_yet_are_asked_for() {
    assert_eq!(render("{{ facts.kernel }}"), "needs facts");
    assert_eq!(render("{% if facts is defined %}{% endif %}"), "needs facts");
}

#[test]
fn ansible_filters_and_python_methods_work() {
    assert_eq!(render("{{ 'hello' | b64encode }} {{ 'aGVsbG8=' | b64decode }} {{ '' | b64encode }}"), "aGVsbG8= hello ");
    assert_eq!(render("{{ 'a1b2' | regex_replace('([a-z])(\\\\d)', '\\\\2$\\\\1') }}"), "1$a2$b");
    assert_eq!(render("{{ flag | ternary('y', 'n') }} {{ 'a b' | quote }} {{ '/a/b.c' | basename }}"), "y 'a b' b.c");
    assert_eq!(
        render("{{ svc.cidr.split('/')[1] }} {{ name.upper() }} {{ svc.get('x', 'd') }} {{ name.startswith('w') }}"),
        "16 WEB d true"
    );
    assert_eq!(render("{{ svc | to_yaml }}"), "name: api\ncidr: 192.168.0.0/16\n");
    assert_eq!(render("{% for item in svc | dict2items %}{{ item.key }}={{ item.value }};{% endfor %}"), "name=api;cidr=192.168.0.0/16;");
    assert_eq!(render("{{ ('a: [1, 2]' | from_yaml).a | last }} {{ (svc | combine({'name': 'x'})).name }}"), "2 x");
}

#[test]
fn includes_stay_in_the_templates_folder() {
    let folder = tempfile::tempdir().unwrap();
    let templates = folder.path().join("role/templates");
    std::fs::create_dir_all(templates.join("sub")).unwrap();
    let file = |name: &str, text: &str| std::fs::write(templates.join(name), text).unwrap();
    file("main.j2", "{% include 'sub/part.j2' %}");
    file("sub/part.j2", "{% include 'other.j2' %}-{% include 'top.j2' %}");
    file("sub/other.j2", "other");
    file("top.j2", "top {{ nmae }}");
    file("out.j2", "{% include '../../secret' %}");
    std::fs::write(folder.path().join("secret"), "x").unwrap();
    let render = |name: &str| match Templates::default().render(&templates.join(name), &scope()) {
        Err(Failure::Wrong(error)) => error,
        other => panic!("{other:?}"),
    };
    let error = render("main.j2");
    assert_eq!(error.message, "`nmae` is undefined");
    assert_eq!(error.place.map(|place| (place.file, place.line, place.column)), Some((templates.join("top.j2"), 1, 8)));
    assert!(error.chain.iter().any(|place| place.file == templates.join("main.j2")), "{:?}", error.chain);
    assert_eq!(render("out.j2").message, "`../../secret` lies outside of the templates folder");
    file("top.j2", "top");
    assert_eq!(Templates::default().render(&templates.join("main.j2"), &scope()).ok().as_deref(), Some("other-top"));
}
