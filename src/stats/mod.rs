//! Statistics of samples: quantiles and intervals, each with its source. Pure and deterministic.

pub mod change_points;
pub mod holm;
pub mod launches;
mod median;
pub mod random;
mod sample;
pub mod signed_rank;
mod stationary;

pub use median::median_interval;
pub use sample::{Sample, median, quantile};
use serde::{Deserialize, Serialize};
pub use stationary::stationary_from;

/// A point, and the interval that holds the true value with the stated confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub point: f64,
    pub low: f64,
    pub high: f64,
    /// 0.95 for a 95 % interval.
    pub confidence: f64,
}
