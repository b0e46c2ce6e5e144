//! What role `preflight` finds, on this machine itself: it only reads. What it finds in a control plane that runs is tested in
//! `tests/lab/safety.rs`.

use std::path::Path;
use std::process::Command;

use crate::support::agents::real_agent_folder;
use crate::support::kplay::{Kplay, Ran};

/// A forecast of role `preflight` with these parameters, on this machine.
fn preflight(parameters: &str) -> Kplay {
    let play = format!(
        "play {{ name = \"preflight\", hosts = \"all\", run = function(host)\n  host:role(\"preflight\", {{ address = \"10.4.7.21\", {parameters} }})\nend }}\n"
    );
    let kplay = Kplay::new().env("KPLAY_AGENT_DIR", &real_agent_folder().to_string_lossy());
    let kplay = kplay.inventory("all: { hosts: { a: { connection: local } } }\n").playbook(&play).args(["--check"]);
    std::os::unix::fs::symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("roles"), kplay.folder().join("roles")).unwrap();
    kplay
}

/// Insists that the host is refused with this reason.
#[track_caller]
fn refuses(kplay: Kplay, reason: &str) -> Ran {
    kplay.stdout_has("not fit for what is to be done: ").stdout_has(reason).status(2).run()
}

/// Insists that nothing is wrong, and returns what is said.
#[track_caller]
fn fits(kplay: Kplay) -> String {
    let ran = kplay.any_stdout().run();
    assert!(ran.stdout.contains("nothing would change"), "{}", ran.stdout);
    ran.stdout
}

