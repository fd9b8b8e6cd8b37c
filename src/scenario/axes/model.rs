//! The table's part about the model.

use super::{Axis, Kind};
use crate::scenario::presets;
use crate::scenario::values::{count, flag, float, int, number, text, whole, word};
use crate::transformer::shape::parts::NormKind;
use crate::transformer::shape::{Activation, Family};
use crate::yaml::Value;

/// Fields of a trial's model.
pub(super) const MODEL: [Axis; 29] = [
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
        ["num_local_experts", "num_experts", "n_routed_experts"],
        "experts",
        "",
        Kind::Count,
        "experts a layer, each of width d_ff_expert; default none, mixtral 8, qwen3-moe 128",
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
        "model.n_shared_experts",
        [],
        "shared experts",
        "",
        Kind::Whole,
        "experts that every token goes through beside its own; default none, deepseek-v2 2, deepseek-v3 1",
        |d, v| d.spec.n_shared_experts = Some(whole(v)?),
        |t| t.workload.shape.experts.map_or(Value::Null, |e| int(e.shared))
    ),
    axis!(
        "model.d_ff_expert",
        ["moe_intermediate_size"],
        "expert d_ff",
        "",
        Kind::Count,
        "width of one expert; default d_ff",
        |d, v| d.spec.d_ff_expert = Some(count(v)?),
        |t| t.workload.shape.experts.map_or(Value::Null, |_| int(t.workload.shape.d_ff_expert()))
    ),
    axis!(
        "model.first_dense_layers",
        ["first_k_dense_replace"],
        "dense layers",
        "",
        Kind::Whole,
        "layers of one feed-forward layer of width d_ff, before those with experts; default 0, deepseek 1",
        |d, v| d.spec.first_dense_layers = Some(whole(v)?),
        |t| t.workload.shape.experts.map_or(Value::Null, |e| int(e.dense_layers))
    ),
    axis!(
        "model.q_lora_rank",
        [],
        "query latent",
        "",
        Kind::Whole,
        "width of the latent that queries are made of, 0 for none; default 0, deepseek-v3 1536",
        |d, v| d.spec.latent.q_lora_rank = Some(whole(v)?),
        |t| t.workload.shape.latent.map_or(Value::Null, |l| int(l.q_rank.unwrap_or(0)))
    ),
    axis!(
        "model.kv_lora_rank",
        [],
        "kv latent",
        "",
        Kind::Count,
        "width of the latent that keys and values are made of, which makes attention latent; default none, deepseek 512",
        |d, v| d.spec.latent.kv_lora_rank = Some(count(v)?),
        |t| t.workload.shape.latent.map_or(Value::Null, |l| int(l.kv_rank))
    ),
    axis!(
        "model.qk_nope_head_dim",
        [],
        "unrotated",
        "",
        Kind::Count,
        "elements of a query's and key's head without positions, where attention is latent; default 128",
        |d, v| d.spec.latent.qk_nope_head_dim = Some(count(v)?),
        |t| t.workload.shape.latent.map_or(Value::Null, |l| int(l.nope))
    ),
    axis!(
        "model.qk_rope_head_dim",
        [],
        "rotated",
        "",
        Kind::Count,
        "elements of a query's and key's head that are rotated, where attention is latent; default 64",
        |d, v| d.spec.latent.qk_rope_head_dim = Some(count(v)?),
        |t| t.workload.shape.latent.map_or(Value::Null, |l| int(l.rope))
    ),
    axis!(
        "model.v_head_dim",
        [],
        "value head",
        "",
        Kind::Count,
        "width of a value's head, where attention is latent; default 128",
        |d, v| d.spec.latent.v_head_dim = Some(count(v)?),
        |t| t.workload.shape.latent.map_or(Value::Null, |l| int(l.value))
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
        "model.norm",
        [],
        "norm",
        "",
        Kind::Word(NormKind::WORDS),
        "layernorm, rmsnorm, rmsnorm-plus-one (a gain of 1 + w, as Gemma's) or none; default the family's",
        |d, v| d.spec.norm = Some(word::<NormKind>(v)?),
        |t| text(t.workload.shape.parts().norm.name())
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
];
