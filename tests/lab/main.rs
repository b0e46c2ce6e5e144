//! Tests on real hosts. Run by name, as root: `cargo test --test lab`.
//!
//! They boot Debian with systemd in namespaces, so they need what a lab needs; where something is missing they fail and say so.
#![allow(clippy::disallowed_methods, reason = "tests make the files and start the programs that they need")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says why and ends")]

mod agent;
mod client;
mod document_000;
mod document_001;
mod document_002;
mod documents;
mod drift;
mod failover;
mod faults;
mod flagship;
mod frames;
mod kills;
mod lifecycle;
mod operations;
mod packages;
mod renewal;
mod rootless;
mod safety;
mod scale;
#[path = "../support/mod.rs"]
mod shared;
mod support;
