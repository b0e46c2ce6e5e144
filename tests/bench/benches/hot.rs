//! What every run does most, one function at a time: `cargo bench --package kplay-bench`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark that cannot go on has failed; it makes its own files")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use divan::{Bencher, black_box};
use kplay::blobs::Blobs;
use kplay::files::Files;
use kplay::inventory::{Decrypt, Inventory, Sources};
use kplay::lua::{Options, Program};
use kplay::pki::{Authorities, AuthorityOptions};
use kplay::plan::{Planner, Step};
use kplay::secrets::Secrets;
use kplay::services::Provided;
use kplay_modules::agent::wire;

fn main() {
    divan::main();
}

/// A folder that goes when the benchmark ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kplay-hot-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Plain;

impl Decrypt for Plain {
    fn decrypt(&self, _file: &Path, bytes: &[u8]) -> kplay::diagnostic::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
}

fn hosts(count: usize) -> String {
    let mut text = String::from("all:\n  vars:\n    user: root\n  hosts:\n");
    for number in 1..=count {
        let _ = writeln!(
            text,
            "    h{number}: {{ address: 10.{}.{}.{}, tree: /srv/{number} }}",
            number >> 16,
            (number >> 8) & 255,
            number & 255
        );
    }
    text
}

fn load(file: &Path) -> Inventory {
    let inventories = [file.to_string_lossy().into_owned()];
    let sources = Sources {
        inventories: &inventories,
        playbook_folder: None,
        extra: &BTreeMap::new(),
        timeout: Duration::from_secs(1),
        decrypt: &Plain,
    };
    Inventory::load(&sources).unwrap()
}

#[divan::bench(args = [100, 10_000])]
fn inventory(bencher: Bencher<'_, '_>, count: usize) {
    let folder = Folder::new("inventory");
    let file = folder.write("hosts.yaml", hosts(count));
    bencher.counter(divan::counter::ItemsCount::new(count)).bench_local(|| load(black_box(&file)));
}

/// Lua, prepared arguments, a rendered template and a hashed file, for fifty tasks of each host.
#[divan::bench(args = [1, 100])]
fn plan(bencher: Bencher<'_, '_>, count: usize) {
    let folder = Folder::new("plan");
    let inventory = load(&folder.write("hosts.yaml", hosts(count)));
    folder.write("t.j2", "setting = {{ number }} in {{ tree }}\n".repeat(25));
    folder.write("big", vec![b'x'; 100_000]);
    let playbook = folder.write(
        "play.lua",
        "play { hosts = \"all\", run = function(host)\n\
         for i = 1, 20 do host:template({ src = \"t.j2\", dest = host.vars.tree .. \"/t\" .. i, vars = { number = i } }) end\n\
         for i = 1, 5 do host:copy({ src = \"big\", dest = host.vars.tree .. \"/big\" .. i }) end\n\
         for i = 1, 25 do host:file({ path = host.vars.tree .. \"/d\" .. i, state = \"directory\" }) end\n\
         end }\n",
    );
    bencher.counter(divan::counter::ItemsCount::new(count * 50)).bench_local(|| {
        let services = Provided::new(Arc::new(Authorities::new(AuthorityOptions::default())), folder.0.join("downloads"), true);
        let blobs = Arc::new(Blobs::default());
        let mut program = Program::load(&playbook, Options::default(), &inventory, blobs, Box::new(services), &Secrets::default()).unwrap();
        let mut tasks = 0;
        for host in 0..count {
            program.begin(0, host).unwrap();
            let step = program.resume(host);
            assert!(matches!(step, Step::Finishing | Step::Ended), "{step:?}");
            tasks += program.take_queue(host).unwrap().len();
        }
        assert_eq!(tasks, count * 50);
    });
}

fn request(tasks: u32) -> wire::ToAgent {
    let task = |id| wire::Task {
        id,
        module: "file".to_owned(),
        arguments: format!(r#"{{"path":"/srv/h1/d{id}","state":"directory","mode":"0755"}}"#),
        name: format!("file /srv/h1/d{id}"),
        ..wire::Task::default()
    };
    wire::ToAgent::Request(wire::Request { id: 1, tasks: (0..tasks).map(task).collect() })
}

#[divan::bench(args = [50, 5_000])]
fn encode(bencher: Bencher<'_, '_>, tasks: u32) {
    let message = request(tasks);
    bencher.counter(tasks).bench_local(|| wire::encode(black_box(&message)).unwrap());
}

#[divan::bench(args = [50, 5_000])]
fn decode(bencher: Bencher<'_, '_>, tasks: u32) {
    let bytes = wire::encode(&request(tasks)).unwrap();
    bencher.counter(tasks).bench_local(|| {
        let mut decoder = wire::Decoder::default();
        decoder.push(black_box(&bytes));
        decoder.next::<wire::ToAgent>().unwrap().unwrap()
    });
}

#[divan::bench(args = [100_000, 10_000_000])]
fn hash_file(bencher: Bencher<'_, '_>, bytes: usize) {
    let folder = Folder::new("hash");
    let file = folder.write("content", vec![b'x'; bytes]);
    let meta = std::fs::metadata(&file).unwrap();
    bencher.counter(divan::counter::BytesCount::new(bytes)).bench_local(|| Files::default().look(black_box(&file), &meta).unwrap());
}
