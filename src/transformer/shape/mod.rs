//! The shape of a model: everything that decides how many parameters it has and what they mean.
//!
//! A [`Shape`] is checked in its one constructor, so that no later code asks again whether heads divide the width.

pub mod count;
pub(crate) mod hf_config;
mod hf_keys;

use serde::{Deserialize, Serialize};

/// The families that are built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// LayerNorm, learned positions, GELU, biases, tied embeddings, causal (Radford et al. 2019).
    Gpt2,
    /// RMSNorm, rotary positions, SwiGLU, grouped-query attention, no biases, causal (Touvron et al. 2023).
    Llama,
    /// Embedding, multi-head attention without a mask, ReLU feed-forward, linear output, mean squared error:
    /// the model of a Keras article. No norms, no residuals, no positions.
    Block,
}

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
}

crate::transformer::names!(Family { Gpt2 => "gpt2", Llama => "llama", Block => "block" });
crate::transformer::names!(Activation { GeluTanh => "gelu_tanh", GeluErf => "gelu_erf", Relu => "relu", SwiGlu => "swi_glu" });

/// Frequencies of rotary positions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Base of the frequencies (Su et al. 2021: 10,000).
    pub theta: f32,
    /// Llama 3.1's stretch of the low frequencies; `None` leaves the frequencies as they are.
    pub scaling: Option<RopeScaling>,
}

/// Llama 3.1's frequency scaling (Hugging Face `rope_type: llama3`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeScaling {
    pub factor: f32,
    pub low_freq_factor: f32,
    pub high_freq_factor: f32,
    pub original_context: u32,
}

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
    /// D
    pub head_dim: u32,
    /// F, the width between the products of the feed-forward layer
    pub d_ff: u32,
    /// V
    pub vocab_size: u32,
    /// Positions that the model knows; learned in GPT-2, a limit only elsewhere
    pub context: u32,
    /// Tokens that attention looks back over, where the model has a sliding window: longer sequences are not built in.
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
    pub norm_eps: Option<f32>,
    pub rope_theta: Option<f32>,
    pub rope_scaling: Option<RopeScaling>,
}

impl Shape {
    /// Completes and checks a specification.
    ///
    /// Usual values: GPT-2 small's dimensions for `gpt2`, a 134M Llama for `llama`, the article's for `block`; `d_ff` is 4 C
    /// (gpt2), 8/3 C rounded up to a multiple of 32 (llama), C (block).
    ///
    /// # Errors
    /// A dimension that is zero or over [`MAX_DIMENSION`]; heads that do not divide the width; kv heads that do not divide the
    /// heads; an odd head_dim where positions are rotary. Each names the field and values that work.
    pub fn new(family: Family, spec: &ShapeSpec) -> Result<Self, ShapeError> {
        let (layers, width, heads, vocab, context) = match family {
            Family::Gpt2 => (12, 768, 12, 50257, 1024),
            Family::Llama => (12, 768, 12, 32000, 2048),
            Family::Block => (1, 1024, 8, 10000, 1024),
        };
        let d_model = dimension("d_model", spec.d_model.unwrap_or(width))?;
        let n_heads = dimension("n_heads", spec.n_heads.unwrap_or(heads))?;
        let head_dim = match spec.head_dim {
            Some(d) => dimension("head_dim", d)?,
            None if d_model % n_heads == 0 => d_model / n_heads,
            None => {
                return Err(fault(
                    "n_heads",
                    format!("{n_heads} does not divide d_model = {d_model}; use {}", near_divisors(d_model, n_heads)),
                ));
            }
        };
        if family != Family::Llama && head_dim.checked_mul(n_heads) != Some(d_model) {
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
        if family != Family::Llama && n_kv_heads != n_heads {
            return Err(fault(
                "n_kv_heads",
                format!("grouped heads exist in family: llama only; leave it out, or use {n_heads}"),
            ));
        }
        if family == Family::Llama && head_dim % 2 != 0 {
            return Err(fault(
                "head_dim",
                format!("{head_dim} is odd, and rotary positions turn pairs; use {} or {}", head_dim - 1, head_dim + 1),
            ));
        }
        let d_ff = match (spec.d_ff, family) {
            (Some(f), _) => dimension("d_ff", f)?,
            (None, Family::Gpt2) => dimension("d_ff", 4 * d_model)?,
            (None, Family::Llama) => dimension("d_ff", (d_model * 8 / 3).div_ceil(32) * 32)?,
            (None, Family::Block) => d_model,
        };
        let norm_eps = spec.norm_eps.unwrap_or(1e-5);
        if !(norm_eps.is_finite() && norm_eps > 0.0) {
            return Err(fault("norm_eps", format!("{norm_eps} is not a positive number; 1e-5 is usual")));
        }
        let theta = spec.rope_theta.unwrap_or(10_000.0);
        if !(theta.is_finite() && theta > 1.0) {
            return Err(fault("rope_theta", format!("{theta} is not a number over 1; 10000 is usual")));
        }
        let llama = family == Family::Llama;
        Ok(Self {
            family,
            n_layers: dimension("n_layers", spec.n_layers.unwrap_or(layers))?,
            d_model,
            n_heads,
            n_kv_heads,
            head_dim,
            d_ff,
            vocab_size: dimension("vocab_size", spec.vocab_size.unwrap_or(vocab))?,
            context: match spec.context.unwrap_or(context) {
                0 => return Err(fault("context", "0 positions hold no token; use 1 or more".into())),
                c if c > 1 << 24 => return Err(fault("context", format!("{c} is over 16777216 positions"))),
                c => c,
            },
            window: spec.window,
            tied_embeddings: spec.tied_embeddings.unwrap_or(family == Family::Gpt2),
            qkv_bias: spec.qkv_bias.unwrap_or(!llama),
            attn_out_bias: spec.attn_out_bias.or(spec.qkv_bias).unwrap_or(!llama),
            mlp_bias: spec.mlp_bias.unwrap_or(!llama),
            activation: spec.activation.unwrap_or(match family {
                Family::Gpt2 => Activation::GeluTanh,
                Family::Llama => Activation::SwiGlu,
                Family::Block => Activation::Relu,
            }),
            norm_eps,
            rope: Rope { theta, scaling: spec.rope_scaling },
        })
    }

    /// H * D: the width of the queries, and of what attention hands on.
    pub fn d_attn(&self) -> u32 {
        self.n_heads * self.head_dim
    }

    /// KV * D: the width of the keys, and of the values.
    pub fn d_kv(&self) -> u32 {
        self.n_kv_heads * self.head_dim
    }

    /// Whether the model predicts tokens (and can decode); the block regresses vectors.
    pub fn has_vocabulary_head(&self) -> bool {
        self.family != Family::Block
    }
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
