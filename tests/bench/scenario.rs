//! What only kplay is measured at: growth with tasks, delay and hosts, large files, large trees, start-up.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::contender::{Ground, all};
use crate::fleet::{Fleet, STATE};
use crate::measure::{Sample, run};
use crate::report::Figure;
use crate::{Outcome, middle, workload};

/// Measures all of them, into `figures`.
pub fn measure(scratch: &Path, runs: usize, figures: &mut Vec<Figure>) -> Outcome<()> {
    let ground = ground(scratch, 50)?;
    start_up(&ground, scratch, runs, figures)?;
    many_tasks(&ground, scratch, runs, figures)?;
    delay(&ground, scratch, runs, figures)?;
    small_files(&ground, scratch, runs, figures)?;
    large_file(&ground, scratch, figures)?;
    drop(ground);
    many_hosts(scratch, figures)
}

fn ground(scratch: &Path, hosts: usize) -> Outcome<Ground> {
    let ground = Ground {
        programs: crate::programs(),
        sources: scratch.join("sources"),
        work: scratch.join("work"),
        trees: scratch.join("trees"),
        fleet: Fleet::start(&scratch.join("fleet"), hosts)?,
    };
    workload::write_sources(&ground.sources)?;
    Ok(ground)
}

/// A folder with an inventory of the first hosts and a playbook; returns the command that runs it.
fn play(ground: &Ground, name: &'static str, hosts: usize, playbook: &str) -> Outcome<Command> {
    let kplay = &all()[0];
    kplay.write(ground, hosts)?;
    workload::empty_trees(ground, "kplay", hosts)?;
    let folder = ground.folder("kplay")?;
    fs::write(folder.join(format!("{name}.lua")), playbook)?;
    let mut command = kplay.command(ground, hosts)?;
    let program = command.get_program().to_owned();
    let agents: Vec<_> = command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    command = Command::new(program);
    command.envs(agents);
    command.arg(format!("{name}.lua")).args(["-i", "hosts.yaml"]).current_dir(folder);
    Ok(command)
}

