//! Keys of Hugging Face configs: those that are read, and those that change neither sizes nor work.

use super::Family;
use serde_json::Value;

/// Of every config: names, formats, tokens with a meaning, how a model is made at first, generated, dropped out or served.
const HARMLESS: &[&str] = &[
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "use_cache",
    "use_return_dict",
];

const GPT2: &[&str] = &[
    "activation_function",
    "add_cross_attention",
    "layer_norm_epsilon",
    "n_embd",
    "n_head",
    "n_inner",
    "n_layer",
    "n_positions",
    "scale_attn_by_inverse_layer_idx",
    "scale_attn_weights",
    "tie_word_embeddings",
    "vocab_size",
];

/// Of GPT-2 beside those of every config: `n_ctx` repeats `n_positions`, `reorder_and_upcast_attn` is how scores are computed.
const GPT2_HARMLESS: &[&str] = &[
    "attn_pdrop",
    "embd_pdrop",
    "n_ctx",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
];

const LLAMA: &[&str] = &[
    "attention_bias",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "max_position_embeddings",
    "mlp_bias",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "partial_rotary_factor",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "use_sliding_window",
    "vocab_size",
];

/// Of Llama's kin: the order in which rotary pairs lie.
const LLAMA_HARMLESS: &[&str] = &["rope_interleaved"];

/// Of DeepSeek's: among them how experts are spread over ranks, what loads cost in training, and a head of more tokens, which decoding
/// one at a time leaves out.
const DEEPSEEK: &[&str] = &[
    "aux_loss_alpha",
    "ep_size",
    "first_k_dense_replace",
    "kv_lora_rank",
    "moe_intermediate_size",
    "moe_layer_freq",
    "n_group",
    "n_routed_experts",
    "n_shared_experts",
    "norm_topk_prob",
    "num_experts_per_tok",
    "num_nextn_predict_layers",
    "q_lora_rank",
    "qk_head_dim",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "rope_interleave",
    "routed_scaling_factor",
    "scoring_func",
    "seq_aux",
    "topk_group",
    "topk_method",
    "v_head_dim",
];

/// Of single families beside those of Llama.
fn own(family: Family) -> &'static [&'static str] {
    match family {
        Family::Qwen2 | Family::Qwen3 => &["max_window_layers"],
        Family::Mixtral => &["num_experts_per_tok", "num_local_experts", "router_aux_loss_coef", "router_jitter_noise"],
        Family::GptOss => &[
            "experts_per_token",
            "initial_context_length",
            "num_experts_per_tok",
            "num_local_experts",
            "router_aux_loss_coef",
            "swiglu_alpha",
            "swiglu_limit",
        ],
        Family::Qwen3Moe => &[
            "decoder_sparse_step",
            "max_window_layers",
            "mlp_only_layers",
            "moe_intermediate_size",
            "norm_topk_prob",
            "num_experts",
            "num_experts_per_tok",
            "num_local_experts",
            "router_aux_loss_coef",
        ],
        Family::DeepseekV2 | Family::DeepseekV3 => DEEPSEEK,
        Family::Phi3 => &["embd_pdrop", "original_max_position_embeddings", "resid_pdrop"],
        Family::Gemma | Family::Gemma2 | Family::Gemma3 => &[
            "_sliding_window_pattern",
            "attn_logit_softcapping",
            "cache_implementation",
            "final_logit_softcapping",
            "hidden_activation",
            "query_pre_attn_scalar",
            "rope_local_base_freq",
            "sliding_window_pattern",
            "use_bidirectional_attention",
        ],
        Family::GptNeox => {
            &["classifier_dropout", "layer_norm_eps", "rotary_emb_base", "rotary_pct", "use_parallel_residual"]
        }
        Family::Falcon => &[
            "activation",
            "alibi",
            "bias",
            "ffn_hidden_size",
            "layer_norm_epsilon",
            "multi_query",
            "n_head",
            "n_head_kv",
            "n_layer",
            "new_decoder_architecture",
            "num_kv_heads",
            "num_ln_in_parallel_attn",
            "parallel_attn",
        ],
        Family::Starcoder2 => &["embedding_dropout", "norm_epsilon", "residual_dropout", "use_bias"],
        Family::Opt => &[
            "_remove_final_layer_norm",
            "activation_dropout",
            "activation_function",
            "do_layer_norm_before",
            "dropout",
            "enable_bias",
            "ffn_dim",
            "init_std",
            "layer_norm_elementwise_affine",
            "layerdrop",
            "word_embed_proj_dim",
        ],
        Family::Bloom => &[
            "apply_residual_connection_post_layernorm",
            "attention_softmax_in_fp32",
            "bias_dropout_fusion",
            "layer_norm_epsilon",
            "masked_softmax_fusion",
            "n_embed",
            "n_head",
            "n_inner",
            "n_layer",
            "offset_alibi",
            "seq_length",
            "skip_bias_add",
            "skip_bias_add_qkv",
            "slow_but_exact",
            "unk_token_id",
        ],
        Family::Gpt2 | Family::Llama | Family::Block | Family::Mistral | Family::Olmo2 => &[],
    }
}

/// Whether a value says that something is not there: what nobody asks for needs no meaning.
pub(super) fn off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

/// Whether a key is read or harmless.
pub(super) fn known(family: Family, key: &str) -> bool {
    let of_family = if family == Family::Gpt2 { [GPT2, GPT2_HARMLESS] } else { [LLAMA, LLAMA_HARMLESS] };
    HARMLESS.contains(&key) || of_family.iter().any(|keys| keys.contains(&key)) || own(family).contains(&key)
}

/// A value as an error quotes it.
pub(super) fn shortened(value: &Value) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= MOST { text } else { text.chars().take(MOST - 4).chain(" ...".chars()).collect() }
}
