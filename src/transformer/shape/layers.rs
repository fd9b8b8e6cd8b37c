//! What the layers of a shape amount to, all together: weights of products, vectors, and what attention and its cache take.

use super::super::kv_cache::CacheElement;
use super::parts::{NormKind, QkNorm, Residual};
use super::{Latent, Shape};

/// A count that does not fit into 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model is too large to be counted in 64 bits; use smaller sizes")]
pub struct CountOverflow;

pub(super) fn product(factors: &[u64]) -> Result<u64, CountOverflow> {
    factors.iter().try_fold(1u64, |a, &b| a.checked_mul(b)).ok_or(CountOverflow)
}

pub(super) fn sum(terms: &[u64]) -> Result<u64, CountOverflow> {
    terms.iter().try_fold(0u64, |a, &b| a.checked_add(b)).ok_or(CountOverflow)
}

/// Experts of a layer: all, and those that a token goes to; a dense layer is one.
pub(super) fn experts(s: &Shape) -> [u64; 2] {
    s.experts.map_or([1, 1], |e| [e.count, e.per_token].map(u64::from))
}

/// Layers without experts, and with them.
fn layers(s: &Shape) -> [u64; 2] {
    let dense = s.experts.map_or(s.n_layers, |e| e.dense_layers);
    [dense, s.n_layers - dense].map(u64::from)
}

/// Weights of the layers' products, with so many experts in each layer that has them.
pub(super) fn matrices(s: &Shape, with: u64) -> Result<u64, CountOverflow> {
    let [c, f, each, shared] = [s.d_model, s.d_ff, s.d_ff_expert(), s.d_ff_shared()].map(u64::from);
    let matrices = if s.activation.gated() { 3 } else { 2 };
    let router = product(&[s.experts.map_or(0, |e| u64::from(e.count)), c])?;
    let routed = sum(&[product(&[with, matrices, c, each])?, product(&[matrices, c, shared])?, router])?;
    let [dense, mixed] = layers(s);
    sum(&[
        product(&[dense + mixed, attention_matrices(s)?])?,
        product(&[dense, matrices, c, f])?,
        product(&[mixed, routed])?,
    ])
}

/// Outputs of the layers' products, rows of their weights, with so many experts in each layer that has them.
pub(super) fn outputs(s: &Shape, with: u64) -> Result<u64, CountOverflow> {
    let [c, a, kv, h] = [s.d_model, s.d_attn(), s.d_kv(), s.n_heads].map(u64::from);
    let attended = match &s.latent {
        None => a + 2 * kv,
        Some(l) => {
            let [each, cached, kv_head] = [s.head_dim, l.cached(), l.kv_head()].map(u64::from);
            sum(&[l.q_rank.map_or(0, u64::from), product(&[h, each])?, cached, product(&[h, kv_head])?])?
        }
    };
    let inner = if s.activation.gated() { 2 } else { 1 };
    let feed_forward = |width: u32| if width > 0 { inner * u64::from(width) + c } else { 0 };
    let routed = product(&[with, feed_forward(s.d_ff_expert())])?;
    let router = s.experts.map_or(0, |e| u64::from(e.count));
    let [dense, mixed] = layers(s);
    sum(&[
        product(&[dense + mixed, attended + c])?,
        product(&[dense, feed_forward(s.d_ff)])?,
        product(&[mixed, sum(&[routed, feed_forward(s.d_ff_shared()), router])?])?,
    ])
}

/// Weights of the products of one layer's attention.
pub(crate) fn attention_matrices(s: &Shape) -> Result<u64, CountOverflow> {
    let [c, a, kv, h] = [s.d_model, s.d_attn(), s.d_kv(), s.n_heads].map(u64::from);
    let Some(latent) = &s.latent else {
        return sum(&[product(&[c, a])?, product(&[2, c, kv])?, product(&[a, c])?]);
    };
    let [rank, each, cached, kv_head] = [latent.kv_rank, s.head_dim, latent.cached(), latent.kv_head()].map(u64::from);
    let queries = match latent.q_rank.map(u64::from) {
        Some(q) => sum(&[product(&[c, q])?, product(&[q, h, each])?])?,
        None => product(&[c, h, each])?,
    };
    sum(&[queries, product(&[c, cached])?, product(&[rank, h, kv_head])?, product(&[a, c])?])
}

