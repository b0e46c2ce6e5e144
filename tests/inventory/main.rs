//! Inventories as they are written: what is read from them, and what every mistake says.
#![allow(clippy::disallowed_methods, reason = "tests make the files and start the programs that they need")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod mistakes;
mod reading;
mod sources;
