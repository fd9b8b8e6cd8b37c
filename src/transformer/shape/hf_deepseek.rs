//! What DeepSeek's configs state: latents of attention, shared experts, layers without experts, and how experts are chosen.

use super::hf_reader::{Config, HfConfigError, not_built_in, sizes};
use super::{Family, LatentSpec, Routing, Scoring, ShapeSpec, hf_rope};
use serde_json::Value;

pub(super) fn spec(c: Config, family: Family) -> Result<ShapeSpec, HfConfigError> {
    c.only(&[("attention_bias", false), ("mlp_bias", false)])?;
    word(c, "hidden_act", &["silu", "swish"])?;
    if let Some(other) = c.size("moe_layer_freq")?.filter(|every| *every != 1) {
        return Err(not_built_in(format!(
            "moe_layer_freq: expected 1, found {other}: layers without experts are built in before the others only"
        )));
    }
    let latent = latent(c)?;
    let mut spec = ShapeSpec {
        // In these configs a head's dimension is that of its rotated part, or of nothing.
        head_dim: None,
        norm_eps: Some(c.number("rms_norm_eps").unwrap_or(1e-6)),
        n_experts: Some(c.stated(&["n_routed_experts"])?),
        experts_per_token: Some(c.stated(&["num_experts_per_tok"])?),
        n_shared_experts: Some(c.size("n_shared_experts")?.unwrap_or(0)),
        d_ff_expert: Some(c.stated(&["moe_intermediate_size"])?),
        first_dense_layers: Some(c.stated(&["first_k_dense_replace"])?),
        latent,
        ..sizes(c)?
    };
    (spec.routing, spec.normalised_experts) = routing(c, family)?;
    hf_rope::read(c, family, &mut spec)?;
    if let Some(hotter) = hotter_scores(c) {
        let head_dim = latent.qk_nope_head_dim.unwrap_or(0) + latent.qk_rope_head_dim.unwrap_or(0);
        spec.parts_of(family).score_scale = Some(hotter * hotter / (head_dim as f32).sqrt());
    }
    Ok(spec)
}

fn latent(c: Config) -> Result<LatentSpec, HfConfigError> {
    if c.0.get("q_lora_rank").is_none() {
        return Err(not_built_in("q_lora_rank: missing from the config; null says that there is none"));
    }
    Ok(LatentSpec {
        q_lora_rank: Some(c.size("q_lora_rank")?.unwrap_or(0)),
        kv_lora_rank: Some(c.stated(&["kv_lora_rank"])?),
        qk_nope_head_dim: Some(c.stated(&["qk_nope_head_dim"])?),
        qk_rope_head_dim: Some(c.stated(&["qk_rope_head_dim"])?),
        v_head_dim: Some(c.stated(&["v_head_dim"])?),
        interleaved: Some(c.flag("rope_interleave").unwrap_or(true)),
    })
}

/// How experts are chosen, and whether their weights are made to add up to 1.
fn routing(c: Config, family: Family) -> Result<(Option<Routing>, Option<bool>), HfConfigError> {
    let scale = c.number("routed_scaling_factor").unwrap_or(1.0);
    let groups = c.size("n_group")?.unwrap_or(1);
    let groups_per_token = c.size("topk_group")?.unwrap_or(1);
    let grouped = Routing { groups, groups_per_token, scale, ..Routing::PLAIN };
    if family == Family::DeepseekV3 {
        word(c, "scoring_func", &["sigmoid"])?;
        word(c, "topk_method", &["noaux_tc"])?;
        let by = Routing { scoring: Scoring::Sigmoid, corrected: true, ..grouped };
        return Ok((Some(by), Some(c.flag("norm_topk_prob").unwrap_or(true))));
    }
    word(c, "scoring_func", &["softmax"])?;
    word(c, "topk_method", &["greedy", "group_limited_greedy"])?;
    // Where weights add up to 1, its authors' program does not scale them and Hugging Face's does not norm them.
    c.only(&[("norm_topk_prob", false)])?;
    let by = if c.word("topk_method") == Some("group_limited_greedy") {
        grouped
    } else {
        Routing { scale, ..Routing::PLAIN }
    };
    Ok((Some(by), Some(false)))
}