#[test]
fn a_machine_with_nothing_on_it_is_fit() {
    let said = fits(preflight(
        r#"vip = "10.4.7.10", service_node_ports = "30000-32767", reserved_ports = { 6443, 7443 },
        folders = { ["/not/there/yet"] = 1 }, members = { "https://10.4.7.21:2379" }"#,
    ));
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn an_address_is_no_name() {
    refuses(preflight(r#"address = "m1.example.com""#), "`address` is m1.example.com, which is no IP address");
}

#[test]
fn addresses_of_hosts_among_those_of_services_are_refused() {
    for (range, address) in [("10.4.0.0/16", "10.4.7.21"), ("10.4.7.8/29", "10.4.7.10"), ("0.0.0.0/0", "10.4.7.10")] {
        let reason = format!(
            "`service_cidr` {range} contains {address}, an address of a host: it could not be reached any more; choose another range"
        );
        refuses(preflight(&format!("vip = \"10.4.7.10\", service_cidr = \"{range}\"")), &reason);
    }
    fits(preflight(r#"vip = "10.4.7.10", service_cidr = "10.4.7.32/27""#));
}

/// Document 001 has such a range, and is followed all the same.
#[test]
fn ports_of_the_control_plane_among_those_of_services_are_warned_of() {
    let said = fits(preflight(r#"service_node_ports = "3000-7000", reserved_ports = { 6443, 7443 }"#));
    let warning = "warning: `service_node_ports` 3000-7000 contains port 6443 of the control plane: a service that is given it shuts the \
                   control plane off on nodes; choose a range without it";
    assert!(said.contains(warning) && !said.contains("port 7443"), "{said}");
}

#[test]
fn a_port_that_another_program_has_is_refused() {
    if Command::new("ss").arg("-V").output().is_err() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let own = std::fs::read_to_string("/proc/self/comm").unwrap();
    let own = own.trim();
    let reason = format!("port {port} is taken by {own}, and kube-apiserver is to listen on it: stop {own}, or choose another port");
    refuses(preflight(&format!("ports = {{ [\"{port}\"] = \"kube-apiserver\" }}")), &reason);
    // Processes go by the first 15 characters of their names.
    fits(preflight(&format!("ports = {{ [\"{port}\"] = \"{own}\" }}")));
    drop(listener);
    fits(preflight(&format!("ports = {{ [\"{port}\"] = \"kube-apiserver\" }}")));
}

#[test]
fn a_disk_that_is_too_full_is_refused() {
    refuses(preflight(r#"folders = { ["/not/there/yet"] = 900000000 }"#), "MiB free, and 900000000 are needed: make room there");
}

#[test]
fn what_could_not_be_looked_at_is_told() {
    let address = r#"kubernetes_version = "v1.20.2", archive = "https://dl.k8s.io/v1.20.2/server.tar.gz", flags = { ["kube-apiserver"] = { "--oops=1" } }"#;
    let said = fits(preflight(address));
    assert!(
        said.contains("nobody has looked into https://dl.k8s.io/v1.20.2/server.tar.gz, which is fetched when it is unpacked"),
        "{said}"
    );
}

/// Stands for a kube-apiserver: knows three flags and two feature gates, and one more of each that it does not show.
const PROGRAM: &str = r#"#!/bin/sh
for word in "$@"; do
  case $word in
    --version) version=1 ;;
    --help) echo; echo '      --event-ttl duration   how long'; echo '      --profiling   whether'; echo '      --feature-gates mapStringBool   IPv6DualStack=true|false'; exit ;;
    --event-ttl=*h | --profiling=true | --old=* | --feature-gates=IPv6DualStack=true | --feature-gates=Graduated=true) ;;
    --feature-gates=IPv6DualStack=true,Graduated=true) ;;
    --event-ttl=*) echo "Error: invalid argument \"${word#*=}\" for \"--event-ttl\" flag: time: invalid duration" >&2; exit 1 ;;
    --feature-gates=*) echo "Error: invalid argument for \"--feature-gates\" flag: unrecognized feature gate: $(echo "${word#*=}" | cut -d= -f1)" >&2; exit 1 ;;
    *) echo "Error: unknown flag: ${word%%=*}" >&2; exit 1 ;;
  esac
done
[ -n "$version" ] && echo Kubernetes v1.20.2
"#;

/// The same with a release, whose archive has this kube-apiserver.
fn with_release(parameters: &str, program: &[u8]) -> Kplay {
    let kplay = preflight(&format!("kubernetes_version = \"v1.20.2\", archive = \"release.tar.gz\", {parameters}"));
    let bin = kplay.folder().join("kubernetes/server/bin");
    std::fs::create_dir_all(&bin).unwrap();
    let place = bin.join("kube-apiserver");
    std::fs::write(&place, program).unwrap();
    std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    pack(kplay.folder());
    kplay
}

fn pack(folder: &Path) {
    let packed = Command::new("tar").args(["-czf", "release.tar.gz", "kubernetes"]).current_dir(folder).status().unwrap();
    assert!(packed.success());
}

#[test]
fn flags_that_a_release_does_not_take_are_refused() {
    let program = PROGRAM.as_bytes();
    let flags = r#"flags = { ["kube-apiserver"] = { "--event-ttl=1h", "--old=1", "--feature-gates=IPv6DualStack=true,Graduated=true" },
        ["kube-scheduler"] = { "--left-out-where-there-is-no-scheduler" } }"#;
    fits(with_release(flags, program));
    for (flag, reason) in [
        ("--event-tt=1h", "kube-apiserver v1.20.2 has no flag `--event-tt` (did you mean `event-ttl`?): correct it in the inventory"),
        ("--nonsense", "kube-apiserver v1.20.2 has no flag `--nonsense`: correct it in the inventory"),
        (
            "--feature-gates=IPv6DualStak=true",
            "has no feature gate `IPv6DualStak` (did you mean `IPv6DualStack`?): correct it in the inventory",
        ),
        ("--event-ttl=soon", "refuses `--event-ttl=soon`: invalid argument \"soon\" for \"--event-ttl\" flag: time: invalid duration"),
    ] {
        refuses(with_release(&format!("flags = {{ [\"kube-apiserver\"] = {{ \"--profiling=true\", \"{flag}\" }} }}"), program), reason);
    }
    // All that is wrong is told at once, and nothing that is right.
    let all = r#"flags = {
        ["kube-apiserver"] = { "--nonsense", "--old=1", "--feature-gates=Graduated=true,Other=true,IPv6DualStack=true", "--event-ttl=soon" },
        ["kube-scheduler"] = { "--profilin=true", "--event-ttl=1h" } }"#;
    let kplay = with_release(all, program);
    let place = kplay.folder().join("kubernetes/server/bin/kube-apiserver");
    std::fs::copy(&place, place.with_file_name("kube-scheduler")).unwrap();
    pack(kplay.folder());
    let said = refuses(kplay, "`--nonsense`").stdout;
    assert!(said.contains("`Other`") && said.contains("`--event-ttl=soon`"), "{said}");
    assert!(said.contains("; kube-scheduler v1.20.2 has no flag `--profilin` (did you mean `profiling`?)"), "{said}");
    assert!(!said.contains("--old") && !said.contains("Graduated") && !said.contains("`IPv6DualStack`"), "{said}");
}

#[test]
fn an_archive_that_is_not_the_release_is_refused() {
    let program = PROGRAM.as_bytes();
    let other = PROGRAM.replace("v1.20.2", "v1.20.3");
    let reason = "kube-apiserver in release.tar.gz is `Kubernetes v1.20.3`, and `kubernetes_version` is v1.20.2: correct one of";
    refuses(with_release("", other.as_bytes()), reason);

    // The checksum is that of the archive as it lies there.
    let archive = |kplay: &Kplay| kplay.folder().join("release.tar.gz");
    let made = with_release("", program);
    let sum = Command::new("sha256sum").arg(archive(&made)).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap()[..64].to_owned();
    let with_checksum = |checksum: &str| {
        let kplay = with_release(&format!("checksum = \"sha256:{checksum}\""), program);
        std::fs::copy(archive(&made), archive(&kplay)).unwrap();
        kplay
    };
    fits(with_checksum(&sum));
    let wanted = "0".repeat(64);
    let reason =
        format!("has the checksum sha256:{sum}, and `kubernetes_checksum` is sha256:{wanted}: it is another release, or was damaged");
    refuses(with_checksum(&wanted), &reason);
}

/// The first bytes of a program say for which processors it is.
#[test]
fn a_release_for_other_processors_is_refused() {
    let (machine, other, number) = if cfg!(target_arch = "x86_64") { ("x86_64", "aarch64", 183) } else { ("aarch64", "x86_64", 62) };
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(64, 0);
    program[18] = number;
    let reason =
        format!("kube-apiserver in release.tar.gz is for {other} processors, and this host has {machine}: take the release for these");
    refuses(with_release("", &program), &reason);
}
