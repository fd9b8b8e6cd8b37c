//! What the configs of each family state, by Hugging Face's names and defaults.

use super::hf_deepseek;
use super::hf_reader::{Config, HfConfigError, not_built_in, sizes};
use super::hf_rope;
use super::parts::Residual;
use super::{Activation, Family, ShapeSpec};
use serde_json::Value;

/// What a config states of a model of a family.
///
/// # Errors
/// A size that is missing or no whole number; what is not built in, by its name.
pub(super) fn spec(c: &Config, family: Family) -> Result<ShapeSpec, HfConfigError> {
    let mut spec = of_family(c, family)?;
    // Only some families' embeddings have one in Hugging Face's library.
    let has = !matches!(family, Family::Gpt2 | Family::Block | Family::GptNeox | Family::Falcon | Family::Bloom);
    if let Some(token) = c.0.get("pad_token_id").and_then(Value::as_u64).filter(|_| has) {
        spec.parts_of(family).padding_token = u32::try_from(token).ok();
    }
    Ok(spec)
}

fn of_family(c: &Config, family: Family) -> Result<ShapeSpec, HfConfigError> {
    match family {
        Family::Gpt2 | Family::Block => gpt2(*c),
        Family::Mixtral | Family::Qwen3Moe | Family::GptOss => mixture(*c, family),
        Family::DeepseekV2 | Family::DeepseekV3 => hf_deepseek::spec(*c, family),
        Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 | Family::Olmo2 | Family::Phi3 => {
            llama(*c, family)
        }
        Family::Gemma | Family::Gemma2 | Family::Gemma3 => gemma(*c, family),
        Family::GptNeox => gpt_neox(*c),
        Family::Falcon => falcon(*c),
        Family::Starcoder2 => starcoder2(*c),
        Family::Opt => opt(*c),
        Family::Bloom => bloom(*c),
    }
}

fn gpt2(c: Config) -> Result<ShapeSpec, HfConfigError> {
    c.only(&[
        ("scale_attn_by_inverse_layer_idx", false),
        ("add_cross_attention", false),
        ("scale_attn_weights", true),
    ])?;
    Ok(ShapeSpec {
        n_layers: c.size("n_layer")?,
        d_model: c.size("n_embd")?,
        n_heads: c.size("n_head")?,
        d_ff: c.size("n_inner")?,
        vocab_size: c.size("vocab_size")?,
        context: c.size("n_positions")?,
        tied_embeddings: c.flag("tie_word_embeddings"),
        activation: Some(c.activation("activation_function", "gelu_new")?),
        norm_eps: c.number("layer_norm_epsilon"),
        ..ShapeSpec::default()
    })
}

fn llama(c: Config, family: Family) -> Result<ShapeSpec, HfConfigError> {
    let activation = c.word("hidden_act").unwrap_or("silu");
    if activation != "silu" && activation != "swish" {
        return Err(not_built_in(format!("hidden_act `{activation}` is not built in; silu is")));
    }
    let qkv_bias = c.flag("attention_bias").unwrap_or(family == Family::Qwen2);
    let mut spec = ShapeSpec {
        qkv_bias: Some(qkv_bias),
        // Qwen 2 has biases on queries, keys and values only.
        attn_out_bias: Some(qkv_bias && family != Family::Qwen2),
        mlp_bias: c.flag("mlp_bias"),
        norm_eps: Some(c.number("rms_norm_eps").unwrap_or(1e-6)),
        ..sizes(c)?
    };
    hf_rope::read(c, family, &mut spec)?;
    window(c, family, &mut spec)?;
    Ok(spec)
}

fn mixture(c: Config, family: Family) -> Result<ShapeSpec, HfConfigError> {
    if let Some(step) = c.size("decoder_sparse_step")?.filter(|step| *step != 1) {
        return Err(not_built_in(format!(
            "decoder_sparse_step: expected 1, found {step}: layers without experts are not built in"
        )));
    }
    if c.list("mlp_only_layers").is_some_and(|layers| !layers.is_empty()) {
        return Err(not_built_in(
            "mlp_only_layers: expected none, found some: layers without experts are not built in",
        ));
    }
    let mut spec = ShapeSpec {
        n_experts: Some(c.stated(&["num_local_experts", "num_experts"])?),
        experts_per_token: Some(c.stated(&["num_experts_per_tok"])?),
        // Mixtral's always add up to 1.
        normalised_experts: Some(family == Family::Mixtral || c.flag("norm_topk_prob").unwrap_or(false)),
        ..llama(c, family)?
    };
    if family == Family::GptOss {
        for (name, built_in) in [("swiglu_limit", 7.0), ("swiglu_alpha", 1.702)] {
            if let Some(other) = c.number(name).filter(|x| *x != built_in) {
                return Err(not_built_in(format!("{name}: expected {built_in}, found {other}, which is not built in")));
            }
        }
        (spec.qkv_bias, spec.attn_out_bias) = ([Some(c.flag("attention_bias").unwrap_or(true)); 2]).into();
        (spec.mlp_bias, spec.normalised_experts) = (Some(true), Some(true));
    }
    if family == Family::Qwen3Moe {
        spec.d_ff = Some(c.stated(&["moe_intermediate_size"])?);
    }
    Ok(spec)
}

