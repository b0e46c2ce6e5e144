//! Command lines: what is refused, what the small commands print, what encrypted files hold.
#![allow(clippy::disallowed_methods, reason = "tests make the files and start the programs that they need")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod new;
mod usage;
mod vault;
