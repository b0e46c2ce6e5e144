//! The address in front of the apiservers moves when its proxy fails, in time and to one other, and goes back only when it may.
//!
//! One test, since bringing all of it up is most of its time; each step says what it shows, and prints what it has measured.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kplay_modules::api::{http, probe};

use crate::support::{Lab, run};

const PROXIES: [&str; 2] = ["hdss7-11", "hdss7-12"];
const PREFERRED: &str = PROXIES[0];
const OTHER: &str = PROXIES[1];
const VIP: &str = "10.4.7.10";
const NGINX: &str = "/etc/nginx/nginx.conf";
const KEEPALIVED: &str = "/etc/keepalived/keepalived.conf";
/// How long the address may take to move.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn the_address_moves_in_time_and_back_only_when_it_may() {
    let lab = Lab::of_repository();
    lab.play(&[]);
    the_proxies_are_deployed_as_the_document_says(&lab);
    the_check_knows_its_port(&lab);
    a_mistake_never_replaces_a_working_file(&lab);
    an_nginx_outside_its_unit_is_explained(&lab);

    let watch = Watch::start(&lab);
    watch.moved(Instant::now(), PREFERRED);
    procedures_only_list_their_steps_in_a_forecast(&lab, &watch);
    the_drill_moves_it_and_proves_that_it_stays(&lab, &watch);
    a_drained_master_keeps_its_connections_and_gets_no_new_ones(&lab);
    a_change_of_the_files_moves_nothing(&lab, &watch);
    a_new_password_makes_no_second_holder(&lab, &watch);
    let on_it = |script: &'static str| move |lab: &Lab| drop(sh(lab, PREFERRED, script));
    it_moves_once_and_stays(&lab, &watch, "nginx is stopped", on_it("systemctl stop nginx"), on_it("systemctl start nginx"));
    it_moves_once_and_stays(&lab, &watch, "the network is cut", |lab| cable(lab, "down"), |lab| cable(lab, "up"));
    it_moves_once_and_stays(&lab, &watch, "the host is killed", |lab| lab.kill(PREFERRED), |lab| drop(lab.kplay(&["lab", "up"]).success()));
    it_moves_once_and_stays(&lab, &watch, "keepalived restarts", on_it("systemctl restart keepalived"), |_| {});
    it_goes_back_by_itself_when_asked_to(&lab, &watch);
    watch.end();
}

fn sh(lab: &Lab, host: &str, script: &str) -> String {
    lab.sh(host, script).success()
}

fn the_proxies_are_deployed_as_the_document_says(lab: &Lab) {
    let forecast = lab.play_book("playbooks/proxy.lua", &["--check", "--diff"]);
    for host in PROXIES {
        sh(lab, host, "test ! -e /etc/nginx -a ! -e /etc/keepalived");
        let exact: Vec<_> = forecast.changes().into_iter().filter(|change| change.host == host && change.certainty == "exact").collect();
        for file in [NGINX, KEEPALIVED, "/etc/keepalived/check_port.sh"] {
            assert!(exact.iter().any(|change| change.what.contains(file)), "{file} is not foreseen exactly: {exact:?}");
        }
    }
    lab.play_book("playbooks/proxy.lua", &[]);
    lab.play_book("playbooks/proxy.lua", &[]).nothing_to_do_on(&PROXIES);
    lab.play_book("playbooks/proxy.lua", &["--check", "--diff"]).nothing_to_do_on(&PROXIES);

    for (host, own) in PROXIES.into_iter().zip(["10.4.7.11", "10.4.7.12"]) {
        let units = "systemctl is-active nginx keepalived; systemctl is-enabled nginx keepalived";
        assert_eq!(sh(lab, host, units), "active\nactive\nenabled\nenabled\n");
        let nginx = sh(lab, host, &format!("cat {NGINX}"));
        for line in [
            "server 10.4.7.21:6443     max_fails=3 fail_timeout=30s;",
            "server 10.4.7.22:6443     max_fails=3 fail_timeout=30s;",
            "listen 7443 ",
            "proxy_connect_timeout 2s;",
            "proxy_timeout 900s;",
            "proxy_pass kube-apiserver;",
        ] {
            assert!(nginx.contains(line), "{line}\n{nginx}");
        }
        let keepalived = sh(lab, host, &format!("cat {KEEPALIVED}"));
        let priority = if host == PREFERRED { "priority 100" } else { "priority 90" };
        for line in [
            &format!("router_id {own}"),
            "script \"/etc/keepalived/check_port.sh 7443\"",
            "interval 2",
            "interface ens32",
            "virtual_router_id 251",
            priority,
            "advert_int 1",
            &format!("mcast_src_ip {own}"),
            "auth_type PASS",
            "auth_pass 11111111",
            VIP,
            // Where the document wants what keepalived does otherwise.
            "state BACKUP",
            "nopreempt",
        ] {
            assert!(keepalived.lines().any(|have| have.trim() == line), "{line}\n{keepalived}");
        }
        assert!(!keepalived.contains("weight"), "{keepalived}");
        assert_eq!(sh(lab, host, &format!("stat -c %a {KEEPALIVED} {NGINX}")), "600\n644\n");
        assert_eq!(sh(lab, host, &format!("keepalived -t -f {KEEPALIVED} 2>&1 && nginx -t -q")), "");
    }
}

