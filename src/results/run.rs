//! A whole run: the records and everything a reader needs to know about where they come from.

use super::record::Record;
use crate::hardware::machine::{Machine, Probe};
use crate::scenario::{Measure, Price};
use serde::{Deserialize, Serialize};

/// What `environment.json` holds: all of a run but its records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    pub schema_version: u32,
    pub scenario_name: String,
    pub description: String,
    /// Swept paths, in the order of the scenario.
    pub axes: Vec<String>,
    /// How many cells the scenario asked for; every one of them has a record when the run is complete.
    pub requested_cells: u32,
    pub measure: Measure,
    pub price: Price,
    pub program_version: String,
    pub machine: Machine,
    pub probe: Option<Probe>,
    /// Start of the run, RFC 3339, UTC.
    pub started_at: String,
    /// The command as typed, without the program's path.
    pub command: String,
}

/// A run as read back from its folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub environment: Environment,
    /// One per finished cell, ordered by `cell_index`.
    pub records: Vec<Record>,
}
