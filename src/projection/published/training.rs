//! Rows of training runs.

use super::case::{Case, Counted, Quantity, Setup};
use super::names::{counts_cores, device};
use super::row::Row;
use super::shapes;
use super::words::{attention_kernels, format, framework, network, recompute, sharding};
use crate::hardware::book::Book;
use crate::projection::model::Model;
use crate::projection::training::{Recompute, Sharding, Training, usual_network};

/// GB of a GiB.
const GIB: f64 = 1.073_741_824;

/// What a row publishes; why nothing can be predicted, otherwise.
pub(super) fn cases(row: &Row, book: &Book) -> Result<Vec<Case>, String> {
    if row.lower("model").contains("lora") {
        return Err("trains adapters only, of a rank that is not given".into());
    }
    const COLUMNS: [&str; 7] = ["n_layers", "d_model", "n_heads", "n_kv_heads", "head_dim", "d_ff", "vocab"];
    let mut assumed = Vec::new();
    let model = shapes::model(row, COLUMNS, &mut assumed)?;
    let base = base(row, book, model, &mut assumed)?;
    let (tokens, memory) = (throughput(row, &base), row.number("mem_gb"));
    if tokens.is_none() && memory.is_none() {
        return Err("no throughput, step time, FLOP/s, MFU or memory is given".into());
    }
    let setup = filled(row, base, &mut assumed)?;
    assumed.sort_unstable();
    assumed.dedup();
    let what = format!("{} {} x{}", row.text("model"), row.text("hardware"), row.number("n_gpus").unwrap_or(1.0));
    let remarks = row.remarks();
    let allocated = ["allocated", "params+opt", "peak mem"].iter().any(|w| remarks.contains(w));
    let counted = if allocated { Counted::Allocated } else { Counted::Process };
    let gib =
        ["gib", "/1024", "mib;", "torchtitan"].iter().any(|w| remarks.contains(w)) && !remarks.contains("mib/1000");
    let memory = memory.map(|m| if gib && !remarks.contains("params+opt") { m * GIB } else { m });
    let case = |quantity, published| Case {
        id: String::new(),
        source: String::new(),
        what: what.clone(),
        quantity,
        published,
        setup: setup.clone(),
        counted,
        assumed: assumed.clone(),
    };
    let throughput = tokens.map(|t| case(Quantity::TrainingTokens, t));
    Ok(throughput.into_iter().chain(memory.map(|m| case(Quantity::TrainingMemory, m))).collect())
}

/// Tokens a second of all devices: as stated, or from the step's time, the model's FLOP/s of a device or the MFU.
fn throughput(row: &Row, t: &Training) -> Option<f64> {
    let by_step = || Some(row.number("global_batch")? * t.seq_len / row.number("step_time_s")?);
    let kind = row.lower("tflops_kind");
    // FLOPs of the hardware count what is recomputed: a third more where all of the forward pass is.
    let again = if kind.starts_with("hardware") && row.text("act_ckpt").starts_with("full") { 4.0 / 3.0 } else { 1.0 };
    // Some count attention under the mask only.
    let causal = kind.contains("causal") && !kind.contains("non-causal");
    let token = t.model_flops_per_token() - if causal { 0.5 * t.attention_flops_per_token() } else { 0.0 };
    let by_flops = || Some(row.number("tflops_per_gpu")? * 1e12 * t.devices / (token * again));
    let by_mfu = || Some(row.number("mfu")? / 100.0 * t.device.peak * t.devices / t.model_flops_per_token());
    row.number("tokens_per_s").or_else(by_step).or_else(by_flops).or_else(by_mfu)
}

