//! Public models, by the numbers of their configs: parameters as published, KV cache and FLOPs a token as counted here by hand.

use centime::internal::transformer::{Parallel, Shape, count, shape_from_hf_config};
use centime::{BackendKind, CacheFormat, Dtype, OptimizerKind, Phase, WeightFormat, Workload};

/// Layers, width, heads, KV heads, head size, feed-forward width, vocabulary, tied embeddings; parameters as the model's card or its
/// index of weights states them.
struct Known(&'static str, &'static str, [u64; 7], bool, u64);

const KNOWN: &[Known] = &[
    Known("GPT-2", "gpt2", [12, 768, 12, 12, 64, 3072, 50257], true, 124_439_808),
    Known("GPT-2 medium", "gpt2", [24, 1024, 16, 16, 64, 4096, 50257], true, 354_823_168),
    Known("GPT-2 large", "gpt2", [36, 1280, 20, 20, 64, 5120, 50257], true, 774_030_080),
    Known("GPT-2 XL", "gpt2", [48, 1600, 25, 25, 64, 6400, 50257], true, 1_557_611_200),
    Known("Llama 2 7B", "llama", [32, 4096, 32, 32, 128, 11008, 32000], false, 6_738_415_616),
    Known("Llama 2 13B", "llama", [40, 5120, 40, 40, 128, 13824, 32000], false, 13_015_864_320),
    Known("Llama 2 70B", "llama", [80, 8192, 64, 8, 128, 28672, 32000], false, 68_976_648_192),
    Known("Code Llama 34B", "llama", [48, 8192, 64, 8, 128, 22016, 32000], false, 33_743_970_304),
    Known("Llama 3 8B", "llama", [32, 4096, 32, 8, 128, 14336, 128_256], false, 8_030_261_248),
    Known("Llama 3 70B", "llama", [80, 8192, 64, 8, 128, 28672, 128_256], false, 70_553_706_496),
    Known("Llama 3.1 405B", "llama", [126, 16384, 128, 8, 128, 53248, 128_256], false, 405_853_388_800),
    Known("Llama 3.2 1B", "llama", [16, 2048, 32, 8, 64, 8192, 128_256], true, 1_235_814_400),
    Known("Llama 3.2 3B", "llama", [28, 3072, 24, 8, 128, 8192, 128_256], true, 3_212_749_824),
    Known("TinyLlama 1.1B", "llama", [22, 2048, 32, 4, 64, 5632, 32000], false, 1_100_048_384),
    Known("SmolLM 135M", "llama", [30, 576, 9, 3, 64, 1536, 49152], true, 134_515_008),
    Known("SmolLM 360M", "llama", [32, 960, 15, 5, 64, 2560, 49152], true, 361_821_120),
    Known("SmolLM 1.7B", "llama", [24, 2048, 32, 32, 64, 8192, 49152], true, 1_711_376_384),
    Known("Yi 6B", "llama", [32, 4096, 32, 4, 128, 11008, 64000], false, 6_061_035_520),
    Known("Yi 34B", "llama", [60, 7168, 56, 8, 128, 20480, 64000], false, 34_388_917_248),
    Known("DeepSeek LLM 7B", "llama", [30, 4096, 32, 32, 128, 11008, 102_400], false, 6_910_365_696),
    Known("Mistral 7B v0.1", "mistral", [32, 4096, 32, 8, 128, 14336, 32000], false, 7_241_732_096),
    Known("Mistral 7B v0.3", "mistral", [32, 4096, 32, 8, 128, 14336, 32768], false, 7_248_023_552),
    Known("Mistral Nemo 12B", "mistral", [40, 5120, 32, 8, 128, 14336, 131_072], false, 12_247_782_400),
    Known("Mistral Small 24B", "mistral", [40, 5120, 32, 8, 128, 32768, 131_072], false, 23_572_403_200),
    Known("Mistral Large 123B", "mistral", [88, 12288, 96, 8, 128, 28672, 32768], false, 122_610_069_504),
    Known("Qwen2 0.5B", "qwen2", [24, 896, 14, 2, 64, 4864, 151_936], true, 494_032_768),
    Known("Qwen2 1.5B", "qwen2", [28, 1536, 12, 2, 128, 8960, 151_936], true, 1_543_714_304),
    Known("Qwen2 7B", "qwen2", [28, 3584, 28, 4, 128, 18944, 152_064], false, 7_615_616_512),
    Known("Qwen2 72B", "qwen2", [80, 8192, 64, 8, 128, 29568, 152_064], false, 72_706_203_648),
    Known("Qwen2.5 3B", "qwen2", [36, 2048, 16, 2, 128, 11008, 151_936], true, 3_085_938_688),
    Known("Qwen2.5 14B", "qwen2", [48, 5120, 40, 8, 128, 13824, 152_064], false, 14_770_033_664),
    Known("Qwen2.5 32B", "qwen2", [64, 5120, 40, 8, 128, 27648, 152_064], false, 32_763_876_352),
];

