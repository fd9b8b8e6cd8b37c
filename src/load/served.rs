//! What requests to a server come to: a distribution each, not the samples.

use super::metrics::Told;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Requests of one launch. `None`: not told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// Requests that were answered to their end.
    pub completed: Option<u64>,
    /// Requests that were not.
    pub failed: Option<u64>,
    /// Answered requests a second.
    pub requests_per_second: Option<f64>,
    /// Tokens of answers a second.
    pub output_tokens_per_second: Option<f64>,
    /// From a request's start to its first token.
    pub ttft: Latency,
    /// (E2E - TTFT) / (output tokens - 1) of a request.
    pub tpot: Latency,
    /// Between two tokens, or two chunks of them, as they arrive.
    pub itl: Latency,
    /// From a request's start to its last token.
    pub e2e: Latency,
    /// What Centime's own load knows beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Own>,
}

/// Percentiles, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: Option<f64>,
    /// 90 of 100 are below it.
    pub p90: Option<f64>,
    /// 95 of 100.
    pub p95: Option<f64>,
    /// 99 of 100.
    pub p99: Option<f64>,
    /// The 95 % interval of each, where the requests tell.
    #[serde(default, skip_serializing_if = "Intervals::are_none")]
    pub intervals: Intervals,
}

/// Intervals of the percentiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    pub p50: Option<(f64, f64)>,
    pub p90: Option<(f64, f64)>,
    pub p95: Option<(f64, f64)>,
    pub p99: Option<(f64, f64)>,
}

impl Intervals {
    fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What only whoever sent the requests knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Own {
    /// Of the window in which requests count.
    pub seconds: f64,
    pub input_tokens_per_second: f64,
    /// Of a request, as the server counts them.
    pub mean_input_tokens: f64,
    pub mean_output_tokens: f64,
    /// Of the time that requests took, the share before their first token.
    pub first_token_share: f64,
    /// Requests a second that kept to the SLO, and the share that did; where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodput: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo_share: Option<f64>,
    /// How late the client itself was: 99th percentile, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lateness_p99: Option<f64>,
    /// Of the input tokens, the share that the server had in its cache, where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_share: Option<f64>,
    /// What the server told of itself, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Told>,
    /// Of a search: the largest load that held and the smallest that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest: Option<(f64, Option<f64>)>,
    /// Requests that were due in the window and not answered, by what became of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<String, u64>,
    /// Requests that were due in the window and sent twice, because a kept connection had ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sent_again: u64,
    /// The first failure in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub first_failure: String,
}
