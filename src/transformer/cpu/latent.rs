//! Attention through a cache of latents: what all heads share is read once for several of them. A query meets the latents themselves,
//! having been multiplied by what makes keys of them, and values are made of the weighted latents (DeepSeek-AI 2024, section 2.1.2). The
//! many queries of a stretch of a prompt have keys and values made instead (`attention/latents.rs`).

use super::super::backend::{BlockCopy, LatentDims, LinearDims};
use super::attention::{Latents, after_latents, latents_scratch_len};
use super::cached::{Cached, put_latent};
use super::instructions::vectorised;
use super::math::{dot, exp, maximum, sum};
use super::matmul::{FEW_ROWS, matmul};
use super::pool::{Pool, Scratch, writing};
use super::product::{Onto, Precision, View};

/// Queries of a sequence from which on keys and values are made for them.
const STRETCH: usize = 16;

/// Queries that are worked on at a time, so that many sequences need no more room than so many rows of all heads.
const ROWS: usize = 256;

/// Heads that share a pass over the cache, at the most.
const HEADS: usize = 8;

/// Positions of the cache that lie as f32 in the first levels of the caches at a time.
const BLOCK: usize = 32;

pub(super) fn copy_blocks(pool: &Pool, from: &[f32], to: &mut [f32], d: BlockCopy) {
    let share = pool.share(d.n, 8);
    // The last row may end before the next one would begin.
    let end = (d.to.first + d.n * d.to.row).min(to.len());
    pool.over(writing(&mut to[d.to.first..end], share * d.to.row), |part, rows| {
        for (i, to) in rows.chunks_mut(d.to.row).enumerate() {
            let from = &from[d.from.first + (part * share + i) * d.from.row..];
            for h in 0..d.heads {
                let (block, to) = (&from[h * d.from.head..][..d.len], &mut to[h * d.to.head..][..d.len]);
                if d.sums() && h > 0 {
                    to.iter_mut().zip(block).for_each(|(to, x)| *to += x);
                } else {
                    to.copy_from_slice(block);
                }
            }
        }
    });
}

pub(super) fn append<T: Cached>([latent, rotated]: [&[f32]; 2], cache: &mut [f32], position: usize, d: LatentDims) {
    let rows = latent[..d.rows() * d.rank].chunks_exact(d.rank).zip(rotated.chunks_exact(d.rope)).enumerate();
    for (r, (latent, rotated)) in rows {
        put_latent::<T>([latent, rotated], cache, r / d.tokens * d.capacity + position + r % d.tokens, d);
    }
}

pub(super) fn attention<T: Cached>(pool: &Pool, precision: Precision, of: Latents<T>, out: &mut [f32]) {
    if of.d.tokens >= STRETCH {
        return after_latents(pool, precision, of, out);
    }
    let (n, width) = (of.d.rows(), of.d.heads * of.d.value);
    for first in (0..n).step_by(ROWS) {
        let rows = ROWS.min(n - first);
        let absorbed = absorb(pool, precision, of, first, rows);
        let mut weighted = pool.scratch(rows * of.d.heads * of.d.rank);
        over_cache(pool, of, &absorbed, &mut weighted, (first, rows));
        drop(absorbed);
        values(pool, precision, of, &weighted, &mut out[first * width..][..rows * width]);
    }
}

/// Queries of some rows as latents have them, `[H, rows, R + P]`.
fn absorb<'p, T: Cached>(
    pool: &'p Pool,
    precision: Precision,
    of: Latents<T>,
    first: usize,
    rows: usize,
) -> Scratch<'p> {
    let LatentDims { heads, rank, rope, nope, .. } = of.d;
    let (width, row) = (of.d.width(), heads * of.d.head_dim());
    let mut to = pool.scratch(heads * rows * width);
    let query = |r: usize, h: usize| &of.queries[(first + r) * row + h * of.d.head_dim()..][..of.d.head_dim()];
    let weight = |h: usize| &of.w[h * of.d.kv_head() * rank..][..nope * rank];
    if rows > FEW_ROWS {
        let mut made = pool.scratch(rows * rank);
        for (h, to) in to.chunks_exact_mut(rows * width).enumerate() {
            let queries = View::strided(&of.queries[first * row + h * of.d.head_dim() + rope..], rows, nope, row);
            matmul(pool, precision, &mut made, Onto::Nothing, queries, View::dense(weight(h), nope, rank));
            for ((r, to), made) in to.chunks_exact_mut(width).enumerate().zip(made.chunks_exact(rank)) {
                to[..rank].copy_from_slice(made);
                to[rank..].copy_from_slice(&query(r, h)[..rope]);
            }
        }
        return to;
    }
    pool.over(writing(&mut to, rows * width), |h, to| {
        to.fill(0.0);
        for (j, w) in weight(h).chunks_exact(rank).enumerate() {
            for (r, to) in to.chunks_exact_mut(width).enumerate() {
                add(&mut to[..rank], w, query(r, h)[rope + j]);
            }
        }
        for (r, to) in to.chunks_exact_mut(width).enumerate() {
            to[rank..].copy_from_slice(&query(r, h)[..rope]);
        }
    });
    to
}