/// The port is compared as a number, and one has to be given.
fn the_check_knows_its_port(lab: &Lab) {
    let check = |arguments: &str| lab.sh(OTHER, &format!("/etc/keepalived/check_port.sh {arguments}")).code;
    for (arguments, code) in [("7443", 0), ("17443", 1), ("443", 1), ("744", 1), ("", 2), ("''", 2), ("abc", 2), ("-7443", 2)] {
        assert_eq!(check(arguments), code, "check_port.sh {arguments}");
    }
    // A port that contains another one's digits, with that other one closed.
    sh(
        lab,
        OTHER,
        "systemd-run -q --unit=other systemd-socket-activate -l 17444 /bin/cat; for i in $(seq 50); do ss -Hlnt | grep -q :17444 && break; sleep 0.1; done",
    );
    assert_eq!((check("17444"), check("7444")), (0, 1));
    sh(lab, OTHER, "systemctl stop other");
}

fn a_mistake_never_replaces_a_working_file(lab: &Lab) {
    let state =
        || sh(lab, OTHER, &format!("sha256sum {NGINX} {KEEPALIVED}; systemctl show -p InvocationID -p ActiveState nginx keepalived"));
    let before = state();
    // Exit code 1: refused before anything was touched.
    for (variable, code, told) in [
        ("fail_timeout=30x", 2, "invalid parameter \"fail_timeout=30x\""),
        ("so_keepalive=often", 2, "invalid so_keepalive value"),
        ("proxy_timeout=30s", 1, "`proxy_timeout` has to be 600s or more, not `30s`"),
        ("interface=ens99", 2, "this host has no interface `ens99`"),
        ("{virtual_router_id: 256}", 1, "`virtual_router_id` is 256, and has to be between 1 and 255"),
        ("auth_pass=123456789", 1, "`auth_pass` has 9 characters"),
        ("vip=10.4.7.12", 1, "so that it cannot move"),
    ] {
        for mode in [["--check"].as_slice(), &[]] {
            let ended = lab.kplay(&[&["playbooks/proxy.lua", "--limit", OTHER, "-e", variable], mode].concat());
            let said = format!("{}{}", ended.stdout, ended.stderr);
            assert!(ended.code == code && said.contains(told), "{variable} {mode:?}: {code} {told}\n{said}");
        }
    }
    assert_eq!(state(), before);
}

fn an_nginx_outside_its_unit_is_explained(lab: &Lab) {
    sh(lab, OTHER, "systemctl stop nginx && nginx");
    for mode in [["--check"].as_slice(), &[]] {
        let ended = lab.kplay(&[&["playbooks/proxy.lua", "--limit", OTHER], mode].concat());
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(ended.code == 2 && said.contains("nginx runs outside its unit (processes ") && said.contains("`nginx -s quit`"), "{said}");
    }
    sh(lab, OTHER, "nginx -s quit 2>&1; while pgrep -x nginx; do sleep 0.1; done");
    lab.play_book("playbooks/proxy.lua", &[]);
    assert_eq!(sh(lab, OTHER, "systemctl is-active nginx"), "active\n");
}

