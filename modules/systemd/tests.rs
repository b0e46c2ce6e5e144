//! The cases of `systemd`, on a host in memory.
