//! Rows of training runs.

use super::kernels::Format;
use super::model::Model;
use super::published::{Case, Quantity, Row, Setup};
use super::training::{Engine, Recompute, Sharding, Training};
use crate::hardware::book::Book;

/// What a row publishes; why nothing can be predicted, otherwise.
pub fn cases(row: &Row, book: &Book) -> Result<Vec<Case>, String> {
    let name = row.text("model").to_lowercase();
    if name.contains("lora") {
        return Err("trains adapters only, of a rank that is not given".into());
    }
    let mut assumed = Vec::new();
    let model = model(row, &mut assumed)?;
    let base = base(row, book, model, &mut assumed)?;
    let (tokens, memory) = (throughput(row, &base), row.number("mem_gb"));
    if tokens.is_none() && memory.is_none() {
        return Err("no throughput, step time, FLOP/s, MFU or memory is given".into());
    }
    let setup = filled(row, base, &mut assumed)?;
    let what = format!("{} {} x{}", row.text("model"), row.text("hardware"), row.number("n_gpus").unwrap_or(1.0));
    let case = |quantity, published| Case {
        id: String::new(),
        source: String::new(),
        what: what.clone(),
        quantity,
        published,
        setup: setup.clone(),
        assumed: assumed.clone(),
    };
    let throughput = tokens.map(|t| case(Quantity::TrainingTokens, t));
    Ok(throughput.into_iter().chain(memory.map(|m| case(Quantity::TrainingMemory, m))).collect())
}

/// The shape; where only the number of parameters is given, one of GPT-3's proportions.
fn model(row: &Row, assumed: &mut Vec<&'static str>) -> Result<Model, String> {
    let params = row.number("params");
    if row.number("ep").is_some_and(|ranks| ranks > 1.0) {
        return Err("a mixture of experts (expert-parallel ranks are given), which is not modelled".into());
    }
    let columns = ["n_layers", "d_model", "n_heads", "n_kv_heads", "head_dim", "d_ff", "vocab"];
    match (row.sizes(columns), params) {
        (Ok(sizes), _) => Ok(Model::published(sizes, params)),
        (Err(_), Some(n)) => {
            assumed.push("shape");
            Ok(Model::of_parameters(n, row.number("vocab").unwrap_or(50_304.0)))
        }
        (Err(reason), None) => Err(reason),
    }
}

/// Tokens a second of all devices: as stated, or from the step's time, the model's FLOP/s of a device or the MFU.
fn throughput(row: &Row, t: &Training) -> Option<f64> {
    let by_step = || Some(row.number("global_batch")? * t.seq_len / row.number("step_time_s")?);
    let kind = row.text("tflops_kind").to_lowercase();
    // FLOPs of the hardware count what is recomputed: a third more where all of the forward pass is.
    let again = if kind.starts_with("hardware") && row.text("act_ckpt").starts_with("full") { 4.0 / 3.0 } else { 1.0 };
    let by_flops = || Some(row.number("tflops_per_gpu")? * 1e12 * t.devices / (t.model_flops_per_token() * again));
    let by_mfu = || Some(row.number("mfu")? / 100.0 * t.device.peak * t.devices / t.model_flops_per_token());
    row.number("tokens_per_s").or_else(by_step).or_else(by_flops).or_else(by_mfu)
}

