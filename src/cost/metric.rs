//! The metrics of a trial: one table from which columns, plots and gates follow.

use crate::hardware::machine::Probe;
use crate::results::record::Record;
use crate::scenario::Price;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Higher,
    Lower,
    /// A fact, not a goal.
    Neutral,
}

/// A value and, where it is estimated from samples, its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    pub value: f64,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

/// Everything a metric may be computed from.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub record: &'a Record,
    pub price: &'a Price,
    pub probe: Option<&'a Probe>,
}

#[derive(Debug)]
/// One metric. The column, the plot's axis and the gate all take their name, unit and direction from here.
pub struct Metric {
    /// Column name.
    pub name: &'static str,
    /// Short heading in tables.
    pub label: &'static str,
    /// Unit as printed in charts; empty for a pure number.
    pub unit: &'static str,
    pub direction: Direction,
    pub formula: &'static str,
    /// Where the definition comes from.
    pub source: &'static str,
    /// `None` where the metric does not apply or its inputs are missing: shown as n/a.
    pub compute: fn(&Context) -> Option<Estimate>,
}