/// Vectors of a norm's parameters: gain and bias.
pub(super) fn norm_vectors(kind: NormKind) -> u64 {
    match kind {
        NormKind::None => 0,
        NormKind::Rms | NormKind::RmsPlusOne => 1,
        NormKind::Layer => 2,
    }
}

/// Biases, norm gains and the like of the layers, with so many experts in each layer that has them.
pub(super) fn vectors(s: &Shape, with: u64) -> Result<u64, CountOverflow> {
    let [c, a, kv] = [s.d_model, s.d_attn(), s.d_kv()].map(u64::from);
    let parts = s.parts();
    let before = match (parts.norm_before(), parts.residual) {
        (false, _) => 0,
        (true, Residual::ParallelOneNorm) => 1,
        (true, _) => 2,
    };
    let latents = s.latent.map_or(0, |l| u64::from(l.kv_rank) + l.q_rank.map_or(0, u64::from));
    let norms = ((before + if parts.norm_after() { 2 } else { 0 }) * c + latents) * norm_vectors(parts.norm);
    let qk_norm = match parts.qk_norm {
        QkNorm::None => 0,
        QkNorm::Head => 2 * u64::from(s.head_dim),
        QkNorm::Whole => a + kv,
    };
    let qkv = if s.qkv_bias { a + 2 * kv } else { 0 };
    let out = if s.attn_out_bias { c } else { 0 };
    let sinks = if parts.sinks { u64::from(s.n_heads) } else { 0 };
    let [dense, mixed] = layers(s);
    sum(&[
        product(&[dense + mixed, sum(&[norms, qk_norm, qkv, out, sinks])?])?,
        product(&[dense, feed_forward_biases(s, s.d_ff)])?,
        product(&[mixed, expert_vectors(s, with)?])?,
    ])
}

/// Biases of a feed-forward layer of this width.
fn feed_forward_biases(s: &Shape, width: u32) -> u64 {
    let inner = if s.activation.gated() { 2 * u64::from(width) } else { u64::from(width) };
    if s.mlp_bias { inner + u64::from(s.d_model) } else { 0 }
}

/// Biases of a layer's experts, of the shared ones and of the router, and corrections of what experts are chosen by.
fn expert_vectors(s: &Shape, with: u64) -> Result<u64, CountOverflow> {
    let Some(e) = &s.experts else { return Ok(0) };
    let count = u64::from(e.count);
    let shared = if e.shared > 0 { feed_forward_biases(s, s.d_ff_shared()) } else { 0 };
    let of_all = u64::from(s.mlp_bias) * count + u64::from(e.routing.corrected) * count;
    sum(&[product(&[with, feed_forward_biases(s, s.d_ff_expert())])?, shared, of_all])
}

/// Numbers that a layer's cache holds of a token.
pub(super) fn cached(s: &Shape) -> u64 {
    s.latent.as_ref().map_or(2 * u64::from(s.d_kv()), |l| u64::from(Latent::cached(l)))
}

/// Bytes of these, with the scales of vectors that have any.
pub(super) fn cached_bytes(s: &Shape, element: CacheElement) -> u64 {
    let of = |numbers: u32| element.vector_size(numbers as usize) as u64;
    match &s.latent {
        None => 2 * u64::from(s.n_kv_heads) * of(s.head_dim),
        Some(l) => of(l.kv_rank) + of(l.rope),
    }
}

/// FLOPs of a token's attention in a layer, by position that it is over: those of its score and of its value. Over a cache of latents
/// these meet queries in their own width, in whole sequences keys and values are made of them.
pub(super) fn attention_flops(s: &Shape, over_cache: bool) -> u64 {
    let heads = u64::from(s.n_heads);
    2 * heads
        * match &s.latent {
            None => 2 * u64::from(s.head_dim),
            Some(l) if over_cache => u64::from(l.cached()) + u64::from(l.kv_rank),
            Some(l) => u64::from(l.head_dim()) + u64::from(l.value),
        }
}
