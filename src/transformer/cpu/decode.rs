//! Attention of one query a sequence over the KV cache: bound by reading the cache, which is read once for all the query
//! heads that share it.

use super::super::backend::{AttentionDims, CacheDims};
use super::cached::{Cached, KeysAndValues};
use super::instructions::vectorised;
use super::math::{exp, maximum, soft_cap, sum};
use super::pool::{Pool, writing};

pub(super) fn attention<T: Cached>(
    pool: &Pool,
    qkv: &[f32],
    cache: KeysAndValues<'_, T>,
    (out, lse): (&mut [f32], Option<&mut [f32]>),
    length: usize,
    d: AttentionDims,
    c: CacheDims,
) {
    let (dim, group, length) = (d.head_dim, d.heads / d.kv_heads, length.min(c.capacity));
    let mut unasked = Vec::new();
    let lse = lse.unwrap_or_else(|| {
        unasked.resize(d.batch * d.heads, 0.0);
        &mut unasked
    });
    // A key-value head of a sequence and the query heads that share it are a task; their outputs stand side by side.
    let to = (writing(&mut out[..d.batch * d.out_width()], group * dim), writing(&mut lse[..d.batch * d.heads], group));
    pool.over_with(to, length, |i, (out, lse), scores| {
        let (b, kv) = (i / d.kv_heads, i % d.kv_heads);
        let cache = cache.head(i, c);
        for ((g, out), lse) in out.chunks_exact_mut(dim).enumerate().zip(lse) {
            let query = &qkv[b * d.qkv_width() + (kv * group + g) * dim..][..dim];
            let of = OfHead { scale: d.scale() as f32, cap: d.scores.soft_cap, slope: d.slope(kv * group + g) };
            vectorised(
                #[inline(always)]
                || *lse = head(query, cache, scores, out, of),
            );
        }
    });
}

/// Positions whose scores, or dimensions whose sums, are worked on at a time: four AVX-512 registers.
const BLOCK: usize = 64;

/// How a head's scores come about.
#[derive(Clone, Copy)]
struct OfHead {
    scale: f32,
    cap: Option<f32>,
    /// What a score gains with the key's position.
    slope: f32,
}

/// Over as many positions as there are scores. Gives the log of the softmax's denominator.
#[inline(always)]
fn head<T: Cached>(query: &[f32], cache: KeysAndValues<'_, T>, scores: &mut [f32], out: &mut [f32], of: OfHead) -> f32 {
    let KeysAndValues { keys, values, key_scales, value_scales } = cache;
    let scale = of.scale;
    let capacity = keys.len() / query.len();
    let (blocks, rest) = scores.as_chunks_mut::<BLOCK>();
    let whole = blocks.len() * BLOCK;
    for (b, block) in blocks.iter_mut().enumerate() {
        let mut sums = [0.0f32; BLOCK];
        for (q, row) in query.iter().zip(keys.chunks_exact(capacity)) {
            let q = q * T::LIFT;
            for (s, k) in sums.iter_mut().zip(&row[b * BLOCK..][..BLOCK]) {
                *s += q * k.raw();
            }
        }
        *block = sums.map(|s| s * scale);
    }
    for (i, s) in rest.iter_mut().enumerate() {
        let products = query.iter().zip(keys.chunks_exact(capacity)).map(|(q, row)| q * T::LIFT * row[whole + i].raw());
        *s = products.sum::<f32>() * scale;
    }
    if T::LARGEST.is_some() {
        scores.iter_mut().zip(key_scales).for_each(|(s, by)| *s *= by * T::LIFT);
    }
    if let Some(cap) = of.cap {
        soft_cap(scores, cap);
    }
    if of.slope != 0.0 {
        scores.iter_mut().enumerate().for_each(|(i, s)| *s += of.slope * i as f32);
    }
    let max = maximum(scores);
    for s in scores.iter_mut() {
        *s = exp(*s - max);
    }
    let total = sum(scores);
    let inverse = T::LIFT / total;
    if T::LARGEST.is_some() {
        scores.iter_mut().zip(value_scales).for_each(|(s, by)| *s *= by * T::LIFT);
    }
    let dim = out.len();
    let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
    let whole = blocks.len() * BLOCK;
    for (b, block) in blocks.iter_mut().enumerate() {
        let mut sums = [0.0f32; BLOCK];
        for (s, value) in scores.iter().zip(values.chunks_exact(dim)) {
            for (o, v) in sums.iter_mut().zip(&value[b * BLOCK..][..BLOCK]) {
                *o += s * v.raw();
            }
        }
        *block = sums.map(|s| s * inverse);
    }
    if !rest.is_empty() {
        rest.fill(0.0);
        for (s, value) in scores.iter().zip(values.chunks_exact(dim)) {
            for (o, v) in rest.iter_mut().zip(&value[whole..]) {
                // Lifted where no product is beyond the largest f32.
                *o += s * (inverse / T::LIFT) * (v.raw() * T::LIFT);
            }
        }
    }
    max + total.ln()
}
