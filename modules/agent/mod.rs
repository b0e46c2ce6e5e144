//! The program that carries the modules to a host: its protocol and its serving loop.

pub mod identity;
pub mod serve;
pub mod trust;
pub mod wire;
