//! optimum-benchmark's benchmark.json (or benchmark_report.json beside its config): prefill and decode of a generation, each repetition's
//! latency.

use super::Tool;
use super::measured::{Measured, at, count, number, positive, text};
use crate::transformer::Phase;
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) const TOOL: Tool = Tool {
    name: "optimum-benchmark",
    convention: "its decode is all tokens after the first: a step of phase decode is one of them, of every sequence of the batch",
    read: |d| {
        let report = d.get("report").unwrap_or(d);
        report.get("prefill").filter(|p| p.get("latency").is_some()).map(|_| of(d, report))
    },
};

fn of(d: &Value, report: &Value) -> Result<Vec<Measured>, String> {
    let scenario = at(d, &["config", "scenario"]).or_else(|| at(d, &["config", "benchmark"])).unwrap_or(&Value::Null);
    let shape = |keys: &[&str]| count(scenario, keys).and_then(|n| u32::try_from(n).ok());
    let missing = |what: &str| {
        format!("config.scenario.{what}: expected a whole number, found none; import the file with its config")
    };
    let batch = shape(&["input_shapes", "batch_size"]).ok_or_else(|| missing("input_shapes.batch_size"))?;
    let prompt_len =
        shape(&["input_shapes", "sequence_length"]).ok_or_else(|| missing("input_shapes.sequence_length"))?;
    let made = shape(&["generate_kwargs", "max_new_tokens"]);
    let base = |phase: Phase, steps: f64, tokens: u64, part: &Value| {
        Ok::<_, String>(Measured {
            model: text(d, &["config", "backend", "model"]).unwrap_or_else(|| "unknown".into()),
            phase,
            batch,
            prompt_len,
            new_tokens: if phase == Phase::Decode { made.unwrap_or(0) } else { 0 },
            devices: None,
            settings: BTreeMap::new(),
            step_seconds: latencies(part)?.into_iter().map(|s| s / steps).collect(),
            tokens_per_step: tokens,
            served: None,
            peak_memory_bytes: number(part, &["memory", "max_ram"]).map(|mb| (mb * 1e6) as u64),
            seconds: None,
        })
    };
    let sequences = u64::from(batch.max(1));
    let mut all = Vec::new();
    if let Some(part) = report.get("prefill") {
        all.push(
            base(Phase::Prefill, 1.0, sequences * u64::from(prompt_len.max(1)), part)
                .map_err(|m| format!("prefill: {m}"))?,
        );
    }
    if let Some(part) = report.get("decode").filter(|p| p.get("latency").is_some()) {
        let steps = made.filter(|n| *n > 1).ok_or_else(|| missing("generate_kwargs.max_new_tokens"))? - 1;
        all.push(base(Phase::Decode, f64::from(steps), sequences, part).map_err(|m| format!("decode: {m}"))?);
    }
    let name = text(d, &["config", "backend", "name"]);
    let dtype = text(d, &["config", "backend", "torch_dtype"]);
    Ok(all.into_iter().map(|m| m.with("backend", name.clone()).with("torch_dtype", dtype.clone())).collect())
}

/// Every repetition, or their mean where only that is told.
fn latencies(part: &Value) -> Result<Vec<f64>, String> {
    let latency = part.get("latency").unwrap_or(&Value::Null);
    if let Some(unit) = text(latency, &["unit"]).filter(|u| u != "s") {
        return Err(format!("latency.unit: expected s, found {unit}"));
    }
    match latency.get("values").and_then(Value::as_array).filter(|l| !l.is_empty()) {
        Some(values) => values.iter().map(|v| positive("latency.values", v.as_f64())).collect(),
        None => positive("latency.mean", number(latency, &["mean"])).map(|s| vec![s]),
    }
}
