//! The cases of `command` and `shell`, on a host in memory.