/// Something happens to the holder: another one holds the address soon, stays the only one, also when the former is well
/// again, and gives it back when failback.lua is run.
#[expect(clippy::print_stdout, reason = "what was measured is to be read")]
fn it_moves_once_and_stays(lab: &Lab, watch: &Watch, what: &str, fail: impl Fn(&Lab), heal: impl Fn(&Lab)) {
    let since = Instant::now();
    fail(lab);
    let moved = watch.moved(since, OTHER);
    let outage = watch.outage(since);
    assert!(moved < LIMIT, "{what}: it took {moved:?}");
    let calm = Instant::now();
    heal(lab);
    std::thread::sleep(Duration::from_secs(8));
    watch.stayed(calm, OTHER);

    let back = Instant::now();
    lab.play_book("playbooks/failback.lua", &[]);
    watch.moved(back, PREFERRED);
    println!(
        "{what}: the address moved after {:.2} s, the client was without an answer for {:.2} s; on failback for {:.2} s",
        moved.as_secs_f64(),
        outage.as_secs_f64(),
        watch.outage(back).as_secs_f64()
    );
    lab.play_book("playbooks/proxy.lua", &[]).nothing_to_do_on(&PROXIES);
}

fn procedures_only_list_their_steps_in_a_forecast(lab: &Lab, watch: &Watch) {
    let since = Instant::now();
    for (procedure, step) in [("failover-drill", "3. stop nginx on the holder"), ("failback", "3. restart keepalived on the proxy")] {
        let said = lab.kplay(&[&format!("playbooks/{procedure}.lua"), "--check"]).success();
        assert!(said.contains(step) && said.contains("nothing would change"), "{said}");
    }
    std::thread::sleep(Duration::from_secs(1));
    watch.stayed(since, PREFERRED);
}

fn the_drill_moves_it_and_proves_that_it_stays(lab: &Lab, watch: &Watch) {
    let said = lab.kplay(&["playbooks/failover-drill.lua"]).success();
    let told = format!("manual: it stays on {OTHER}; playbooks/failback.lua gives it back to {PREFERRED}");
    assert!(said.contains(&format!("{OTHER} holds it after ")) && said.contains(&told), "{said}");
    lab.play_book("playbooks/failback.lua", &[]);
    watch.moved(Instant::now(), PREFERRED);

    // A drill that would be an outage is refused before anything is stopped.
    sh(lab, OTHER, "systemctl stop nginx");
    let ended = lab.kplay(&["playbooks/failover-drill.lua"]);
    assert!(ended.code == 2 && ended.stdout.contains("nginx"), "{}", ended.stdout);
    assert_eq!(sh(lab, PREFERRED, "systemctl is-active nginx"), "active\n");
    sh(lab, OTHER, "systemctl start nginx");
}

