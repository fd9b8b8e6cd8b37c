//! Shapes from Hugging Face `config.json` files.
//!
//! Every key of a config is read, or known to change neither sizes nor work (`hf_keys`), or an error that names it: a model is never
//! counted, run and priced as another one. A config of several parts (vision and language, say) is read for its language model.

use super::hf_families;
use super::hf_reader::Config;
pub(crate) use super::hf_reader::HfConfigError;
use super::{Family, Shape, ShapeSpec};
use serde_json::Value;

/// The model types that are read, and the family each is built as.
pub(super) const MODEL_TYPES: &[(&str, Family)] = &[
    ("gpt2", Family::Gpt2),
    ("llama", Family::Llama),
    ("mistral", Family::Mistral),
    ("qwen2", Family::Qwen2),
    ("qwen3", Family::Qwen3),
    ("gemma", Family::Gemma),
    ("gemma2", Family::Gemma2),
    ("gemma3_text", Family::Gemma3),
    ("phi3", Family::Phi3),
    ("gpt_neox", Family::GptNeox),
    ("falcon", Family::Falcon),
    ("olmo2", Family::Olmo2),
    ("starcoder2", Family::Starcoder2),
    ("opt", Family::Opt),
    ("bloom", Family::Bloom),
    ("mixtral", Family::Mixtral),
    ("qwen3_moe", Family::Qwen3Moe),
    ("gpt_oss", Family::GptOss),
    ("deepseek_v2", Family::DeepseekV2),
    ("deepseek_v3", Family::DeepseekV3),
    ("kimi_k2", Family::DeepseekV3),
];

/// The shape that a `config.json` states.
///
/// # Errors
/// Text that is not JSON; a model type, activation or position scaling that is not built in; a shape that cannot be.
pub fn shape_from_hf_config(json: &str) -> Result<Shape, HfConfigError> {
    let (family, spec) = spec_from_hf_config(json)?;
    Ok(Shape::new(family, &spec)?)
}

/// What a `config.json` states, so that sizes can be given over it.
///
/// # Errors
/// Text that is not JSON; a model type, activation or position scaling that is not built in.
pub(crate) fn spec_from_hf_config(json: &str) -> Result<(Family, ShapeSpec), HfConfigError> {
    let whole: Value = serde_json::from_str(json)?;
    if !whole.is_object() {
        return Err(HfConfigError::Unsupported(
            "expected an object with model_type and sizes, found something else".into(),
        ));
    }
    let config = language_model(&whole);
    let kind = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let Some((_, family)) = MODEL_TYPES.iter().find(|(name, _)| *name == kind) else {
        let known: Vec<&str> = MODEL_TYPES.iter().map(|(name, _)| *name).collect();
        return Err(HfConfigError::Unsupported(format!(
            "model_type `{kind}` is not built in; {} are",
            known.join(", ")
        )));
    };
    let c = Config(config);
    c.only_known(*family)?;
    Ok((*family, hf_families::spec(&c, *family)?))
}

/// The part that describes the language model, where a config has several; what is beside it has no place in a token's cost.
fn language_model(config: &Value) -> &Value {
    let own = |c: &&Value| c.get("model_type").and_then(Value::as_str).is_some_and(is_read);
    let parts = ["text_config", "llm_config"].iter().filter_map(|name| config.get(name));
    Some(config).filter(own).or_else(|| parts.filter(|c| c.is_object()).find(own)).unwrap_or(config)
}

fn is_read(kind: &str) -> bool {
    MODEL_TYPES.iter().any(|(name, _)| *name == kind)
}

#[cfg(test)]
mod tests {
    use super::super::count::parameters;
    use super::*;

    #[test]
    fn the_golden_configs_give_their_shapes() {
        let gpt2 = shape_from_hf_config(include_str!("../../../tests/golden/gpt2.config.json")).unwrap();
        assert_eq!((gpt2.d_model, gpt2.n_heads, gpt2.d_ff, gpt2.context, gpt2.tied_embeddings), (48, 4, 192, 32, true));
        let llama = shape_from_hf_config(include_str!("../../../tests/golden/llama-gqa.config.json")).unwrap();
        assert_eq!((llama.n_heads, llama.n_kv_heads, llama.head_dim, llama.d_ff), (8, 2, 8, 112));
        assert!(!llama.tied_embeddings && !llama.qkv_bias);
    }

    #[test]
    fn qwen_has_biases_on_queries_keys_and_values_only() {
        let json = r#"{"model_type": "qwen2", "hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2,
            "num_hidden_layers": 24, "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": true,
            "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768}"#;
        let shape = shape_from_hf_config(json).unwrap();
        assert_eq!(parameters(&shape), Ok(494_032_768));
    }

