//! `vllm bench serve --save-result` (benchmark_serving.py before it; SGLang's writes the same keys): one object, times in milliseconds.

use super::Tool;
use super::measured::{Load, Measured, count, latency, number, text};
use crate::load::served::Served;
use serde_json::Value;

pub(super) const TOOL: Tool = Tool {
    name: "vllm bench serve",
    convention: "TPOT leaves the first token out, as ours; ITL is between chunks, which may hold several tokens",
    read: |d| d.get("request_throughput").and(d.get("total_output_tokens")).map(|_| of(d).map(|m| vec![m])),
};

/// vLLM's names of percentiles: `median_ttft_ms`, `p99_ttft_ms`.
pub(super) fn percentile(document: &Value, of: &str, unit: &str, name: &str) -> Option<f64> {
    let name = if name == "p50" { "median" } else { name };
    number(document, &[&format!("{name}_{of}{unit}")])
}

fn of(d: &Value) -> Result<Measured, String> {
    let get = |key: &str| number(d, &[key]);
    let (input, output) = (get("total_input_tokens"), get("total_output_tokens"));
    let each = |tokens: Option<f64>| Some(tokens? / get("completed").filter(|n| *n > 0.0)?);
    let total = input.zip(output).map(|(i, o)| i + o);
    let own = || Some(total? / get("duration").filter(|s| *s > 0.0)?);
    let rate = text(d, &["request_rate"]);
    // Without a limit and without a rate everything is under way at once.
    let at_once = || get("num_prompts").filter(|_| rate.as_deref() == Some("inf"));
    let load = Load {
        input: each(input),
        output: each(output),
        concurrency: get("max_concurrency").or_else(at_once),
        tokens_per_second: get("total_token_throughput").or_else(own),
    };
    let times = |of: &str| latency(1e-3, |name| percentile(d, of, "_ms", name));
    let completed = count(d, &["completed"]);
    let served = Served {
        completed,
        failed: count(d, &["failed"]).or_else(|| count(d, &["num_prompts"])?.checked_sub(completed?)),
        requests_per_second: get("request_throughput"),
        output_tokens_per_second: get("output_throughput"),
        ttft: times("ttft"),
        tpot: times("tpot"),
        itl: times("itl"),
        e2e: times("e2el"),
        ..Served::default()
    };
    let model = text(d, &["model_id"]).unwrap_or_else(|| "unknown".into());
    let measured = Measured::served(model, load, served)?;
    let backend = text(d, &["backend"]).or_else(|| text(d, &["endpoint_type"]));
    let measured = Measured { seconds: get("duration"), ..measured };
    Ok(measured.with("rate", rate.filter(|r| r != "inf")).with("backend", backend))
}