/// `to += by * x`
fn add(to: &mut [f32], x: &[f32], by: f32) {
    vectorised(
        #[inline(always)]
        || to.iter_mut().zip(x).for_each(|(to, x)| *to += by * x),
    );
}

/// Of each row and head the latents of what it sees, weighted, `[rows, H, R]`.
fn over_cache<T: Cached>(
    pool: &Pool,
    of: Latents<T>,
    absorbed: &[f32],
    weighted: &mut [f32],
    (first, rows): (usize, usize),
) {
    let LatentDims { heads, rank, tokens, capacity, .. } = of.d;
    let width = of.d.width();
    let group = (1..=HEADS).rev().find(|g| heads.is_multiple_of(*g)).unwrap_or(1);
    let longest = of.position + tokens;
    let room = group * longest + BLOCK * width;
    pool.over_with(writing(weighted, group * rank), room, |task, to, room| {
        let (r, head) = (task / (heads / group), task % (heads / group) * group);
        let row = first + r;
        let seen = of.position + row % tokens + 1;
        let first = row / tokens * capacity;
        let (scores, block) = room.split_at_mut(group * longest);
        let query = |g: usize| &absorbed[((head + g) * rows + r) * width..][..width];
        vectorised(
            #[inline(always)]
            || {
                for (b, at) in (0..seen).step_by(BLOCK).enumerate() {
                    let block = &mut block[..BLOCK.min(seen - at) * width];
                    of.cache.expand(first + at, block);
                    for g in 0..group {
                        let scores = scores[g * longest + b * BLOCK..].iter_mut();
                        let products = block.chunks_exact(width).map(|key| dot(query(g), key) * of.d.scale);
                        scores.zip(products).for_each(|(s, product)| *s = product);
                    }
                }
                for g in 0..group {
                    softmax(&mut scores[g * longest..][..seen]);
                }
                to.fill(0.0);
                for (b, at) in (0..seen).step_by(BLOCK).enumerate() {
                    let block = &mut block[..BLOCK.min(seen - at) * width];
                    of.cache.expand(first + at, block);
                    for (g, to) in to.chunks_exact_mut(rank).enumerate() {
                        for (latent, p) in block.chunks_exact(width).zip(&scores[g * longest + b * BLOCK..]) {
                            to.iter_mut().zip(&latent[..rank]).for_each(|(to, x)| *to += p * x);
                        }
                    }
                }
            },
        );
    });
}

#[inline(always)]
fn softmax(scores: &mut [f32]) {
    let max = maximum(scores);
    scores.iter_mut().for_each(|s| *s = exp(*s - max));
    let by = 1.0 / sum(scores);
    scores.iter_mut().for_each(|s| *s *= by);
}

/// Values of the weighted latents `[rows, H, R]`, as `[rows, H * value]`.
fn values<T: Cached>(pool: &Pool, precision: Precision, of: Latents<T>, weighted: &[f32], out: &mut [f32]) {
    let LatentDims { heads, rank, nope, value, .. } = of.d;
    let d = LinearDims { n: weighted.len() / (heads * rank), k: rank, m: value };
    let weight = |h: usize| &of.w[(h * of.d.kv_head() + nope) * rank..][..value * rank];
    let mut by_head = pool.scratch(heads * d.n * value);
    if d.n > FEW_ROWS {
        for (h, to) in by_head.chunks_exact_mut(d.n * value).enumerate() {
            let latents = View::strided(&weighted[h * rank..], d.n, rank, heads * rank);
            matmul(pool, precision, to, Onto::Nothing, latents, View::dense(weight(h), value, rank).transposed());
        }
    } else {
        pool.over(writing(&mut by_head, d.n * value), |h, to| {
            vectorised(
                #[inline(always)]
                || {
                    for (j, w) in weight(h).chunks_exact(rank).enumerate() {
                        for (r, to) in to.chunks_exact_mut(value).enumerate() {
                            to[j] = dot(&weighted[(r * heads + h) * rank..][..rank], w);
                        }
                    }
                },
            );
        });
    }
    let share = pool.share(d.n, 8);
    pool.over(writing(out, share * heads * value), |part, out| {
        for (i, out) in out.chunks_exact_mut(heads * value).enumerate() {
            for (h, out) in out.chunks_exact_mut(value).enumerate() {
                out.copy_from_slice(&by_head[(h * d.n + part * share + i) * value..][..value]);
            }
        }
    });
}

/// Elements of scratch that one rank's threads take.
pub(super) fn scratch_len(d: LatentDims, threads: usize) -> usize {
    if d.tokens >= STRETCH {
        // No stretch ends beyond the cache.
        return latents_scratch_len(d.capacity, d, threads);
    }
    let rows = ROWS.min(d.rows()) * d.heads;
    let widest = d.width().max(d.rank + d.value);
    let of_product = if d.rows() > FEW_ROWS { ROWS.min(d.rows()) * d.rank } else { 0 };
    rows * (widest + d.rank) + of_product + threads * (HEADS * d.capacity + BLOCK * d.width())
}
