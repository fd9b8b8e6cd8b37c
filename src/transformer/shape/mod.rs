//! The shape of a model: everything that decides how many parameters it has and what they mean.
//!
//! A [`Shape`] is checked in its one constructor, so that no later code asks again whether heads divide the width.

pub mod count;
mod experts;
mod family;
pub(crate) mod hf_config;
mod hf_deepseek;
mod hf_families;
mod hf_keys;
mod hf_reader;
mod hf_rope;
mod latent;
pub(crate) mod layers;
pub(crate) mod part;
pub(crate) mod parts;
mod rope;

use super::operands::Scores;
pub(crate) use experts::{Mixture, Routing, Scoring};
pub use family::Family;
pub(crate) use latent::{Latent, LatentSpec};
use parts::{NormKind, Parts, Positions, QkNorm, Residual};
pub use rope::Rope;
pub(crate) use rope::RopeScaling;
use serde::{Deserialize, Serialize};

/// The function between the two products of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), Hugging Face's `gelu_new`.
    GeluTanh,
    /// x Phi(x), exact.
    GeluErf,
    /// max(x, 0).
    Relu,
    /// silu(gate) * up, with two input products.
    SwiGlu,
    /// gelu_tanh(gate) * up, with two input products.
    GeGlu,
    /// gate sigmoid(1.702 gate) * (up + 1), gate at most 7 and up between -7 and 7 (gpt-oss).
    ClampedSwiGlu,
}

impl Activation {
    /// Whether it has two input products, gate and up.
    pub fn gated(self) -> bool {
        matches!(self, Self::SwiGlu | Self::GeGlu | Self::ClampedSwiGlu)
    }

    /// Rows of its input product, for a feed-forward width.
    pub fn inner(self, f: usize) -> usize {
        if self.gated() { 2 * f } else { f }
    }
}

crate::transformer::names!(Activation { GeluTanh => "gelu_tanh", GeluErf => "gelu_erf", Relu => "relu", SwiGlu => "swi_glu", GeGlu => "ge_glu", ClampedSwiGlu => "clamped_swi_glu" });

/// A checked model shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Which architecture the sizes are of.
    pub family: Family,
    /// Layers.
    pub n_layers: u32,
    /// C
    pub d_model: u32,
    /// H
    pub n_heads: u32,
    /// KV; H for plain multi-head attention
    pub n_kv_heads: u32,
    /// D; of queries and keys where attention is latent
    pub head_dim: u32,
    /// F, the width between the products of the feed-forward layer; of an expert too, unless the mixture says otherwise
    pub d_ff: u32,
    /// V
    pub vocab_size: u32,
    /// Positions that the model knows; learned in GPT-2, a limit only elsewhere
    pub context: u32,
    /// Tokens that attention looks back over, the token itself among them, in the layers with a sliding window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// Output projection shares the embedding's weights
    pub tied_embeddings: bool,
    /// Biases on the query, key, value products
    pub qkv_bias: bool,
    /// Bias on the attention's output product
    pub attn_out_bias: bool,
    /// Biases in the feed-forward layer
    pub mlp_bias: bool,
    /// Between the products of the feed-forward layer.
    pub activation: Activation,
    /// Added to a norm's variance.
    pub norm_eps: f32,
    /// Frequencies of rotary positions, where the family has them.
    pub rope: Rope,
    /// Of a mixture of experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<Mixture>,
    /// Of attention through latents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latent: Option<Latent>,
    /// Where they are other ones than the family's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) own_parts: Option<Parts>,
    /// Where it is of one rank's part of a model: which.
    #[serde(skip)]
    pub(super) part: Option<part::Part>,
}

/// Why a shape cannot be; the message offers values that work.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct ShapeError {
    /// The field at fault, as written in a scenario: `n_heads`.
    pub field: &'static str,
    pub message: String,
}

fn fault(field: &'static str, message: String) -> ShapeError {
    ShapeError { field, message }
}

/// The largest value of any one dimension: keeps every product of three of them inside u64.
pub(crate) const MAX_DIMENSION: u32 = 1 << 20;

