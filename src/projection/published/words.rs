//! What the words of publications mean: formats, sharding, recomputation, frameworks, networks.

use crate::projection::kernels::{AttentionKernels, ProductFormat};
use crate::projection::training::{Again, Driver, Recompute, Sharding, TrainingEngine};

pub(super) fn recompute(text: &str) -> Option<Recompute> {
    let t = text.to_lowercase();
    match t.as_str() {
        "" | "not stated" | "custom" => None,
        _ if t.starts_with("full") || matches!(t.as_str(), "true" | "1" | "block") => Some(Recompute::Full),
        // torchtitan: every other layer, or every other product.
        _ if t.starts_with("selective (every") || t.starts_with("selective(op") => Some(Recompute::Half),
        _ if t.starts_with("selective") => Some(Recompute::Selective),
        _ if t.starts_with("no") || matches!(t.as_str(), "false" | "0" | "off") => Some(Recompute::None),
        _ if t.starts_with("minimal") => Some(Recompute::Parts(Again::default())),
        _ if t.starts_with("partial") || t.contains("offloaded") => Some(parts(&t)),
        _ if t.starts_with("yes") => Some(Recompute::Full),
        _ => None,
    }
}

/// What is computed again, where a part is: words of llmq ("recompute-ffn, att") and of MaxText, which says what is kept.
fn parts(text: &str) -> Recompute {
    let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
    if has(&["recompute-", "saves linear"]) {
        let attention = has(&["att"]);
        return Recompute::Parts(Again { queries: attention, attention, inner: has(&["ffn"]) });
    }
    let kept = has(&["qkv", "mlpwo", "context", "out_proj"]);
    if !kept {
        return if has(&["layer input"]) { Recompute::Full } else { Recompute::Partial };
    }
    if has(&["qkv recomputed"]) {
        return Recompute::Parts(Again { queries: true, ..Again::default() });
    }
    Recompute::Parts(Again { queries: !has(&["qkv"]), attention: !has(&["context"]), inner: true })
}

pub(super) fn sharding(text: &str) -> Sharding {
    let t = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| t.contains(w));
    let stage = |n: &str| {
        t == n
            || has(&[
                &format!("zero{n}"),
                &format!("zero-{n}"),
                &format!("zero {n}"),
                &format!("stage{n}"),
                &format!("stage {n}"),
            ])
    };
    if t.starts_with("none") {
        Sharding::None
    } else if has(&["distributed optimizer"]) {
        Sharding::Optimizer
    } else if stage("2") || has(&["grad-op", "shard_grad"]) {
        Sharding::Gradients
    } else if stage("3") || has(&["fsdp", "gemini"]) {
        Sharding::Weights
    } else if stage("1") || has(&["sharded opt", "shard opt"]) {
        Sharding::Optimizer
    } else {
        Sharding::None
    }
}

pub(super) fn format(dtype: &str) -> Result<ProductFormat, String> {
    let t = dtype.to_lowercase();
    let is = |words: &[&str]| words.iter().any(|w| t.contains(w));
    if is(&["mxfp8", "fp8-mx"]) {
        Ok(ProductFormat::Mxf8)
    } else if is(&["fp8", "f8"]) {
        Ok(ProductFormat::F8)
    } else if is(&["fp4", "nvfp4", "mxfp4"]) {
        Ok(ProductFormat::F4)
    } else if t.is_empty() || is(&["bf16", "fp16", "f16", "float16", "half", "amp", "mixed"]) {
        Ok(ProductFormat::Half)
    } else if is(&["tf32"]) {
        Ok(ProductFormat::Tf32)
    } else if is(&["fp32", "f32", "float32"]) {
        Ok(ProductFormat::Single)
    } else {
        Err(format!("dtype `{dtype}` is not modelled"))
    }
}

/// FlashAttention-2, and what frameworks with fused kernels had besides.
const SECOND: f64 = 2023.55;
const NEWEST: f64 = 2024.0;

/// Kernels of attention by their name, or by who used them when: `time` in years.
pub(super) fn attention_kernels(name: &str, engine: TrainingEngine, time: Option<f64>) -> AttentionKernels {
    let is = |words: &[&str]| words.iter().any(|w| name.contains(w));
    let time = time.unwrap_or(SECOND - 1.0);
    if is(&["fa3", "fa4"]) || engine == TrainingEngine::Fused && is(&["te/", "cudnn", "splash"]) {
        AttentionKernels::Newest
    } else if is(&["sdpa", "v2", "fa2", "te/", "cudnn", "(flash)"]) {
        AttentionKernels::Second
    } else if time < SECOND {
        AttentionKernels::First
    } else if engine == TrainingEngine::Eager || time < NEWEST {
        AttentionKernels::Second
    } else {
        AttentionKernels::Newest
    }
}

/// How well a framework's kernels are fused, who launches them, and whether it is one of those that are known.
pub(super) fn framework(name: &str) -> (TrainingEngine, Driver, bool) {
    const COMPILED: &[&str] =
        &["maxtext", "paxml", "jax", "levanter", "llm.c", "llmq", "t5x", "easylm", "alpa", "neuron"];
    const FUSED: &[&str] = &[
        "megatron",
        "nemo",
        "transformer engine",
        "torchtitan",
        "gpt-neox",
        "megascale",
        "primus",
        "torchao",
        "compile",
    ];
    const EAGER: &[&str] = &[
        "composer",
        "fsdp",
        "deepspeed",
        "transformers",
        "accelerate",
        "pytorch",
        "lightning",
        "gpt",
        "xtuner",
        "colossal",
        "torchtune",
        "paddle",
        "openlm",
        "open_lm",
        "unsloth",
        "axolotl",
    ];
    let is = |words: &[&str]| words.iter().any(|w| name.contains(w));
    if is(COMPILED) {
        (TrainingEngine::Fused, Driver::Compiled, true)
    } else if is(FUSED) {
        (TrainingEngine::Fused, Driver::Python, true)
    } else {
        (TrainingEngine::Eager, Driver::Python, is(EAGER))
    }
}