    #[test]
    fn a_llama_config_without_its_sizes_gives_no_shape() {
        let error = shape_from_hf_config(r#"{"model_type": "llama", "num_hidden_layers": 2}"#).unwrap_err();
        assert_eq!(error.to_string(), "hidden_size: missing from the config");
    }

    #[test]
    fn what_is_not_built_in_is_named() {
        let error = |json: &str| shape_from_hf_config(json).unwrap_err().to_string();
        assert_eq!(
            error(r#"{"model_type": "bert"}"#),
            "model_type `bert` is not built in; gpt2, llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3_text, phi3, gpt_neox, falcon, \
             olmo2, starcoder2, opt, bloom, mixtral, qwen3_moe, gpt_oss, deepseek_v2, deepseek_v3, kimi_k2 are"
        );
        assert!(error("{").starts_with("not JSON"));
        assert!(error(r#"{"model_type": "gpt2", "n_embd": -3}"#).starts_with("n_embd: -3"));
        assert!(
            error(
                r#"{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1,
                "intermediate_size": 8, "vocab_size": 8, "rope_scaling": {"rope_type": "dynamic"}}"#
            )
            .starts_with("rope_type `dynamic`")
        );
    }

    const MISTRAL: &str = r#"{"model_type": "mistral", "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
        "num_hidden_layers": 32, "intermediate_size": 14336, "vocab_size": 32000, "max_position_embeddings": 32768"#;

    #[test]
    fn windows_and_the_layers_that_have_them_are_read() {
        let shape = |kind: &str, more: &str| {
            shape_from_hf_config(&format!("{MISTRAL}{more}}}").replace("mistral", kind)).map_err(|e| e.to_string())
        };
        let layers = |kind: &str, more: &str| {
            let s = shape(kind, more).unwrap();
            (0..s.n_layers as usize).map(|l| s.window_of(l)).collect::<Vec<_>>()
        };
        let all = vec![Some(4096); 32];
        assert_eq!(layers("mistral", r#", "sliding_window": 4096"#), all);
        assert_eq!(layers("mistral", r#", "sliding_window": 4096, "use_sliding_window": null"#), all);
        assert_eq!(layers("mistral", r#", "sliding_window": null"#), [None; 32]);
        let qwen = r#", "sliding_window": 4096, "max_window_layers": 28"#;
        assert_eq!(layers("qwen2", &format!(r#"{qwen}, "use_sliding_window": false"#)), [None; 32]);
        let used = layers("qwen2", &format!(r#"{qwen}, "use_sliding_window": true"#));
        assert_eq!((&used[..28], &used[28..]), ([None; 28].as_slice(), [Some(4096); 4].as_slice()));
        let listed = |types: &str| format!(r#", "layer_types": [{types}], "sliding_window": 512"#);
        assert_eq!(layers("mistral", &listed(r#""full_attention", "full_attention""#)), [None; 32]);
        let mixed = layers("mistral", &listed(r#""full_attention", "sliding_attention""#));
        assert_eq!(mixed[..4], [None, Some(512), None, Some(512)]);
        assert_eq!(layers("gemma3_text", r#", "sliding_window": 512"#)[4..7], [Some(512), None, Some(512)]);
        let said = shape("mistral", &listed(r#""linear_attention""#)).unwrap_err();
        assert!(said.contains("found \"linear_attention\""), "{said}");
        let said = shape("mistral", r#", "layer_types": ["sliding_attention"]"#).unwrap_err();
        assert_eq!(said, "sliding_window: missing from the config, though layers have one");
        let said = shape("mistral", r#", "sliding_window": 0"#).unwrap_err();
        assert_eq!(said, "sliding_window: expected 1 or more, found 0");
    }

    #[test]
    fn a_key_that_nobody_reads_is_an_error_that_names_it() {
        let of = |more: &str| shape_from_hf_config(&format!("{MISTRAL}{more}}}"));
        for harmless in [
            "\"torch_dtype\": \"bfloat16\"",
            "\"use_cache\": true",
            "\"eos_token_id\": [1, 2]",
            "\"future_key\": null",
            "\"use_qk_norm\": false",
        ] {
            assert!(of(&format!(", {harmless}")).is_ok(), "{harmless}");
        }
        for (key, value) in [
            ("num_local_experts", "8"),
            ("kv_lora_rank", "512"),
            ("attn_logit_softcapping", "50.0"),
            ("quantization_config", r#"{"quant_method": "gptq", "bits": 4}"#),
            ("qk_layernorm", "true"),
        ] {
            let said = of(&format!(", \"{key}\": {value}")).unwrap_err().to_string();
            assert!(said.starts_with(&format!("{key}: expected a key whose meaning is built in, found ")), "{said}");
        }
    }

    #[test]
    fn of_a_config_of_several_parts_the_language_model_is_read() {
        for part in ["text_config", "llm_config"] {
            let json = format!(
                r#"{{"model_type": "llava", "vision_config": {{"hidden_size": 1024}}, "{part}": {MISTRAL}}}}}"#
            );
            assert_eq!(shape_from_hf_config(&json).unwrap().d_model, 4096);
        }
        let said =
            shape_from_hf_config(r#"{"model_type": "llava", "text_config": {"model_type": "phi"}}"#).unwrap_err();
        assert!(said.to_string().starts_with("model_type `llava` is not built in"), "{said}");
        for no_object in ["[]", "3", "null"] {
            assert!(shape_from_hf_config(no_object).unwrap_err().to_string().starts_with("expected an object"));
        }
    }
}
