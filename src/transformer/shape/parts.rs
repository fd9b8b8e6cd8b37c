//! What a model is put together from, beside its sizes: norms, positions, residuals, the rules of attention.

use serde::{Deserialize, Serialize};

/// Which norm a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    None,
    /// Mean and variance, gain and bias (Ba et al. 2016).
    Layer,
    /// Root of the mean square, a gain (Zhang and Sennrich 2019).
    Rms,
    /// The same with a gain of 1 + w (Gemma).
    RmsPlusOne,
}

crate::transformer::names!(NormKind {
    None => "none", Layer => "layernorm", Rms => "rmsnorm", RmsPlusOne => "rmsnorm-plus-one",
});

impl NormKind {
    /// How much more a gain is than its parameter.
    pub fn gain_offset(self) -> f32 {
        if self == Self::RmsPlusOne { 1.0 } else { 0.0 }
    }
}

/// Where a branch's norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlace {
    /// `x + f(norm(x))`
    Before,
    /// `x + norm(f(x))`
    After,
    /// `x + norm(f(norm(x)))`
    Both,
}

/// Norms of queries and keys, before their positions are put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QkNorm {
    None,
    /// Of every head by itself, with one gain `[D]` for all query heads and one for all key heads.
    Head,
    /// Of all query heads together, `[H * D]`, and of all key heads, `[KV * D]`.
    Whole,
}

/// How a token's place in its sequence is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    None,
    /// A table `[P, C]` is added to the embedding.
    Learned,
    /// Queries and keys are rotated (Su et al. 2021).
    Rotary,
    /// Scores fall with the distance, at another slope for every head (Press et al. 2022).
    Alibi,
}

/// How branches join the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residual {
    /// They replace it.
    None,
    /// `x += attention(x)`, `x += feed_forward(x)`
    Sequential,
    /// `x += attention(norm1(x)) + feed_forward(norm2(x))`
    Parallel,
    /// The same of one norm.
    ParallelOneNorm,
}

/// The parts of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    pub norm: NormKind,
    pub norm_place: NormPlace,
    pub qk_norm: QkNorm,
    pub positions: Positions,
    /// Rows of the table of learned positions that stand before the first position's (OPT has 2).
    pub position_offset: u32,
    /// Elements of a head that are rotated, from its first; `None` for all.
    pub rotary_dim: Option<u32>,
    pub residual: Residual,
    /// Whether a layer has the sliding window, layer by layer, over and over; empty where all layers have it.
    pub window_pattern: Vec<bool>,
    /// Rotary base of the layers with a window, where it is another one; they are not stretched.
    pub local_theta: Option<f32>,
    /// What a score is, of the product of query and key; `None` for 1 / sqrt(D).
    pub score_scale: Option<f32>,
    /// Scores s become `cap tanh(s / cap)`.
    pub score_cap: Option<f32>,
    /// Logits l become `cap tanh(l / cap)`.
    pub logit_cap: Option<f32>,
    /// A logit of each head that stands beside its scores in the softmax and weighs nothing in the result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sinks: bool,
    /// A token that stands for none: its row of the table learns nothing from its places (`padding_idx` of PyTorch's embedding).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding_token: Option<u32>,
    /// A norm of the embedding.
    pub embedding_norm: bool,
    /// The embedding is multiplied by sqrt(C).
    pub scaled_embedding: bool,
}

impl Parts {
    /// Whether a layer looks back over the sliding window only.
    pub fn has_window(&self, layer: usize) -> bool {
        self.window_pattern.is_empty() || self.window_pattern[layer % self.window_pattern.len()]
    }

    /// Whether both branches read the same stream.
    pub fn parallel(&self) -> bool {
        matches!(self.residual, Residual::Parallel | Residual::ParallelOneNorm)
    }

    pub fn norm_before(&self) -> bool {
        self.norm != NormKind::None && self.norm_place != NormPlace::After
    }

    pub fn norm_after(&self) -> bool {
        self.norm != NormKind::None && self.norm_place != NormPlace::Before
    }
}
