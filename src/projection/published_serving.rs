//! Rows of inference.

use super::model::Model;
use super::published::{Case, Quantity, Row, Setup};
use super::serving::{Engine, Serving, Weights};
use crate::hardware::book::Book;

/// Parameters that the shape may miss or exceed, as a factor, before it is taken to be a mixture of experts.
const OFF: f64 = 1.35;

/// What a row publishes; why nothing can be predicted, otherwise.
pub fn cases(row: &Row, book: &Book) -> Result<Vec<Case>, String> {
    let sizes = row.sizes(["layers", "d_model", "heads", "kv_heads", "head_dim", "d_ff", "vocab"])?;
    let params = row.number("params");
    let model = Model::published(sizes, params);
    let counted = model.layers * model.layer_parameters() + model.vocab * model.d_model;
    if params.is_some_and(|p| p > OFF * counted + model.vocab * model.d_model || p < counted / OFF) {
        return Err("the shape does not amount to the stated parameters: a mixture of experts, or a slip".into());
    }
    let mut assumed = Vec::new();
    let engine = engine(row.text("engine"));
    let dtype = row.text("dtype").to_lowercase();
    let bits = row.number("weight_bits").unwrap_or_else(|| bits(&dtype));
    let weights = weights(&dtype, bits, engine);
    let devices = row.number("n_gpus").unwrap_or(1.0);
    let tensor = row.number("tp").unwrap_or(1.0);
    let serving = Serving {
        model,
        device: row.device(book)?.into(),
        tensor,
        stages: row.number("pp").unwrap_or(1.0).max((devices / tensor).floor()),
        weight_bytes: bits / 8.0,
        table_bytes: if engine == Engine::Portable { bits / 8.0 } else { 2.0 },
        weights,
        cache_bytes: if matches!(weights, Weights::F8 | Weights::F4) { 1.0 } else { 2.0 },
        engine,
    };
    let (prompt, output) = (row.number("input_len"), row.number("output_len"));
    if output.is_none() {
        assumed.push("length");
    }
    let batch = row.number("batch");
    if batch.is_none() {
        assumed.push("batch");
    }
    let what = format!("{} {} x{devices} {}", row.text("model"), row.text("hardware"), row.text("dtype"));
    let alone = batch.unwrap_or(1.0);
    let case = |quantity, published, prompt| Case {
        id: String::new(),
        source: String::new(),
        what: what.clone(),
        quantity,
        published,
        setup: Setup::Serving { serving: Box::new(serving.clone()), prompt, output: output.unwrap_or(256.0), batch },
        assumed: assumed.clone(),
    };
    // llama-bench decodes from an empty context; others decode after the prompt.
    let before = if engine == Engine::Portable { 0.0 } else { prompt.unwrap_or(0.0) };
    let mut all = Vec::new();
    let decoded = row.number("decode_tok_s").or(row.number("tpot_ms").map(|ms| alone * 1e3 / ms));
    all.extend(decoded.map(|y| case(Quantity::DecodeTokens, y, before)));
    if let Some(prompt) = prompt {
        let read =
            row.number("prefill_tok_s").or(row.number("ttft_ms").filter(|_| alone == 1.0).map(|ms| prompt * 1e3 / ms));
        all.extend(read.map(|y| case(Quantity::PrefillTokens, y, prompt)));
        let served = row.number("total_out_tok_s").filter(|_| output.is_some());
        all.extend(served.map(|y| case(Quantity::ServedTokens, y, prompt)));
    }
    all.extend(row.number("mem_gb").map(|y| case(Quantity::ServingMemory, y, prompt.unwrap_or(0.0))));
    if all.is_empty() { Err("no throughput, latency or memory is given".into()) } else { Ok(all) }
}

/// By what the engine is made of; an unknown one is taken to be compiled.
fn engine(name: &str) -> Engine {
    let t = name.to_lowercase();
    let is = |words: &[&str]| words.iter().any(|w| t.contains(w));
    if is(&["llama.cpp", "ollama", "llamafile", "koboldcpp", "mlc", "mlx"]) {
        Engine::Portable
    } else if is(&[
        "tensorrt-llm",
        "trtllm",
        "vllm",
        "sglang",
        "tgi",
        "text-generation-inference",
        "lmdeploy",
        "mii",
        "fastgen",
    ]) {
        Engine::Server
    } else if is(&["eager", "transformers", "litgpt", "hugging"]) {
        Engine::Eager
    } else {
        Engine::Compiled
    }
}

/// Bits of a weight by its format's name, scales included for the usual groups.
fn bits(dtype: &str) -> f64 {
    let is = |words: &[&str]| words.iter().any(|w| dtype.contains(w));
    if is(&["fp4", "int4", "w4", "q4", "nf4", "awq", "gptq"]) {
        4.5
    } else if is(&["q5"]) {
        5.5
    } else if is(&["q6"]) {
        6.6
    } else if is(&["q8", "int8", "w8", "fp8", "f8"]) {
        if is(&["q8"]) { 8.5 } else { 8.0 }
    } else if is(&["fp32", "float32"]) || dtype == "f32" {
        32.0
    } else {
        16.0
    }
}

fn weights(dtype: &str, bits: f64, engine: Engine) -> Weights {
    let is = |words: &[&str]| words.iter().any(|w| dtype.contains(w));
    if is(&["nf4", "bnb"]) {
        Weights::Unpacked
    } else if bits >= 16.0 {
        Weights::Half
    } else if is(&["fp8", "f8", "w8a8"]) {
        Weights::F8
    } else if is(&["fp4"]) && engine == Engine::Server {
        Weights::F4
    } else {
        Weights::Packed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_go_by_what_they_are() {
        assert_eq!(engine("llama.cpp May 2024"), Engine::Portable);
        assert_eq!(engine("TensorRT-LLM 1.0 (PyTorch backend, in-flight batching)"), Engine::Server);
        assert_eq!(engine("litgpt (eager PyTorch)"), Engine::Eager);
        assert_eq!(engine("somebody's"), Engine::Compiled);
        assert_eq!([bits("w4a16"), bits("bfloat16"), bits("fp8_e4m3"), bits("f32")], [4.5, 16.0, 8.0, 32.0]);
        assert_eq!(weights("nf4 double quant", 4.13, Engine::Eager), Weights::Unpacked);
        assert_eq!(weights("fp4", 4.5, Engine::Server), Weights::F4);
        assert_eq!(weights("q4_k_m", 4.89, Engine::Portable), Weights::Packed);
    }
}
