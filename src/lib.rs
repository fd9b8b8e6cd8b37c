//! Centime says what a token costs.
//!
//! One direction, no way back (each arrow is a function with plain data on both sides):
//!
//! ```text
//! scenario.yaml -> Scenario -> Plan -> Measurement (per trial, in a child process) -> Results -> Cost -> Comparison -> Report
//! ```
//!
//! The modules are rooms on floors; a room imports from lower floors only, and `tests/architecture.rs` holds it:
//! F0 `units`, `stats`, `yaml`, `net`; F1 `hardware`, `transformer`; F2 `scenario`,
//! `projection`; F3 `plan`; F4 `runner`; F5 `results`; F6 `cost`, `sweep`; F7 `comparison`; F8 `experiment`, `report`; F9 `cli`.

#![warn(missing_debug_implementations)]

pub mod cli;
pub mod comparison;
pub mod cost;
pub mod experiment;
pub mod hardware;
pub mod net;
pub mod plan;
pub mod projection;
pub mod report;
pub mod results;
pub mod runner;
pub mod scenario;
pub mod stats;
pub mod sweep;
pub mod transformer;
pub mod units;
pub mod yaml;

// The fixture is shared with the tests outside the crate, which know it by its name.
#[cfg(test)]
extern crate self as centime;
#[cfg(test)]
#[path = "../tests/common/fixture.rs"]
mod fixture;
