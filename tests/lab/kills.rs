//! Runs that are killed at random moments: whatever was under way, the next run brings everything to its end.
//!
//! The moments come from a seed that is printed; `KPLAY_TEST_SEED` gives one.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{Events, Lab, run};

/// How often each playbook is killed.
const KILLS: usize = 10;

#[test]
fn runs_that_are_killed_are_finished_by_the_next() {
    let seed: Option<u64> = std::env::var("KPLAY_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into());
    println!("KPLAY_TEST_SEED={seed}");
    let mut moments = Moments(seed | 1);

    let lab = Lab::of_repository();
    killed_and_finished(&lab, &["playbooks/site.lua"], &mut moments, 8000);

    let archive = lab.folder().join("v1.20.3.tar.gz");
    let built = kplay::lab::default_cache().join("kubernetes-server-linux-amd64.tar.gz");
    let script = "mkdir tree && tar -C tree -xzf \"$1\" && cd tree \
                  && LC_ALL=C sed -i 's/v1\\.20\\.2/v1.20.3/g' kubernetes/server/bin/* && tar -czf \"$2\" kubernetes && cd .. && rm -r tree";
    run(Command::new("sh").args(["-ec", script, "sh"]).arg(built).arg(&archive).env("GZIP", "-1").current_dir(lab.folder()));
    let archive = format!("kubernetes_archive={}", archive.display());
    killed_and_finished(&lab, &["playbooks/upgrade.lua", "-e", "kubernetes_version=v1.20.3", "-e", &archive], &mut moments, 8000);
    for master in ["hdss7-21", "hdss7-22"] {
        assert_eq!(lab.sh(master, "kubectl version --short 2>/dev/null | grep Server").success(), "Server Version: v1.20.3\n");
    }
    lab.kplay(&["playbooks/verify.lua"]).success();
}

/// Kills a playbook again and again; then it comes to its end, and after that it has nothing to do.
fn killed_and_finished(lab: &Lab, playbook: &[&str], moments: &mut Moments, longest: u64) {
    for kill in 1..=KILLS {
        let millis = moments.next(longest);
        let mut child = lab.start(playbook);
        std::thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();
        println!("{}: kill {kill} after {millis} ms", playbook[0]);
    }
    lab.kplay(playbook).success();
    let file = lab.folder().join("again.jsonl");
    let again: Vec<&str> = playbook.iter().copied().chain(["--events", file.to_str().unwrap()]).collect();
    lab.kplay(&again).success();
    assert_eq!(Events::read(&file).summary(), [""; 0], "{} has changed something although it was finished", playbook[0]);
}

/// Random moments, the same for the same seed.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}
