//! Many hosts: nothing is quadratic, nothing is mixed up.

use super::*;

#[test]
fn a_thousand_hosts_are_planned_each_on_its_own() {
    let names: String = (0..1000).map(|host| format!("    h{host}: {{ number: {host} }}\n")).collect();
    let book = Book::run(
        "for i = 1, 20 do host:file({ path = \"/srv/\" .. i, state = \"directory\" }) end
         local last = host:copy({ content = \"number \" .. host.vars.number, dest = \"/srv/number\" })
         if last.changed then host:command({ command = { \"done\", host.name } }) end",
    )
    .inventory(&format!("all:\n  hosts:\n{names}"));
    let mut program = book.load().unwrap();
    let hosts = program.plays()[0].hosts.clone();
    for host in &hosts {
        program.begin(0, *host).unwrap();
        assert!(matches!(program.resume(*host), Step::NeedsResult { .. }));
    }
    let mut last = Vec::new();
    for host in &hosts {
        let tasks = program.take_queue(*host).unwrap();
        assert_eq!(tasks.len(), 21);
        last.push(tasks[20].blobs[0]);
        for task in tasks {
            program.finish_task(task.wire.id, changed());
        }
    }
    for host in &hosts {
        assert_eq!(program.resume(*host), Step::Finishing);
        let tasks = program.take_queue(*host).unwrap();
        assert_eq!(tasks[0].wire.name, format!("command done {}", program.host_name(*host)));
        program.finish_task(tasks[0].wire.id, unchanged());
        assert_eq!(program.resume(*host), Step::Ended);
    }
    let expected: Vec<_> = (0..1000).map(|host| Digest::of(format!("number {host}").as_bytes())).collect();
    assert_eq!(last, expected);
}
