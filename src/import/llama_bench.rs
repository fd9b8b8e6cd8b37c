//! llama.cpp's llama-bench, `-o json` and `-o jsonl`: a row a test, with the time of every repetition.

use super::Tool;
use super::measured::{Measured, count, number, positive, text};
use crate::transformer::Phase;
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) const TOOL: Tool = Tool {
    name: "llama-bench",
    convention: "a repetition is a sample; tg tests are phase decode, a step is one token, and prompt_len is the depth of the cache",
    read: |row| row.get("n_gen").and(row.get("n_prompt")).and(row.get("avg_ts")).map(|_| of(row).map(|m| vec![m])),
};

fn of(row: &Value) -> Result<Measured, String> {
    let tokens = |key: &str| count(row, &[key]).and_then(|n| u32::try_from(n).ok());
    let [prompt, made] = ["n_prompt", "n_gen"].map(tokens);
    let (Some(prompt), Some(made)) = (prompt, made) else {
        return Err("n_prompt, n_gen: expected whole numbers".into());
    };
    let (phase, prompt_len, tokens_per_step) = match (prompt, made) {
        (0, 0) => return Err("a test without tokens".into()),
        (_, 0) => (Phase::Prefill, prompt, u64::from(prompt)),
        (0, _) => (Phase::Decode, tokens("n_depth").unwrap_or(0), 1),
        _ => (Phase::Generate, prompt, u64::from(prompt) + u64::from(made)),
    };
    let steps = if phase == Phase::Decode { f64::from(made) } else { 1.0 };
    let repetitions = row.get("samples_ns").and_then(Value::as_array).filter(|l| !l.is_empty());
    let step_seconds = match repetitions {
        Some(all) => all
            .iter()
            .map(|ns| positive("samples_ns", ns.as_f64()).map(|ns| ns / 1e9 / steps))
            .collect::<Result<_, _>>()?,
        None => vec![tokens_per_step as f64 / positive("avg_ts", number(row, &["avg_ts"]))?],
    };
    let model =
        text(row, &["model_type"]).or_else(|| text(row, &["model_filename"])).unwrap_or_else(|| "unknown".into());
    let measured = Measured {
        model,
        phase,
        batch: 1,
        prompt_len,
        new_tokens: made,
        devices: None,
        settings: BTreeMap::new(),
        step_seconds,
        tokens_per_step,
        served: None,
        peak_memory_bytes: None,
        seconds: None,
    };
    // Whatever sets one row of a file apart from another.
    let keys = [
        "backends",
        "n_threads",
        "n_gpu_layers",
        "n_batch",
        "n_ubatch",
        "type_k",
        "type_v",
        "flash_attn",
        "split_mode",
    ];
    Ok(keys.into_iter().fold(measured, |m, key| m.with(key, text(row, &[key]))))
}