/// What a person states; everything left out takes the family's usual value.
#[allow(missing_docs, reason = "the fields are those of `Shape` and `Rope`, each optional")]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShapeSpec {
    pub n_layers: Option<u32>,
    pub d_model: Option<u32>,
    pub n_heads: Option<u32>,
    pub n_kv_heads: Option<u32>,
    pub head_dim: Option<u32>,
    pub d_ff: Option<u32>,
    pub vocab_size: Option<u32>,
    pub context: Option<u32>,
    pub window: Option<u32>,
    pub tied_embeddings: Option<bool>,
    pub qkv_bias: Option<bool>,
    pub attn_out_bias: Option<bool>,
    pub mlp_bias: Option<bool>,
    pub activation: Option<Activation>,
    /// In the place of the norm that the parts have.
    pub norm: Option<NormKind>,
    pub norm_eps: Option<f32>,
    pub rope_theta: Option<f32>,
    pub rope_scaling: Option<RopeScaling>,
    pub parts: Option<Parts>,
    /// Experts a layer; none in most models.
    pub n_experts: Option<u32>,
    /// Experts that a token goes to.
    pub experts_per_token: Option<u32>,
    /// Whether the weights of a token's experts are made to add up to 1.
    pub normalised_experts: Option<bool>,
    /// Experts that every token goes through.
    pub n_shared_experts: Option<u32>,
    /// The width of one expert; `d_ff` unless stated.
    pub d_ff_expert: Option<u32>,
    /// Layers without experts, before those that have them.
    pub first_dense_layers: Option<u32>,
    pub routing: Option<Routing>,
    pub latent: LatentSpec,
}

impl ShapeSpec {
    /// The parts, to be changed from the family's usual ones.
    fn parts_of(&mut self, family: Family) -> &mut Parts {
        self.parts.get_or_insert_with(|| family.parts().clone())
    }
}

impl Shape {
    /// Completes and checks a specification.
    ///
    /// Usual values: GPT-2 small's dimensions for `gpt2`, the article's for `block`, a 134M Llama's for the others; `d_ff` is C in the
    /// block, 8/3 C rounded up to a multiple of 32 where it is gated, and 4 C otherwise.
    ///
    /// # Errors
    /// A dimension that is zero or over 2^20; heads that do not divide the width; kv heads that do not divide the
    /// heads; an odd head_dim where positions are rotary. Each names the field and values that work.
    pub fn new(family: Family, spec: &ShapeSpec) -> Result<Self, ShapeError> {
        if let Some(norm) = spec.norm {
            let mut spec = ShapeSpec { norm: None, ..spec.clone() };
            spec.parts_of(family).norm = norm;
            return Self::new(family, &spec);
        }
        let usual = family.usual();
        let parts = spec.parts.as_ref().unwrap_or(family.parts());
        // Families whose queries, keys and values are one square product with equal heads.
        let square = matches!(family, Family::Gpt2 | Family::Block);
        let d_model = dimension("d_model", spec.d_model.unwrap_or(usual.d_model))?;
        let n_heads = dimension("n_heads", spec.n_heads.unwrap_or(usual.n_heads))?;
        let latent = latent::latent(family.latent(), spec)?;
        let head_dim = match spec.head_dim.or(latent.map(|l| l.head_dim())) {
            Some(d) => dimension("head_dim", d)?,
            None if d_model % n_heads == 0 => d_model / n_heads,
            None => {
                return Err(fault(
                    "n_heads",
                    format!("{n_heads} does not divide d_model = {d_model}; use {}", near_divisors(d_model, n_heads)),
                ));
            }
        };
        if square && head_dim.checked_mul(n_heads) != Some(d_model) {
            return Err(fault(
                "head_dim",
                format!(
                    "n_heads * head_dim has to be d_model = {d_model} in this family; leave head_dim out, or use family: llama"
                ),
            ));
        }
        let n_kv_heads = dimension("n_kv_heads", spec.n_kv_heads.unwrap_or(n_heads))?;
        if n_heads % n_kv_heads != 0 {
            return Err(fault(
                "n_kv_heads",
                format!("{n_kv_heads} does not divide n_heads = {n_heads}; use {}", near_divisors(n_heads, n_kv_heads)),
            ));
        }
        if square && n_kv_heads != n_heads {
            return Err(fault(
                "n_kv_heads",
                format!("family {family} has no grouped heads; leave it out, or use {n_heads}"),
            ));
        }
        check_parts(parts, head_dim)?;
        if latent.is_some() {
            latent::check(spec, parts, (n_heads, n_kv_heads))?;
        }
        let activation = spec.activation.unwrap_or(usual.activation);
        let d_ff = match spec.d_ff {
            Some(f) => dimension("d_ff", f)?,
            None if family == Family::Block => d_model,
            None if activation.gated() => dimension("d_ff", (d_model * 8 / 3).div_ceil(32) * 32)?,
            None => dimension("d_ff", 4 * d_model)?,
        };
        if spec.window.is_some() && parts.positions == Positions::Alibi {
            return Err(fault("window", "a window with ALiBi is not built in; leave it out".into()));
        }
        if spec.window == Some(0) {
            return Err(fault("window", "0 tokens would see nothing; use 1 or more".into()));
        }
        let norm_eps = spec.norm_eps.unwrap_or(1e-5);
        if !(norm_eps.is_finite() && norm_eps > 0.0) {
            return Err(fault("norm_eps", format!("{norm_eps} is not a positive number; 1e-5 is usual")));
        }
        let theta = spec.rope_theta.unwrap_or(10_000.0);
        if !(theta.is_finite() && theta > 1.0) {
            return Err(fault("rope_theta", format!("{theta} is not a number over 1; 10000 is usual")));
        }
        let n_layers = dimension("n_layers", spec.n_layers.unwrap_or(usual.n_layers))?;
        Ok(Self {
            family,
            n_layers,
            d_model,
            n_heads,
            n_kv_heads,
            head_dim,
            d_ff,
            vocab_size: dimension("vocab_size", spec.vocab_size.unwrap_or(usual.vocab_size))?,
            context: match spec.context.unwrap_or(usual.context) {
                0 => return Err(fault("context", "0 positions hold no token; use 1 or more".into())),
                c if c > 1 << 24 => return Err(fault("context", format!("{c} is over 16777216 positions"))),
                c => c,
            },
            window: spec.window,
            tied_embeddings: spec.tied_embeddings.unwrap_or(usual.tied_embeddings),
            qkv_bias: spec.qkv_bias.unwrap_or(usual.qkv_bias),
            attn_out_bias: spec.attn_out_bias.or(spec.qkv_bias).unwrap_or(usual.attn_out_bias),
            mlp_bias: spec.mlp_bias.unwrap_or(usual.mlp_bias),
            activation,
            norm_eps,
            rope: Rope { theta, scaling: spec.rope_scaling.clone() },
            experts: experts::mixture(&family.mixture(), spec, n_layers)?,
            latent,
            own_parts: spec.parts.clone().filter(|parts| parts != family.parts()),
            part: None,
        })
    }

