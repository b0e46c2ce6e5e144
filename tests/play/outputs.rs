//! What commands print when that is much: scripts read it whole, reports show its ends, and nothing is cut in silence.

use crate::hosts;

#[test]
fn a_long_output_is_read_whole_and_shown_by_its_ends() {
    let ran = hosts(&["a", "b"])
        .playbook(
            r#"
            play { hosts = "all", run = function(host)
              local long = host:shell({ command = "seq 1 100000" })
              print(#long.stdout .. " bytes, truncated: " .. tostring(long.truncated))
            end }
            "#,
        )
        .args(["--events", "events.jsonl", "-v"])
        .env("KPLAY_STATE", "state")
        .any_stdout()
        .run();
    assert_eq!(ran.stdout.matches("588895 bytes, truncated: false").count(), 2, "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("bytes left out; all of it is in state/runs/RUN/").count(), 2, "{}", ran.stdout);
    let events = ran.text("events.jsonl");
    assert!(events.len() < 100_000, "{} bytes of events", events.len());
    let folder = std::fs::read_dir(ran.path("state/runs")).unwrap().next().unwrap().unwrap().path();
    for host in ["a", "b"] {
        let file = std::fs::read_dir(folder.join(host)).unwrap().next().unwrap().unwrap().path();
        assert_eq!(std::fs::read_to_string(&file).unwrap().len(), 588_895);
        let named = format!("state/runs/RUN/{host}/{}", file.file_name().unwrap().to_string_lossy());
        assert!(
            events.contains(&format!("all of it is in {}", named.replace("RUN", &folder.file_name().unwrap().to_string_lossy()))),
            "{events}"
        );
    }
}

#[test]
fn what_a_host_leaves_out_of_an_output_is_said() {
    let ran = hosts(&["a"])
        .playbook(
            r#"
            play { hosts = "all", run = function(host)
              local long = host:shell({ command = "seq 1 1000000" })
              print(tostring(long.truncated) .. long.stdout:match("%[… (%d+) bytes left out …%]"))
            end }
            "#,
        )
        .env("KPLAY_STATE", "state")
        .any_stdout()
        .run();
    assert!(ran.stdout.contains(&format!("true{}", 6_888_896 - (1 << 20))), "{}", ran.stdout);
    assert!(ran.stdout.contains("it printed more than 1 MiB: the middle of that is left out of the result"), "{}", ran.stdout);
}