/// What every row says, or what stands for it.
fn base(row: &Row, book: &Book, model: Model, assumed: &mut Vec<&'static str>) -> Result<Training, String> {
    let device = row.device(book)?;
    let devices = row.need("n_gpus")?;
    let format = format(row.text("dtype"))?;
    let own = |column: &str| row.number(column).unwrap_or(1.0);
    let attention = row.text("flash_attention").to_lowercase();
    let framework = row.text("framework").to_lowercase();
    let devices_per_node = row.number("gpus_per_node").unwrap_or(8.0).min(devices);
    let network = match network(row.text("interconnect"), devices_per_node) {
        Some(bytes) => bytes,
        None => {
            if devices > devices_per_node.max(device.link_devices) {
                assumed.push("network");
            }
            usual_network(&device.architecture)
        }
    };
    let tensor = own("tp");
    let recompute = row.text("act_ckpt").to_lowercase();
    // Since 2022 norms are split wherever products are (Korthikanti et al. 2022).
    let year: f64 = row.text("date").get(..4).and_then(|y| y.parse().ok()).unwrap_or(2023.0);
    let sequence_parallel = tensor > 1.0 && (recompute.contains("sp") || year >= 2023.0);
    Ok(Training {
        devices,
        devices_per_node,
        network,
        tensor,
        pipeline: own("pp"),
        interleave: own("vpp"),
        context: own("cp"),
        sharding: sharding(row.text("zero")),
        micro_batch: row.number("micro_batch").unwrap_or(0.0),
        accumulation: 0.0,
        seq_len: row.need("seq_len")?,
        format,
        recompute: Recompute::None,
        fused_attention: !(attention.starts_with("no") || matches!(attention.as_str(), "false" | "0")),
        sequence_parallel,
        engine: engine(&framework),
        pure_half: row.text("dtype").contains("pure"),
        model,
        device: device.into(),
    })
}

/// With micro-batch and recomputation, which rows often leave out: the fastest that fits stands for them.
fn filled(row: &Row, base: Training, assumed: &mut Vec<&'static str>) -> Result<Setup, String> {
    let stated = recompute(row.text("act_ckpt"));
    let parallelism = row.number("tp").is_some() || row.number("dp").is_some() || base.sharding == Sharding::Weights;
    if !parallelism && assumed.contains(&"shape") {
        return Err("neither the model's shape nor the parallelism is given".into());
    }
    let tensors: Vec<f64> = if parallelism {
        vec![base.tensor]
    } else {
        assumed.push("parallelism");
        [1.0, 2.0, 4.0, 8.0].into_iter().filter(|t| *t <= base.devices).collect()
    };
    let mut all = Vec::new();
    for tensor in tensors {
        let mut t = Training { tensor, ..base.clone() };
        if !parallelism {
            t.sharding = Sharding::Weights;
            t.sequence_parallel = tensor > 1.0;
        }
        let per_rank = row.number("global_batch").map(|b| b / t.data());
        let micro: Vec<f64> = if t.micro_batch > 0.0 {
            vec![t.micro_batch]
        } else {
            let Some(most) = per_rank else { return Err("neither micro_batch nor global_batch is given".into()) };
            assumed.push("micro-batch");
            (0..8).map(|i| 2f64.powi(i)).filter(|m| *m <= most.max(1.0)).collect()
        };
        for micro_batch in micro {
            let accumulation = row.number("grad_accum").or(per_rank.map(|b| b / micro_batch)).unwrap_or(1.0).max(1.0);
            let each = Training { micro_batch, accumulation, ..t.clone() };
            match stated {
                Some(recompute) => all.push(Training { recompute, ..each }),
                None => {
                    assumed.push("recomputation");
                    let kinds = [Recompute::None, Recompute::Partial, Recompute::Full];
                    all.extend(kinds.map(|recompute| Training { recompute, ..each.clone() }));
                }
            }
        }
    }
    assumed.sort_unstable();
    assumed.dedup();
    if all.len() == 1
        && let Some(only) = all.pop()
    {
        return Ok(Setup::Training(Box::new(only)));
    }
    Ok(Setup::Choice(all))
}

fn recompute(text: &str) -> Option<Recompute> {
    let t = text.to_lowercase();
    match t.as_str() {
        "" | "not stated" => None,
        _ if t.starts_with("full") || matches!(t.as_str(), "true" | "1") => Some(Recompute::Full),
        _ if t.starts_with("selective") => Some(Recompute::Selective),
        _ if t.starts_with("no") || matches!(t.as_str(), "false" | "0" | "off") => Some(Recompute::None),
        _ if t.starts_with("minimal") || t.starts_with("partial") => Some(Recompute::Partial),
        _ if t.starts_with("yes") => Some(Recompute::Full),
        _ => None,
    }
}

