//! Trials that are to learn something: steps until a loss or a bound, with evaluations in between, and checkpoints.

pub(crate) mod checkpoints;
mod curve;
pub(crate) mod learned;
mod lessons;
mod notes;
mod study;

pub(super) use lessons::prepared;
pub(super) use study::{Broken, Start, study};