fn a_drained_master_keeps_its_connections_and_gets_no_new_ones(lab: &Lab) {
    let connect = |count: u32, seconds: u32| {
        let one = format!("(sleep {seconds} | openssl s_client -quiet -connect 127.0.0.1:7443) > /dev/null 2>&1 < /dev/null &");
        sh(lab, PREFERRED, &format!("for i in $(seq {count}); do {one} done; sleep 1"));
    };
    // Each look at the connections from the proxy to a master, by the proxy's ports: those of the watch come and go.
    let looks = |master: &str| -> Vec<BTreeSet<String>> {
        let ports = "ss -Hnt state established '( sport = :6443 )' dst 10.4.7.11 | sed 's/.*://; s/ *$//' | tr '\\n' ' '; echo";
        let seen = sh(lab, master, &format!("for i in $(seq 10); do {ports}; sleep 0.1; done"));
        seen.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    // A master that was slow to answer is left out for half a minute.
    let mut tries = (0..6).map(|_| {
        connect(6, 120);
        let seen = looks("hdss7-21");
        seen.iter().skip(1).fold(seen[0].clone(), |held, look| &held & look)
    });
    let held = tries.find(|held| !held.is_empty()).expect("a connection is held to hdss7-21");
    lab.play_book("playbooks/proxy.lua", &["-e", "{drained: [\"10.4.7.21:6443\"]}"]);
    connect(6, 10);
    for look in looks("hdss7-21") {
        assert_eq!(look, held, "the connections that were there, and no other");
    }
    assert!(looks("hdss7-22").iter().all(|look| look.len() >= 6));
    lab.play_book("playbooks/proxy.lua", &[]);
    let refused = lab.kplay(&["playbooks/proxy.lua", "-e", "{drained: [\"10.4.7.21:6443\", \"10.4.7.22:6443\"]}"]).failure(1);
    assert!(refused.contains("leaves no apiserver"), "{refused}");
}

/// New files are reloaded: the address stays where it is, and goes on answering.
fn a_change_of_the_files_moves_nothing(lab: &Lab, watch: &Watch) {
    let processes = || sh(lab, PREFERRED, "systemctl show -p MainPID --value nginx keepalived");
    let (before, since) = (processes(), Instant::now());
    let changed = lab.play_book("playbooks/proxy.lua", &["-e", "{proxy_timeout: 30m, check_interval: 1}"]).summary();
    for (host, unit) in PROXIES.into_iter().flat_map(|host| [(host, "nginx"), (host, "keepalived")]) {
        assert!(changed.iter().any(|change| change.starts_with(host) && change.contains("reload") && change.contains(unit)), "{changed:?}");
    }
    lab.play_book("playbooks/proxy.lua", &[]);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(processes(), before);
    watch.stayed(since, PREFERRED);
    assert!(watch.outage(since) < Duration::from_secs(2), "{:?}", watch.outage(since));
}

/// Proxies with different passwords do not hear each other, and each would take the address.
fn a_new_password_makes_no_second_holder(lab: &Lab, watch: &Watch) {
    let since = Instant::now();
    let mut forecasts = ["playbooks/proxy.lua", "playbooks/site.lua"].map(|playbook| {
        let mut seen = lab.play_book(playbook, &["--check", "-e", "auth_pass=moonbeam"]).summary();
        seen.retain(|change| change.contains("keepalived"));
        seen
    });
    let mut changed = lab.play_book("playbooks/proxy.lua", &["-e", "auth_pass=moonbeam"]).summary();
    changed.sort();
    forecasts.iter_mut().for_each(|seen| seen.sort());
    assert_eq!(forecasts, [changed.clone(), changed.clone()]);
    let of_keepalived = |what: &str| changed.iter().filter(|change| change.contains(what) && change.contains("keepalived.service")).count();
    assert_eq!((of_keepalived("stop"), of_keepalived("reload"), of_keepalived("start")), (1, 1, 1), "{changed:?}");
    lab.play_book("playbooks/proxy.lua", &["-e", "auth_pass=moonbeam"]).nothing_to_do_on(&PROXIES);
    lab.play_book("playbooks/proxy.lua", &[]);
    // A proxy that hears nobody takes the address after less than four seconds.
    std::thread::sleep(Duration::from_secs(5));
    watch.stayed(since, PREFERRED);
}

#[expect(clippy::print_stdout, reason = "what was measured is to be read")]
fn it_goes_back_by_itself_when_asked_to(lab: &Lab, watch: &Watch) {
    lab.edit("inventory/hdss7.yaml", "failback: manual", "failback: automatic");
    lab.play_book("playbooks/proxy.lua", &[]);
    lab.play_book("playbooks/proxy.lua", &[]).nothing_to_do_on(&PROXIES);
    let keepalived = sh(lab, PREFERRED, &format!("cat {KEEPALIVED}"));
    assert!(
        keepalived.contains("state MASTER")
            && keepalived.contains("weight -20")
            && keepalived.contains("interval 1\n")
            && !keepalived.contains("nopreempt"),
        "{keepalived}"
    );

    let since = Instant::now();
    sh(lab, PREFERRED, "systemctl stop nginx");
    let moved = watch.moved(since, OTHER);
    // With a weight the other proxy does not hear that this one gives up: it has to miss three announcements.
    assert!(moved < LIMIT, "it took {moved:?}");
    let healed = Instant::now();
    sh(lab, PREFERRED, "systemctl start nginx");
    let back = watch.moved(healed, PREFERRED);
    println!("automatic failback: the address moved after {:.2} s, and back after {:.2} s", moved.as_secs_f64(), back.as_secs_f64());
    let said = lab.kplay(&["playbooks/failover-drill.lua"]).success();
    assert!(said.contains(&format!("automatic: {PREFERRED} holds it again")), "{said}");
}

/// Cuts the cable of the preferred proxy, or mends it.
fn cable(lab: &Lab, state: &str) {
    let (ours, theirs) = (format!("kplay-{}", lab.name()), lab.namespace(PREFERRED));
    let links = run(Command::new("ip").args(["-n", &ours, "-o", "link", "show"]));
    let line = links.lines().find(|line| line.split_whitespace().any(|word| word == theirs)).unwrap_or_else(|| panic!("{links}"));
    let port = line.split([':', '@']).nth(1).unwrap().trim();
    run(Command::new("ip").args(["-n", &ours, "link", "set", port, state]));
}

/// Who holds the address, and whether it answers, from the first moment to the last.
struct Watch {
    over: Arc<AtomicBool>,
    holders: Arc<Mutex<Vec<(Instant, Vec<&'static str>)>>>,
    answers: Arc<Mutex<Vec<Instant>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    fn start(lab: &Lab) -> Self {
        let (over, holders, answers) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let ca = std::fs::read(lab.folder().join("pki/hdss7/ca.pem")).unwrap();
        let namespace = PathBuf::from("/run/netns").join(format!("kplay-{}", lab.name()));
        let watched = PROXIES.map(|host| (host, lab.namespace(host)));
        let threads = vec![
            std::thread::spawn({
                let (over, holders) = (Arc::clone(&over), Arc::clone(&holders));
                move || {
                    while !over.load(Ordering::Relaxed) {
                        let now = Instant::now();
                        let found = watched.iter().filter(|(_, namespace)| holds(namespace)).map(|(host, _)| *host).collect();
                        holders.lock().unwrap().push((now, found));
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
            }),
            std::thread::spawn({
                let (over, answers) = (Arc::clone(&over), Arc::clone(&answers));
                move || poll(&over, &answers, &namespace, &ca)
            }),
        ];
        Self { over, holders, answers, threads }
    }

    /// Waits until, after `since`, `host` alone holds the address and keeps it, and returns how long that took.
    #[track_caller]
    fn moved(&self, since: Instant, host: &str) -> Duration {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let seen: Vec<_> = self.holders.lock().unwrap().iter().filter(|(at, _)| *at >= since).cloned().collect();
            let calm = seen.iter().rev().take_while(|(_, holders)| holders[..] == [host]).last();
            // A second without a change: whatever was on the move has arrived.
            if let Some((at, _)) = calm.filter(|(at, _)| at.elapsed() > Duration::from_secs(1)) {
                return at.duration_since(since);
            }
            assert!(Instant::now() < end, "{host} does not hold the address: {:?}", seen.last());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Insists that `host`, and nobody else, has held the address at every look since then.
    #[track_caller]
    fn stayed(&self, since: Instant, host: &str) {
        let log = self.holders.lock().unwrap();
        let seen: Vec<_> = log.iter().filter(|(at, _)| *at >= since).collect();
        assert!(!seen.is_empty());
        for (at, holders) in seen {
            assert_eq!(holders[..], [host], "{:?} later", at.duration_since(since));
        }
    }

    /// Returns the longest time without an answer that began or ended after `since`.
    fn outage(&self, since: Instant) -> Duration {
        // An answer has to have come after the change, too.
        let asked = Instant::now();
        while !self.answers.lock().unwrap().last().is_some_and(|last| *last > asked) {
            assert!(asked.elapsed() < Duration::from_secs(20), "nobody answers at {VIP}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let answers = self.answers.lock().unwrap();
        let gaps = answers.windows(2).filter(|pair| pair[1] > since).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Returns whether a host has the address. One that is gone has nothing.
fn holds(namespace: &str) -> bool {
    let output = Command::new("ip").args(["-n", namespace, "-o", "-4", "address", "show", "to", VIP]).output().unwrap();
    !output.stdout.is_empty()
}

/// Asks an apiserver at the address whether it is ready, over and over, in connections of their own.
fn poll(over: &AtomicBool, answers: &Mutex<Vec<Instant>>, namespace: &std::path::Path, ca: &[u8]) {
    let file = std::fs::File::open(namespace).unwrap();
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind).unwrap();
    let url = format!("https://{}:7443/readyz", VIP.parse::<Ipv4Addr>().unwrap());
    while !over.load(Ordering::Relaxed) {
        let authorities = http::authorities(ca).unwrap();
        let answer = probe::ask(probe::Request { url: &url, authorities, client: None, patience: Duration::from_millis(500) });
        if answer.is_ok_and(|answer| (answer.status, answer.body.as_str()) == (200, "ok")) {
            answers.lock().unwrap().push(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
