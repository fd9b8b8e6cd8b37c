//! The table's part about the workload and the devices.

use super::{Axis, Kind};
use crate::scenario::engine::lengths;
use crate::scenario::trial::{BackendChoice, CacheChoice};
use crate::scenario::values::{above_zero, count, float, folder, int, probability, text, used, word};
use crate::transformer::collective::grid::Sharding;
use crate::transformer::levers::Recompute;
use crate::transformer::{Dtype, OptimizerKind, Phase, WeightFormat};
use crate::yaml::Value;

/// Fields of a trial beside its model.
pub(super) const TRIAL: [Axis; 23] = [
    axis!(
        "phase",
        [],
        "phase",
        "",
        Kind::Word(Phase::WORDS),
        "what a step does: train, prefill, decode or generate; default train",
        |d, v| d.phase = word::<Phase>(v)?,
        |t| text(t.workload.phase.name())
    ),
    axis!(
        "batch",
        ["batch_size", "concurrency"],
        "batch",
        "sequences",
        Kind::Count,
        "sequences a step over all devices; default 1",
        |d, v| d.batch = count(v)?,
        |t| int(t.workload.batch)
    ),
    axis!(
        "seq_len",
        ["sequence_length"],
        "sequence",
        "tokens",
        Kind::Count,
        "tokens of a training sequence; default 256",
        |d, v| d.seq_len = count(v)?,
        |t| used(t.workload.seq_len)
    ),
    axis!(
        "prompt_len",
        ["isl", "input_len"],
        "prompt",
        "tokens",
        Kind::Tokens,
        "tokens of a prompt; default 128; of a server also { range: [64, 1024] } or { normal: [512, 100] }",
        |d, v| (d.prompt_len, d.engine.server.prompt) = lengths::read(v)?,
        |t| used(t.workload.prompt_len)
    ),
    axis!(
        "new_tokens",
        ["osl", "output_len"],
        "new tokens",
        "tokens",
        Kind::Tokens,
        "tokens made after the prompt; default 32; of a server also { range: [16, 256] } or { normal: [128, 40] }",
        |d, v| (d.new_tokens, d.engine.server.answer) = lengths::read(v)?,
        |t| used(t.workload.new_tokens)
    ),
    axis!(
        "dtype",
        [],
        "dtype",
        "",
        Kind::Word(Dtype::WORDS),
        "number format of weights and activations; tf32 is for backend cuda; default f32",
        |d, v| d.dtype = word::<Dtype>(v)?,
        |t| text(t.workload.dtype.name())
    ),
    axis!(
        "weights",
        [],
        "weights",
        "",
        Kind::Word(WeightFormat::WORDS),
        "how weight matrices are stored in prefill, decode and generate: in the dtype, in 8 bits with a scale for every 64 inputs, in 4 bits with one for every 32, for every 128, or a scale and a zero-point for every 128, or in floats of 8 bits (f8, e4m3) with a scale for every output; default dtype",
        |d, v| d.weights = word::<WeightFormat>(v)?,
        |t| if t.workload.phase == Phase::Train { Value::Null } else { text(t.workload.weights.name()) }
    ),
    axis!(
        "kv_cache",
        ["kv_cache_dtype"],
        "KV cache",
        "",
        Kind::Word(CacheChoice::WORDS),
        "how the KV cache is stored in prefill, decode and generate: in the dtype (or its name), or in 8 bits, whole numbers (int8) or floats (f8, e4m3), with a scale of 32 bits for each token's key and value of a head; default dtype",
        |d, v| d.kv_cache = word::<CacheChoice>(v)?,
        |t| if t.workload.phase == Phase::Train { Value::Null } else { text(t.workload.kv_cache.name()) }
    ),
    axis!(
        "backend",
        [],
        "backend",
        "",
        Kind::Word(BackendChoice::WORDS),
        "cpu, cuda, naive (the slow oracle), or auto: a GPU where there is one; default auto",
        |d, v| d.backend = word::<BackendChoice>(v)?,
        |t| text(t.backend.name())
    ),
    axis!(
        "devices",
        [],
        "devices",
        "",
        Kind::Count,
        "devices, the product of parallel.data, parallel.tensor and parallel.pipeline; alone, data-parallel ones; default 1",
        |d, v| d.devices = Some(count(v)?),
        |t| int(t.devices)
    ),
    axis!(
        "parallel.data",
        [],
        "data",
        "replicas",
        Kind::Count,
        "replicas of the model; the batch is split among them; default: devices / (parallel.tensor * parallel.pipeline)",
        |d, v| d.data = Some(count(v)?),
        |t| int(t.parallel().data)
    ),
    axis!(
        "parallel.tensor",
        [],
        "tensor",
        "devices",
        Kind::Count,
        "devices of a replica; heads, feed-forward widths and, on CPUs, the vocabulary are split among them; divides n_heads, d_ff and d_ff_expert, and n_kv_heads or is a multiple of it; default 1",
        |d, v| d.tensor = Some(count(v)?),
        |t| int(t.parallel().tensor)
    ),
    axis!(
        "parallel.pipeline",
        [],
        "pipeline",
        "stages",
        Kind::Count,
        "stages that a replica's layers are divided into in training, a device each; the micro-batches of accumulate go through them one forward one backward; at most n_layers; default 1",
        |d, v| d.pipeline = Some(count(v)?),
        |t| if t.workload.phase == Phase::Train { int(t.parallel().pipeline) } else { Value::Null }
    ),
    axis!(
        "parallel.expert",
        [],
        "experts over",
        "devices",
        Kind::Count,
        "replicas that a mixture's experts are spread over, each having some of every layer; tokens go to the experts and come back, all else is data-parallel; divides n_experts and the replicas, which are as many where nothing is said of them; on CPUs, without tensor, pipeline and sharding; default 1",
        |d, v| d.expert = Some(count(v)?),
        |t| if t.workload.shape.experts.is_some() { int(t.parallel().expert) } else { Value::Null }
    ),
    axis!(
        "parallel.sharding",
        [],
        "sharding",
        "",
        Kind::Word(Sharding::WORDS),
        "what replicas keep a share of each in training: none; optimizer: its moments, stage 1 of ZeRO; gradients: and those of a step that keeps all (accumulate, schedule.clip), stage 2; parameters: and the layers', stage 3; default none",
        |d, v| d.sharding = word::<Sharding>(v)?,
        |t| if t.workload.phase == Phase::Train { text(t.parallel().sharding.name()) } else { Value::Null }
    ),
    axis!(
        "cores_per_device",
        ["threads"],
        "cores/device",
        "cores",
        Kind::Count,
        "cores of a CPU device; default 1",
        |d, v| d.cores_per_device = count(v)?,
        |t| int(t.cores_per_device)
    ),
    axis!(
        "optimizer",
        [],
        "optimizer",
        "",
        Kind::Word(OptimizerKind::WORDS),
        "sgd, adam, adamax or adamw; default adamw",
        |d, v| d.optimizer = word::<OptimizerKind>(v)?,
        |t| if t.workload.phase == Phase::Train { text(t.workload.optimizer.name()) } else { Value::Null }
    ),
    axis!(
        "accumulate",
        ["gradient_accumulation_steps"],
        "accumulate",
        "micro-batches",
        Kind::Count,
        "passes that a replica's batch is divided into, whose gradients are added up before the one update: memory for a pass, and not for the batch; default 1",
        |d, v| d.levers.accumulate = count(v)?,
        |t| if t.workload.phase == Phase::Train { int(t.workload.levers.accumulate) } else { Value::Null }
    ),
    axis!(
        "recompute",
        [],
        "recompute",
        "",
        Kind::Word(Recompute::WORDS),
        "what the backward pass runs forward again instead of having kept it: none, attention (up to its last product), or full: whole layers; memory for time, the same results; default none",
        |d, v| d.levers.recompute = word::<Recompute>(v)?,
        |t| if t.workload.phase == Phase::Train { text(t.workload.levers.recompute.name()) } else { Value::Null }
    ),
    axis!(
        "schedule.clip",
        [],
        "clip",
        "",
        Kind::Number,
        "largest norm of all gradients together; those of a step with a larger one are scaled down to it; default none",
        |d, v| d.levers.clip = Some(above_zero(v)?),
        |t| t.workload.levers.clip.map_or(Value::Null, float)
    ),
    axis!(
        "prefill_chunk",
        [],
        "chunk",
        "tokens",
        Kind::Count,
        "tokens of a prompt processed at a time (cpu); default all, and 2048 / batch where batch * prompt_len is over 8192",
        |d, v| d.prefill_chunk = Some(count(v)?),
        |t| t.workload.prefill_chunk.map_or(Value::Null, int)
    ),
    axis!(
        "weights_from",
        [],
        "weights from",
        "",
        Kind::Folder,
        "folder of a Hugging Face model, config.json and safetensors files, whose weights are run (its path starts in the scenario's folder); default random weights",
        |d, v| d.weights_from = Some(folder(v)?),
        |t| t.workload.weights_from.as_ref().map_or(Value::Null, |w| text(&w.folder.display().to_string()))
    ),
    axis!(
        "dropout",
        [],
        "dropout",
        "",
        Kind::Number,
        "probability in training, from 0 to below 1; default 0",
        |d, v| d.dropout = probability(v)?,
        |t| if t.workload.phase == Phase::Train { float(t.workload.dropout) } else { Value::Null }
    ),
];