fn several(ground: &Ground, command: &Command, scratch: &Path, runs: usize) -> Outcome<Sample> {
    let samples: Vec<Sample> = (0..runs).map(|_| run(&ground.fleet, command, scratch).map(|(sample, _)| sample)).collect::<Outcome<_>>()?;
    Ok(middle(&samples))
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn start_up(ground: &Ground, scratch: &Path, runs: usize, figures: &mut Vec<Figure>) -> Outcome<()> {
    let mut list = play(
        ground,
        "small",
        1,
        "play { hosts = \"all\", run = function(host) host:file({ path = host.vars.tree, state = \"directory\" }) end }\n",
    )?;
    list.arg("--list-tasks");
    let mut version = Command::new(list.get_program());
    version.arg("--version");
    let took = several(ground, &version, scratch, runs)?;
    figures.push(Figure { what: "`kplay --version`".into(), value: millis(took.wall), goal: "10 ms" });
    let took = several(ground, &list, scratch, runs)?;
    figures.push(Figure { what: "`--list-tasks` of a small play".into(), value: millis(took.wall), goal: "30 ms" });
    Ok(())
}

fn many_tasks(ground: &Ground, scratch: &Path, runs: usize, figures: &mut Vec<Figure>) -> Outcome<()> {
    let mut took = Vec::new();
    for (name, times) in [("fifty-tasks", 1), ("five-hundred-tasks", 10)] {
        let playbook = format!(
            "play {{ hosts = \"all\", run = function(host)\n  local tree = host.vars.tree\n  for j = 1, {times} do\n\
             \x20   for i = 1, 20 do host:file({{ path = tree .. \"/d\" .. j .. \"-\" .. i, state = \"directory\", mode = \"0755\" }}) end\n\
             \x20   for i = 1, 30 do host:copy({{ dest = tree .. \"/t\" .. j .. \"-\" .. i, content = (\"number \" .. i .. \"\\n\"):rep(90), mode = \"0644\" }}) end\n  end\nend }}\n"
        );
        let command = play(ground, name, 1, &playbook)?;
        run(&ground.fleet, &command, scratch)?;
        took.push(several(ground, &command, scratch, runs * 3)?);
    }
    let each = |time: fn(&Sample) -> Duration| time(&took[1]).saturating_sub(time(&took[0])) / 450;
    let value = format!("{} on the host, {} here", micros(each(|sample| sample.hosts)), micros(each(|sample| sample.controller)));
    figures.push(Figure { what: "each of 450 further tasks, no change, processor".into(), value, goal: "200 µs, 50 µs" });
    Ok(())
}

fn micros(time: Duration) -> String {
    format!("{} µs", time.as_micros())
}

/// Runs the fifty tasks through a relay that holds every byte back for 50 ms in each direction.
fn delay(ground: &Ground, scratch: &Path, runs: usize, figures: &mut Vec<Figure>) -> Outcome<()> {
    let kplay = &all()[0];
    kplay.write(ground, 1)?;
    let folder = ground.folder("kplay")?;
    let mut relay: Child = Command::new(std::env::current_exe()?).args(["relay", "127.0.9.1:22", "127.0.1.1:22", "50"]).spawn()?;
    let known = fs::read_to_string(ground.fleet.known_hosts())?;
    let key = known.lines().next().and_then(|line| line.split_once(' ')).map_or("", |(_, key)| key);
    fs::write(ground.fleet.known_hosts(), format!("{known}127.0.9.1 {key}\n"))?;
    let inventory = fs::read_to_string(folder.join("hosts.yaml"))?.replace("address: 127.0.1.1", "address: 127.0.9.1");
    fs::write(folder.join("hosts.yaml"), inventory)?;
    let measured = (|| {
        for _ in 0..100 {
            if TcpStream::connect("127.0.9.1:22").is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let command = kplay.command(ground, 1)?;
        run(&ground.fleet, &command, scratch)?;
        several(ground, &command, scratch, runs)
    })();
    let _ = relay.kill();
    let _ = relay.wait();
    figures.push(Figure { what: "fifty tasks, no change, 100 ms round trips".into(), value: millis(measured?.wall), goal: "1500 ms" });
    Ok(())
}

/// Relays connections; every byte arrives `delay` ms after it was sent, in both directions.
pub fn relay(arguments: &[String]) -> Outcome<()> {
    let [listen, target, delay] = arguments else { return Err("usage: relay LISTEN TARGET MILLISECONDS".into()) };
    let (target, delay) = (target.clone(), Duration::from_millis(delay.parse()?));
    for stream in TcpListener::bind(listen)?.incoming() {
        let (client, server) = (stream?, TcpStream::connect(&target)?);
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
            carry(from, to, delay);
        }
    }
    Ok(())
}

fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, bytes) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

fn small_files(ground: &Ground, scratch: &Path, runs: usize, figures: &mut Vec<Figure>) -> Outcome<()> {
    let source = scratch.join("ten-thousand");
    for folder in 0..100 {
        fs::create_dir_all(source.join(format!("{folder}")))?;
        for file in 0..100 {
            fs::write(source.join(format!("{folder}/{file}")), format!("file {file} of folder {folder}\n").repeat(10))?;
        }
    }
    let playbook = format!(
        "play {{ hosts = \"all\", run = function(host) host:copy({{ src = \"{}/\", dest = host.vars.tree .. \"/tree\" }}) end }}\n",
        source.display()
    );
    let command = play(ground, "tree", 1, &playbook)?;
    let (first, _) = run(&ground.fleet, &command, scratch)?;
    figures.push(Figure { what: "10,000 small files, first copy".into(), value: millis(first.wall), goal: "" });
    let same = several(ground, &command, scratch, runs)?;
    figures.push(Figure { what: "10,000 small files, no change".into(), value: millis(same.wall), goal: "500 ms" });
    fs::write(source.join("7/7"), "another content\n")?;
    let (one, output) = run(&ground.fleet, &command, scratch)?;
    let value = format!("{}, {} task changed", millis(one.wall), crate::contender::sum_of(&output, " changed="));
    figures.push(Figure { what: "10,000 small files, one changed".into(), value, goal: "one file sent" });
    Ok(())
}

