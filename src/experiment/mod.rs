//! Experiments: two programs launched in pairs, or one against what was stored, and what may be concluded.
//!
//! Starts processes by `runner`, judges by `comparison`. Deliberately absent: the command line and how a verdict is shown.

pub mod design;
pub mod duel;
pub mod launch;
pub mod stored;
