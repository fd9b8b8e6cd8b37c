//! The plan: which trials will run, in which order, what they are predicted to take, and which are left out and why.
//!
//! Pure: the machine's facts are arguments. Touches no device and no clock.

use crate::scenario::{Cell, Limits, Measure, Order};
use crate::transformer::session::MemoryParts;
use crate::units::{Bytes, Flops, Seconds};

/// What the plan has to know of the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub cores: u32,
    /// Bytes that trials may fill.
    pub memory: Bytes,
    /// Assumed rates for the time estimate: FLOP/s of matrix products and bytes/s of reads on the whole machine.
    pub flops_per_second: f64,
    pub read_bytes_per_second: f64,
    pub usd_per_hour: Option<f64>,
}

/// One cell, with what is known of it before it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedTrial {
    /// Place in the scenario's order.
    pub cell_index: u32,
    /// Place in the order of execution.
    pub run_order: u32,
    pub id: String,
    pub cell: Cell,
    pub parameters: u64,
    pub flops_per_step: Flops,
    pub memory: MemoryParts,
    /// Estimated seconds of the whole trial: start, warm-up, measuring.
    pub estimate: Seconds,
    /// Why it will not run, if so.
    pub skip: Option<String>,
}

/// The whole sweep, in the order of execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub trials: Vec<PlannedTrial>,
    pub measure: Measure,
    pub limits: Limits,
    pub order: Order,
}
