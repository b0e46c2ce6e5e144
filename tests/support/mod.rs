//! What the tests share: terminal sessions, a real sshd on loopback, and agents to send.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::expect_used, reason = "a test that cannot go on has failed")]

pub mod agents;
pub mod kplay;
pub mod sshd;
pub mod static_agent;
