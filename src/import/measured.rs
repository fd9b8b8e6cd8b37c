//! One measurement of a tool: a configuration, and what came of it once.

use crate::load::served::{Latency, Served};
use crate::transformer::Phase;
use serde_json::Value;
use std::collections::BTreeMap;

/// A configuration and its figures.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    pub model: String,
    pub phase: Phase,
    /// Sequences at a time: the batch, or how many requests are under way.
    pub batch: u32,
    /// 0 where it is not told.
    pub prompt_len: u32,
    pub new_tokens: u32,
    /// Where the file tells.
    pub devices: Option<u32>,
    /// What else sets it apart: ("rate", "4").
    pub settings: BTreeMap<String, String>,
    /// Steps of `phase`, in seconds.
    pub step_seconds: Vec<f64>,
    pub tokens_per_step: u64,
    pub served: Option<Served>,
    pub peak_memory_bytes: Option<u64>,
    /// How long it took, where the file tells.
    pub seconds: Option<f64>,
}

/// Tokens and requests of a launch against a server.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// Means over the requests; `None` where the file does not tell.
    pub input: Option<f64>,
    pub output: Option<f64>,
    pub concurrency: Option<f64>,
    pub tokens_per_second: Option<f64>,
}

impl Measured {
    /// What a load generator measured. A step is what is under way at a time, processed once: its length follows from the throughput of
    /// input and output tokens, so that costs are those of all tokens.
    ///
    /// # Errors
    /// No throughput, or one that is none.
    pub(crate) fn served(model: String, load: Load, served: Served) -> Result<Self, String> {
        let rate = positive("total tokens per second", load.tokens_per_second)?;
        let whole = |x: Option<f64>| x.filter(|x| (0.0..1e9).contains(x)).map_or(0, |x| x.round() as u32);
        let (prompt_len, new_tokens) = (whole(load.input), whole(load.output));
        let batch = whole(load.concurrency).max(1);
        let tokens = (u64::from(prompt_len) + u64::from(new_tokens)).max(1) * u64::from(batch);
        Ok(Self {
            model,
            phase: Phase::Generate,
            batch,
            prompt_len,
            new_tokens,
            devices: None,
            settings: BTreeMap::new(),
            step_seconds: vec![tokens as f64 / rate],
            tokens_per_step: tokens,
            served: Some(served),
            peak_memory_bytes: None,
            seconds: None,
        })
    }

    /// With a setting, where the file tells it.
    pub(crate) fn with(mut self, name: &str, value: Option<String>) -> Self {
        self.settings.extend(value.map(|v| (name.to_string(), v)));
        self
    }
}

/// A number that has to be there, finite and above 0.
///
/// # Errors
/// What was expected and found.
pub(crate) fn positive(what: &str, x: Option<f64>) -> Result<f64, String> {
    match x {
        Some(x) if x.is_finite() && x > 0.0 => Ok(x),
        Some(x) => Err(format!("{what}: expected a number above 0, found {x}")),
        None => Err(format!("{what}: expected a number above 0, found none")),
    }
}

/// The value at these keys.
pub(crate) fn at<'a>(document: &'a Value, keys: &[&str]) -> Option<&'a Value> {
    keys.iter().try_fold(document, |at, key| at.get(key))
}

/// The number at these keys.
pub(crate) fn number(document: &Value, keys: &[&str]) -> Option<f64> {
    at(document, keys)?.as_f64()
}

/// The text at these keys, a number as text as well.
pub(crate) fn text(document: &Value, keys: &[&str]) -> Option<String> {
    match at(document, keys)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

/// A count at these keys.
pub(crate) fn count(document: &Value, keys: &[&str]) -> Option<u64> {
    let n = number(document, keys)?;
    (n >= 0.0 && n.fract() == 0.0 && n < 1e15).then_some(n as u64)
}

/// Percentiles by a function that finds each, brought to seconds.
pub(crate) fn latency(scale: f64, of: impl Fn(&str) -> Option<f64>) -> Latency {
    // A latency that is none was not measured: tools write 0 for what they have no samples of.
    let get = |name: &str| of(name).map(|x| x * scale).filter(|x| x.is_finite() && *x > 0.0);
    Latency { p50: get("p50"), p90: get("p90"), p95: get("p95"), p99: get("p99"), ..Latency::default() }
}