fn config(k: &Known) -> String {
    let Known(_, kind, [layers, width, heads, kv_heads, head_dim, inner, vocabulary], tied, _) = k;
    if *kind == "gpt2" {
        return format!(
            r#"{{"model_type": "gpt2", "n_layer": {layers}, "n_embd": {width}, "n_head": {heads}, "n_inner": {inner},
                "vocab_size": {vocabulary}, "n_positions": 1024, "n_ctx": 1024, "activation_function": "gelu_new"}}"#
        );
    }
    format!(
        r#"{{"model_type": "{kind}", "num_hidden_layers": {layers}, "hidden_size": {width}, "num_attention_heads": {heads},
            "num_key_value_heads": {kv_heads}, "head_dim": {head_dim}, "intermediate_size": {inner}, "vocab_size": {vocabulary},
            "tie_word_embeddings": {tied}, "hidden_act": "silu", "max_position_embeddings": 32768, "torch_dtype": "bfloat16"}}"#
    )
}

/// Of other families: what their configs say, and the parameters that their cards or indices of weights state.
const FAMILIES: &[(&str, &str, u64)] = &[
    (
        "Pythia 6.9B",
        r#"{"model_type": "gpt_neox", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
            "intermediate_size": 16384, "vocab_size": 50432, "rotary_pct": 0.25, "rotary_emb_base": 10000, "layer_norm_eps": 1e-5,
            "max_position_embeddings": 2048, "hidden_act": "gelu", "use_parallel_residual": true, "tie_word_embeddings": false}"#,
        6_857_302_016,
    ),
    (
        "Falcon 7B",
        r#"{"model_type": "falcon", "num_hidden_layers": 32, "hidden_size": 4544, "num_attention_heads": 71, "vocab_size": 65024,
            "multi_query": true, "parallel_attn": true, "bias": false, "alibi": false, "new_decoder_architecture": false}"#,
        6_921_720_704,
    ),
    (
        "OPT 6.7B",
        r#"{"model_type": "opt", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "ffn_dim": 16384,
            "vocab_size": 50272, "max_position_embeddings": 2048, "word_embed_proj_dim": 4096, "pad_token_id": 1,
            "do_layer_norm_before": true, "activation_function": "relu"}"#,
        6_658_473_984,
    ),
    (
        "BLOOM 7.1B",
        r#"{"model_type": "bloom", "n_layer": 30, "hidden_size": 4096, "n_head": 32, "vocab_size": 250880}"#,
        7_069_016_064,
    ),
    (
        "StarCoder2 7B",
        r#"{"model_type": "starcoder2", "num_hidden_layers": 32, "hidden_size": 4608, "num_attention_heads": 36,
            "num_key_value_heads": 4, "intermediate_size": 18432, "vocab_size": 49152, "sliding_window": 4096, "use_bias": true,
            "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 16384, "tie_word_embeddings": false}"#,
        7_400_416_256,
    ),
    (
        "Phi-3 mini",
        r#"{"model_type": "phi3", "num_hidden_layers": 32, "hidden_size": 3072, "num_attention_heads": 32, "num_key_value_heads": 32,
            "intermediate_size": 8192, "vocab_size": 32064, "sliding_window": 2047, "max_position_embeddings": 4096}"#,
        3_821_079_552,
    ),
    (
        "Gemma 7B",
        r#"{"model_type": "gemma", "num_hidden_layers": 28, "hidden_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 16,
            "head_dim": 256, "intermediate_size": 24576, "vocab_size": 256000, "hidden_act": "gelu"}"#,
        8_537_680_896,
    ),
    (
        "Gemma 2 9B",
        r#"{"model_type": "gemma2", "num_hidden_layers": 42, "hidden_size": 3584, "num_attention_heads": 16, "num_key_value_heads": 8,
            "head_dim": 256, "intermediate_size": 14336, "vocab_size": 256000, "sliding_window": 4096, "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "cache_implementation": "hybrid"}"#,
        9_241_705_984,
    ),
    (
        "Gemma 3 1B",
        r#"{"model_type": "gemma3_text", "num_hidden_layers": 26, "hidden_size": 1152, "num_attention_heads": 4,
            "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 6912, "vocab_size": 262144, "sliding_window": 512,
            "sliding_window_pattern": 6, "query_pre_attn_scalar": 256, "rope_theta": 1000000, "rope_local_base_freq": 10000}"#,
        999_885_952,
    ),
    (
        "Qwen3 8B",
        r#"{"model_type": "qwen3", "num_hidden_layers": 36, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
            "head_dim": 128, "intermediate_size": 12288, "vocab_size": 151936, "use_sliding_window": false, "max_window_layers": 36,
            "rope_theta": 1000000, "tie_word_embeddings": false}"#,
        8_190_735_360,
    ),
    (
        "OLMo 2 7B",
        r#"{"model_type": "olmo2", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 32,
            "intermediate_size": 11008, "vocab_size": 100352, "rope_theta": 500000, "tie_word_embeddings": false}"#,
        7_298_617_344,
    ),
    ("DeepSeek-V2-Lite", DEEPSEEK_V2_LITE, 15_706_484_224),
    ("DeepSeek-V2", DEEPSEEK_V2, 235_741_434_880),
    ("DeepSeek-V3", DEEPSEEK_V3, 671_026_419_200),
    ("Kimi K2", KIMI_K2, 1_026_408_232_448),
];

