//! A sweep: what is known of this machine before it, what an earlier sitting left, and the loop that makes every planned trial
//! exactly one record.
//!
//! Measuring, journal, display and clock are arguments, so that a library can run a sweep and tests can follow the order of things.
//! Deliberately absent: the command line, reports and money.

mod again;
pub(crate) mod forecast;
pub(crate) mod identity;
pub(crate) mod past;
pub(crate) mod patience;
pub(crate) mod planning;
pub(crate) mod probing;
pub(crate) mod resume;
pub(crate) mod speed;
pub(crate) mod texts;
pub(crate) mod trials;
pub(crate) mod unfinished;

pub(crate) use trials::{Outcome, Stage, sweep};
