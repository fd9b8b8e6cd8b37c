//! What a load generator tells of requests to a server: a distribution each, not the samples.

use serde::{Deserialize, Serialize};

/// Requests of one launch. `None`: not told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Served {
    pub completed: Option<u64>,
    pub failed: Option<u64>,
    pub requests_per_second: Option<f64>,
    pub output_tokens_per_second: Option<f64>,
    /// From a request's start to its first token.
    pub ttft: Latency,
    /// (E2E - TTFT) / (output tokens - 1) of a request.
    pub tpot: Latency,
    /// Between two tokens, or two chunks of them, as they arrive.
    pub itl: Latency,
    /// From a request's start to its last token.
    pub e2e: Latency,
}

/// Percentiles, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
}
