//! Gives the protocol its version: a digest of all that is compiled into an agent, so that nobody has to remember to raise a number.

#![expect(clippy::disallowed_methods, reason = "it reads the sources")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    let mut sources = BTreeMap::new();
    collect(Path::new("."), &mut sources)?;
    // FNV-1a: it tells builds apart and needs no crate.
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    for (path, bytes) in &sources {
        for byte in path.to_string_lossy().bytes().chain([0]).chain(bytes.iter().copied()).chain([0]) {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    say("rerun-if-changed=.");
    say(&format!("rustc-env=KPLAY_PROTOCOL={digest:016x}"));
    Ok(())
}

/// Collects the sources below a folder, but for tests, which are in no agent.
fn collect(folder: &Path, sources: &mut BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
        if path.is_dir() && !is_test {
            collect(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
            sources.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(())
}

fn say(line: &str) {
    println!("cargo::{line}");
}
