//! InferenceX's (InferenceMAX's) aggregated results: `vllm bench serve`'s keys in seconds, throughput of a GPU.

use super::Tool;
use super::measured::{Load, Measured, latency, number, text};
use super::vllm::percentile;
use crate::load::served::Served;
use serde_json::Value;

pub(super) const TOOL: Tool = Tool {
    name: "InferenceX",
    convention: "its throughputs are of a GPU, and are multiplied by the number of GPUs; TPOT leaves the first token out, as ours",
    read: |d| d.get("tput_per_gpu").and(d.get("conc")).map(|_| of(d).map(|m| vec![m])),
};

fn of(d: &Value) -> Result<Measured, String> {
    let get = |key: &str| number(d, &[key]);
    // A file of prefill and decode apart has two kinds of GPUs.
    let apart = || Some(get("num_prefill_gpu")? + get("num_decode_gpu")?);
    let devices = apart().or_else(|| get("tp")).filter(|n| *n >= 1.0 && *n < 1e6);
    let devices = devices.ok_or("tp: expected the number of GPUs, found none")?;
    let load = Load {
        input: get("isl"),
        output: get("osl"),
        concurrency: get("conc"),
        tokens_per_second: get("tput_per_gpu").map(|rate| rate * devices),
    };
    let times = |of: &str| latency(1.0, |name| percentile(d, of, "", name));
    let served = Served {
        output_tokens_per_second: get("output_tput_per_gpu").map(|rate| rate * devices),
        ttft: times("ttft"),
        tpot: times("tpot"),
        itl: times("itl"),
        e2e: times("e2el"),
        ..Served::default()
    };
    let model = text(d, &["model"]).unwrap_or_else(|| "unknown".into());
    let measured = Measured { devices: Some(devices as u32), ..Measured::served(model, load, served)? };
    let keys = ["hw", "framework", "precision", "ep", "dp_attention", "mtp", "spec_decoding"];
    Ok(keys.into_iter().fold(measured, |m, key| m.with(key, text(d, &[key]))))
}