/// The sliding window, and the layers that have it.
fn window(c: Config, family: Family, spec: &mut ShapeSpec) -> Result<(), HfConfigError> {
    // Qwen states a window that it uses only where it says so.
    let qwen = matches!(family, Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe);
    let used = c.flag("use_sliding_window").unwrap_or(!qwen);
    let size = c.size("sliding_window")?.filter(|_| used);
    if size == Some(0) {
        return Err(not_built_in("sliding_window: expected 1 or more, found 0"));
    }
    let layers = spec.n_layers.unwrap_or_default() as usize;
    let mut pattern = layer_types(c, family, size.is_some(), layers)?;
    let (all, none) = (pattern.iter().all(|w| *w), !pattern.is_empty() && !pattern.iter().any(|w| *w));
    if pattern.iter().any(|w| *w) && size.is_none() {
        return Err(not_built_in("sliding_window: missing from the config, though layers have one"));
    }
    if all {
        pattern.clear();
    }
    spec.window = size.filter(|_| !none);
    if pattern != family.parts().window_pattern && !none {
        spec.parts_of(family).window_pattern = pattern;
    }
    Ok(())
}

/// Whether each layer has the window; empty where all have.
fn layer_types(c: Config, family: Family, windowed: bool, layers: usize) -> Result<Vec<bool>, HfConfigError> {
    if let Some(types) = c.list("layer_types") {
        let one = |kind: &Value| match kind.as_str() {
            Some("full_attention") => Ok(false),
            Some("sliding_attention") => Ok(true),
            _ => Err(not_built_in(format!(
                "layer_types: expected full_attention or sliding_attention, found {kind}, which is not built in"
            ))),
        };
        return types.iter().map(one).collect();
    }
    if family == Family::GptOss {
        return Ok(vec![true, false]);
    }
    let every = |n: u32| (1..=n).map(|i| i < n).collect();
    Ok(match family {
        Family::Gemma2 => vec![true, false],
        Family::Gemma3 => every(c.size_of(&["sliding_window_pattern", "_sliding_window_pattern"])?.unwrap_or(6).max(1)),
        Family::Qwen2 | Family::Qwen3 if windowed => {
            let whole = c.size("max_window_layers")?.map_or(layers, |n| n as usize);
            (0..layers).map(|l| l >= whole).collect()
        }
        _ => Vec::new(),
    })
}

fn gemma(c: Config, family: Family) -> Result<ShapeSpec, HfConfigError> {
    let activation = c.word("hidden_activation").or(c.word("hidden_act")).unwrap_or("gelu_pytorch_tanh");
    // Gemma's first configs say gelu and mean the approximation.
    if !matches!(activation, "gelu_pytorch_tanh" | "gelu") {
        return Err(not_built_in(format!("hidden_activation `{activation}` is not built in; gelu_pytorch_tanh is")));
    }
    c.only(&[("use_bidirectional_attention", false)])?;
    let mut spec = ShapeSpec {
        tied_embeddings: Some(c.flag("tie_word_embeddings").unwrap_or(true)),
        qkv_bias: Some(c.flag("attention_bias").unwrap_or(false)),
        norm_eps: Some(c.number("rms_norm_eps").unwrap_or(1e-6)),
        ..sizes(c)?
    };
    spec.head_dim = spec.head_dim.or(Some(256));
    let scale = c.number("query_pre_attn_scalar").map(|s| 1.0 / s.sqrt());
    let usual = spec.head_dim.map(|d| 1.0 / (d as f32).sqrt());
    if scale.is_some() && scale != usual {
        spec.parts_of(family).score_scale = scale;
    }
    if family != Family::Gemma {
        let p = spec.parts_of(family);
        (p.score_cap, p.logit_cap) = (c.number("attn_logit_softcapping"), c.number("final_logit_softcapping"));
    }
    hf_rope::read(c, family, &mut spec)?;
    if family != Family::Gemma {
        window(c, family, &mut spec)?;
    }
    Ok(spec)
}

fn gpt_neox(c: Config) -> Result<ShapeSpec, HfConfigError> {
    let family = Family::GptNeox;
    let bias = c.flag("attention_bias").unwrap_or(true);
    let mut spec = ShapeSpec {
        qkv_bias: Some(bias),
        activation: Some(c.activation("hidden_act", "gelu")?),
        norm_eps: c.number("layer_norm_eps"),
        ..sizes(c)?
    };
    if c.flag("use_parallel_residual") == Some(false) {
        spec.parts_of(family).residual = Residual::Sequential;
    }
    hf_rope::read(c, family, &mut spec)?;
    Ok(spec)
}

