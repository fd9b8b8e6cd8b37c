//! Attention over whole sequences, fused: no T x T matrix is ever in memory, forward or backward.
//!
//! A strip of queries is worked on at a time, and everything is transposed: scores are `K Q^T`, one row a key and one column
//! a query of the strip. So the softmax runs along whole vectors, the probabilities already lie as a panel of the next
//! product, `V^T P^T`, and keys and values are packed once for all strips of their head. Keys that the mask hides from a whole
//! strip are not computed. Source of the recomputed probabilities in the backward pass: Dao et al. 2022, appendix B.

mod backward;
mod chunk;
mod latents;
mod softmax;
mod strip;

use super::super::backend::AttentionDims;
use super::math::soft_cap;
use super::pool::Pool;
use super::product::pack::Source;
use super::product::panels::{Panels, k_block, take};
use super::product::{Precision, Target};
pub(super) use backward::{SavedAttention, backward};
pub(super) use chunk::{Chunk, after_cache};
pub(super) use latents::{Latents, after_latents, latents_scratch_len};
use softmax::softmax;
use std::ops::Range;
use strip::{Cut, Destination, Left, multiply, pack_right, whole, write_rows};

/// One head of one sequence, by its place in the rows of queries, keys and values.
#[derive(Clone, Copy)]
struct Head<'a> {
    qkv: &'a [f32],
    /// Elements of a row of it.
    width: usize,
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
    /// Tokens from `first` as items, their dimensions as depth.
    fn tokens(&self, column: usize, first: usize) -> Source<'a> {
        let data = &self.qkv[self.row(first) * self.width + column..];
        Source { data, item_stride: self.width, depth_stride: 1 }
    }
    /// Dimensions as items, tokens from `first` as depth.
    fn dimensions(&self, column: usize, first: usize) -> Source<'a> {
        let s = self.tokens(column, first);
        Source { item_stride: 1, depth_stride: s.item_stride, ..s }
    }
    /// Its own keys and values, of all its tokens.
    fn own(&self) -> Context<'a> {
        let [_, k, v] = self.columns();
        Context { keys: self.tokens(k, 0), values: self.dimensions(v, 0), count: self.d.tokens, before: 0 }
    }
    /// Keys that the queries `first..first + rows` see together.
    fn seen(&self, first: usize, rows: usize) -> Range<usize> {
        self.d.seen(first).start..self.d.seen(first + rows - 1).end
    }
}

/// Keys (tokens as items) and values (dimensions as items) that a head's queries look at.
#[derive(Clone, Copy)]
struct Context<'a> {
    keys: Source<'a>,
    values: Source<'a>,
    count: usize,
    /// Of these, how many stand before the first query's own.
    before: usize,
}

/// What becomes of a head's scores before the softmax.
#[derive(Clone, Copy)]
struct Shaping {
    cap: Option<f32>,
    /// What a score gains with the key's position.
    slope: f32,
}

impl Shaping {
    fn of(h: &Head) -> Self {
        Self { cap: h.d.scores.soft_cap, slope: h.d.slope(h.head) }
    }

    /// A row of scores of one key.
    #[inline(always)]
    fn apply(self, key: usize, row: &mut [f32]) {
        if let Some(cap) = self.cap {
            soft_cap(row, cap);
        }
        if self.slope != 0.0 {
            let gain = self.slope * key as f32;
            row.iter_mut().for_each(|s| *s += gain);
        }
    }

    fn is_plain(self) -> bool {
        self.cap.is_none() && self.slope == 0.0
    }
}

/// Scores of a strip that begins with the query `first`: rows of keys, those before `from` not computed and not read.
#[derive(Clone, Copy)]
struct Strip {
    width: usize,
    first: usize,
    from: usize,
    past: usize,
    causal: bool,
    window: Option<usize>,
}

impl Strip {
    fn new(cut: &Cut, h: &Head, first: usize, rows: usize) -> Self {
        let Range { start, end } = h.seen(first, rows);
        // Whole k-blocks of the product with the values.
        let from = start - start % k_block(cut.precision);
        let AttentionDims { causal, scores, .. } = h.d;
        Self { width: cut.strip, first, from, past: end, causal, window: scores.window.filter(|_| causal) }
    }

