//! NVIDIA's aiperf: profile_export_aiperf.json, and the CSV of the same figures. Units stand beside the figures.

use super::Tool;
use super::measured::{Load, Measured, at, count, latency, number, text};
use crate::load::served::{Latency, Served};
use serde_json::{Map, Value, json};

pub(super) const TOOL: Tool = Tool {
    name: "aiperf",
    convention: "its inter-token latency is (E2E - TTFT) / (output tokens - 1) of a request: TPOT here",
    read: |d| d.get("request_throughput").filter(|m| m.get("unit").is_some()).map(|_| of(d).map(|m| vec![m])),
};

/// Seconds of one of its unit.
fn scale(metric: &Value) -> Result<f64, String> {
    match text(metric, &["unit"]).as_deref() {
        Some("ns") => Ok(1e-9),
        Some("us") => Ok(1e-6),
        Some("ms") => Ok(1e-3),
        Some("s" | "sec") => Ok(1.0),
        other => Err(format!("expected a time in ns, us, ms or s, found the unit {}", other.unwrap_or("none"))),
    }
}

fn of(d: &Value) -> Result<Measured, String> {
    let times = |name: &str| match d.get(name).filter(|m| m.is_object()) {
        Some(metric) => scale(metric).map_err(|m| format!("{name}: {m}")).map(|s| latency(s, |p| number(metric, &[p]))),
        None => Ok(Latency::default()),
    };
    let mean = |name: &str| number(d, &[name, "avg"]);
    let (input, output) = (mean("input_sequence_length"), mean("output_sequence_length"));
    let out_rate = mean("output_token_throughput");
    let requests = mean("request_throughput");
    let total = || Some(requests? * (input? + output?));
    let load_generator = |key: &str| {
        [["input_config", "loadgen", key], ["input_config", "load", key]]
            .into_iter()
            .find_map(|keys| at(d, &keys).cloned())
    };
    let load = Load {
        input,
        output,
        concurrency: load_generator("concurrency").and_then(|v| v.as_f64()),
        tokens_per_second: mean("total_token_throughput").or_else(total),
    };
    let served = Served {
        completed: count(d, &["request_count", "avg"]),
        failed: count(d, &["error_request_count", "avg"]),
        requests_per_second: requests,
        output_tokens_per_second: out_rate,
        ttft: times("time_to_first_token")?,
        tpot: times("inter_token_latency")?,
        itl: times("inter_chunk_latency")?,
        e2e: times("request_latency")?,
        ..Served::default()
    };
    let names = at(d, &["input_config", "endpoint", "model_names"]).and_then(Value::as_array);
    let model = names.and_then(|l| l.first()?.as_str()).unwrap_or("unknown").to_string();
    let rate = load_generator("request_rate").filter(|v| v.is_number()).map(|v| v.to_string());
    Ok(Measured::served(model, load, served)?.with("rate", rate))
}

/// The CSV as the document that the JSON is. It has a table of distributions, an empty line, and a table of single values; a metric is
/// "Time to First Token (ms)".
///
/// # Errors
/// A line that is none of a table.
pub(super) fn of_csv(text: &str) -> Result<Value, String> {
    let mut all = Map::new();
    let mut heads: Vec<String> = Vec::new();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    for row in reader.records() {
        let row = row.map_err(|e| e.to_string())?;
        let cells: Vec<&str> = row.iter().map(str::trim).collect();
        let [name, values @ ..] = cells.as_slice() else { continue };
        if *name == "Metric" {
            heads = values.iter().map(|h| if *h == "Value" { "avg".into() } else { (*h).to_string() }).collect();
            continue;
        }
        // Tables of other things (GPUs) have a first column of their own.
        let Some((title, unit)) = name.rsplit_once(" (").and_then(|(t, u)| Some((t, u.strip_suffix(')')?))) else {
            if *name == "Request Count" {
                let count: Option<f64> = values.first().and_then(|v| v.replace(',', "").parse().ok());
                all.insert("request_count".into(), json!({ "unit": "requests", "avg": count }));
            }
            continue;
        };
        let mut metric = Map::from_iter([("unit".to_string(), json!(unit))]);
        for (head, value) in heads.iter().zip(values) {
            metric.extend(value.replace(',', "").parse::<f64>().ok().map(|x| (head.clone(), json!(x))));
        }
        all.insert(title.to_lowercase().replace(' ', "_"), metric.into());
    }
    Ok(all.into())
}
