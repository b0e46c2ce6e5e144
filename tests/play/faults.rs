//! Hosts with something wrong, among others that are well: each says what is wrong with it, and the others go on.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::support::agents::real_agent_folder;
use crate::support::kplay::{Kplay, Ran, unindent};
use crate::support::sshd::{Sshd, user_name};

/// Disks and accounts of a host's own: `tester` may log in with a password, and do with sudo what RULE says.
const ACCOUNTS: &str = r#"
    for folder in /home /mnt /var/lib; do mount -t tmpfs tmpfs $folder; done
    mount -t tmpfs -o mode=1777 tmpfs /var/tmp
    mkdir -m 0700 /home/root /home/tester
    chown 4242:4242 /home/tester
    for file in passwd shadow group sudoers; do cp -p /etc/$file $D/$file; done
    echo 'tester:x:4242:4242::/home/tester:/bin/sh' >> $D/passwd
    echo "tester:$(openssl passwd -6 PASSWORD):20000:0:99999:7:::" >> $D/shadow
    echo 'tester:x:4242:' >> $D/group
    printf '%s\n' 'Defaults lecture=always, timestamp_timeout=0' 'root ALL=(ALL:ALL) ALL' 'RULE' > $D/sudoers
    for file in passwd shadow group sudoers; do mount --bind $D/$file /etc/$file; done
"#;

/// Starts a host where `tester` has a password and a rule for sudo.
fn host_of_tester(password: &str, rule: &str, further: &str) -> Sshd {
    assert_eq!(user_name(), "root", "this test needs root, for mount namespaces");
    let script = ACCOUNTS.replace("PASSWORD", password).replace("RULE", rule) + further;
    Sshd::prepared("SetEnv HOME=/home/tester\nPasswordAuthentication yes", &script)
}

/// Starts a host where root logs in; a shell script prepares its disks.
fn host_of_root(further: &str) -> Sshd {
    assert_eq!(user_name(), "root", "this test needs root, for mount namespaces");
    Sshd::prepared("SetEnv HOME=/home/root", &format!("{}{further}", ACCOUNTS.replace("PASSWORD", "x").replace("RULE", "")))
}

/// A command line for hosts on loopback, each with settings of its own.
fn hosts(hosts: &[(&str, &Sshd, &str)]) -> Kplay {
    let mut inventory = String::from("all:\n  vars: { ansible_host: 127.0.0.1 }\n  hosts:\n");
    for (name, sshd, settings) in hosts {
        let known = sshd.known_hosts();
        let known = known.display();
        inventory += &format!(
            "    {name}: {{ ansible_port: {}, ansible_ssh_common_args: \"-o UserKnownHostsFile={known}\", {settings} }}\n",
            sshd.port
        );
    }
    Kplay::new().env("KPLAY_AGENT_DIR", &real_agent_folder().to_string_lossy()).inventory(&inventory)
}

fn key(sshd: &Sshd, user: &str) -> String {
    format!("ansible_user: {user}, ansible_ssh_private_key_file: \"{}\"", sshd.key().display())
}

/// All that is reported of one host while tasks are done.
fn about(stdout: &str, host: &str) -> String {
    let mut of = "";
    let mut text = String::new();
    for line in stdout.lines() {
        let mut words = line.split_ascii_whitespace();
        if let Some("!" | "~" | "RECAP") = words.next() {
            of = words.next().unwrap_or_default();
        }
        if of == host {
            text += line;
            text.push('\n');
        }
    }
    text
}

/// Says what is reported of a host, exactly; the text's common indentation is removed.
#[track_caller]
fn says(ran: &Ran, host: &str, expected: &str) {
    let found = about(&ran.stdout, host);
    assert!(found == unindent(expected), "{host} says\n{found}---\n{}", ran.stdout);
}

const OWNED: &str = r#"
    play { name = "owned", hosts = "all", become = true, run = function(host)
      host:copy({ dest = "/mnt/owned", content = "x", mode = "0600" })
    end }
"#;

/// What the task of `OWNED` reports when it cannot become root: why, what was said, and what to do.
fn cannot_become(host: &str, why: &str, rest: &[&str]) -> String {
    let place = r#"
     --> play.lua:2:8
      |
    2 |   host:copy({ dest = "/mnt/owned", content = "x", mode = "0600" })
      |        ^^^^"#;
    let rest: String = rest.iter().map(|line| format!("      {line}\n")).collect();
    format!("! {host}  copy /mnt/owned\n    error: {why}{place}\n{rest}")
}

#[track_caller]
fn owned_by_root(sshd: &Sshd) {
    let found = fs::metadata(sshd.inside("/mnt/owned")).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o600));
}

