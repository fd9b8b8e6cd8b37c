//! Attention of one query a sequence over the KV cache: bound by reading the cache, which is read once for all the query
//! heads that share it.

use super::super::backend::{AttentionDims, CacheDims};
use super::instructions::vectorised;
use super::math::{dot, exp, maximum, sum};
use super::pool::{Pool, writing};

pub(super) fn attention(
    pool: &Pool,
    qkv: &[f32],
    cache: &[f32],
    out: &mut [f32],
    length: usize,
    d: AttentionDims,
    c: CacheDims,
) {
    let (dim, group) = (d.head_dim, d.heads / d.kv_heads);
    let (keys, values) = cache.split_at(c.half());
    let scale = 1.0 / (dim as f32).sqrt();
    // A key-value head of a sequence and the query heads that share it are a task; their outputs stand side by side.
    pool.over(writing(&mut out[..d.batch * d.out_width()], group * dim), |i, out| {
        let scores = &mut *pool.scratch(length);
        let (b, kv) = (i / d.kv_heads, i % d.kv_heads);
        let start = i * c.capacity * dim;
        let (keys, values) = (&keys[start..][..length * dim], &values[start..][..length * dim]);
        for (g, out) in out.chunks_exact_mut(dim).enumerate() {
            let query = &qkv[b * d.qkv_width() + (kv * group + g) * dim..][..dim];
            vectorised(
                #[inline(always)]
                || head(query, keys, values, scores, out, scale),
            );
        }
    });
}

#[inline(always)]
fn head(query: &[f32], keys: &[f32], values: &[f32], scores: &mut [f32], out: &mut [f32], scale: f32) {
    let dim = query.len();
    for (s, key) in scores.iter_mut().zip(keys.chunks_exact(dim)) {
        *s = dot(query, key) * scale;
    }
    let max = maximum(scores);
    for s in scores.iter_mut() {
        *s = exp(*s - max);
    }
    let inverse = 1.0 / sum(scores);
    out.fill(0.0);
    for (s, value) in scores.iter().zip(values.chunks_exact(dim)) {
        let weight = s * inverse;
        for (o, v) in out.iter_mut().zip(value) {
            *o += weight * v;
        }
    }
}