fn falcon(c: Config) -> Result<ShapeSpec, HfConfigError> {
    let family = Family::Falcon;
    c.only(&[("alibi", false)])?;
    let (width, heads) = (c.stated(&["hidden_size"])?, c.stated(&["num_attention_heads", "n_head"])?);
    let new = c.flag("new_decoder_architecture").unwrap_or(false);
    let kv_heads = match (new, c.flag("multi_query").unwrap_or(true)) {
        (true, _) => c.size_of(&["num_kv_heads", "n_head_kv"])?.unwrap_or(heads),
        (false, true) => 1,
        (false, false) => heads,
    };
    let bias = c.flag("bias").unwrap_or(false);
    let mut spec = ShapeSpec {
        n_layers: Some(c.stated(&["num_hidden_layers", "n_layer"])?),
        d_model: Some(width),
        n_heads: Some(heads),
        n_kv_heads: Some(kv_heads),
        d_ff: Some(c.size("ffn_hidden_size")?.unwrap_or(width.saturating_mul(4))),
        vocab_size: Some(c.stated(&["vocab_size"])?),
        context: Some(c.size("max_position_embeddings")?.unwrap_or(2048)),
        tied_embeddings: Some(c.flag("tie_word_embeddings").unwrap_or(true)),
        qkv_bias: Some(bias),
        mlp_bias: Some(bias),
        activation: Some(c.activation("activation", "gelu")?),
        norm_eps: c.number("layer_norm_epsilon"),
        ..ShapeSpec::default()
    };
    let two_norms = new && c.size("num_ln_in_parallel_attn")? != Some(1);
    let residual = match (c.flag("parallel_attn").unwrap_or(true) || new, two_norms) {
        (false, _) => Residual::Sequential,
        (true, true) => Residual::Parallel,
        (true, false) => Residual::ParallelOneNorm,
    };
    if residual != family.parts().residual {
        spec.parts_of(family).residual = residual;
    }
    hf_rope::read(c, family, &mut spec)?;
    Ok(spec)
}

fn starcoder2(c: Config) -> Result<ShapeSpec, HfConfigError> {
    let family = Family::Starcoder2;
    let bias = Some(c.flag("use_bias").unwrap_or(true));
    let mut spec = ShapeSpec {
        tied_embeddings: Some(c.flag("tie_word_embeddings").unwrap_or(true)),
        qkv_bias: bias,
        mlp_bias: bias,
        activation: Some(c.activation("hidden_act", "gelu_pytorch_tanh")?),
        norm_eps: c.number("norm_epsilon"),
        ..sizes(c)?
    };
    hf_rope::read(c, family, &mut spec)?;
    window(c, family, &mut spec)?;
    Ok(spec)
}

fn opt(c: Config) -> Result<ShapeSpec, HfConfigError> {
    let built_in =
        [("do_layer_norm_before", true), ("_remove_final_layer_norm", false), ("layer_norm_elementwise_affine", true)];
    c.only(&built_in)?;
    let width = c.stated(&["hidden_size"])?;
    if let Some(other) = c.size("word_embed_proj_dim")?.filter(|w| *w != width) {
        return Err(not_built_in(format!(
            "word_embed_proj_dim: expected hidden_size = {width}, found {other}, which is not built in"
        )));
    }
    let bias = c.flag("enable_bias");
    Ok(ShapeSpec {
        n_layers: Some(c.stated(&["num_hidden_layers"])?),
        d_model: Some(width),
        n_heads: Some(c.stated(&["num_attention_heads"])?),
        d_ff: Some(c.stated(&["ffn_dim"])?),
        vocab_size: Some(c.stated(&["vocab_size"])?),
        context: Some(c.size("max_position_embeddings")?.unwrap_or(2048)),
        tied_embeddings: Some(c.flag("tie_word_embeddings").unwrap_or(true)),
        qkv_bias: bias,
        mlp_bias: bias,
        activation: Some(c.activation("activation_function", "relu")?),
        ..ShapeSpec::default()
    })
}

fn bloom(c: Config) -> Result<ShapeSpec, HfConfigError> {
    c.only(&[("apply_residual_connection_post_layernorm", false)])?;
    let width = c.stated(&["hidden_size", "n_embed"])?;
    Ok(ShapeSpec {
        n_layers: Some(c.stated(&["n_layer", "num_hidden_layers"])?),
        d_model: Some(width),
        n_heads: Some(c.stated(&["n_head", "num_attention_heads"])?),
        d_ff: Some(width.saturating_mul(4)),
        vocab_size: Some(c.stated(&["vocab_size"])?),
        context: Some(c.size("seq_length")?.unwrap_or(2048)),
        tied_embeddings: Some(c.flag("tie_word_embeddings").unwrap_or(true)),
        activation: Some(Activation::GeluTanh),
        norm_eps: c.number("layer_norm_epsilon"),
        ..ShapeSpec::default()
    })
}
