//! Shapes from Hugging Face `config.json` files.
//!
//! Every key of a config is read, or known to change neither sizes nor work ([`hf_keys`]), or an error that names it: a model is never
//! counted, run and priced as another one. A config of several parts (vision and language, say) is read for its language model.

use super::hf_keys;
use super::{Activation, Family, RopeScaling, Shape, ShapeError, ShapeSpec};
use serde_json::Value;

/// Why a config gives no shape.
#[derive(Debug, thiserror::Error)]
pub enum HfConfigError {
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Unsupported(String),
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

/// The model types that are read, and the family each is built as.
const MODEL_TYPES: &[(&str, Family)] =
    &[("gpt2", Family::Gpt2), ("llama", Family::Llama), ("mistral", Family::Llama), ("qwen2", Family::Llama)];

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
    let spec = match family {
        Family::Gpt2 => c.gpt2()?,
        _ => c.llama(kind)?,
    };
    Ok((*family, spec))
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

struct Config<'a>(&'a Value);

impl Config<'_> {
    /// # Errors
    /// A key that may change the model and is not read, by its name.
    fn only_known(&self, family: Family) -> Result<(), HfConfigError> {
        let keys = self.0.as_object().into_iter().flatten();
        let unknown = keys.filter(|(_, v)| !hf_keys::off(v)).find(|(key, _)| !hf_keys::known(family, key));
        match unknown {
            None => Ok(()),
            Some((key, value)) => Err(HfConfigError::Unsupported(format!(
                "{key}: expected a key whose meaning is built in, found {}; take it out of the config if it changes neither sizes nor \
                 attention",
                hf_keys::shortened(value)
            ))),
        }
    }

    /// The window of attention, where the model uses one.
    fn window(&self, kind: &str) -> Result<Option<u32>, HfConfigError> {
        let layers = self.0.get("layer_types").and_then(Value::as_array);
        if let Some(other) = layers.into_iter().flatten().find(|l| l.as_str() != Some("full_attention")) {
            return Err(HfConfigError::Unsupported(format!(
                "layer_types: expected full_attention in every layer, found {other}, which is not built in"
            )));
        }
        // Qwen 2 states a window that it uses only where it says so; layers that are all listed as full use none.
        let used = self.flag("use_sliding_window").unwrap_or(kind != "qwen2") && layers.is_none();
        match self.size("sliding_window")?.filter(|_| used) {
            Some(0) => Err(HfConfigError::Unsupported("sliding_window: expected 1 or more, found 0".into())),
            window => Ok(window),
        }
    }

    fn size(&self, name: &str) -> Result<Option<u32>, HfConfigError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_u64().and_then(|v| u32::try_from(v).ok()) {
                Some(v) => Ok(Some(v)),
                None => Err(HfConfigError::Unsupported(format!("{name}: {v} is not a whole number below 2^32"))),
            },
        }
    }

    /// A size that no default may stand in for: the families of this form differ too much.
    fn stated(&self, name: &str) -> Result<u32, HfConfigError> {
        self.size(name)?.ok_or_else(|| HfConfigError::Unsupported(format!("{name}: missing from the config")))
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).and_then(Value::as_bool)
    }

    fn number(&self, name: &str) -> Option<f32> {
        self.0.get(name).and_then(Value::as_f64).map(|v| v as f32)
    }

    fn gpt2(&self) -> Result<ShapeSpec, HfConfigError> {
        for name in ["scale_attn_by_inverse_layer_idx", "add_cross_attention"] {
            if self.flag(name) == Some(true) {
                return Err(HfConfigError::Unsupported(format!("{name}: true is not built in")));
            }
        }
        if self.flag("scale_attn_weights") == Some(false) {
            return Err(HfConfigError::Unsupported("scale_attn_weights: false is not built in".into()));
        }
        let activation = match self.0.get("activation_function").and_then(Value::as_str).unwrap_or("gelu_new") {
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            "gelu" => Activation::GeluErf,
            "relu" => Activation::Relu,
            other => {
                return Err(HfConfigError::Unsupported(format!(
                    "activation_function `{other}` is not built in; gelu_new, gelu and relu are"
                )));
            }
        };
        Ok(ShapeSpec {
            n_layers: self.size("n_layer")?,
            d_model: self.size("n_embd")?,
            n_heads: self.size("n_head")?,
            d_ff: self.size("n_inner")?,
            vocab_size: self.size("vocab_size")?,
            context: self.size("n_positions")?,
            tied_embeddings: self.flag("tie_word_embeddings"),
            activation: Some(activation),
            norm_eps: self.number("layer_norm_epsilon"),
            ..ShapeSpec::default()
        })
    }

    fn llama(&self, kind: &str) -> Result<ShapeSpec, HfConfigError> {
        let activation = self.0.get("hidden_act").and_then(Value::as_str).unwrap_or("silu");
        if activation != "silu" && activation != "swish" {
            return Err(HfConfigError::Unsupported(format!("hidden_act `{activation}` is not built in; silu is")));
        }
        if self.number("partial_rotary_factor").is_some_and(|share| share != 1.0) {
            return Err(HfConfigError::Unsupported("partial_rotary_factor other than 1 is not built in".into()));
        }
        let object = |name: &str| self.0.get(name).filter(|v| v.is_object());
        let nested = object("rope_parameters").or_else(|| object("rope_scaling"));
        let theta = nested.map(Config).and_then(|r| r.number("rope_theta")).or_else(|| self.number("rope_theta"));
        let rope_scaling = nested.map(Config).map(|r| r.scaling()).transpose()?.flatten();
        // Within its window attention is over everything before; longer sequences are refused where a workload is checked.
        let (window, context) = (self.window(kind)?, self.size("max_position_embeddings")?);
        let window = window.filter(|w| context.is_none_or(|context| *w < context));
        let qkv_bias = self.flag("attention_bias").unwrap_or(kind == "qwen2");
        Ok(ShapeSpec {
            n_layers: Some(self.stated("num_hidden_layers")?),
            d_model: Some(self.stated("hidden_size")?),
            n_heads: Some(self.stated("num_attention_heads")?),
            n_kv_heads: self.size("num_key_value_heads")?,
            head_dim: self.size("head_dim")?,
            d_ff: Some(self.stated("intermediate_size")?),
            vocab_size: Some(self.stated("vocab_size")?),
            context: window.or(context),
            window,
            tied_embeddings: Some(self.flag("tie_word_embeddings").unwrap_or(false)),
            qkv_bias: Some(qkv_bias),
            // Qwen 2 has biases on queries, keys and values only.
            attn_out_bias: Some(qkv_bias && kind != "qwen2"),
            mlp_bias: self.flag("mlp_bias"),
            norm_eps: self.number("rms_norm_eps"),
            rope_theta: theta,
            rope_scaling,
            ..ShapeSpec::default()
        })
    }

    fn scaling(&self) -> Result<Option<RopeScaling>, HfConfigError> {
        let kind = self.0.get("rope_type").or_else(|| self.0.get("type")).and_then(Value::as_str).unwrap_or("default");
        match kind {
            "default" => Ok(None),
            "llama3" => {
                let missing = || {
                    HfConfigError::Unsupported("rope scaling llama3 needs factor, low_freq_factor, high_freq_factor and original_max_position_embeddings".into())
                };
                Ok(Some(RopeScaling {
                    factor: self.number("factor").ok_or_else(missing)?,
                    low_freq_factor: self.number("low_freq_factor").ok_or_else(missing)?,
                    high_freq_factor: self.number("high_freq_factor").ok_or_else(missing)?,
                    original_context: self.size("original_max_position_embeddings")?.ok_or_else(missing)?,
                }))
            }
            other => {
                Err(HfConfigError::Unsupported(format!("rope_type `{other}` is not built in; default and llama3 are")))
            }
        }
    }
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
            "model_type `bert` is not built in; gpt2, llama, mistral, qwen2 are"
        );
        assert!(error("{").starts_with("not JSON"));
        assert!(error(r#"{"model_type": "gpt2", "n_embd": -3}"#).starts_with("n_embd: -3"));
        assert!(
            error(r#"{"model_type": "llama", "rope_scaling": {"rope_type": "yarn"}}"#).starts_with("rope_type `yarn`")
        );
    }

    const MISTRAL: &str = r#"{"model_type": "mistral", "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
        "num_hidden_layers": 32, "intermediate_size": 14336, "vocab_size": 32000, "max_position_embeddings": 32768"#;

    #[test]
    fn past_a_window_attention_would_be_another_one_so_that_the_context_ends_there() {
        let context = |more: &str| shape_from_hf_config(&format!("{MISTRAL}{more}}}")).unwrap().context;
        assert_eq!(context(r#", "sliding_window": 4096"#), 4096);
        assert_eq!(context(r#", "sliding_window": null"#), 32768);
        assert_eq!(context(r#", "sliding_window": 131072"#), 32768);
        assert_eq!(context(r#", "sliding_window": 4096, "use_sliding_window": null"#), 4096);
        let window = |more: &str| shape_from_hf_config(&format!("{MISTRAL}{more}}}")).unwrap().window;
        assert_eq!(
            [window(r#", "sliding_window": 4096"#), window(""), window(r#", "sliding_window": 131072"#)],
            [Some(4096), None, None]
        );
        let qwen = |more: &str| {
            shape_from_hf_config(&format!("{MISTRAL}{more}}}").replace("mistral", "qwen2")).unwrap().context
        };
        assert_eq!(qwen(r#", "use_sliding_window": false, "sliding_window": 4096, "max_window_layers": 28"#), 32768);
        assert_eq!(qwen(r#", "use_sliding_window": true, "sliding_window": 4096, "max_window_layers": 28"#), 4096);
        assert_eq!(qwen(r#", "layer_types": ["full_attention", "full_attention"], "sliding_window": 4096"#), 32768);
        let error = |more: &str| shape_from_hf_config(&format!("{MISTRAL}{more}}}")).unwrap_err().to_string();
        assert!(
            error(r#", "layer_types": ["full_attention", "sliding_attention"]"#)
                .contains("found \"sliding_attention\"")
        );
        assert_eq!(error(r#", "sliding_window": 0"#), "sliding_window: expected 1 or more, found 0");
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
