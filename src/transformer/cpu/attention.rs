//! Attention over whole sequences, in tiles of queries: no T x T matrix ever exists. The backward pass computes the tiles
//! again from the saved log denominators (Dao et al. 2022).

use super::super::backend::AttentionDims;
use super::instructions::vectorised;
use super::math::{dot, exp, maximum, sum};
use super::pool::Pool;
use super::product::{Onto, Precision, Right, Target, View, product};

/// Queries a tile.
const TILE: usize = 64;

/// One head of one sequence, by its place in the rows of queries, keys and values.
#[derive(Clone, Copy)]
struct Head<'a> {
    qkv: &'a [f32],
    d: AttentionDims,
    batch: usize,
    head: usize,
}

impl<'a> Head<'a> {
    fn row(&self, t: usize) -> usize {
        self.batch * self.d.tokens + t
    }
    fn group(&self) -> usize {
        self.head / (self.d.heads / self.d.kv_heads)
    }
    /// Column of the query, key or value in a row.
    fn columns(&self) -> [usize; 3] {
        let d = &self.d;
        [
            self.head * d.head_dim,
            (d.heads + self.group()) * d.head_dim,
            (d.heads + d.kv_heads + self.group()) * d.head_dim,
        ]
    }
    fn view(&self, column: usize, first: usize, rows: usize) -> View<'a> {
        let width = self.d.qkv_width();
        View::strided(&self.qkv[self.row(first) * width + column..], rows, self.d.head_dim, width)
    }
    /// Keys that the queries `first..first + rows` see together.
    fn seen(&self, first: usize, rows: usize) -> usize {
        if self.d.causal { first + rows } else { self.d.tokens }
    }
    /// Keys that query `t` sees.
    fn seen_by(&self, t: usize) -> usize {
        if self.d.causal { t + 1 } else { self.d.tokens }
    }
}

/// # Safety
/// As for [`product`].
unsafe fn multiply((pool, precision): (&Pool, Precision), to: Target, add: bool, factor: f32, a: View, b: View) {
    let onto = if add { Onto::Target } else { Onto::Nothing };
    // SAFETY: the caller's.
    unsafe { product(pool, to, onto, factor, a, Right::View(b), precision) };
}

fn scale(d: &AttentionDims) -> f32 {
    1.0 / (d.head_dim as f32).sqrt()
}

/// Numbers of scratch that a thread needs, forward and backward.
pub(super) fn scratch_len(tokens: usize) -> usize {
    2 * TILE * tokens
}

pub(super) fn forward(
    pool: &Pool,
    precision: Precision,
    qkv: &[f32],
    out: &mut [f32],
    lse: &mut [f32],
    d: AttentionDims,
) {
    let tiles = d.tokens.div_ceil(TILE);
    let (to, lse) = (Target::new(out, d.out_width()), Target::new(lse, d.heads));
    // The last tiles see the most keys: they go first, so that the small ones even out the end.
    pool.each(d.batch * d.heads * tiles, |i| {
        let mut scratch = pool.scratch(scratch_len(d.tokens));
        let (tile, rest) = (tiles - 1 - i / (d.batch * d.heads), i % (d.batch * d.heads));
        let head = Head { qkv, d, batch: rest / d.heads, head: rest % d.heads };
        let first = tile * TILE;
        // SAFETY: a tile of a head of a sequence is one task's alone: no other writes its rows and columns.
        unsafe { forward_tile((pool, precision), &head, first, TILE.min(d.tokens - first), &mut scratch, to, lse) };
    });
}

/// # Safety
/// No other thread touches this tile's part of `out` and `lse`.
unsafe fn forward_tile(
    on: (&Pool, Precision),
    h: &Head,
    first: usize,
    rows: usize,
    scratch: &mut [f32],
    out: Target,
    lse: Target,
) {
    let d = &h.d;
    let [q, k, v] = h.columns();
    let seen = h.seen(first, rows);
    let scores = &mut scratch[..rows * seen];
    // SAFETY: `scores` is this task's own.
    unsafe {
        multiply(
            on,
            Target::new(scores, seen),
            false,
            scale(d),
            h.view(q, first, rows),
            h.view(k, 0, seen).transposed(),
        );
    }
    vectorised(
        #[inline(always)]
        || {
            for (i, row) in scores.chunks_exact_mut(seen).enumerate() {
                let (kept, masked) = row.split_at_mut(h.seen_by(first + i).min(seen));
                let max = maximum(kept);
                for s in kept.iter_mut() {
                    *s = exp(*s - max);
                }
                let total = sum(kept);
                let inverse = 1.0 / total;
                for s in kept.iter_mut() {
                    *s *= inverse;
                }
                masked.fill(0.0);
                // SAFETY: one number of this tile's rows and head.
                unsafe { lse.at(h.row(first + i) * d.heads + h.head).write(max + total.ln()) };
            }
        },
    );
    let to = out.at(h.row(first) * d.out_width() + h.head * d.head_dim);
    // SAFETY: the tile's rows and the head's columns are this task's own.
    unsafe { multiply(on, to, false, 1.0, View::dense(scores, rows, seen), h.view(v, 0, seen)) };
}

