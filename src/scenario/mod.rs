//! Scenarios: YAML in, checked domain types out, with errors that point at line and column.
//!
//! Wire types (what may be written) are turned into [`Scenario`] (what is meant) once and fallibly. A scenario knows nothing
//! of devices, of the clock or of results.

pub mod trial;

use crate::units::{Share, UsdPerHour};
use serde::{Deserialize, Serialize};
use trial::Trial;

/// A checked scenario: everything the file said, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Names the report's folder; letters, digits, `-`, `_` and `.` only.
    pub name: String,
    pub description: String,
    /// The swept paths in the order of the file, for columns and charts ("model.d_model", "batch").
    pub axes: Vec<String>,
    /// Every cell of the sweep in the order of the file, before it is shuffled, capped or skipped.
    pub cells: Vec<Cell>,
    pub measure: Measure,
    pub price: Price,
    pub limits: Limits,
}

/// One requested cell of the sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub trial: Trial,
    /// What the axes were set to, in the order of [`Scenario::axes`] (plus fields set by `include`): path and value as text.
    pub coordinates: Vec<(String, String)>,
}

/// How to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Half width of the 95 % interval of the median step, relative, at which a trial stops.
    pub precision: f64,
    pub min_seconds: f64,
    pub max_seconds: f64,
    /// `None`: warm up until the step time is stationary.
    pub warmup_steps: Option<u32>,
    pub seed: u64,
    pub order: Order,
    /// A trial that has not finished after this long is killed: status `timeout`.
    pub timeout_seconds: f64,
    /// Run trials although they are predicted not to fit into memory.
    pub ignore_memory: bool,
}

/// The order in which cells are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// By a seeded shuffle: drift of the machine does not line up with an axis.
    Shuffled,
    /// As the file lists them.
    File,
}

/// What an hour of the hardware costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// A name of the price book, or `local`.
    pub hardware: String,
    /// For everything a trial occupies; `None` is shown as n/a, never as 0.
    pub usd_per_hour: Option<UsdPerHour>,
    /// What the figure stands for.
    pub source: String,
    /// Share of the paid time in which tokens are produced, in (0, 1].
    pub utilisation: Share,
}

/// Caps on the whole sweep; `None` binds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    pub minutes: Option<f64>,
    pub usd: Option<f64>,
    pub cells: Option<u64>,
}
