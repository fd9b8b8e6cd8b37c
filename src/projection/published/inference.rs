//! Rows of inference.

use super::case::{Case, Counted, Quantity, Served, Setup};
use super::names::{counts_cores, device};
use super::row::Row;
use super::shapes;
use crate::hardware::book::Book;
use crate::projection::engines::Program;
use crate::projection::serving::{InferenceEngine, Serving, Weights};

/// GB of a GiB.
const GIB: f64 = 1.073_741_824;
/// Tokens of a prompt that is said to be short, and of an answer whose length is not given.
const SHORT_PROMPT: f64 = 32.0;
const USUAL_OUTPUT: f64 = 256.0;
/// Since then transformers computes the last token's logits only (version 4.45, September 2024).
const LAST_LOGIT: f64 = 2024.7;

/// What a row publishes; why nothing can be predicted, otherwise.
pub(super) fn cases(row: &Row, book: &Book) -> Result<Vec<Case>, String> {
    let mut assumed = Vec::new();
    let columns = ["layers", "d_model", "heads", "kv_heads", "head_dim", "d_ff", "vocab"];
    let model = shapes::model(row, columns, &mut assumed)?;
    let serving = serving(row, book, model, &mut assumed)?;
    let (prompt, output) = (row.number("input_len"), row.number("output_len"));
    if output.is_none() {
        assumed.push("length");
    }
    let batch = row.number("batch");
    if batch.is_none() {
        assumed.push("batch");
    }
    let what = format!(
        "{} {} x{} {}",
        row.text("model"),
        row.text("hardware"),
        row.number("n_gpus").unwrap_or(1.0),
        row.text("dtype")
    );
    let alone = batch.unwrap_or(1.0);
    let remarks = row.remarks();
    // What a library says of itself, and what the driver says of the process.
    let allocated = ["allocated", "torch", "mlx", "peak (weights"].iter().any(|w| remarks.contains(w));
    let driver = ["process", "nvidia-smi"].iter().any(|w| remarks.contains(w));
    let counted = if driver || !allocated && serving.engine != InferenceEngine::Eager {
        Counted::Process
    } else {
        Counted::Allocated
    };
    let portable = serving.engine == InferenceEngine::Portable;
    let case = |quantity, published, prompt, assumed: &[&'static str]| Case {
        id: String::new(),
        source: String::new(),
        what: what.clone(),
        quantity,
        published,
        setup: Setup::Serving(Box::new(Served {
            serving: serving.clone(),
            prompt,
            output: output.unwrap_or(USUAL_OUTPUT),
            batch,
        })),
        counted,
        assumed: assumed.to_vec(),
    };
    // llama-bench decodes from an empty context; its sister for batches, and others, decode after the prompt.
    let empty = portable && !remarks.contains("batched-bench");
    let before = if empty { 0.0 } else { prompt.unwrap_or(0.0) };
    let mut all = Vec::new();
    let decoded = row.number("decode_tok_s").or(row.number("tpot_ms").map(|ms| alone * 1e3 / ms));
    all.extend(decoded.map(|y| case(Quantity::DecodeTokens, y, before, &assumed)));
    if let Some(prompt) = prompt {
        let read =
            row.number("prefill_tok_s").or(row.number("ttft_ms").filter(|_| alone == 1.0).map(|ms| prompt * 1e3 / ms));
        all.extend(read.map(|y| case(Quantity::PrefillTokens, y, prompt, &assumed)));
    }
    if let Some(y) = row.number("total_out_tok_s").filter(|_| output.is_some()) {
        if prompt.is_none() {
            assumed.push("length");
        }
        all.push(case(Quantity::ServedTokens, y, prompt.unwrap_or(SHORT_PROMPT), &assumed));
    }
    // Some print GiB, and some the sum over devices.
    let gib = if remarks.contains("gib (") || remarks.contains(", gib") { GIB } else { 1.0 };
    let summed = remarks.contains("over gpus") || remarks.contains("layers split");
    let over = if summed { serving.tensor * serving.stages } else { 1.0 };
    let held = row
        .number("mem_gb")
        .map(|y| case(Quantity::ServingMemory, y * gib / over, prompt.unwrap_or(SHORT_PROMPT), &assumed));
    all.extend(held);
    if all.is_empty() { Err("no throughput, latency or memory is given".into()) } else { Ok(all) }
}