    /// The rows in question.
    fn of<'b>(&self, scores: &'b mut [f32]) -> &'b mut [f32] {
        &mut scores[self.from * self.width..self.past * self.width]
    }

    /// Where whole tiles of scores go, rows before `from` left out as far as tiles allow.
    fn place(&self, cut: &Cut, scores: &mut [f32], factor: f32) -> Destination {
        let width = cut.by_key.1.width;
        let place = whole(scores, self.width, self.past.next_multiple_of(width), factor);
        Destination { skipped: self.from / width * width, ..place }
    }

    /// Sets what a query must not see: keys after its own, and those before its window. `scores` begin with the row `from`.
    #[inline(always)]
    fn hide(&self, scores: &mut [f32], value: f32) {
        if !self.causal {
            return;
        }
        let rows = || (self.from..).zip(0..self.past - self.from);
        for (key, row) in rows().filter(|(key, _)| *key > self.first) {
            let hidden = (key - self.first).min(self.width);
            scores[row * self.width..][..hidden].fill(value);
        }
        let Some(window) = self.window else { return };
        // The query i of the strip sees no key before first + i + 1 - window.
        for (key, row) in rows() {
            let past = (key + window).saturating_sub(self.first).min(self.width);
            scores[row * self.width..][past..self.width].fill(value);
        }
    }
}

/// Words of scratch that a thread needs, forward and backward.
pub(super) fn scratch_len(d: AttentionDims, training: bool) -> usize {
    let of = [Precision::F32, Precision::Bf16].map(|precision| Cut::new(precision, d));
    of.map(|cut| if training { cut.backward_len() } else { cut.forward_len() }).into_iter().max().unwrap_or(0)
}

pub(super) fn forward(
    pool: &Pool,
    precision: Precision,
    qkv: &[f32],
    out: &mut [f32],
    lse: &mut [f32],
    d: AttentionDims,
) {
    let cut = Cut::new(precision, d);
    let (to, lse) = (Target::new(out, d.out_width()), Target::new(lse, d.heads));
    // Where there are fewer heads than threads, several share one, and each packs its keys and values.
    let heads = d.batch * d.heads;
    let parts = (2 * pool.threads).div_ceil(heads).min(d.tokens.div_ceil(cut.strip)).max(1);
    pool.each_with(heads * parts, cut.forward_len(), |i, scratch| {
        let (h, part) = (i / parts, i % parts);
        let head = Head { qkv, width: d.qkv_width(), d, batch: h / d.heads, head: h % d.heads };
        // SAFETY: the strips of a part of a head of a sequence are one task's alone.
        unsafe { forward_head(&cut, &head, head.own(), (part, parts), scratch, to, lse) };
    });
}

/// # Safety
/// No other thread touches this part's strips of `out` and `lse`.
unsafe fn forward_head(
    cut: &Cut,
    h: &Head,
    context: Context,
    part: (usize, usize),
    mut rest: &mut [f32],
    out: Target,
    lse: Target,
) {
    let (d, p) = (&h.d, cut.precision);
    let [q, ..] = h.columns();
    let keys = take(&mut rest, cut.keys_len());
    let values = take(&mut rest, cut.dimensions_len());
    let queries = take(&mut rest, cut.strip_len());
    let scores = take(&mut rest, cut.scores_len());
    let output = take(&mut rest, cut.output_len());
    let by_query = take(&mut rest, cut.rows_len());
    let keys = Left::pack(keys, cut.by_key, context.count, d.head_dim, context.keys, p);
    let values = Left::pack(values, cut.by_dimension, d.head_dim, context.count, context.values, p);
    let strip = Panels::of(cut.strip, cut.strip);
    for first in (part.0 * cut.strip..d.tokens).step_by(cut.strip * part.1) {
        let rows = cut.strip.min(d.tokens - first);
        let s = Strip::new(cut, h, context.before + first, rows);
        pack_right(queries, strip, rows, d.head_dim, h.tokens(q, first), p);
        // SAFETY: the scratch is this task's; scores and output hold whole tiles.
        unsafe { multiply(keys, queries, strip, 0..d.head_dim, p, s.place(cut, scores, d.scale() as f32)) };
        let mut inverse = [0.0f32; 32];
        let sums = softmax(scores, s, Shaping::of(h), p, &mut inverse);
        for (i, log) in sums.iter().take(rows).enumerate() {
            // SAFETY: this strip's are this task's.
            unsafe { lse.at(h.row(first + i) * d.heads + h.head).write(*log) };
        }
        let whole_rows = cut.by_dimension.1.count * cut.by_dimension.1.width;
        // SAFETY: as above.
        unsafe { multiply(values, scores, strip, s.from..s.past, p, whole(output, cut.strip, whole_rows, 1.0)) };
        let at = |i: usize| out.at(h.row(first + i) * d.out_width() + h.head * d.head_dim);
        // SAFETY: these queries' outputs are this task's.
        unsafe { write_rows(cut, output, by_query, rows, at, &inverse) };
    }
}
