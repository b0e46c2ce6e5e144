//! Connections to real sshd processes on loopback: the same promises over libssh2, the system's ssh, and without ssh.
#![allow(clippy::disallowed_methods, reason = "tests make the files and start the programs that they need")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod command;
mod conformance;
mod login;
mod session;
mod talk;