fn sharding(text: &str) -> Sharding {
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
    if stage("2") || has(&["grad-op", "shard_grad"]) {
        Sharding::Gradients
    } else if stage("3") || has(&["fsdp"]) {
        Sharding::Weights
    } else if stage("1") || has(&["distributed optimizer"]) {
        Sharding::Optimizer
    } else {
        Sharding::None
    }
}

fn format(dtype: &str) -> Result<Format, String> {
    let t = dtype.to_lowercase();
    let is = |words: &[&str]| words.iter().any(|w| t.contains(w));
    if is(&["mxfp8", "fp8-mx"]) {
        Ok(Format::Mxf8)
    } else if is(&["fp8", "f8"]) {
        Ok(Format::F8)
    } else if is(&["fp4", "nvfp4", "mxfp4"]) {
        Ok(Format::F4)
    } else if t.is_empty() || is(&["bf16", "fp16", "f16", "float16", "half", "amp", "mixed"]) {
        Ok(Format::Half)
    } else if is(&["tf32"]) {
        Ok(Format::Tf32)
    } else if is(&["fp32", "f32", "float32"]) {
        Ok(Format::Single)
    } else {
        Err(format!("dtype `{dtype}` is not modelled"))
    }
}

/// By what the framework's kernels are; an unknown one is taken to be PyTorch.
fn engine(framework: &str) -> Engine {
    const FUSED: &[&str] = &[
        "megatron",
        "nemo",
        "transformer engine",
        "maxtext",
        "paxml",
        "jax",
        "levanter",
        "llm.c",
        "torchtitan",
        "gpt-neox",
        "megascale",
        "t5x",
        "easylm",
        "mosaic-tpu",
    ];
    if FUSED.iter().any(|f| framework.contains(f)) { Engine::Fused } else { Engine::Eager }
}

/// Bytes/s of one device's network from words such as "8x200Gb/s per node" or "1600 Gbps/node".
fn network(text: &str, devices_per_node: f64) -> Option<f64> {
    // A small b: bits.
    let at = ["Gb/s", "Gbps", "Gbit"].iter().filter_map(|unit| text.find(unit)).min()?;
    let (before, after) = (text.get(..at)?, text.get(at..)?);
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let number: String = before.trim_end().chars().rev().take_while(|c| is_number(*c)).collect();
    let gbits: f64 = number.chars().rev().collect::<String>().parse().ok()?;
    let rest = before.trim_end().strip_suffix(&number.chars().rev().collect::<String>())?;
    let factor: String = rest
        .trim_end()
        .strip_suffix('x')
        .map_or(String::new(), |r| r.trim_end().chars().rev().take_while(|c| c.is_ascii_digit()).collect());
    let cards: f64 = factor.chars().rev().collect::<String>().parse().unwrap_or(1.0);
    let per_node = cards > 1.0 || after.contains("node");
    Some(cards * gbits / 8.0 * 1e9 / if per_node { devices_per_node.max(1.0) } else { 1.0 })
}

/// Bytes/s of a device's network in clusters of its generation.
pub fn usual_network(architecture: &str) -> f64 {
    match architecture {
        "Volta" | "Turing" => 12.5e9,
        "Ampere" | "Ada" => 25e9,
        _ => 50e9,
    }
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
        assert_eq!(format("FP8-CS (FP8-MX)"), Ok(Format::Mxf8));
        assert_eq!((format("bfloat16"), format("float32")), (Ok(Format::Half), Ok(Format::Single)));
        assert!(format("int3").is_err() && format("tf32") == Ok(Format::Tf32));
        assert_eq!(
            (sharding("3"), sharding("ZeRO stage 2"), sharding("")),
            (Sharding::Weights, Sharding::Gradients, Sharding::None)
        );
        assert_eq!((recompute("False"), recompute("true")), (Some(Recompute::None), Some(Recompute::Full)));
        assert_eq!(recompute("not stated"), None);
        assert_eq!(recompute("selective(attention)+SP"), Some(Recompute::Selective));
    }
}