/// What YaRN multiplies queries and keys by where it is their scores that it makes hotter: 0.1 m ln(factor) + 1.
fn hotter_scores(c: Config) -> Option<f32> {
    let r = c.object("rope_parameters").or(c.object("rope_scaling"))?;
    let kind = r.word("rope_type").or(r.word("type"))?;
    let (m, factor) = (r.number("mscale_all_dim")?, r.number("factor")?);
    (kind != "default" && m != 0.0 && factor > 1.0).then(|| 0.1 * m * factor.ln() + 1.0)
}

/// # Errors
/// A word that is none of those built in, by its key.
fn word(c: Config, key: &str, built_in: &[&str]) -> Result<(), HfConfigError> {
    match c.0.get(key) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(found)) if built_in.contains(&found.as_str()) => Ok(()),
        Some(found) => Err(not_built_in(format!(
            "{key}: expected {}, found {found}, which is not built in",
            built_in.join(" or ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Shape;
    use super::super::hf_config::shape_from_hf_config;

    const LITE: &str = r#"{"model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16,
        "num_key_value_heads": 16, "intermediate_size": 10944, "moe_intermediate_size": 1408, "vocab_size": 102400,
        "n_routed_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2, "first_k_dense_replace": 1, "moe_layer_freq": 1,
        "q_lora_rank": null, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "norm_topk_prob": false, "routed_scaling_factor": 1.0, "scoring_func": "softmax", "topk_method": "greedy", "n_group": 1,
        "topk_group": 1, "aux_loss_alpha": 0.001, "seq_aux": true, "max_position_embeddings": 163840, "rms_norm_eps": 1e-6,
        "rope_scaling": {"type": "yarn", "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707, "beta_fast": 32, "beta_slow": 1,
            "original_max_position_embeddings": 4096}}"#;

    fn of(from: &str, to: &str) -> Result<Shape, String> {
        assert!(LITE.contains(from), "{from}");
        shape_from_hf_config(&LITE.replace(from, to)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_config_gives_latents_experts_and_hotter_scores() {
        let shape = shape_from_hf_config(LITE).unwrap();
        let (latent, experts) = (shape.latent.unwrap(), shape.experts.unwrap());
        assert_eq!((latent.q_rank, latent.kv_rank, latent.cached()), (None, 512, 576));
        assert_eq!((experts.shared, experts.dense_layers, shape.d_ff, shape.d_ff_expert()), (2, 1, 10944, 1408));
        assert!(shape.experts_of(0).is_none() && shape.experts_of(1).is_some());
        // (0.1 x 0.707 ln 40 + 1)^2 / sqrt(192), and rotated elements keep their length.
        let scale = shape.parts().score_scale.unwrap();
        assert!((scale - 1.260_804_f32.powi(2) / 192f32.sqrt()).abs() < 1e-6, "{scale}");
        let grouped = of(
            "\"topk_method\": \"greedy\", \"n_group\": 1",
            "\"topk_method\": \"group_limited_greedy\", \"n_group\": 8",
        );
        assert_eq!(grouped.unwrap().experts.unwrap().routing.groups, 8);
    }

    #[test]
    fn what_is_not_built_in_is_named() {
        for (from, to, said) in [
            ("\"softmax\"", "\"sigmoid\"", "scoring_func: expected softmax, found \"sigmoid\""),
            ("\"greedy\"", "\"noaux_tc\"", "topk_method: expected greedy or group_limited_greedy"),
            ("\"moe_layer_freq\": 1", "\"moe_layer_freq\": 2", "moe_layer_freq: expected 1, found 2"),
            ("\"norm_topk_prob\": false", "\"norm_topk_prob\": true", "norm_topk_prob: expected false"),
            ("\"q_lora_rank\": null,", "", "q_lora_rank: missing"),
            ("\"seq_aux\": true", "\"shared_expert_gate\": true", "shared_expert_gate: expected a key"),
            ("\"seq_aux\": true", "\"attention_bias\": true", "attention_bias: expected false"),
        ] {
            let found = of(from, to).unwrap_err();
            assert!(found.starts_with(said), "{found}");
        }
    }
}
