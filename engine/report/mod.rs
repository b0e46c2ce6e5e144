//! What the operator sees of a run: one vocabulary of events, and the siblings that show it.

pub mod event;
pub mod printer;
