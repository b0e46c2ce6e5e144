//! Brings hosts and tasks together: who is planned, connected, sent to, waited for, and when a play ends.

mod ask;
mod forks;
mod host;
mod outcome;
mod planning;
mod policy;
mod run;
mod send;
mod session;
mod supply;
mod undo;
mod unread;
mod workers;

pub use ask::{Answer, Next, ask};
pub use forks::Forks;
pub use run::{End, Run, Settings};
pub use session::{Greeting, Happening, HostId, Sessions};
pub use supply::{Signer, Supply};
pub use undo::{left_behind, step as undo_step};
