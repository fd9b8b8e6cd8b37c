//! Rotary positions as configs state them: today's `rope_parameters`, by layer type where they differ, or `rope_scaling`,
//! `rope_theta` and the names of single families before it.

use super::hf_reader::{Config, HfConfigError, not_built_in};
use super::{Family, RopeScaling, ShapeSpec};
use serde_json::Value;

/// Reads base, stretch and rotated part into a spec that knows its width, heads and context.
///
/// # Errors
/// A stretch that is not built in, or one without its numbers.
pub(super) fn read(c: Config, family: Family, spec: &mut ShapeSpec) -> Result<(), HfConfigError> {
    let stated = c.object("rope_parameters").or(c.object("rope_scaling"));
    // By layer type: of layers that see all before, and of those with a window.
    let (whole, local) = match stated.and_then(|s| s.object("full_attention")) {
        Some(whole) => (Some(whole), stated.and_then(|s| s.object("sliding_attention"))),
        None => (stated, None),
    };
    spec.rope_theta = [whole.and_then(|r| r.number("rope_theta")), c.number("rope_theta"), c.number("rotary_emb_base")]
        .into_iter()
        .flatten()
        .next();
    let local = local.and_then(|r| r.number("rope_theta")).or(c.number("rope_local_base_freq"));
    if family == Family::Gemma3 {
        // Hugging Face's defaults.
        spec.rope_theta = spec.rope_theta.or(Some(1e6));
        spec.parts_of(family).local_theta = local.or(Some(1e4));
    }
    let share = [
        whole.and_then(|r| r.number("partial_rotary_factor")),
        c.number("partial_rotary_factor"),
        c.number("rotary_pct"),
    ];
    let usual = if family == Family::GptNeox { 0.25 } else { 1.0 };
    let share = share.into_iter().flatten().next().unwrap_or(usual);
    if share != 1.0 {
        let head_dim = match (spec.head_dim, spec.d_model, spec.n_heads) {
            (Some(d), ..) => d,
            (None, Some(width), Some(heads)) => width.checked_div(heads).unwrap_or_default(),
            _ => 0,
        };
        spec.parts_of(family).rotary_dim = Some((head_dim as f32 * share) as u32);
    }
    spec.rope_scaling = whole.map(|r| scaling(r, c)).transpose()?.flatten();
    Ok(())
}

fn scaling(r: Config, c: Config) -> Result<Option<RopeScaling>, HfConfigError> {
    let kind = r.word("rope_type").or(r.word("type")).unwrap_or("default");
    let missing = |names: &str| not_built_in(format!("rope scaling {kind} needs {names}"));
    let factor = r.number("factor");
    let original = r.size("original_max_position_embeddings")?.or(c.size("original_max_position_embeddings")?);
    let context = c.size("max_position_embeddings")?;
    match kind {
        "default" => Ok(None),
        "linear" => Ok(Some(RopeScaling::Linear { factor: factor.ok_or_else(|| missing("factor"))? })),
        "llama3" => {
            let all = (factor, r.number("low_freq_factor"), r.number("high_freq_factor"), original);
            let (Some(factor), Some(low_freq_factor), Some(high_freq_factor), Some(original_context)) = all else {
                return Err(missing("factor, low_freq_factor, high_freq_factor and original_max_position_embeddings"));
            };
            Ok(Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context }))
        }
        "yarn" => {
            let (Some(factor), Some(original_context)) = (factor, original.or(context)) else {
                return Err(missing("factor and original_max_position_embeddings"));
            };
            Ok(Some(RopeScaling::Yarn {
                factor,
                beta_fast: r.number("beta_fast").unwrap_or(32.0),
                beta_slow: r.number("beta_slow").unwrap_or(1.0),
                original_context,
                truncate: r.flag("truncate").unwrap_or(true),
                attention_factor: r.number("attention_factor").unwrap_or_else(|| yarn_attention(r, factor)),
            }))
        }
        "longrope" | "su" => {
            let list = |name: &str| {
                let numbers = r.list(name)?.iter().map(|v| v.as_f64().map(|v| v as f32));
                numbers.collect::<Option<Vec<f32>>>()
            };
            let (Some(short), Some(long), Some(original_context)) =
                (list("short_factor"), list("long_factor"), original)
            else {
                return Err(missing("short_factor, long_factor and original_max_position_embeddings"));
            };
            let stretch = factor.or(context.map(|c| c as f32 / original_context as f32)).unwrap_or(1.0);
            let hotter =
                || if stretch <= 1.0 { 1.0 } else { (1.0 + stretch.ln() / (original_context as f32).ln()).sqrt() };
            let attention_factor = r.number("attention_factor").unwrap_or_else(hotter);
            Ok(Some(RopeScaling::LongRope { short, long, original_context, attention_factor }))
        }
        other => Err(not_built_in(format!(
            "rope_type `{other}` is not built in; default, linear, llama3, yarn and longrope are"
        ))),
    }
}

/// How much hotter YaRN makes scores: 0.1 m ln(factor) + 1 (Peng et al. 2023, equation 22), m being 1 or stated, or a ratio of two.
fn yarn_attention(r: Config, factor: f32) -> f32 {
    let hotter = |m: f32| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
    let stated = |name: &str| r.0.get(name).and_then(Value::as_f64).filter(|m| *m != 0.0).map(|m| m as f32);
    match (stated("mscale"), stated("mscale_all_dim")) {
        (Some(m), Some(all)) => hotter(m) / hotter(all),
        _ => hotter(1.0),
    }
}