const DEEPSEEK_V2_LITE: &str = r#"{"model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 27,
    "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 10944, "moe_intermediate_size": 1408,
    "vocab_size": 102400, "n_routed_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2, "first_k_dense_replace": 1,
    "moe_layer_freq": 1, "q_lora_rank": null, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "norm_topk_prob": false, "routed_scaling_factor": 1.0, "scoring_func": "softmax", "topk_method": "greedy",
    "n_group": 1, "topk_group": 1, "max_position_embeddings": 163840, "tie_word_embeddings": false}"#;

const DEEPSEEK_V2: &str = r#"{"model_type": "deepseek_v2", "hidden_size": 5120, "num_hidden_layers": 60,
    "num_attention_heads": 128, "num_key_value_heads": 128, "intermediate_size": 12288, "moe_intermediate_size": 1536,
    "vocab_size": 102400, "n_routed_experts": 160, "num_experts_per_tok": 6, "n_shared_experts": 2, "first_k_dense_replace": 1,
    "moe_layer_freq": 1, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "norm_topk_prob": false, "routed_scaling_factor": 16.0, "scoring_func": "softmax",
    "topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3, "max_position_embeddings": 163840}"#;

const DEEPSEEK_V3: &str = r#"{"model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61,
    "num_attention_heads": 128, "num_key_value_heads": 128, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "vocab_size": 129280, "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 3,
    "moe_layer_freq": 1, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "norm_topk_prob": true, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
    "n_group": 8, "topk_group": 4, "num_nextn_predict_layers": 1, "ep_size": 1, "max_position_embeddings": 163840,
    "rope_scaling": {"type": "yarn", "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1,
        "original_max_position_embeddings": 4096}}"#;

const KIMI_K2: &str = r#"{"model_type": "kimi_k2", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 64,
    "num_key_value_heads": 64, "intermediate_size": 18432, "moe_intermediate_size": 2048, "vocab_size": 163840,
    "n_routed_experts": 384, "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "norm_topk_prob": true, "routed_scaling_factor": 2.827, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "n_group": 1,
    "topk_group": 1, "num_nextn_predict_layers": 0, "max_position_embeddings": 131072, "rope_theta": 50000.0}"#;

/// By hand, in bf16. All four have latents of 512 and rotated keys of 64: a step of decoding meets them, 101 positions on average, with
/// every head at 576 + 512 numbers a position, and its products are those of the weights that a token goes through.
#[test]
fn latents_are_what_a_token_leaves_in_the_cache_and_what_decoding_attends_to() {
    for (config, layers, width, heads, q_rank, [experts, each], [expert, dense_width], [shared, dense], vocabulary) in [
        (DEEPSEEK_V2_LITE, 27, 2048, 16, 0, [64, 6], [1408, 10944], [2, 1], 102_400),
        (DEEPSEEK_V2, 60, 5120, 128, 1536, [160, 6], [1536, 12288], [2, 1], 102_400),
        (DEEPSEEK_V3, 61, 7168, 128, 1536, [256, 8], [2048, 18432], [1, 3], 129_280),
        (KIMI_K2, 61, 7168, 64, 1536, [384, 8], [2048, 18432], [1, 1], 163_840u64),
    ] {
        let w = decode(shape_from_hf_config(config).unwrap());
        assert_eq!(count::kv_bytes_per_token(&w).unwrap().get(), layers * 576 * 2, "{config}");
        let few = Workload { kv_cache: CacheFormat::F8, ..w.clone() };
        assert_eq!(count::kv_bytes_per_token(&few).unwrap().get(), layers * (576 + 2 * 4), "{config}");
        let queries = if q_rank == 0 { width * heads * 192 } else { width * q_rank + q_rank * heads * 192 };
        let attention = queries + width * 576 + 512 * heads * 256 + heads * 128 * width;
        let of_experts = (each + shared) * 3 * width * expert + experts * width;
        let products =
            layers * attention + dense * 3 * width * dense_width + (layers - dense) * of_experts + width * vocabulary;
        let attended = layers * 2 * heads * (576 + 512) * 101;
        assert_eq!(count::flops_per_step(&w).unwrap().get(), 2 * products + attended, "{config}");
    }
}

