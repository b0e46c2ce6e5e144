//! What the tests share: terminal sessions, a real sshd on loopback, and agents to send.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod agents;
pub mod kplay;
pub mod sshd;
pub mod static_agent;
