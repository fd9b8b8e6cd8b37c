//! Forms that other tools keep histories of: Bencher Metric Format, github-action-benchmark's custom form, CSV.

use crate::comparison::check::{Check, CheckedCell};
use serde_json::{Map, Value, json};

/// Bencher Metric Format: cell, measure, value with its bounds. The bounds of cost and throughput are those of the comparison
/// put around the head's value.
pub fn bmf(check: &Check) -> String {
    let mut all = Map::new();
    for c in check.cells.iter().filter(|c| c.failure.is_none()) {
        let mut measures = Map::new();
        let relative = c.judged.ratio.zip(c.judged.low.zip(c.judged.high)).map(|(r, (l, h))| (l / r, h / r));
        let bounded = |value: f64, ends: Option<(f64, f64)>| match ends {
            Some((l, h)) => json!({"value": value, "lower_value": value * l, "upper_value": value * h}),
            None => json!({"value": value}),
        };
        let of_tokens = c.head.usd_to_loss.is_none();
        let turned = relative.map(|(l, h)| (1.0 / h, 1.0 / l));
        for (name, value, ends) in [
            ("usd_per_million_tokens", c.head.usd_per_million_tokens, relative.filter(|_| of_tokens)),
            ("tokens_per_second", c.head.tokens_per_second, turned.filter(|_| of_tokens)),
            ("peak_memory_bytes", c.head.peak_memory_bytes, None),
            ("ttft_seconds", c.head.ttft_seconds, None),
            ("tpot_seconds", c.head.tpot_seconds, None),
            ("usd_to_loss", c.head.usd_to_loss, relative.filter(|_| c.head.usd_to_loss.is_some())),
            ("validation_loss", c.head.validation_loss, None),
        ] {
            if let Some(value) = value {
                measures.insert(name.into(), bounded(value, ends));
            }
        }
        all.insert(format!("{}: {}", check.scenario, c.name), Value::Object(measures));
    }
    format!("{:#}\n", Value::Object(all))
}

/// github-action-benchmark, `customSmallerIsBetter`.
pub fn benchmark(check: &Check) -> String {
    let one = |c: &CheckedCell| {
        let range = c.judged.low.zip(c.judged.high).zip(c.judged.ratio).map(|((l, h), r)| (h - l) / 2.0 / r * 100.0);
        let (value, unit) = match (c.head.usd_per_million_tokens, c.head.tokens_per_second) {
            (Some(usd), _) => (usd, "USD per million tokens"),
            (None, Some(rate)) => (1e6 / rate, "seconds per million tokens"),
            (None, None) => return None,
        };
        Some(json!({
            "name": format!("{}: {}", check.scenario, c.name),
            "unit": unit,
            "value": value,
            "range": range.map_or(String::new(), |r| format!("± {r:.1} %")),
            "extra": format!("{} after {} pairs", c.judged.verdict.name(), c.judged.pairs),
        }))
    };
    format!("{:#}\n", Value::Array(check.cells.iter().filter_map(one).collect()))
}

/// A row a cell.
pub fn csv(check: &Check) -> String {
    let mut out = String::from(
        "trial_id,cell,verdict,pairs,ratio,ratio_low,ratio_high,p,detectable,base_usd_per_million_tokens,\
         head_usd_per_million_tokens,base_tokens_per_second,head_tokens_per_second,head_peak_memory_bytes,failure\n",
    );
    let number = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
    for c in &check.cells {
        let j = &c.judged;
        let mut row = vec![c.trial_id.clone(), quoted(&c.name), j.verdict.name().into(), j.pairs.to_string()];
        row.extend(
            [
                j.ratio,
                j.low,
                j.high,
                j.p,
                j.detectable,
                c.base.usd_per_million_tokens,
                c.head.usd_per_million_tokens,
                c.base.tokens_per_second,
                c.head.tokens_per_second,
                c.head.peak_memory_bytes,
            ]
            .map(number),
        );
        row.push(quoted(c.failure.as_deref().unwrap_or("")));
        out += &(row.join(",") + "\n");
    }
    out
}

/// In quotes; what a spreadsheet would compute gets an apostrophe.
fn quoted(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if text.is_empty() {
        String::new()
    } else {
        format!("\"{guard}{}\"", text.replace('"', "\"\"").replace(['\n', '\r'], " "))
    }
}