fn serving(
    row: &Row,
    book: &Book,
    model: crate::projection::model::Model,
    assumed: &mut Vec<&'static str>,
) -> Result<Serving, String> {
    let device = device(row, book, assumed)?;
    let program = Program::called(row.text("engine"));
    if program.is_none() {
        assumed.push("engine");
    }
    let engine = program.map_or(InferenceEngine::Compiled, |p| p.engine);
    let dtype = row.lower("dtype");
    let bits = row.number("weight_bits").unwrap_or_else(|| {
        if dtype.is_empty() || dtype.contains("as released") {
            assumed.push("format");
        }
        bits(&dtype)
    });
    let weights = weights(&dtype, bits, engine);
    let each = if counts_cores(row) { 2.0 } else { 1.0 };
    let devices = each * row.number("n_gpus").unwrap_or(1.0);
    // Layers are shared where nothing else is said and a server runs it; spread, where a program splits a model by itself.
    let tensor = row.number("tp").unwrap_or_else(|| {
        if devices > 1.0 {
            assumed.push("parallelism");
        }
        if engine == InferenceEngine::Server { devices } else { 1.0 }
    });
    let year = row.year().unwrap_or(2024.0);
    let remarks = row.remarks();
    let eager = remarks.contains("enforce-eager");
    let new_to_it = device.architecture.starts_with("CDNA") && engine == InferenceEngine::Server && year < 2025.0;
    Ok(Serving {
        model,
        tensor,
        stages: row.number("pp").unwrap_or(1.0).max((devices / tensor).floor()),
        weight_bytes: bits / 8.0,
        table_bytes: if engine == InferenceEngine::Portable { bits / 8.0 } else { 2.0 },
        weights,
        // Keys and values in 8 bits: where a checkpoint says so, and in TensorRT-LLM with 8- and 4-bit floats.
        cache_bytes: if dtype.contains("fp8 kv")
            || weights == Weights::F4
            || weights == Weights::F8 && program.is_some_and(|p| p.name == "tensorrt-llm")
        {
            1.0
        } else {
            2.0
        },
        engine,
        between_steps: program.is_some_and(|p| year <= p.between_steps_until),
        by_hand: eager || new_to_it,
        old: new_to_it,
        by_rows: dtype.contains("gemv"),
        narrow_sums: program.is_some_and(|p| p.narrow_sums),
        library_sums: program.is_some_and(|p| year <= p.library_sums_until)
            || device.architecture.starts_with("CDNA") && year < 2025.0,
        all_logits: engine == InferenceEngine::Eager && row.time().unwrap_or(year) < LAST_LOGIT,
        device: device.into(),
    })
}

/// Bits of a weight by its format's name, scales included for the usual groups.
fn bits(dtype: &str) -> f64 {
    let is = |words: &[&str]| words.iter().any(|w| dtype.contains(w));
    if is(&["int2", "w2", "q2", "iq2"]) {
        2.6
    } else if is(&["q3", "iq3"]) {
        3.6
    } else if is(&["fp4", "int4", "w4", "q4", "nf4", "awq", "gptq", "iq4"]) {
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

fn weights(dtype: &str, bits: f64, engine: InferenceEngine) -> Weights {
    let is = |words: &[&str]| words.iter().any(|w| dtype.contains(w));
    if is(&["nf4", "bnb"]) || engine == InferenceEngine::Eager && is(&["int8", "int4"]) && !is(&["gptq", "awq"]) {
        Weights::Unpacked
    } else if bits >= 16.0 {
        Weights::Half
    } else if is(&["fp8", "f8", "w8a8"]) {
        Weights::F8
    } else if is(&["fp4"]) && engine == InferenceEngine::Server {
        Weights::F4
    } else {
        Weights::Packed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_go_by_their_names() {
        assert_eq!([bits("w4a16"), bits("bfloat16"), bits("fp8_e4m3"), bits("f32")], [4.5, 16.0, 8.0, 32.0]);
        assert_eq!(weights("nf4 double quant", 4.13, InferenceEngine::Eager), Weights::Unpacked);
        assert_eq!(weights("fp4", 4.5, InferenceEngine::Server), Weights::F4);
        assert_eq!(weights("q4_k_m", 4.89, InferenceEngine::Portable), Weights::Packed);
    }
}