/// What the backward pass reads.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub qkv: &'a [f32],
    pub out: &'a [f32],
    pub dout: &'a [f32],
    pub lse: &'a [f32],
}

pub(super) fn backward(pool: &Pool, precision: Precision, s: Saved, dqkv: &mut [f32], d: AttentionDims) {
    let width = d.qkv_width();
    let to = Target::new(dqkv, width);
    let group = d.heads / d.kv_heads;
    pool.each(d.batch * d.kv_heads, |i| {
        let mut scratch = pool.scratch(scratch_len(d.tokens));
        let (batch, kv) = (i / d.kv_heads, i % d.kv_heads);
        for head in kv * group..(kv + 1) * group {
            let h = Head { qkv: s.qkv, d, batch, head };
            // SAFETY: the queries of these heads and the keys and values that they share are this task's alone.
            unsafe { backward_head((pool, precision), &h, &s, &mut scratch, to, head == kv * group) };
        }
    });
}

/// # Safety
/// No other thread touches this head's queries, keys and values in `dqkv`. `fresh`: the first head of its group, which
/// overwrites the keys' and values' gradients instead of adding to them.
unsafe fn backward_head(on: (&Pool, Precision), h: &Head, s: &Saved, scratch: &mut [f32], dqkv: Target, fresh: bool) {
    let d = &h.d;
    let [q, k, v] = h.columns();
    let width = d.qkv_width();
    let (p, dp) = scratch.split_at_mut(TILE * d.tokens);
    let start = h.row(0) * width;
    if fresh {
        for t in 0..d.tokens {
            for column in [k, v] {
                // SAFETY: keys' and values' gradients of this head's group, see above.
                unsafe { dqkv.at(start + t * width + column).zero(d.head_dim) };
            }
        }
    }
    for first in (0..d.tokens).step_by(TILE) {
        let rows = TILE.min(d.tokens - first);
        let seen = h.seen(first, rows);
        let (p, dp) = (&mut p[..rows * seen], &mut dp[..rows * seen]);
        let at = h.row(first) * d.out_width() + h.head * d.head_dim;
        let dout = View::strided(&s.dout[at..], rows, d.head_dim, d.out_width());
        // SAFETY: `p` and `dp` are this task's own scratch.
        unsafe {
            multiply(
                on,
                Target::new(p, seen),
                false,
                scale(d),
                h.view(q, first, rows),
                h.view(k, 0, seen).transposed(),
            );
            multiply(on, Target::new(dp, seen), false, 1.0, dout, h.view(v, 0, seen).transposed());
        }
        probabilities_and_gradients(h, s, first, seen, p, dp);
        let (pv, dpv) = (View::dense(p, rows, seen), View::dense(dp, rows, seen));
        // SAFETY: this head's queries, and its group's keys and values, are this task's own.
        unsafe {
            multiply(on, dqkv.at(start + v), true, 1.0, pv.transposed(), dout);
            multiply(on, dqkv.at(start + k), true, 1.0, dpv.transposed(), h.view(q, first, rows));
            multiply(on, dqkv.at(start + first * width + q), false, 1.0, dpv, h.view(k, 0, seen));
        }
    }
}

/// Turns scores into probabilities in `p`, and their gradients into those of the unscaled scores in `dp`.
fn probabilities_and_gradients(h: &Head, s: &Saved, first: usize, seen: usize, p: &mut [f32], dp: &mut [f32]) {
    let d = &h.d;
    let scale = scale(d);
    vectorised(
        #[inline(always)]
        || {
            for (i, (p, dp)) in p.chunks_exact_mut(seen).zip(dp.chunks_exact_mut(seen)).enumerate() {
                let r = h.row(first + i);
                let at = r * d.out_width() + h.head * d.head_dim;
                let mean = dot(&s.out[at..][..d.head_dim], &s.dout[at..][..d.head_dim]);
                let lse = s.lse[r * d.heads + h.head];
                let kept = h.seen_by(first + i).min(seen);
                for (p, dp) in p[..kept].iter_mut().zip(&mut dp[..kept]) {
                    *p = exp(*p - lse);
                    *dp = *p * (*dp - mean) * scale;
                }
                p[kept..].fill(0.0);
                dp[kept..].fill(0.0);
            }
        },
    );
}
