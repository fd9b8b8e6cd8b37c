//! Attention of a stretch of a prompt over a cache of latents: keys and values of a head are made of all its latents by a product, and
//! attended to as of any stretch. Queries that met the latents themselves, as a token's do, would take 2 R + P multiply-adds a position
//! and head where these take 2 (P + nope), and what making keys and values costs is shared by all of a stretch.

use super::super::super::backend::{AttentionDims, LatentDims, Scores};
use super::super::cached::{Cached, LatentRows};
use super::super::matmul::matmul;
use super::super::pool::{Pool, writing};
use super::super::product::pack::Source;
use super::super::product::panels::take;
use super::super::product::{self, Onto, Precision, Target, View};
use super::strip::Cut;
use super::{Context, Head, forward_head};

/// What attention over a cache of latents reads.
#[derive(Clone, Copy)]
pub(in crate::transformer::cpu) struct Latents<'a, T> {
    /// `[N, H * (P + nope)]`
    pub queries: &'a [f32],
    /// `[H * (nope + value), R]`
    pub w: &'a [f32],
    pub cache: LatentRows<'a, T>,
    pub position: usize,
    pub d: LatentDims,
}

/// One head's attention over so many positions.
fn of_head(positions: usize, precision: Precision, d: LatentDims) -> (AttentionDims, Cut) {
    let scores = Scores { scale: Some(d.scale), ..Scores::PLAIN };
    let (tokens, head_dim) = (d.tokens, d.head_dim());
    let one = AttentionDims { batch: 1, tokens, heads: 1, kv_heads: 1, head_dim, causal: true, scores };
    (one, Cut::new(precision, AttentionDims { tokens: positions, ..one }))
}

/// Keys and values of a head, `[positions, P + nope]` each, of latents and rotated keys `[positions, R + P]` and of `made [positions, nope
/// + value]`. A value is as wide as a key, and zero beyond its own width.
fn put_together(latents: &[f32], made: &[f32], keys: &mut [f32], values: &mut [f32], d: LatentDims) {
    let rows = latents.chunks_exact(d.width()).zip(made.chunks_exact(d.kv_head()));
    let to = keys.chunks_exact_mut(d.head_dim()).zip(values.chunks_exact_mut(d.head_dim()));
    for ((key, value), (latent, made)) in to.zip(rows) {
        key[..d.rope].copy_from_slice(&latent[d.rank..]);
        key[d.rope..].copy_from_slice(&made[..d.nope]);
        value[..d.value].copy_from_slice(&made[d.nope..]);
        value[d.value..].fill(0.0);
    }
}

/// `out [N, H * value]`
pub(in crate::transformer::cpu) fn after_latents<T: Cached>(
    pool: &Pool,
    precision: Precision,
    of: Latents<T>,
    out: &mut [f32],
) {
    let d = of.d;
    let (positions, dim) = (of.position + d.tokens, d.head_dim());
    let (one, cut) = of_head(positions, precision, d);
    let parts = (2 * pool.threads).div_ceil(d.heads).min(d.tokens.div_ceil(cut.strip)).max(1);
    let to = Target::new(out, d.heads * d.value);
    let mut latents = pool.scratch(positions * d.width());
    for sequence in 0..d.batch {
        let share = pool.share(positions, 64);
        pool.over(writing(&mut latents, share * d.width()), |part, latents| {
            of.cache.expand(sequence * d.capacity + part * share, latents);
        });
        let latents = &*latents;
        pool.each_with(d.heads * parts, room_len(positions, &cut, d), |i, scratch| {
            let (h, part, mut rest) = (i / parts, i % parts, scratch);
            let [made, keys, values] = [d.kv_head(), dim, dim].map(|width| take(&mut rest, positions * width));
            let (wide, lse) = (take(&mut rest, d.tokens * dim), take(&mut rest, d.tokens));
            let w = View::dense(&of.w[h * d.kv_head() * d.rank..], d.kv_head(), d.rank);
            let of_all = View::strided(latents, positions, d.rank, d.width());
            matmul(pool, precision, made, Onto::Nothing, of_all, w.transposed());
            put_together(latents, made, keys, values, d);
            let context = Context {
                keys: Source { data: keys, item_stride: dim, depth_stride: 1 },
                values: Source { data: values, item_stride: 1, depth_stride: dim },
                count: positions,
                before: of.position,
            };
            let first = sequence * d.tokens;
            let queries = &of.queries[(first * d.heads + h) * dim..];
            let head = Head { qkv: queries, width: d.heads * dim, d: one, batch: 0, head: 0 };
            let (result, logs) = (Target::new(wide, dim), Target::new(lse, 1));
            // SAFETY: what is written to is this task's scratch.
            unsafe { forward_head(&cut, &head, context, (part, parts), rest, result, logs) };
            let rows = (part * cut.strip..d.tokens).step_by(cut.strip * parts);
            for t in rows.flat_map(|strip| strip..d.tokens.min(strip + cut.strip)) {
                let to = to.at(((first + t) * d.heads + h) * d.value);
                // SAFETY: the strips of a part of a head of a sequence are one task's alone.
                unsafe { to.write_scaled(&wide[t * dim..][..d.value], 1.0) };
            }
        });
    }
}

/// Elements of scratch of a task.
fn room_len(positions: usize, cut: &Cut, d: LatentDims) -> usize {
    positions * (d.kv_head() + 2 * d.head_dim()) + d.tokens * (d.head_dim() + 1) + cut.forward_len()
}

/// Elements of scratch that a rank of so many threads takes.
pub(in crate::transformer::cpu) fn latents_scratch_len(positions: usize, d: LatentDims, threads: usize) -> usize {
    // The wider format, and every instruction path's panels, are within it.
    let (_, cut) = of_head(positions, Precision::F32, d);
    let of_product = product::scratch_words(positions, d.rank, d.kv_head());
    positions * d.width() + threads * (room_len(positions, &cut, d) + of_product)
}
