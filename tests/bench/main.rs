//! Measures kplay beside its peers on real sshds of this machine, in one run: `cargo measure`.
//!
//! usage: `cargo measure [--hosts 1,10,50] [--runs 5] [--only NAME,NAME] [--scenarios] [--quick] [--write]`
//!
//! It installs the peers where the registries are reached, then enters a network namespace of its own. `--quick` is the smoke
//! test of CI: kplay and the floor, one host, no thresholds. `--scenarios` measures kplay alone where no peer can follow. `--write`
//! puts the tables into PERFORMANCE.md and the plot beside this file.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a runner: it starts programs, writes their inputs and speaks to whoever started it"
)]

mod contender;
mod fleet;
mod goals;
mod measure;
mod plot;
mod report;
mod scenario;
mod workload;

use std::error::Error;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use contender::{Contender, Ground, succeed};
use fleet::Fleet;
use measure::{Sample, median, run};
use report::Row;

/// What anything here ends with: whatever goes wrong ends the measurement with its message.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Who takes less runs once more just before it is measured: while the others have their minutes, a kernel may take the memory of what
/// is idle, and reading programs from disk again would be most of what is measured.
const BRIEF: Duration = Duration::from_secs(3);
const AGENT_TARGET: &str = "x86_64-unknown-linux-musl";

/// What was asked for.
struct Wish {
    hosts: Vec<usize>,
    runs: usize,
    only: Option<Vec<String>>,
    scenarios: bool,
    quick: bool,
    write: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("wrapped") => measure::wrapped(&arguments[1..]),
        Some("connect") => connect(&arguments[1..]).map(|()| 0),
        Some("relay") => scenario::relay(&arguments[1..]).map(|()| 0),
        Some("measure") => wish(&arguments[1..]).and_then(|wish| measure_all(&wish)).map(|()| 0),
        _ => wish(&arguments).and_then(|wish| prepare(&wish, &arguments)),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn wish(arguments: &[String]) -> Outcome<Wish> {
    let mut wish = Wish { hosts: vec![1, 10, 50], runs: 5, only: None, scenarios: false, quick: false, write: false };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--hosts" => wish.hosts = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--runs" => wish.runs = value()?.parse()?,
            "--only" => wish.only = Some(value()?.split(',').map(str::to_owned).collect()),
            "--scenarios" => wish.scenarios = true,
            "--quick" => wish.quick = true,
            "--write" => wish.write = true,
            other => return Err(format!("unknown argument `{other}`; see the head of tests/bench/main.rs").into()),
        }
    }
    if wish.quick {
        (wish.hosts, wish.runs) = (vec![1], 1);
        wish.only = Some(["kplay", "libssh2-true", "script"].map(str::to_owned).to_vec());
    }
    Ok(wish)
}

fn chosen(wish: &Wish) -> Vec<Box<dyn Contender>> {
    let wanted = |one: &dyn Contender| wish.only.as_ref().is_none_or(|names| names.iter().any(|name| name == one.name()));
    contender::all().into_iter().filter(|one| wanted(one.as_ref())).collect()
}

