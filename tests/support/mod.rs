//! What the tests share: a real sshd on loopback, and agents to send.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod agents;
pub mod sshd;
