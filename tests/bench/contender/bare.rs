//! The floor of any tool that uses libssh2: connect, log in, run `true`, with as many threads as hosts.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use ssh2::{MethodType, Session};

use super::{Contender, Ground};
use crate::Outcome;
use crate::fleet::address;

/// A connection and nothing else.
pub struct Bare;

impl Contender for Bare {
    fn name(&self) -> &'static str {
        "libssh2-true"
    }

    fn version(&self, _ground: &Ground) -> String {
        "ssh2, curve25519, one thread per host".to_owned()
    }

    fn write(&self, _ground: &Ground, _hosts: usize) -> Outcome<()> {
        Ok(())
    }

    fn command(&self, ground: &Ground, hosts: usize) -> Outcome<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("connect").arg(ground.fleet.key()).arg(hosts.to_string());
        Ok(command)
    }

    fn changed(&self, _output: &str) -> Option<usize> {
        None
    }

    fn applies(&self) -> bool {
        false
    }
}

/// Connects to the first hosts, all at once, and runs `true` on each.
pub fn connect(key: &Path, hosts: usize) -> Outcome<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=hosts).map(|number| scope.spawn(move || one(key, number).map_err(|error| error.to_string()))).collect();
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })
}

fn one(key: &Path, number: usize) -> Outcome<()> {
    let stream = TcpStream::connect((address(number), 22))?;
    stream.set_nodelay(true)?;
    let mut session = Session::new()?;
    session.method_pref(MethodType::Kex, "curve25519-sha256,curve25519-sha256@libssh.org")?;
    session.set_tcp_stream(stream);
    session.handshake()?;
    session.userauth_pubkey_file("root", None, key, None)?;
    let mut channel = session.channel_session()?;
    channel.exec("true")?;
    std::io::copy(&mut channel, &mut std::io::sink())?;
    channel.wait_close()?;
    if channel.exit_status()? == 0 { Ok(()) } else { Err("`true` failed".into()) }
}