/// What every row says, or what stands for it.
fn base(row: &Row, book: &Book, model: Model, assumed: &mut Vec<&'static str>) -> Result<Training, String> {
    let device = device(row, book, assumed)?;
    // Where parallelism counts the two cores of a chip, so do devices.
    let each = if counts_cores(row) { 2.0 } else { 1.0 };
    let devices = each
        * match (row.number("n_gpus"), row.number("tokens_per_s")) {
            (Some(n), _) => n,
            // A share of the peak does not depend on the number much.
            (None, None) => {
                assumed.push("devices");
                64.0
            }
            (None, Some(_)) => return Err("n_gpus is not given".into()),
        };
    let format = format(row.text("dtype"))?;
    let own = |column: &str| row.number(column).unwrap_or(1.0);
    let attention = row.lower("flash_attention");
    let (engine, driver, known) = framework(&row.lower("framework"));
    if !known {
        assumed.push("framework");
    }
    let devices_per_node = (each * row.number("gpus_per_node").unwrap_or(8.0)).min(devices);
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
    let recompute = row.lower("act_ckpt");
    // Since 2022 norms are split wherever products are (Korthikanti et al. 2022).
    let year = row.year().unwrap_or(2023.0);
    let remarks = row.remarks();
    let split = !remarks.contains("no sequence parallel");
    let sequence_parallel = tensor > 1.0 && split && (recompute.contains("sp") || year >= 2023.0);
    let seq_len = row.number("seq_len").unwrap_or_else(|| {
        assumed.push("sequence");
        2048.0
    });
    let zero = row.lower("zero");
    let offloaded = zero.contains("offload") || remarks.contains("--offload-opt");
    if zero.contains("offload") && zero.contains("not per run") {
        assumed.push("offload");
    }
    let dtype = row.lower("dtype");
    let sharding = sharding(&zero);
    Ok(Training {
        devices,
        devices_per_node,
        network,
        tensor,
        pipeline: own("pp"),
        interleave: own("vpp"),
        context: own("cp"),
        expert_parallel: own("ep"),
        sharding,
        micro_batch: row.number("micro_batch").unwrap_or(0.0),
        accumulation: 0.0,
        seq_len,
        format,
        recompute: Recompute::None,
        fused_attention: !(attention.starts_with("no") || matches!(attention.as_str(), "false" | "0")),
        sequence_parallel,
        engine,
        driver,
        offloaded,
        gathers: if sharding == Sharding::Weights && row.lower("framework").contains("deepspeed") { 8.0 } else { 1.0 },
        blocking: row.lower("framework").contains("deepspeed"),
        copies_apart: row.lower("framework").contains("deepspeed") && !row.lower("framework").contains("megatron"),
        fused_loss: row.lower("framework").contains("liger") || remarks.contains("lmhead-chunks"),
        pure_half: dtype.contains("pure") || dtype.contains("bf16 master"),
        kernels: attention_kernels(&attention, engine, row.time()),
        model,
        device: device.into(),
    })
}

/// Micro-batches of a step where nothing is said of them: a pipeline is given enough for its bubble to be small (GPipe, Huang
/// 2019: four times its stages).
fn usual_accumulation(pipeline: f64) -> f64 {
    if pipeline > 1.0 { 4.0 * pipeline } else { 1.0 }
}

/// With parallelism, micro-batch and recomputation, which rows often leave out: the fastest that fits stands for them.
fn filled(row: &Row, base: Training, assumed: &mut Vec<&'static str>) -> Result<Setup, String> {
    let stated = recompute(row.text("act_ckpt"));
    let parallelism = row.number("tp").is_some() || row.number("dp").is_some() || base.sharding == Sharding::Weights;
    let splits: Vec<(f64, f64)> = if parallelism {
        vec![(base.tensor, base.pipeline)]
    } else {
        assumed.push("parallelism");
        let fit =
            |(t, p): &(f64, f64)| t * p <= base.devices && base.devices % (t * p) == 0.0 && *p <= base.model.layers;
        let tensors = [1.0, 2.0, 4.0, 8.0];
        let pipelines: &[f64] = if base.devices > 64.0 { &[1.0, 4.0, 8.0] } else { &[1.0] };
        tensors.into_iter().flat_map(|t| pipelines.iter().map(move |p| (t, *p))).filter(fit).collect()
    };
    let mut all = Vec::new();
    for (tensor, pipeline) in splits {
        let mut t = Training { tensor, pipeline, ..base.clone() };
        if !parallelism {
            t.sharding = if pipeline > 1.0 { Sharding::Optimizer } else { Sharding::Weights };
            t.sequence_parallel = tensor > 1.0 && row.year().is_some_and(|y| y >= 2024.0);
        }
        let per_rank = row.number("global_batch").map(|b| (b / t.data()).max(1.0));
        let micro: Vec<f64> = if t.micro_batch > 0.0 {
            vec![t.micro_batch]
        } else {
            assumed.push("micro-batch");
            // Without the batch, as much as fits of about 16,000 tokens a device.
            let most = per_rank.unwrap_or((16_384.0 / t.seq_len).max(1.0));
            (0..8).map(|i| 2f64.powi(i)).filter(|m| *m <= most).collect()
        };
        for micro_batch in micro {
            let stated_or_usual = row.number("grad_accum").or(per_rank.map(|b| b / micro_batch)).unwrap_or_else(|| {
                if pipeline > 1.0 {
                    assumed.push("micro-batches");
                }
                usual_accumulation(pipeline)
            });
            let accumulation = stated_or_usual.max(1.0);
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
    if all.len() == 1
        && let Some(only) = all.pop()
    {
        return Ok(Setup::Training(Box::new(only)));
    }
    if all.is_empty() { Err("no layout shares the batch out among the devices".into()) } else { Ok(Setup::Choice(all)) }
}
