//! One line of the journal: a trial, what came of it, and where the figures come from.

use crate::runner::measurement::Measurement;
use crate::scenario::Cell;
use serde::{Deserialize, Serialize};

/// Version of the journal's and the tables' form. Readers accept every version up to this one, for ever.
pub const SCHEMA_VERSION: u32 = 1;

/// One measured (or skipped) cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA_VERSION`] of the program that wrote it.
    pub schema_version: u32,
    /// [`crate::scenario::trial::Trial::id`].
    pub trial_id: String,
    /// Place of the cell in the file's order, from 0.
    pub cell_index: u32,
    /// Place in the order of execution, from 0.
    pub run_order: u32,
    /// Which launch of its cell this is, from 0. A record of a whole cell is what `results::merge` makes of its launches.
    #[serde(default, skip_serializing_if = "is_first")]
    pub round: u32,
    /// How often this launch was made again because others disturbed it.
    #[serde(default, skip_serializing_if = "is_first")]
    pub again: u32,
    /// What was asked for.
    pub cell: Cell,
    /// What came of it.
    pub measurement: Measurement,
    /// Start of the trial, RFC 3339, UTC.
    pub started_at: String,
}

fn is_first(round: &u32) -> bool {
    *round == 0
}

/// What has to be the same for an old record to count for a new run; written once at the head of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunKey {
    /// [`SCHEMA_VERSION`] of the program that wrote it.
    pub schema_version: u32,
    /// Of this crate.
    pub program_version: String,
    /// The scenario's name.
    pub scenario_name: String,
    /// The scenario's seed.
    pub seed: u64,
    /// Settings that decide what a figure means (precision, min/max seconds, warm-up), canonical JSON.
    pub measure: String,
    /// [`crate::hardware::machine::Machine::fingerprint`].
    pub machine: String,
}
