//! Runs trials: each in a child process of its own, measured until it is precise, never able to hurt the sweep.

pub mod measurement;