/// Builds kplay, installs its peers, and goes on in a network namespace of its own.
fn prepare(wish: &Wish, arguments: &[String]) -> Outcome<u8> {
    // Beside this program, and optimised as it is: the smoke test does without.
    let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
    succeed(Command::new("cargo").args(["build", "--quiet", "--package", "kplay"]).args(profile))?;
    succeed(Command::new("cargo").args(["agent", "--quiet"]))?;
    let me = std::env::current_exe()?;
    let beside = me.parent().unwrap_or(Path::new("."));
    let target = beside.parent().unwrap_or(Path::new("."));
    std::fs::copy(target.join(AGENT_TARGET).join("agent/kplay-agent"), beside.join(format!("kplay-agent-{AGENT_TARGET}")))?;
    for one in chosen(wish) {
        println!("installing {}", one.name());
        one.install(&programs())?;
    }
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(me)
        .arg("measure")
        .args(arguments)
        .status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Where peers are kept: beside kplay's other costly artefacts.
fn programs() -> PathBuf {
    let cache = std::env::var_os("KPLAY_CACHE").filter(|folder| !folder.is_empty());
    cache.map_or_else(|| PathBuf::from("/var/cache/kplay"), PathBuf::from).join("bench")
}

fn connect(arguments: &[String]) -> Outcome<()> {
    match arguments {
        [key, hosts] => contender::connect(Path::new(key), hosts.parse()?, None),
        [key, hosts, file, packed] => contender::connect(Path::new(key), hosts.parse()?, Some((Path::new(file), packed.parse()?))),
        _ => Err("usage: connect KEY HOSTS [FILE PACKED]".into()),
    }
}

fn measure_all(wish: &Wish) -> Outcome<()> {
    let scratch = std::env::temp_dir().join(format!("kplay-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let result = measure_in(wish, &scratch);
    let _ = std::fs::remove_dir_all(&scratch);
    result
}

fn measure_in(wish: &Wish, scratch: &Path) -> Outcome<()> {
    let most = wish.hosts.iter().copied().max().unwrap_or(1);
    let ground = Ground {
        programs: programs(),
        sources: scratch.join("sources"),
        work: scratch.join("work"),
        trees: scratch.join("trees"),
        fleet: Fleet::start(&scratch.join("fleet"), most)?,
    };
    workload::write_sources(&ground.sources)?;
    let contenders = chosen(wish);
    let mut rows: Vec<Row> = Vec::new();
    for hosts in &wish.hosts {
        let able: Vec<&dyn Contender> = contenders.iter().map(AsRef::as_ref).filter(|one| one.most_hosts() >= *hosts).collect();
        rows.extend(compare(wish, &ground, &able, *hosts, scratch)?);
    }
    rows.sort_by_key(|row| row.hosts);
    let versions = contenders.iter().map(|one| format!("{}: {}", one.name(), one.version(&ground))).collect();
    drop(ground);
    let mut figures = Vec::new();
    // What has been measured is told, whatever becomes of the rest.
    let ended = if wish.scenarios { scenario::measure(scratch, wish.runs, &mut figures) } else { Ok(()) };
    let report = report::Report { rows, figures, versions };
    println!("{}", report.markdown());
    if wish.write {
        report.write()?;
    }
    ended
}

/// First applies, checked byte by byte, then runs that change nothing: A B C A B C …, so that whatever drifts drifts for all.
fn compare(wish: &Wish, ground: &Ground, contenders: &[&dyn Contender], hosts: usize, scratch: &Path) -> Outcome<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for &one in contenders {
        one.write(ground, hosts)?;
        let mut row = Row { name: one.name(), hosts, firsts: Vec::new(), samples: Vec::new(), edits: Vec::new(), carried: Vec::new() };
        if one.applies() {
            row.firsts.push(first_apply(one, ground, hosts, scratch)?);
        }
        println!("{} on {hosts} hosts: ready", one.name());
        rows.push(row);
    }
    for _ in 1..wish.runs {
        for (&one, row) in contenders.iter().zip(&mut rows) {
            // A peer that takes long is as slow the second time.
            if row.first().is_some_and(|first| first.wall < Duration::from_secs(10)) {
                row.firsts.push(first_apply(one, ground, hosts, scratch)?);
            }
            if let Some(command) = one.carry(ground, hosts)? {
                let (sample, _) = run(&ground.fleet, &command, scratch)?;
                println!("its bytes to {hosts} hosts: {:.3} s", sample.wall.as_secs_f64());
                row.carried.push(sample);
            }
        }
    }
    let mut last = vec![Duration::MAX; contenders.len()];
    for number in 0..=wish.runs {
        for ((&one, row), last) in contenders.iter().zip(&mut rows).zip(&mut last) {
            if !turns(wish, row.first()).contains(&number) {
                continue;
            }
            if *last < BRIEF {
                run(&ground.fleet, &one.command(ground, hosts)?, scratch)?;
            }
            let (sample, output) = run(&ground.fleet, &one.command(ground, hosts)?, scratch)?;
            expect_changes(one, &output, 0)?;
            *last = sample.wall;
            println!("{} on {hosts} hosts: {:.3} s", one.name(), sample.wall.as_secs_f64());
            // The first one warms what is kept between runs.
            if number > 0 || wish.quick {
                row.samples.push(sample);
            }
        }
    }
    if hosts == 1 && !wish.quick {
        for number in 1..=wish.runs {
            for (&one, row) in contenders.iter().zip(&mut rows) {
                if let Some(command) = one.edit(ground, number)? {
                    let (sample, output) = run(&ground.fleet, &command, scratch)?;
                    expect_changes(one, &output, 0)?;
                    println!("{} after an edit: {:.3} s", one.name(), sample.wall.as_secs_f64());
                    row.edits.push(sample);
                }
            }
        }
    }
    Ok(rows)
}

/// A run on hosts that have never seen the contender; what it makes is checked byte by byte.
fn first_apply(one: &dyn Contender, ground: &Ground, hosts: usize, scratch: &Path) -> Outcome<Sample> {
    workload::empty_trees(ground, one.name(), hosts)?;
    ground.fleet.forget()?;
    let mut command = one.command(ground, hosts)?;
    one.record(&mut command);
    let (sample, output) = run(&ground.fleet, &command, scratch)?;
    expect_changes(one, &output, hosts * workload::TASKS)?;
    if let Some(proven) = one.proven(ground)?.filter(|proven| *proven != hosts * workload::TASKS) {
        return Err(format!("the record of {} proves {proven} changes, not {}", one.name(), hosts * workload::TASKS).into());
    }
    println!("{} on {hosts} hosts, the first time: {:.3} s", one.name(), sample.wall.as_secs_f64());
    for number in 1..=hosts {
        let tree = workload::tree(&ground.trees, one.name(), number);
        workload::verify(&tree, number).map_err(|error| format!("{}: {error}", one.name()))?;
    }
    Ok(sample)
}

/// The rounds in which a contender takes part: all, or fewer where each takes long, and without the one that only warms then.
fn turns(wish: &Wish, first: Option<Sample>) -> RangeInclusive<usize> {
    match first.map_or(0, |first| first.wall.as_secs()) {
        0..20 => 0..=wish.runs,
        20..60 => 1..=wish.runs.min(3),
        _ => 1..=1,
    }
}

fn expect_changes(one: &dyn Contender, output: &str, expected: usize) -> Outcome<()> {
    match one.changed(output) {
        Some(changed) if changed != expected => {
            Err(format!("{} says that it changed {changed}, not {expected}:\n{output}", one.name()).into())
        }
        _ => Ok(()),
    }
}

/// The middle run of several, for whoever only wants that.
fn middle(samples: &[Sample]) -> Sample {
    median(samples).0
}
