//! The agent: a thin program over the library, frames on standard input and output.

fn main() {}
