//! Every metric of every record, computed once.

use super::metric::{Context, Estimate, Metric};
use super::metrics::METRICS;
use crate::results::run::Run;

/// The metrics of one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Figured {
    /// In the order of [`METRICS`].
    values: Vec<Option<Estimate>>,
}

impl Figured {
    /// Computes the whole table for one record.
    pub fn of(context: &Context) -> Self {
        Self { values: METRICS.iter().map(|m| (m.compute)(context)).collect() }
    }

    /// `None` where the metric does not apply or its inputs are missing.
    pub fn get(&self, metric: &Metric) -> Option<Estimate> {
        let index = METRICS.iter().position(|m| m.name == metric.name)?;
        self.values.get(index).copied().flatten()
    }
}

/// The metrics of every record of a run, in the order of its records.
pub fn evaluate(run: &Run) -> Vec<Figured> {
    run.records.iter().map(|record| Figured::of(&Context::of(run, record))).collect()
}
