//! Statistics of samples: quantiles and intervals, each with its source. Pure; randomness comes from a seed argument.

use serde::{Deserialize, Serialize};

/// A point, and the interval that holds the true value with the stated confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub point: f64,
    pub low: f64,
    pub high: f64,
    /// 0.95 for a 95 % interval.
    pub confidence: f64,
}