#[test]
fn sudo_is_missing_or_wants_a_password_that_nobody_gave() {
    let free = host_of_tester("sesame", "tester ALL=(ALL) NOPASSWD: ALL", "");
    let asks = host_of_tester("sesame", "tester ALL=(ALL) ALL", "");
    let bare = host_of_tester("sesame", "", "mount --bind /dev/null /usr/bin/sudo");
    let settings = [&free, &asks, &bare].map(|sshd| key(sshd, "tester"));
    let kplay = hosts(&[("free", &free, &settings[0]), ("asks", &asks, &settings[1]), ("bare", &bare, &settings[2])]);
    let ran = kplay.playbook(OWNED).any_stdout().status(2).run();
    says(&ran, "free", "~ free  copy /mnt/owned\n    create /mnt/owned (1 B, mode 0600)\n");
    owned_by_root(&free);
    let hint = "= hint: give it with `-K`, or add a rule with `visudo` on the host: `tester ALL=(root) NOPASSWD: ALL`";
    let why = "sudo wants the password of `tester`, and none was given";
    says(&ran, "asks", &cannot_become("asks", why, &["| sudo: a password is required", hint]));
    let hint = "= hint: install it, name another `become_method`, or connect as root";
    says(&ran, "bare", &cannot_become("bare", "`sudo` is not installed on this host", &[hint]));
    assert!(!asks.inside("/mnt/owned").exists() && !bare.inside("/mnt/owned").exists());
}

#[test]
fn sudo_gets_the_password_that_was_typed() {
    let free = host_of_tester("sesame", "tester ALL=(ALL) NOPASSWD: ALL", "");
    let asks = host_of_tester("sesame", "tester ALL=(ALL) ALL", "");
    let other = host_of_tester("another", "tester ALL=(ALL) ALL", "");
    let never = host_of_tester("sesame", "", "");
    let all = [("free", &free), ("asks", &asks), ("other", &other), ("never", &never)];
    let settings = all.map(|(_, sshd)| key(sshd, "tester"));
    let all: Vec<_> = all.iter().zip(&settings).map(|((name, sshd), settings)| (*name, *sshd, settings.as_str())).collect();
    let ran = hosts(&all).playbook(OWNED).args(["-K"]).typed("password of sudo: ", "sesame").any_stdout().status(2).run();
    for (host, sshd) in [("free", &free), ("asks", &asks)] {
        says(&ran, host, &format!("~ {host:5}  copy /mnt/owned\n    create /mnt/owned (1 B, mode 0600)\n"));
        owned_by_root(sshd);
    }
    let rest = ["| Sorry, try again.", "= hint: give the right one with `-K`"];
    says(&ran, "other", &cannot_become("other", "sudo refuses the password of `tester`", &rest));
    let rest = ["| tester is not in the sudoers file.", "= hint: add a rule with `visudo` on the host: `tester ALL=(root) NOPASSWD: ALL`"];
    says(&ran, "never", &cannot_become("never", "`tester` may not become `root` with sudo", &rest));
    assert!(!ran.stdout.contains("sesame") && !ran.stderr.contains("sesame"));
}

