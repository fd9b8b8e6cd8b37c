//! Kubernetes' inference-perf: summary_lifecycle_metrics.json and the like, one object, times in seconds.

use super::Tool;
use super::measured::{Load, Measured, at, count, latency, number};
use crate::load::served::{Latency, Served};
use serde_json::Value;

pub(super) const TOOL: Tool = Tool {
    name: "inference-perf",
    convention: "TPOT is its time per output token after the first; its normalized one, which counts the first, is left out",
    read: |d| d.get("load_summary").and(d.get("successes")).map(|_| of(d).map(|m| vec![m])),
};

fn of(d: &Value) -> Result<Measured, String> {
    let good = d.get("successes").unwrap_or(&Value::Null);
    // Older files name percentiles "p50", newer ones and the mean "median".
    let times = |name: &str| match at(good, &["latency", name]).filter(|m| m.is_object()) {
        Some(found) => {
            latency(1.0, |p| number(found, &[p]).or_else(|| (p == "p50").then(|| number(found, &["median"])).flatten()))
        }
        None => Latency::default(),
    };
    let rate = |name: &str| number(good, &["throughput", name]);
    let total = || Some(rate("input_tokens_per_sec")? + rate("output_tokens_per_sec")?);
    let load = Load {
        // The server's own count where there is one, which newer files have.
        input: number(good, &["prompt_tokens", "mean"]).or_else(|| number(good, &["prompt_len", "mean"])),
        output: number(good, &["output_tokens", "mean"]).or_else(|| number(good, &["output_len", "mean"])),
        concurrency: number(d, &["load_summary", "concurrency"]),
        tokens_per_second: rate("total_tokens_per_sec").or_else(total),
    };
    let served = Served {
        completed: count(good, &["count"]),
        failed: count(d, &["failures", "count"]),
        requests_per_second: rate("requests_per_sec"),
        output_tokens_per_second: rate("output_tokens_per_sec"),
        ttft: times("time_to_first_token"),
        tpot: times("time_per_output_token"),
        itl: times("inter_token_latency"),
        e2e: times("request_latency"),
        ..Served::default()
    };
    let measured = Measured::served("unknown".into(), load, served)?;
    let requested = number(d, &["load_summary", "requested_rate"]).map(|r| r.to_string());
    Ok(Measured { seconds: number(d, &["load_summary", "send_duration"]), ..measured }.with("rate", requested))
}
