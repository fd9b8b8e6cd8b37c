//! Trials that are to learn something: steps until a loss or a bound, with evaluations in between.

mod curve;
pub(crate) mod learned;
mod lessons;
mod study;

pub(super) use lessons::prepared;
pub(super) use study::{Broken, study};
