//! guidellm's benchmarks.json: a benchmark a rate, distributions of successful requests.

use super::Tool;
use super::measured::{Load, Measured, at, count, latency, number, text};
use crate::load::served::{Latency, Served};
use serde_json::Value;

pub(super) const TOOL: Tool = Tool {
    name: "guidellm",
    convention: "its time per output token counts the first token (E2E / output tokens): TPOT here is its inter-token latency, which does \
                 not (its percentiles weigh requests by their tokens); figures are of successful requests",
    read: |d| {
        d.get("benchmarks")
            .and_then(Value::as_array)
            .filter(|l| l.iter().all(|b| b.get("metrics").is_some()))
            .map(|l| all(d, l))
    },
};

fn all(document: &Value, benchmarks: &[Value]) -> Result<Vec<Measured>, String> {
    let number = |(i, b): (usize, &Value)| of(document, b).map_err(|m| format!("benchmark {}: {m}", i + 1));
    benchmarks.iter().enumerate().map(number).collect()
}

/// A distribution of successful requests: by its percentiles, or by its mean.
fn successful<'a>(b: &'a Value, metric: &str) -> Option<&'a Value> {
    at(b, &["metrics", metric, "successful"])
}

fn mean(b: &Value, metric: &str) -> Option<f64> {
    number(successful(b, metric)?, &["mean"])
}

fn of(document: &Value, b: &Value) -> Result<Measured, String> {
    let times = |metric: &str, scale: f64| match successful(b, metric) {
        Some(found) => latency(scale, |name| number(found, &["percentiles", name])),
        None => Latency::default(),
    };
    let config = ["config", "args"].into_iter().find_map(|k| b.get(k)).unwrap_or(&Value::Null);
    let strategy = at(config, &["strategy"]).or_else(|| at(b, &["scheduler", "strategy"])).unwrap_or(&Value::Null);
    let streams = number(strategy, &["streams"]).or_else(|| number(strategy, &["max_concurrency"]));
    let load = Load {
        input: mean(b, "prompt_token_count"),
        output: mean(b, "output_token_count"),
        concurrency: streams.or_else(|| mean(b, "request_concurrency")),
        tokens_per_second: mean(b, "tokens_per_second"),
    };
    let totals = at(b, &["metrics", "request_totals"]).or_else(|| b.get("request_totals")).unwrap_or(&Value::Null);
    let tpot = times("inter_token_latency_ms", 1e-3);
    let served = Served {
        completed: count(totals, &["successful"]),
        failed: count(totals, &["errored"]),
        requests_per_second: mean(b, "requests_per_second"),
        output_tokens_per_second: mean(b, "output_tokens_per_second"),
        ttft: times("time_to_first_token_ms", 1e-3),
        tpot,
        itl: Latency::default(),
        e2e: times("request_latency", 1.0),
        ..Served::default()
    };
    let known = [
        text(document, &["args", "model"]),
        text(config, &["backend", "model"]),
        text(b, &["worker", "backend_model"]),
    ];
    let model = known.into_iter().flatten().next().unwrap_or_else(|| "unknown".into());
    let measured = Measured::served(model, load, served)?;
    let measured = Measured { seconds: number(b, &["duration"]), ..measured };
    Ok(measured.with("strategy", text(strategy, &["type_"])).with("rate", text(strategy, &["rate"])))
}
