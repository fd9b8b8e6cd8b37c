//! A sweep: what is known of this machine before it, what an earlier sitting left, and the loop that makes every planned trial
//! exactly one record.
//!
//! Measuring, journal, display and clock are arguments, so that a library can run a sweep and tests can follow the order of things.
//! Deliberately absent: the command line, reports and money.

mod again;
pub mod forecast;
pub mod identity;
pub mod past;
pub mod patience;
pub mod planning;
pub mod probing;
pub mod resume;
pub mod trials;

pub use trials::{Outcome, Stage, sweep};
