//! The floor of any tool that uses libssh2: connect, log in, run `true`, with as many threads as hosts.

use std::io::Write as _;
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

/// Connects to the first hosts, all at once, and runs `true` on each; with a file, carries it there instead: so many of its first bytes
/// are unpacked into a file of the host, the rest goes into another one as it is.
pub fn connect(key: &Path, hosts: usize, carried: Option<(&Path, usize)>) -> Outcome<()> {
    let carried = match carried {
        Some((file, packed)) => Some((std::fs::read(file)?, packed)),
        None => None,
    };
    let carried = &carried;
    std::thread::scope(|scope| {
        let one = |number| one(key, number, carried.as_ref()).map_err(|error| error.to_string());
        let threads: Vec<_> = (1..=hosts).map(|number| scope.spawn(move || one(number))).collect();
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })
}

fn one(key: &Path, number: usize, carried: Option<&(Vec<u8>, usize)>) -> Outcome<()> {
    let stream = TcpStream::connect((address(number), 22))?;
    stream.set_nodelay(true)?;
    let mut session = Session::new()?;
    session.method_pref(MethodType::Kex, "curve25519-sha256,curve25519-sha256@libssh.org")?;
    // What carries most for the least processor.
    session.method_pref(MethodType::CryptCs, "aes128-gcm@openssh.com,aes128-ctr")?;
    session.set_tcp_stream(stream);
    session.handshake()?;
    session.userauth_pubkey_file("root", None, key, None)?;
    let mut channel = session.channel_session()?;
    match carried {
        Some((bytes, packed)) => {
            channel.exec(&format!("head -c {packed} | zstd -dc > carried && cat > carried.more"))?;
            channel.write_all(bytes)?;
            channel.send_eof()?;
        }
        None => channel.exec("true")?,
    }
    std::io::copy(&mut channel, &mut std::io::sink())?;
    channel.wait_close()?;
    if channel.exit_status()? == 0 { Ok(()) } else { Err("the command failed".into()) }
}