    /// What the model is put together from.
    pub fn parts(&self) -> &Parts {
        self.own_parts.as_ref().unwrap_or(self.family.parts())
    }

    /// Elements of a head that are rotated, where positions are rotary.
    pub fn rotary_dim(&self) -> u32 {
        self.latent.map(|l| l.rope).or(self.parts().rotary_dim).unwrap_or(self.head_dim)
    }

    /// Whether a token sees only those before it.
    pub fn causal(&self) -> bool {
        self.parts().residual != Residual::None
    }

    /// Tokens that a layer's attention looks back over, where it has a window.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        self.window.filter(|_| self.parts().has_window(layer)).map(|w| w as usize)
    }

    /// Rotary positions of the layers with a window.
    pub fn local_rope(&self) -> Rope {
        self.parts().local_theta.map_or_else(|| self.rope.clone(), |theta| Rope { theta, scaling: None })
    }

    /// How a layer's scores become weights.
    pub fn scores(&self, layer: usize) -> Scores {
        let parts = self.parts();
        Scores {
            scale: parts.score_scale,
            soft_cap: parts.score_cap,
            window: self.window_of(layer),
            alibi: parts.positions == Positions::Alibi,
            sinks: parts.sinks,
        }
    }

    /// H * D: the width of the queries, and of what attention hands on; of the latter alone where attention is latent.
    pub fn d_attn(&self) -> u32 {
        self.n_heads * self.latent.map_or(self.head_dim, |l| l.value)
    }

    /// The experts of a layer, where it has them.
    pub fn experts_of(&self, layer: usize) -> Option<&Mixture> {
        self.experts.as_ref().filter(|e| layer >= e.dense_layers as usize)
    }

    /// The width of one expert.
    pub fn d_ff_expert(&self) -> u32 {
        self.experts.and_then(|e| e.d_ff).unwrap_or(self.d_ff)
    }

    /// The width of the experts that every token goes through, together: they are one feed-forward layer.
    pub fn d_ff_shared(&self) -> u32 {
        self.experts.map_or(0, |e| e.shared * self.d_ff_expert())
    }

    /// KV * D: the width of the keys, and of the values.
    pub fn d_kv(&self) -> u32 {
        self.n_kv_heads * self.head_dim
    }

    /// Whether the model predicts tokens (and can decode); the block regresses vectors.
    pub fn has_vocabulary_head(&self) -> bool {
        self.parts().residual != Residual::None
    }
}

