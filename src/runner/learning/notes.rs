//! What a training has come to so far, beside what its session holds: kept in a checkpoint as it is.

use super::curve::Curve;
use super::learned::Point;
use crate::scenario::learning::Progress;
use serde::{Deserialize, Serialize};

/// What has happened so far.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::runner) struct Notes {
    pub step_seconds: Vec<f64>,
    /// When steps of this process began; those before it are of another one's clock.
    #[serde(skip)]
    pub step_starts: Vec<f64>,
    pub at: Progress,
    pub curve: Curve,
    pub evaluations: Vec<Point>,
    pub evaluation_seconds: f64,
    /// For which steps have waited for their batches.
    pub waited_seconds: f64,
    /// Of the last step.
    pub loss: f64,
    pub checksum: Option<u32>,
    pub allocated: Option<u64>,
}