/// One archive of 300 MB that does not compress to ten hosts, beside scp. It lies with the agent's state on one file system, as on most
/// hosts: on another one it would be copied from there.
fn large_file(ground: &Ground, scratch: &Path, figures: &mut Vec<Figure>) -> Outcome<()> {
    const HOSTS: usize = 10;
    let source = scratch.join("large");
    let mut file = fs::File::create(&source)?;
    std::io::copy(&mut fs::File::open("/dev/urandom")?.take(300_000_000), &mut file)?;
    let playbook = format!(
        "play {{ hosts = \"all\", run = function(host) host:copy({{ src = \"{}\", dest = \"{STATE}/large\" }}) end }}\n",
        source.display()
    );
    let command = play(ground, "large", HOSTS, &playbook)?;
    let (sample, _) = run(&ground.fleet, &command, scratch)?;
    let scp = format!(
        "seq 1 {HOSTS} | xargs -P {HOSTS} -I N scp -q -F {} {} 127.0.1.N:{STATE}/copied",
        ground.fleet.ssh_config("curve").display(),
        source.display()
    );
    let mut peer = Command::new("sh");
    peer.args(["-c", &scp]);
    let (other, _) = run(&ground.fleet, &peer, scratch)?;
    for copy in (1..=HOSTS).flat_map(|number| ["large", "copied"].map(|name| ground.fleet.state(number).join(name))) {
        if !Command::new("cmp").arg(&source).arg(&copy).status()?.success() {
            return Err(format!("{} is not what was sent", copy.display()).into());
        }
        fs::remove_file(copy)?;
    }
    let value =
        format!("{:.1} s (scp: {:.1} s), {} MB of memory", sample.wall.as_secs_f64(), other.wall.as_secs_f64(), sample.memory / 1_000_000);
    figures.push(Figure { what: "300 MB to 10 hosts".into(), value, goal: "scp's time, 64 MB" });
    Ok(())
}

/// A thousand hosts, and ten thousand that are only planned.
fn many_hosts(scratch: &Path, figures: &mut Vec<Figure>) -> Outcome<()> {
    const CONNECTED: usize = 1000;
    let ground = ground(scratch, CONNECTED)?;
    let kplay = &all()[0];
    for hosts in [500, CONNECTED] {
        kplay.write(&ground, hosts)?;
        workload::empty_trees(&ground, "kplay", hosts)?;
        let command = kplay.command(&ground, hosts)?;
        run(&ground.fleet, &command, scratch)?;
        let (sample, _) = run(&ground.fleet, &command, scratch)?;
        let value = format!(
            "{:.1} s, {:.1} s of processor here, {} MB",
            sample.wall.as_secs_f64(),
            sample.controller.as_secs_f64(),
            sample.memory / 1_000_000
        );
        figures.push(Figure { what: format!("{hosts} hosts, fifty tasks, no change"), value, goal: "1,000: 30 s of processor, 300 MB" });
    }
    for hosts in [5_000, 10_000] {
        kplay.write(&ground, hosts)?;
        let mut command = kplay.command(&ground, hosts)?;
        command.arg("--list-tasks");
        let (sample, _) = run(&ground.fleet, &command, scratch)?;
        let value = format!("{:.1} s, {} MB", sample.wall.as_secs_f64(), sample.memory / 1_000_000);
        figures.push(Figure { what: format!("{hosts} hosts, fifty tasks, planned"), value, goal: "10,000: 10 s" });
    }
    Ok(())
}