fn check_parts(parts: &Parts, head_dim: u32) -> Result<(), ShapeError> {
    let positive = |field, x: Option<f32>| match x {
        Some(x) if !(x.is_finite() && x > 0.0) => Err(fault(field, format!("{x} is not a positive number"))),
        _ => Ok(()),
    };
    positive("score_scale", parts.score_scale)?;
    positive("score_cap", parts.score_cap)?;
    positive("logit_cap", parts.logit_cap)?;
    if parts.positions == Positions::Rotary {
        let rotated = parts.rotary_dim.unwrap_or(head_dim);
        if rotated == 0 || !rotated.is_multiple_of(2) || rotated > head_dim {
            let field = if parts.rotary_dim.is_some() { "rotary_dim" } else { "head_dim" };
            let below = rotated.min(head_dim) / 2 * 2;
            let works = if below > 0 && below != rotated { format!("{below} or {}", below + 2) } else { "2".into() };
            return Err(fault(
                field,
                format!("{rotated} does not divide into the pairs that rotary positions turn; use {works}"),
            ));
        }
    }
    if parts.qk_norm != QkNorm::None && matches!(parts.norm, NormKind::None | NormKind::Layer) {
        return Err(fault("qk_norm", "norms of queries and keys are built in as RMSNorm only".into()));
    }
    Ok(())
}

fn dimension(field: &'static str, value: u32) -> Result<u32, ShapeError> {
    match value {
        0 => Err(fault(field, "0 is no size; use 1 or more".into())),
        v if v > MAX_DIMENSION => Err(fault(field, format!("{v} is over the largest size, {MAX_DIMENSION}"))),
        v => Ok(v),
    }
}

/// The divisors of `n` nearest to `wanted` by ratio, at most three, ascending: "8, 10 or 20".
fn near_divisors(n: u32, wanted: u32) -> String {
    let mut all: Vec<u32> = (1..=n.isqrt()).filter(|d| n.is_multiple_of(*d)).flat_map(|d| [d, n / d]).collect();
    all.sort_unstable();
    all.dedup();
    let ratio = |d: u32| f64::from(d.max(wanted)) / f64::from(d.min(wanted));
    all.sort_by(|a, b| ratio(*a).total_cmp(&ratio(*b)));
    all.truncate(3);
    all.sort_unstable();
    let words: Vec<String> = all.iter().map(u32::to_string).collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [head @ .., last] => format!("{} or {last}", head.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(d_model: u32, n_heads: u32) -> ShapeSpec {
        ShapeSpec { d_model: Some(d_model), n_heads: Some(n_heads), ..ShapeSpec::default() }
    }

    #[test]
    fn heads_that_do_not_divide_the_width_are_refused_with_values_that_do() {
        let error = Shape::new(Family::Gpt2, &spec(1000, 12)).unwrap_err();
        assert_eq!(error.field, "n_heads");
        assert_eq!(error.message, "12 does not divide d_model = 1000; use 8, 10 or 20");
    }

    #[test]
    fn zero_and_overlarge_dimensions_are_refused() {
        assert_eq!(Shape::new(Family::Gpt2, &spec(0, 12)).unwrap_err().field, "d_model");
        assert_eq!(Shape::new(Family::Gpt2, &spec(u32::MAX, 1)).unwrap_err().field, "d_model");
        assert_eq!(Shape::new(Family::Gpt2, &spec(768, 0)).unwrap_err().field, "n_heads");
    }

    #[test]
    fn kv_heads_have_to_divide_the_heads() {
        let s = ShapeSpec { n_kv_heads: Some(5), ..spec(512, 8) };
        assert_eq!(Shape::new(Family::Llama, &s).unwrap_err().field, "n_kv_heads");
        let s = ShapeSpec { n_kv_heads: Some(2), ..spec(512, 8) };
        assert_eq!(Shape::new(Family::Llama, &s).unwrap().d_kv(), 128);
    }

    #[test]
    fn an_odd_head_cannot_turn_pairs() {
        assert_eq!(Shape::new(Family::Llama, &spec(21, 3)).unwrap_err().field, "head_dim");
    }
}
