//! What operations take beside their buffers, counted beforehand.

use super::super::backend::{AttentionDims, ExpertDims, LatentDims};
use super::super::{Dtype, WeightFormat};
use super::product::PackedLayout;
use super::{attention, experts, head, latent, loss, precision, product, stored};

/// Words of 32 bits that a weight matrix `[M, K]` takes where it is kept for inference.
pub(in crate::transformer) fn weight_words(m: usize, k: usize, dtype: Dtype, weights: WeightFormat) -> usize {
    PackedLayout::new(m, k, stored(weights, precision(dtype))).len()
}

/// Words of scratch memory that the operations of a training step (`training`) or of a prompt pass take on one rank of so
/// many threads: the vocabulary's logits, what each thread's attention holds, and the operands of the largest product.
pub(in crate::transformer) fn scratch_words(
    threads: usize,
    rows: usize,
    attention: AttentionDims,
    widths: Widths,
    training: bool,
) -> usize {
    let Widths { model, inner, wide, attended, vocabulary, experts, latent, gathered } = widths;
    let latent = latent.map_or(0, |d| latent::scratch_len(d, threads));
    let packed_of_experts = experts.map_or(0, |d| experts::packed_len(threads, d, training));
    let experts = experts.map_or(0, |d| experts::scratch_len(d, training));
    // Each linear layer's inputs and outputs.
    let layers = [(model, attended), (model, wide), (inner, model)];
    let most = |of: &dyn Fn(usize, usize) -> usize| layers.iter().map(|(k, m)| of(*k, *m)).max().unwrap_or(0);
    let forward = most(&|k, m| product::scratch_words(rows, k, m)).max(packed_of_experts);
    if !training {
        return forward + experts + latent + threads * (gathered + attention::scratch_len(attention, false));
    }
    let logits = loss::scratch_len(rows, vocabulary);
    let products = [
        forward,
        most(&|k, m| product::scratch_words(rows, m, k)),
        most(&|k, m| product::scratch_words(m, rows, k)),
        product::scratch_words(head::BLOCK.min(rows), vocabulary, model),
        product::scratch_words(vocabulary, head::BLOCK.min(rows), model),
    ];
    let packed = products.into_iter().max().unwrap_or(0);
    logits + experts + threads * attention::scratch_len(attention, true) + packed
}

/// The widths of a model that decide how much its operations pack.
#[derive(Clone, Copy, Debug)]
pub(in crate::transformer) struct Widths {
    pub model: usize,
    /// What the second half's last product is of, and what its first gives: twice as wide where it is gated.
    pub inner: usize,
    pub wide: usize,
    /// Of the product that makes queries, keys and values, or the widest of several.
    pub attended: usize,
    pub vocabulary: usize,
    pub experts: Option<ExpertDims>,
    /// Where attention is over a cache of latents.
    pub latent: Option<LatentDims>,
    /// Elements of keys and values that a thread gathers where a prompt is processed in stretches.
    pub gathered: usize,
}
