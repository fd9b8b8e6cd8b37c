//! The table itself.

use super::{Axis, Kind};
use crate::scenario::engine::Engine;
use crate::scenario::engine::read::{name, reads, variables, words};
use crate::scenario::presets;
use crate::scenario::trial::BackendChoice;
use crate::scenario::values::{count, flag, float, int, number, probability, text, used, word};
use crate::transformer::collective::grid::Sharding;
use crate::transformer::shape::{Activation, Family};
use crate::transformer::{Dtype, OptimizerKind, Phase, WeightFormat};
use crate::yaml::Value;

macro_rules! axis {
    ($path:literal, [$($alias:literal),*], $label:literal, $unit:literal, $kind:expr, $doc:literal, |$d:ident, $v:ident| $set:expr, |$t:ident| $get:expr) => {
        Axis {
            path: $path, aliases: &[$($alias),*], label: $label, unit: $unit, kind: $kind, doc: $doc,
            set: |$d, $v| { $set; Ok(()) },
            get: |$t| $get,
        }
    };
}

/// Every field of a trial.
pub(crate) const AXES: &[Axis] = &[
    axis!(
        "model.family",
        [],
        "family",
        "",
        Kind::Word(Family::WORDS),
        "a set of parts, by the name of the models that have it; default gpt2",
        |d, v| d.family = Some(word::<Family>(v)?),
        |t| text(t.workload.shape.family.name())
    ),
    axis!(
        "model.preset",
        [],
        "model",
        "",
        Kind::Text,
        "a known model; sizes given beside it override it",
        |d, v| d.preset = Some(presets::named(v)?),
        |t| text(&t.model)
    ),
    axis!(
        "model.n_layers",
        ["num_hidden_layers", "n_layer"],
        "layers",
        "",
        Kind::Count,
        "layers; default 12 (block: 1)",
        |d, v| d.spec.n_layers = Some(count(v)?),
        |t| int(t.workload.shape.n_layers)
    ),
    axis!(
        "model.d_model",
        ["hidden_size", "n_embd"],
        "d_model",
        "",
        Kind::Count,
        "width; default 768 (block: 1024)",
        |d, v| d.spec.d_model = Some(count(v)?),
        |t| int(t.workload.shape.d_model)
    ),
    axis!(
        "model.n_heads",
        ["num_attention_heads", "n_head"],
        "heads",
        "",
        Kind::Count,
        "query heads; default 12 (block: 8)",
        |d, v| d.spec.n_heads = Some(count(v)?),
        |t| int(t.workload.shape.n_heads)
    ),
    axis!(
        "model.n_kv_heads",
        ["num_key_value_heads"],
        "kv heads",
        "",
        Kind::Count,
        "key and value heads; default n_heads",
        |d, v| d.spec.n_kv_heads = Some(count(v)?),
        |t| int(t.workload.shape.n_kv_heads)
    ),
    axis!(
        "model.head_dim",
        [],
        "head_dim",
        "",
        Kind::Count,
        "width of a head; default d_model / n_heads",
        |d, v| d.spec.head_dim = Some(count(v)?),
        |t| int(t.workload.shape.head_dim)
    ),
    axis!(
        "model.d_ff",
        ["intermediate_size", "n_inner"],
        "d_ff",
        "",
        Kind::Count,
        "feed-forward width; default 4 d_model (gpt2), 8/3 d_model (llama), d_model (block)",
        |d, v| d.spec.d_ff = Some(count(v)?),
        |t| int(t.workload.shape.d_ff)
    ),
    axis!(
        "model.vocab_size",
        [],
        "vocabulary",
        "",
        Kind::Count,
        "tokens known; default 50257 (gpt2), 32000 (llama), 10000 (block)",
        |d, v| d.spec.vocab_size = Some(count(v)?),
        |t| int(t.workload.shape.vocab_size)
    ),
    axis!(
        "model.context",
        ["max_position_embeddings", "n_positions", "n_ctx"],
        "context",
        "tokens",
        Kind::Count,
        "positions known; default 1024 (llama: 2048)",
        |d, v| d.spec.context = Some(count(v)?),
        |t| int(t.workload.shape.context)
    ),
    axis!(
        "model.window",
        ["sliding_window"],
        "window",
        "tokens",
        Kind::Count,
        "tokens that attention looks back over, in the layers that have a sliding window; default all",
        |d, v| d.spec.window = Some(count(v)?),
        |t| t.workload.shape.window.map_or(Value::Null, int)
    ),
    axis!(
        "model.n_experts",
        ["num_local_experts", "num_experts"],
        "experts",
        "",
        Kind::Count,
        "experts a layer, each of width d_ff; default none, mixtral 8, qwen3-moe 128",
        |d, v| d.spec.n_experts = Some(count(v)?),
        |t| t.workload.shape.experts.map_or(Value::Null, |e| int(e.count))
    ),
    axis!(
        "model.experts_per_token",
        ["num_experts_per_tok"],
        "experts a token",
        "",
        Kind::Count,
        "experts that a token goes to; default 2, qwen3-moe 8",
        |d, v| d.spec.experts_per_token = Some(count(v)?),
        |t| t.workload.shape.experts.map_or(Value::Null, |e| int(e.per_token))
    ),
    axis!(
        "model.tied_embeddings",
        ["tie_word_embeddings"],
        "tied",
        "",
        Kind::Flag,
        "output projection shares the embedding; default true for gpt2",
        |d, v| d.spec.tied_embeddings = Some(flag(v)?),
        |t| Value::Bool(t.workload.shape.tied_embeddings)
    ),
    axis!(
        "model.qkv_bias",
        ["attention_bias"],
        "qkv bias",
        "",
        Kind::Flag,
        "biases on queries, keys and values; default true, llama: false",
        |d, v| d.spec.qkv_bias = Some(flag(v)?),
        |t| Value::Bool(t.workload.shape.qkv_bias)
    ),
    axis!(
        "model.attn_out_bias",
        [],
        "attention bias",
        "",
        Kind::Flag,
        "bias on the attention's output; default as qkv_bias",
        |d, v| d.spec.attn_out_bias = Some(flag(v)?),
        |t| Value::Bool(t.workload.shape.attn_out_bias)
    ),
    axis!(
        "model.mlp_bias",
        [],
        "mlp bias",
        "",
        Kind::Flag,
        "biases in the feed-forward layer; default true, llama: false",
        |d, v| d.spec.mlp_bias = Some(flag(v)?),
        |t| Value::Bool(t.workload.shape.mlp_bias)
    ),
    axis!(
        "model.activation",
        ["hidden_act", "activation_function"],
        "activation",
        "",
        Kind::Word(Activation::WORDS),
        "function of the feed-forward layer; default the family's",
        |d, v| d.spec.activation = Some(word::<Activation>(v)?),
        |t| text(t.workload.shape.activation.name())
    ),
    axis!(
        "model.norm_eps",
        ["rms_norm_eps", "layer_norm_epsilon"],
        "norm eps",
        "",
        Kind::Number,
        "added to variances; default 1e-5",
        |d, v| d.spec.norm_eps = Some(number(v)?),
        |t| float(t.workload.shape.norm_eps)
    ),
    axis!(
        "model.rope_theta",
        [],
        "rope theta",
        "",
        Kind::Number,
        "base of the rotary positions; default 10000",
        |d, v| d.spec.rope_theta = Some(number(v)?),
        |t| float(t.workload.shape.rope.theta)
    ),
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
        Kind::Count,
        "tokens of a prompt; default 128",
        |d, v| d.prompt_len = count(v)?,
        |t| used(t.workload.prompt_len)
    ),
    axis!(
        "new_tokens",
        ["osl", "output_len"],
        "new tokens",
        "tokens",
        Kind::Count,
        "tokens made after the prompt; default 32",
        |d, v| d.new_tokens = count(v)?,
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
        "how weight matrices are stored in prefill, decode and generate: in the dtype, or in 8 bits with a scale for every 64 inputs; default dtype",
        |d, v| d.weights = word::<WeightFormat>(v)?,
        |t| if t.workload.phase == Phase::Train { Value::Null } else { text(t.workload.weights.name()) }
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
        "devices, the product of parallel.data and parallel.tensor; alone, data-parallel ones; default 1",
        |d, v| d.devices = Some(count(v)?),
        |t| int(t.devices)
    ),
    axis!(
        "parallel.data",
        [],
        "data",
        "replicas",
        Kind::Count,
        "replicas of the model; the batch is split among them; default: devices / parallel.tensor",
        |d, v| d.data = Some(count(v)?),
        |t| int(t.parallel().data)
    ),
    axis!(
        "parallel.tensor",
        [],
        "tensor",
        "devices",
        Kind::Count,
        "devices of a replica; heads and feed-forward widths are split among them; divides n_heads, n_kv_heads and d_ff; default 1",
        |d, v| d.tensor = Some(count(v)?),
        |t| int(t.parallel().tensor)
    ),
    axis!(
        "parallel.sharding",
        [],
        "sharding",
        "",
        Kind::Word(Sharding::WORDS),
        "what replicas keep a share of each in training: none, or optimizer: its moments, stage 1 of ZeRO; default none",
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
        "dropout",
        [],
        "dropout",
        "",
        Kind::Number,
        "probability in training, from 0 to below 1; default 0",
        |d, v| d.dropout = probability(v)?,
        |t| if t.workload.phase == Phase::Train { float(t.workload.dropout) } else { Value::Null }
    ),
    axis!(
        "engine.command",
        [],
        "engine",
        "",
        Kind::Words,
        "a program that runs the workload, and its arguments, started without a shell; {batch} stands for that field of the trial",
        |d, v| d.engine.command = Some(words(v)?),
        |t| t.engine.as_ref().map_or(Value::Null, |e| text(&e.command.join(" ")))
    ),
    axis!(
        "engine.reads",
        [],
        "reads",
        "",
        Kind::Reads,
        "how figures are had from what the program prints: llama-bench, torchrun, vllm-throughput, paths into JSON, or a pattern",
        |d, v| d.engine.reads = Some(reads(v)?),
        |t| t.engine.as_ref().map_or(Value::Null, |e| text(&e.reads.in_words()))
    ),
    axis!(
        "engine.name",
        [],
        "program",
        "",
        Kind::Free,
        "what the program is called; default its file's name",
        |d, v| d.engine.name = Some(name(v)?),
        |t| t.engine.as_ref().map_or(Value::Null, |_| text(&t.model))
    ),
    axis!(
        "engine.env",
        [],
        "environment",
        "",
        Kind::Variables,
        "variables that the program sees beside yours; engine.env.NAME is swept",
        |d, v| d.engine.env.extend(variables(v)?),
        |t| t.engine.as_ref().map_or(Value::Null, |e| text(&environment(e)))
    ),
];

/// "OMP_NUM_THREADS=2 MODE=fast".
fn environment(engine: &Engine) -> String {
    engine.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}
