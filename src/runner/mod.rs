//! Runs trials: each in a child process of its own, measured until it is precise, never able to hurt the sweep.
//!
//! [`run_trial`] starts this same program with a hidden subcommand, which calls [`child::serve`]; the two speak
//! [`protocol`] over pipes. Whatever becomes of the child, the parent gets one [`measurement::Measurement`].
//!
//! The runner knows one trial at a time: the order of a sweep, its journal and its limits are its caller's.

pub(crate) mod allocation;
pub(crate) mod ask;
pub(crate) mod child;
mod clock;
mod engine;
mod family;
pub(crate) mod fault;
pub(crate) mod learning;
mod measure;
pub(crate) mod measurement;
mod memory;
mod parent;
mod precision;
mod process;
pub(crate) mod protocol;
pub(crate) mod team;
pub(crate) mod telemetry;
pub(crate) mod traced;
mod verdict;
pub(crate) mod watch;

pub use parent::{Options, Request, run_trial};
pub use process::this_program;
pub use protocol::{Progress, Stage};
