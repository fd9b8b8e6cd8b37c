//! Experiments: two programs launched in pairs, or one against what was stored, and what may be concluded.
//!
//! Starts processes by `runner`, judges by `comparison`. Deliberately absent: the command line and how a verdict is shown.

pub(crate) mod design;
pub(crate) mod duel;
pub(crate) mod launch;
mod learning;
pub(crate) mod stored;