/// As their authors state: 2.4 (without one of the tables), 21, 37 and 32 thousand millions.
#[test]
fn a_token_goes_through_a_few_of_the_parameters() {
    let active = |config: &str| count::active_parameters(&shape_from_hf_config(config).unwrap()).unwrap();
    assert_eq!(active(DEEPSEEK_V2_LITE) - 2048 * 102_400, 2_451_435_008);
    assert_eq!([DEEPSEEK_V2, DEEPSEEK_V3, KIMI_K2].map(active), [21_375_800_320, 37_552_297_472, 32_861_500_928]);
}

#[test]
fn configs_of_every_family_give_the_published_parameters() {
    for (name, config, parameters) in FAMILIES {
        let shape = shape_from_hf_config(config).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(count::parameters(&shape), Ok(*parameters), "{name}");
    }
}

#[test]
fn public_configs_give_the_published_parameters() {
    assert!(KNOWN.len() >= 30);
    for k in KNOWN {
        let shape = shape_from_hf_config(&config(k)).unwrap_or_else(|e| panic!("{}: {e}", k.0));
        assert_eq!(count::parameters(&shape), Ok(k.4), "{}", k.0);
    }
}

fn decode(shape: Shape) -> Workload {
    Workload {
        shape,
        phase: Phase::Decode,
        batch: 1,
        seq_len: 8,
        prompt_len: 100,
        new_tokens: 2,
        dtype: Dtype::Bf16,
        weights: WeightFormat::Dtype,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.0,
        kv_cache: Default::default(),
        prefill_chunk: None,
        weights_from: None,
        levers: Default::default(),
    }
}

/// In bf16; a step of decoding attends to 101 positions on average.
#[test]
fn kv_bytes_and_flops_a_token_are_those_counted_by_hand() {
    for k in KNOWN {
        let Known(name, kind, [layers, width, heads, kv_heads, head_dim, inner, vocabulary], ..) = k;
        let w = decode(shape_from_hf_config(&config(k)).unwrap());
        let kv = layers * kv_heads * head_dim * 2 * 2;
        assert_eq!(count::kv_bytes_per_token(&w).unwrap().get(), kv, "{name}: KV bytes a token");
        let few = Workload { kv_cache: CacheFormat::Int8, ..w.clone() };
        let scaled = layers * kv_heads * 2 * (head_dim + 4);
        assert_eq!(count::kv_bytes_per_token(&few).unwrap().get(), scaled, "{name}: KV bytes a token in 8 bits");
        let moved = |w: &Workload| count::bytes_per_decode_step(w).unwrap().unwrap().get();
        assert_eq!(moved(&w) - moved(&few), 101 * (kv - scaled), "{name}: bytes of a step");
        let matrices = if *kind == "gpt2" { 2 } else { 3 };
        let projections = width * heads * head_dim + 2 * width * kv_heads * head_dim + heads * head_dim * width;
        let products = 2 * (layers * (projections + matrices * width * inner) + width * vocabulary);
        let attention = layers * 2 * 2 * heads * head_dim * 101;
        assert_eq!(count::flops_per_step(&w).unwrap().get(), products + attention, "{name}: FLOPs a token");
    }
}

/// Layers with a window hold no more keys and values than it, and attend to no more.
#[test]
fn a_sliding_window_is_counted() {
    let mistral = config(KNOWN.iter().find(|k| k.1 == "mistral").unwrap());
    let of = |json: &str, prompt_len| Workload { prompt_len, ..decode(shape_from_hf_config(json).unwrap()) };
    let windowed = mistral.replacen('{', r#"{"sliding_window": 4096, "#, 1);
    let (layers, attn, kv) = (32, 32 * 128, 8 * 128);
    let flops = |w: &Workload| count::flops_per_step(w).unwrap().get();
    let bytes = |w: &Workload| count::bytes_per_decode_step(w).unwrap().unwrap().get();
    for (prompt, seen) in [(1000, 1001), (16_000, 4096)] {
        let (with, without) = (of(&windowed, prompt), of(&mistral, prompt));
        assert_eq!(flops(&without) - flops(&with), 4 * layers * attn * (u64::from(prompt) + 1 - seen));
        assert_eq!(bytes(&without) - bytes(&with), 2 * 2 * layers * kv * (u64::from(prompt) + 1 - seen));
    }
    let memory = |w: &Workload| count::memory(BackendKind::Cpu, w, &Parallel::replicas(1)).unwrap().kv_cache_bytes;
    assert_eq!(memory(&of(&windowed, 16_000)), 2 * 2 * layers * kv * 4096);
    assert_eq!(memory(&of(&mistral, 16_000)), 2 * 2 * layers * kv * 16_002);
}
