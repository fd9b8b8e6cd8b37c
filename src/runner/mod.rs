//! Runs trials: each in a child process of its own, measured until it is precise, never able to hurt the sweep.
//!
//! [`run_trial`] starts this same program with a hidden subcommand, which calls [`child::serve`]; the two speak
//! [`protocol`] over pipes. Whatever becomes of the child, the parent gets one [`measurement::Measurement`].
//!
//! The runner knows one trial at a time: the order of a sweep, its journal and its limits are its caller's.

pub mod allocation;
pub mod ask;
pub mod child;
mod clock;
pub mod fault;
mod measure;
pub mod measurement;
mod memory;
mod parent;
mod precision;
mod process;
pub mod protocol;
pub mod team;
pub mod telemetry;
mod verdict;
pub mod watch;

pub use parent::{Options, Request, run_trial};
pub use process::this_program;
pub use protocol::{Progress, Stage};
