//! The `kplay` command.

use std::process::ExitCode;

/// Planning keeps half a gigabyte for 10,000 hosts, among pieces that come and go: with glibc's allocator these are a third of its time.
#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ExitCode::from(kplay::command::main(std::env::args_os()))
}