/// Bytes/s of one device's network from words such as "8x200Gb/s per node" or "1600 Gbps/node".
pub(super) fn network(text: &str, devices_per_node: f64) -> Option<f64> {
    // A small b: bits.
    let at = ["Gb/s", "Gbps", "Gbit"].iter().filter_map(|unit| text.find(unit)).min()?;
    let (before, after) = (text.get(..at)?, text.get(at..)?);
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let number: String = before.trim_end().chars().rev().take_while(|c| is_number(*c)).collect();
    let number: String = number.chars().rev().collect();
    let gbits: f64 = number.parse().ok()?;
    let rest = before.trim_end().strip_suffix(&number)?;
    let factor: String = rest
        .trim_end()
        .strip_suffix('x')
        .map_or(String::new(), |r| r.trim_end().chars().rev().take_while(|c| c.is_ascii_digit()).collect());
    let cards: f64 = factor.chars().rev().collect::<String>().parse().unwrap_or(1.0);
    let per_node = cards > 1.0 || after.contains("node");
    Some(cards * gbits / 8.0 * 1e9 / if per_node { devices_per_node.max(1.0) } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_publications_are_understood() {
        let near = |text, expected: f64| {
            let found = network(text, 8.0).unwrap();
            assert!((found / expected - 1.0).abs() < 1e-9, "{text}: {found}");
        };
        near("NVLink3 + 8x200Gb/s HDR IB per node (Selene)", 25e9);
        near("RoCE 1600 Gbps/node (=25 GB/s per GPU)", 25e9);
        near("NVLink4 + GPUDirect-TCPX 4x200Gb/s", 12.5e9);
        near("400 Gbps InfiniBand", 50e9);
        assert_eq!(network("NVLink + NIC not stated", 8.0), None);
        assert_eq!(sharding("fsdp-grad-op(zero2)/default"), Sharding::Gradients);
        assert_eq!(sharding("megatron-fsdp 64"), Sharding::Weights);
        assert_eq!(sharding("distributed optimizer (source calls it ZeRO2)"), Sharding::Optimizer);
        assert_eq!((sharding("sharded opt"), sharding("none or zero3")), (Sharding::Optimizer, Sharding::None));
        assert_eq!(format("FP8-CS (FP8-MX)"), Ok(ProductFormat::Mxf8));
        assert_eq!((format("bfloat16"), format("float32")), (Ok(ProductFormat::Half), Ok(ProductFormat::Single)));
        assert!(format("int3").is_err() && format("tf32") == Ok(ProductFormat::Tf32));
        assert_eq!(
            (sharding("3"), sharding("ZeRO stage 2"), sharding("")),
            (Sharding::Weights, Sharding::Gradients, Sharding::None)
        );
        assert_eq!((recompute("False"), recompute("true")), (Some(Recompute::None), Some(Recompute::Full)));
        assert_eq!((recompute("not stated"), recompute("selective(op)")), (None, Some(Recompute::Half)));
        assert_eq!(recompute("selective(attention)+SP"), Some(Recompute::Selective));
        let again = |queries, attention, inner| Some(Recompute::Parts(Again { queries, attention, inner }));
        for (text, parts) in [
            ("minimal", again(false, false, false)),
            ("partial: recompute-swiglu,norm", again(false, false, false)),
            ("partial: recompute-ffn,recompute-norm", again(false, false, true)),
            ("partial: recompute-ffn,att", again(true, true, true)),
            ("qkv_proj_offloaded", again(false, true, true)),
            ("partial: layer input, context, qkv kept; MLP and out_proj recomputed", again(false, false, true)),
            ("partial: out_proj + mlpwo kept", again(true, true, true)),
            ("partial: layer input offloaded", Some(Recompute::Full)),
            ("partial", Some(Recompute::Partial)),
        ] {
            assert_eq!(recompute(text), parts, "{text}");
        }
        assert_eq!(framework("maxtext"), (TrainingEngine::Fused, Driver::Compiled, true));
        assert_eq!(framework("transformers + deepspeed"), (TrainingEngine::Eager, Driver::Python, true));
        assert_eq!(framework("in-house"), (TrainingEngine::Eager, Driver::Python, false));
        use AttentionKernels::{First, Newest, Second};
        for (name, engine, time, kernels) in [
            ("yes", TrainingEngine::Eager, None, First),
            ("yes (v2)", TrainingEngine::Eager, Some(2023.4), Second),
            ("yes", TrainingEngine::Eager, Some(2024.2), Second),
            ("yes (sdpa)", TrainingEngine::Fused, Some(2025.2), Second),
            ("yes (flash)", TrainingEngine::Fused, Some(2025.9), Second),
            ("fa3", TrainingEngine::Eager, Some(2026.6), Newest),
            ("yes (te/flash auto)", TrainingEngine::Fused, Some(2026.1), Newest),
            ("yes", TrainingEngine::Fused, Some(2023.9), Second),
            ("yes", TrainingEngine::Fused, Some(2025.9), Newest),
        ] {
            assert_eq!(attention_kernels(name, engine, time), kernels, "{name} {time:?}");
        }
    }
}
