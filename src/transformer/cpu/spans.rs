//! Spans of this backend's operations, with what each has to compute and to move.

use super::super::backend::{AttentionDims, CacheDims, ExpertDims, LatentDims, LinearDims};
use super::super::shape::Activation;
use super::super::trace::{Kind, Span, Work, span};
use super::buffer::Buffer;

const F32: f64 = 4.0;

/// So many numbers read and written.
fn moved(numbers: usize) -> Work {
    Work { flops: 0.0, bytes: F32 * numbers as f64 }
}

/// Element by element: `arrays` arrays of `len`, read or written.
pub(super) fn elements(name: &'static str, arrays: usize, len: usize) -> Span {
    span(Kind::Elementwise, name, || moved(arrays * len))
}

/// As [`elements`], of a norm.
pub(super) fn norm(name: &'static str, arrays: usize, len: usize) -> Span {
    span(Kind::Norm, name, || moved(arrays * len))
}

/// As [`elements`], of an optimizer.
pub(super) fn update(arrays: usize, len: usize) -> Span {
    span(Kind::Optimizer, "update", || moved(arrays * len))
}

/// A product with a weight.
pub(super) fn linear(name: &'static str, w: &Buffer, d: LinearDims) -> Span {
    span(Kind::Product, name, || of_linear(w, d))
}

fn of_linear(w: &Buffer, LinearDims { n, k, m }: LinearDims) -> Work {
    let weight = match w {
        Buffer::Packed(w) => w.len(),
        Buffer::Plain(_) | Buffer::Experts(_) => m * k,
    };
    let Work { bytes, .. } = moved(n * (k + m) + weight);
    Work { flops: 2.0 * n as f64 * k as f64 * m as f64, bytes }
}

/// The head, the loss, and with gradients the two products back.
pub(super) fn loss(w: &Buffer, gradients: bool, d: LinearDims) -> Span {
    span(Kind::Loss, "cross_entropy", || {
        let times = if gradients { 3.0 } else { 1.0 };
        let Work { flops, bytes } = of_linear(w, d);
        Work { flops: times * flops, bytes: times * bytes }
    })
}

/// A part of what [`loss`] is of, where ranks tell one another of logits in between: so many of its products.
pub(super) fn part_of_loss(products: f64, d: LinearDims) -> Span {
    span(Kind::Loss, "cross_entropy", || {
        let numbers = moved(d.n * d.m + d.k * (d.n + d.m)).bytes;
        Work { flops: products * 2.0 * (d.n * d.k * d.m) as f64, bytes: products.max(1.0) * numbers }
    })
}

/// Attention over whole sequences: of every query and the keys that it sees `products` multiply-adds a number of the head.
pub(super) fn attention(name: &'static str, products: f64, arrays: usize, d: AttentionDims) -> Span {
    span(Kind::Attention, name, || {
        let seen: usize = (0..d.tokens).map(|t| d.seen(t).len()).sum();
        let pairs = (d.batch * d.heads * seen) as f64;
        let numbers = arrays * d.batch * d.tokens * (d.qkv_width() + d.heads * d.head_dim);
        Work { flops: 2.0 * products * pairs * d.head_dim as f64, ..moved(numbers) }
    })
}

/// Attention of some queries a sequence over a cache that holds `length` positions.
pub(super) fn attention_cached(name: &'static str, length: usize, d: AttentionDims, c: CacheDims) -> Span {
    span(Kind::Attention, name, || {
        let length = length.min(c.capacity);
        let pairs = (d.batch * d.tokens * d.heads * length) as f64;
        let bytes = (2 * d.batch * d.kv_heads * length * c.element.vector_size(d.head_dim)) as f64;
        Work { flops: 4.0 * pairs * d.head_dim as f64, bytes }
    })
}

/// The products of experts: two or three of each row's width forward, twice that back.
pub(super) fn experts(name: &'static str, times: f64, d: ExpertDims) -> Span {
    span(Kind::Product, name, || {
        let products = if d.kind.gated() { 3 } else { 2 };
        let flops = times * 2.0 * (d.rows() * products * d.c * d.f) as f64;
        let weights = d.experts.min(d.rows()) * products * d.c * d.f;
        Work { flops, bytes: times * moved(weights + 2 * d.n * d.c).bytes }
    })
}

/// A feed-forward layer's function: what it is of and what it gives, `arrays` times.
pub(super) fn activation(name: &'static str, arrays: usize, kind: Activation, n: usize, f: usize) -> Span {
    elements(name, arrays, n * f * if kind.gated() { 3 } else { 2 })
}

/// Attention through latents: keys and values of all positions are made of them, or queries and outputs taken to theirs.
pub(super) fn latent_attention(position: usize, d: LatentDims) -> Span {
    span(Kind::Attention, "latent_attention", || {
        let length = (position + d.tokens).min(d.capacity);
        let pairs = (d.rows() * d.heads * length) as f64;
        let through = (d.rows() * d.heads * d.rank * d.kv_head()) as f64;
        let of_token = d.element.vector_size(d.rank) + d.element.vector_size(d.rope);
        let bytes = (d.batch * length * of_token) as f64;
        Work { flops: 2.0 * (pairs * (d.rank + d.width()) as f64 + through), bytes }
    })
}