#[test]
fn disks_that_are_full_or_cannot_be_written_to_or_hold_no_programs() {
    let full = host_of_root("mount -t tmpfs -o size=64k tmpfs /mnt");
    let frozen = host_of_root("mount -o remount,ro /mnt");
    let noexec = host_of_root(
        "for folder in /home /var/tmp; do mount -o remount,noexec $folder; done; mount --bind /tmp /tmp; mount -o remount,bind,noexec /tmp",
    );
    let moved = host_of_root("mount -o remount,noexec /home");
    let tiny = host_of_root("mount -t tmpfs -o size=64k,mode=0755 tmpfs /home; mkdir /home/root");
    let good = host_of_root("");
    let all = [("full", &full), ("frozen", &frozen), ("noexec", &noexec), ("moved", &moved), ("tiny", &tiny), ("good", &good)];
    let settings = all.map(|(_, sshd)| key(sshd, "root"));
    let all: Vec<_> = all.iter().zip(&settings).map(|((name, sshd), settings)| (*name, *sshd, settings.as_str())).collect();
    let play = r#"
        play { name = "disks", hosts = "all", run = function(host)
          host:copy({ dest = "/mnt/large", content = string.rep("0123456789", 20000) })
        end }
    "#;
    let ran = hosts(&all).playbook(play).any_stdout().status(2).run();
    let done = "copy /mnt/large\n    create /mnt/large (200.0 kB, mode 0644)\n";
    says(&ran, "good", &format!("~ good    {done}"));
    says(&ran, "moved", &format!("~ moved   {done}"));
    assert!(moved.inside("/var/tmp/kplay-0").exists(), "the agent went where programs may run");
    let failed = |what: &str, hint: &str| {
        format!(
            "{done}    error: cannot write `/mnt/large`: {what}
     --> play.lua:2:8
      |
    2 |   host:copy({{ dest = \"/mnt/large\", content = string.rep(\"0123456789\", 20000) }})
      |        ^^^^
      = hint: {hint}\n"
        )
    };
    let (frozen_says, full_says) = (
        failed("read-only file system", "the file system is mounted read-only: see `findmnt` on the host"),
        failed("no space left on device", "the file system is full: see `df -h` and `df -i` on the host"),
    );
    says(&ran, "frozen", &format!("! frozen  {frozen_says}"));
    says(&ran, "full", &format!("! full    {full_says}"));
    assert_eq!(fs::read_dir(full.inside("/mnt")).unwrap().count(), 0, "nothing is left of it");
    says(
        &ran,
        "noexec",
        "
        ! noexec  unreachable
            error: cannot start the agent: no folder there can hold the agent
              | stderr: kplay: cannot use /home/root/.cache/kplay: it does not allow execution
              | stderr: kplay: cannot use /var/tmp/kplay-0: it does not allow execution
              | stderr: kplay: cannot use /tmp/kplay-0: it does not allow execution
              = hint: name one that is the login user's own and allows execution, in the inventory: `agent_folder: /opt/kplay`
        ",
    );
    says(
        &ran,
        "tiny",
        "
        ! tiny    unreachable
            error: cannot start the agent: the agent arrived damaged in /home/root/.cache/kplay; is the disk full?
              | stderr: zstd: error 70 : Write error : cannot write block : No space left on device
        ",
    );
}

#[test]
fn hosts_that_do_not_let_in() {
    let good = host_of_tester("sesame", "", "");
    let stranger = Sshd::start();
    fs::write(stranger.known_hosts(), format!("[127.0.0.1]:{} {}", stranger.port, stranger.public_key("stranger"))).unwrap();
    let locked = Sshd::start();
    fs::write(locked.path("authorized_keys"), "").unwrap();
    let noisy = Sshd::with("ForceCommand echo Welcome; echo ' to ' >&2; printf no-newline; eval \"$SSH_ORIGINAL_COMMAND\"");
    // Reached through `good`, with one key and one file of known hosts.
    let behind = Sshd::start();
    let known = [&behind, &good].map(|sshd| fs::read_to_string(sshd.known_hosts()).unwrap()).concat();
    fs::write(behind.known_hosts(), known).unwrap();
    fs::copy(behind.path("user.pub"), good.path("authorized_keys")).unwrap();
    let user = user_name();
    let own = |sshd| key(sshd, &user);
    let kplay = hosts(&[
        ("gone", &behind, &format!("{}, ansible_host: 127.0.0.2", own(&behind))),
        ("stranger", &stranger, &own(&stranger)),
        ("locked", &locked, &own(&locked)),
        ("noisy", &noisy, &own(&noisy)),
        ("behind", &behind, &format!("{}, jump: \"{user}@127.0.0.1:{}\"", own(&behind), good.port)),
        ("password", &good, "ansible_user: tester, ansible_password: sesame"),
        ("mistyped", &good, "ansible_user: tester, ansible_password: mistaken"),
    ]);
    let play = r#"
        play { name = "in", hosts = "all", run = function(host)
          host:command({ command = "id -un", reads_only = true })
        end }
    "#;
    let ran = kplay.playbook(play).any_stdout().status(3).run();
    assert!(good.log().contains("Accepted password for tester") && good.log().contains("Accepted publickey"), "{}", good.log());
    for (host, counts) in [("noisy", "ok=1"), ("behind", "ok=1"), ("password", "ok=1"), ("locked", "ok=0")] {
        assert!(ran.stdout.contains(&format!("\n  {host:8}  {counts}  changed=0  failed=0")), "{}", ran.stdout);
    }
    let port = behind.port;
    says(
        &ran,
        "gone",
        &format!(
            "
            ! gone      unreachable
                error: cannot connect to `127.0.0.2` port {port}: connection refused
                  = hint: the host is there, but nothing listens on that port: is sshd running?
            "
        ),
    );
    let keys = format!("key `{}`: refused", locked.key().display());
    says(
        &ran,
        "locked",
        &format!(
            "
            ! locked    unreachable
                error: the host accepts no login as `{user}`
                  | ssh-agent: none (`SSH_AUTH_SOCK` is not set)
                  | {keys}
                  | password: none is configured
                  | the host accepts: publickey
                  = hint: is the key in `authorized_keys` of `{user}`? `ssh -v {user}@HOST` shows the host's side of it
            "
        ),
    );
    says(
        &ran,
        "mistyped",
        "
        ! mistyped  unreachable
            error: the host accepts no login as `tester`
              | ssh-agent: none (`SSH_AUTH_SOCK` is not set)
              | password: refused
              | the host accepts: publickey, password
              = hint: is the password of `tester` right? it is the inventory's `ansible_password`
        ",
    );
    let stranger_says = about(&ran.stdout, "stranger");
    for part in [
        "! stranger  unreachable\n",
        &format!("error: the host key of `[127.0.0.1]:{}` is not the one that is known\n", stranger.port),
        &format!(" --> {}:1\n", stranger.known_hosts().display()),
        "known: ssh-ed25519 SHA256:",
        "shown: ssh-ed25519 SHA256:",
        "then `kplay host-keys scan`",
    ] {
        assert!(stranger_says.contains(part), "{part}: {stranger_says}");
    }
}
