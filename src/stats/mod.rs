//! Statistics of samples: quantiles and intervals, each with its source. Pure and deterministic.

pub(crate) mod change_points;
pub(crate) mod holm;
pub(crate) mod launches;
mod median;
pub(crate) mod random;
pub(crate) mod repeats;
mod sample;
pub(crate) mod signed_rank;
mod stationary;

pub(crate) use median::{median_interval, quantile_interval};
pub use sample::median;
pub(crate) use sample::{Sample, quantile};
use serde::{Deserialize, Serialize};
pub(crate) use stationary::stationary_from;

/// A point, and the interval that holds the true value with the stated confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interval {
    pub point: f64,
    pub low: f64,
    pub high: f64,
    /// 0.95 for a 95 % interval.
    pub confidence: f64,
}
