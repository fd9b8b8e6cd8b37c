//! Attention over whole sequences, fused: no T x T matrix is ever in memory, forward or backward.
//!
//! A strip of queries is worked on at a time, and everything is turned round: scores are `K Q^T`, one row a key and one column
//! a query of the strip. So the softmax runs along whole vectors, the probabilities already lie as a panel of the next
//! product, `V^T P^T`, and keys and values are packed once for all strips of their head. Keys that the mask hides from a whole
//! strip are not computed. Source of the recomputed probabilities in the backward pass: Dao et al. 2022, appendix B.

use super::super::backend::AttentionDims;
use super::instructions::{Instructions, vectorised};
use super::math::exp;
use super::pool::Pool;
use super::product::kernel::{Kernel, Tile};
use super::product::pack::{Source, Stretch, elements, pack};
use super::product::panels::{Depth, Panels, depths, pack_all};
use super::product::{Precision, Target};
use std::ptr::null;

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
    /// Tokens from `first` as items, their dimensions as depth.
    fn tokens(&self, column: usize, first: usize) -> Source<'a> {
        let width = self.d.qkv_width();
        Source { data: &self.qkv[self.row(first) * width + column..], item_stride: width, depth_stride: 1 }
    }
    /// Dimensions as items, tokens from `first` as depth.
    fn dimensions(&self, column: usize, first: usize) -> Source<'a> {
        let s = self.tokens(column, first);
        Source { item_stride: 1, depth_stride: s.item_stride, ..s }
    }
    /// Keys that the queries `first..first + rows` see together.
    fn seen(&self, first: usize, rows: usize) -> usize {
        if self.d.causal { first + rows } else { self.d.tokens }
    }
}

fn scale(d: &AttentionDims) -> f32 {
    1.0 / (d.head_dim as f32).sqrt()
}

/// How the operands of one call are cut up.
#[derive(Clone, Copy)]
struct Cut {
    precision: Precision,
    d: AttentionDims,
    /// Queries of a strip: the kernel's columns.
    strip: usize,
    /// Keys as rows of a result.
    by_key: (Kernel, Panels),
    /// Dimensions as rows of a result.
    by_dimension: (Kernel, Panels),
    /// Dimensions as columns of a result.
    across: Panels,
}

impl Cut {
    fn new(precision: Precision, d: AttentionDims) -> Self {
        let taken = Instructions::taken();
        let strip = Kernel::columns_of(taken);
        let of = |rows: usize| {
            let kernel = Kernel::of(taken, precision, rows);
            (kernel, Panels::of(rows, kernel.rows))
        };
        let across = Panels::of(d.head_dim, strip);
        Self { precision, d, strip, by_key: of(d.tokens), by_dimension: of(d.head_dim), across }
    }
    /// Words of one operand in panels.
    fn keys_len(&self) -> usize {
        self.by_key.1.len(self.d.head_dim, self.precision)
    }
    fn dimensions_len(&self) -> usize {
        self.by_dimension.1.len(self.d.tokens, self.precision)
    }
    fn strip_len(&self) -> usize {
        self.strip * elements(self.d.head_dim, self.precision)
    }
    /// Rows of scores, whole tiles, and one more to make pairs.
    fn scores_len(&self) -> usize {
        (self.by_key.1.count * self.by_key.1.width + 1) * self.strip
    }
    fn output_len(&self) -> usize {
        self.by_dimension.1.count * self.by_dimension.1.width * self.strip
    }
    /// A strip's result, a row a query.
    fn rows_len(&self) -> usize {
        self.strip * self.d.head_dim
    }
    fn forward_len(&self) -> usize {
        let result = self.output_len() + self.rows_len();
        self.keys_len() + self.dimensions_len() + self.strip_len() + self.scores_len() + result
    }
    fn backward_len(&self) -> usize {
        let across = 2 * self.across.len(self.strip, self.precision);
        let turned = self.by_key.1.len(self.strip, self.precision);
        2 * self.keys_len()
            + self.dimensions_len()
            + 2 * self.strip_len()
            + 3 * self.scores_len()
            + self.output_len()
            + self.rows_len()
            + across
            + turned
    }
}

/// Numbers of scratch that a thread needs, forward and backward.
pub(super) fn scratch_len(d: AttentionDims, training: bool) -> usize {
    // The wider format, and every instruction path's panels, are within it.
    let cut = Cut::new(Precision::F32, d);
    if training { cut.backward_len() } else { cut.forward_len() }
}

/// Takes the next `len` numbers off.
fn take<'b>(rest: &mut &'b mut [f32], len: usize) -> &'b mut [f32] {
    let (taken, after) = std::mem::take(rest).split_at_mut(len);
    *rest = after;
    taken
}

/// A left operand in panels.
#[derive(Clone, Copy)]
struct Left<'a> {
    words: &'a [f32],
    of: (Kernel, Panels),
    /// Numbers along the inner dimension that the panels were packed for.
    depth: usize,
}

/// Where a product goes: rows `stride` apart.
#[derive(Clone, Copy)]
struct Place {
    start: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    factor: f32,
    add: bool,
}

/// `to (+)= factor * left right` over the first `depth` numbers of the inner dimension.
///
/// # Safety
/// No other thread touches the place; it holds whole tiles where its rows or columns say so.
unsafe fn multiply(left: Left, right: &[f32], across: Panels, depth: usize, precision: Precision, to: Place) {
    let (kernel, panels) = left.of;
    let all: Vec<Depth> = depths(left.depth, precision).take_while(|d| d.first < depth).collect();
    for panel in 0..to.rows.div_ceil(panels.width) {
        for column in 0..across.count {
            for d in &all {
                let numbers = d.numbers.min(depth - d.first);
                let a = left.words[panels.at(*d, panel)..].as_ptr();
                let b = right[across.width * (d.before * across.count + column * d.elements)..].as_ptr();
                let (row, at) = (panel * panels.width, column * across.width);
                // SAFETY: within the place, which is the caller's alone; the panels hold so many elements.
                unsafe {
                    let start = to.start.add(row * to.stride + at);
                    let base = if to.add || d.first > 0 { start.cast_const() } else { null() };
                    let tile = Tile {
                        start,
                        stride: to.stride,
                        rows: panels.width.min(to.rows - row),
                        columns: across.width.min(to.columns - at),
                        factor: to.factor,
                        base,
                        base_stride: to.stride,
                    };
                    kernel.multiply(elements(numbers, precision), a, b, tile);
                }
            }
        }
    }
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
    pool.each(heads * parts, |i| {
        let mut scratch = pool.scratch(cut.forward_len());
        let (h, part) = (i / parts, i % parts);
        let head = Head { qkv, d, batch: h / d.heads, head: h % d.heads };
        // SAFETY: the strips of a part of a head of a sequence are one task's alone.
        unsafe { forward_head(&cut, &head, (part, parts), &mut scratch, to, lse) };
    });
}

/// # Safety
/// No other thread touches this part's strips of `out` and `lse`.
unsafe fn forward_head(cut: &Cut, h: &Head, part: (usize, usize), mut rest: &mut [f32], out: Target, lse: Target) {
    let (d, p) = (&cut.d, cut.precision);
    let [q, k, v] = h.columns();
    let keys = take(&mut rest, cut.keys_len());
    let values = take(&mut rest, cut.dimensions_len());
    let queries = take(&mut rest, cut.strip_len());
    let scores = take(&mut rest, cut.scores_len());
    let output = take(&mut rest, cut.output_len());
    let by_query = take(&mut rest, cut.rows_len());
    pack_all(keys, cut.by_key.1, d.tokens, d.head_dim, h.tokens(k, 0), p);
    pack_all(values, cut.by_dimension.1, d.head_dim, d.tokens, h.dimensions(v, 0), p);
    let (keys, values) = (
        Left { words: keys, of: cut.by_key, depth: d.head_dim },
        Left { words: values, of: cut.by_dimension, depth: d.tokens },
    );
    let strip = Panels::of(cut.strip, cut.strip);
    for first in (part.0 * cut.strip..d.tokens).step_by(cut.strip * part.1) {
        let rows = cut.strip.min(d.tokens - first);
        let seen = h.seen(first, rows);
        pack_all(queries, strip, rows, d.head_dim, h.tokens(q, first), p);
        // SAFETY: the scratch is this task's; scores and output hold whole tiles.
        unsafe {
            multiply(
                keys,
                queries,
                strip,
                d.head_dim,
                p,
                whole(scores, cut.strip, seen.next_multiple_of(cut.by_key.1.width), scale(d)),
            );
        }
        let mut inverse = [0.0f32; 32];
        let sums = softmax(scores, cut.strip, first, seen, d.causal, &mut inverse);
        for (i, log) in sums.iter().take(rows).enumerate() {
            // SAFETY: this strip's are this task's.
            unsafe { lse.at(h.row(first + i) * d.heads + h.head).write(*log) };
        }
        if p == Precision::Bf16 {
            pair_up(scores, cut.strip, seen);
        }
        let whole_rows = cut.by_dimension.1.count * cut.by_dimension.1.width;
        // SAFETY: as above.
        unsafe { multiply(values, scores, strip, seen, p, whole(output, cut.strip, whole_rows, 1.0)) };
        let at = |i: usize| out.at(h.row(first + i) * d.out_width() + h.head * d.head_dim);
        // SAFETY: these queries' outputs are this task's.
        unsafe { write_rows(cut, output, by_query, rows, at, &inverse) };
    }
}

/// Writes a result `[dimensions, strip]` as a row for each query, times its factor.
///
/// # Safety
/// No other thread touches these rows.
unsafe fn write_rows(
    cut: &Cut,
    output: &[f32],
    by_query: &mut [f32],
    rows: usize,
    at: impl Fn(usize) -> Target,
    factors: &[f32; 32],
) {
    let dim = cut.d.head_dim;
    let source = Source { data: output, item_stride: cut.strip, depth_stride: 1 };
    let all = Stretch { first_item: 0, items: dim, first_depth: 0, depth: rows };
    pack(by_query, dim, source, all, Precision::F32);
    vectorised(
        #[inline(always)]
        || {
            for (i, row) in by_query.chunks_exact(dim).take(rows).enumerate() {
                // SAFETY: the caller's.
                unsafe { at(i).write_scaled(row, factors[i]) };
            }
        },
    );
}

/// A scratch buffer of whole tiles as the place of a product.
fn whole(to: &mut [f32], stride: usize, rows: usize, factor: f32) -> Place {
    assert!(rows * stride <= to.len(), "a product beyond its scratch");
    Place { start: to.as_mut_ptr(), stride, rows, columns: stride, factor, add: false }
}

/// Turns scores `[keys, strip]` into e^(score - max) a query, and gives the logs of the denominators; `inverse` takes
/// 1 / denominator. Keys that a query does not see weigh nothing.
fn softmax(
    scores: &mut [f32],
    strip: usize,
    first: usize,
    seen: usize,
    causal: bool,
    inverse: &mut [f32; 32],
) -> [f32; 32] {
    let mut logs = [0.0f32; 32];
    vectorised(
        #[inline(always)]
        || {
            let scores = &mut scores[..seen * strip];
            if causal {
                hide(scores, strip, first, -1e30);
            }
            // Whole registers, whatever the strip's width.
            for at in (0..strip).step_by(16) {
                let mut most = [f32::NEG_INFINITY; 16];
                for row in scores.chunks_exact(strip) {
                    for (m, s) in most.iter_mut().zip(&row[at..at + 16]) {
                        *m = if *s > *m { *s } else { *m };
                    }
                }
                let mut total = [0.0f32; 16];
                for row in scores.chunks_exact_mut(strip) {
                    for ((s, m), t) in row[at..at + 16].iter_mut().zip(&most).zip(&mut total) {
                        *s = exp(*s - *m);
                        *t += *s;
                    }
                }
                for i in 0..16 {
                    inverse[at + i] = 1.0 / total[i];
                    logs[at + i] = most[i] + total[i].ln();
                }
            }
        },
    );
    logs
}

/// Sets what a query must not see: keys after its own.
#[inline(always)]
fn hide(scores: &mut [f32], strip: usize, first: usize, value: f32) {
    for (key, row) in scores.chunks_exact_mut(strip).enumerate().skip(first + 1) {
        let hidden = (key - first).min(strip);
        row[..hidden].fill(value);
    }
}

/// Makes pairs of bf16 of neighbouring keys, in place: row e takes rows 2 e and 2 e + 1.
fn pair_up(scores: &mut [f32], strip: usize, seen: usize) {
    vectorised(
        #[inline(always)]
        || {
            if !seen.is_multiple_of(2) {
                scores[seen * strip..(seen + 1) * strip].fill(0.0);
            }
            for e in 0..seen.div_ceil(2) {
                for i in 0..strip {
                    let (low, high) = (scores[2 * e * strip + i], scores[(2 * e + 1) * strip + i]);
                    scores[e * strip + i] = f32::from_bits(round(low) >> 16 | round(high) & 0xffff_0000);
                }
            }
        },
    );
}

/// The bits of a number rounded to bf16 (to nearest, ties to even) in their upper half. For finite numbers.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1))
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
    let cut = Cut::new(precision, d);
    let to = Target::new(dqkv, d.qkv_width());
    let group = d.heads / d.kv_heads;
    // Queries of a group add to the same keys and values: a group is one task.
    pool.each(d.batch * d.kv_heads, |i| {
        let mut scratch = pool.scratch(cut.backward_len());
        let (batch, kv) = (i / d.kv_heads, i % d.kv_heads);
        for head in kv * group..(kv + 1) * group {
            let h = Head { qkv: s.qkv, d, batch, head };
            // SAFETY: the queries of these heads and the keys and values that they share are this task's alone.
            unsafe { backward_head(&cut, &h, &s, &mut scratch, to, head == kv * group) };
        }
    });
}

/// # Safety
/// No other thread touches this head's queries, keys and values in `dqkv`. `fresh`: the first head of its group, which
/// overwrites the keys' and values' gradients instead of adding to them.
unsafe fn backward_head(cut: &Cut, h: &Head, s: &Saved, mut rest: &mut [f32], dqkv: Target, fresh: bool) {
    let (d, p) = (&cut.d, cut.precision);
    let [q, k, v] = h.columns();
    let width = d.qkv_width();
    let keys = take(&mut rest, cut.keys_len());
    let values = take(&mut rest, cut.keys_len());
    let turned_keys = take(&mut rest, cut.dimensions_len());
    pack_all(keys, cut.by_key.1, d.tokens, d.head_dim, h.tokens(k, 0), p);
    pack_all(values, cut.by_key.1, d.tokens, d.head_dim, h.tokens(v, 0), p);
    pack_all(turned_keys, cut.by_dimension.1, d.head_dim, d.tokens, h.dimensions(k, 0), p);
    let by_key = |words| Left { words, of: cut.by_key, depth: d.head_dim };
    let (keys, values) = (by_key(&*keys), by_key(&*values));
    let turned_keys = Left { words: turned_keys, of: cut.by_dimension, depth: d.tokens };
    let [queries, douts] = [(); 2].map(|()| take(&mut rest, cut.strip_len()));
    let [scores, slopes, paired] = [(); 3].map(|()| take(&mut rest, cut.scores_len()));
    let output = take(&mut rest, cut.output_len());
    let by_query = take(&mut rest, cut.rows_len());
    let [queries_across, douts_across] = [(); 2].map(|()| take(&mut rest, cut.across.len(cut.strip, p)));
    let turned = take(&mut rest, cut.by_key.1.len(cut.strip, p));
    let strip = Panels::of(cut.strip, cut.strip);
    let start = h.row(0) * width;
    let (dkeys, dvalues) = (dqkv.at(start + k), dqkv.at(start + v));
    for first in (0..d.tokens).step_by(cut.strip) {
        let rows = cut.strip.min(d.tokens - first);
        let seen = h.seen(first, rows);
        let at = h.row(first) * d.out_width() + h.head * d.head_dim;
        let dout = Source { data: &s.dout[at..], item_stride: d.out_width(), depth_stride: 1 };
        let dout_across = Source { item_stride: 1, depth_stride: d.out_width(), ..dout };
        pack_all(queries, strip, rows, d.head_dim, h.tokens(q, first), p);
        pack_all(douts, strip, rows, d.head_dim, dout, p);
        pack_all(queries_across, cut.across, d.head_dim, rows, h.dimensions(q, first), p);
        pack_all(douts_across, cut.across, d.head_dim, rows, dout_across, p);
        let key_rows = seen.next_multiple_of(cut.by_key.1.width);
        // SAFETY: the scratch is this task's; scores and slopes hold whole tiles.
        unsafe {
            multiply(keys, queries, strip, d.head_dim, p, whole(scores, cut.strip, key_rows, scale(d)));
            multiply(values, douts, strip, d.head_dim, p, whole(slopes, cut.strip, key_rows, 1.0));
        }
        probabilities_and_gradients(h, s, cut.strip, (first, rows), seen, scores, slopes);
        // A causal strip is the first to write the keys at its own place; without a mask the first strip writes all.
        let written = if !fresh {
            d.tokens
        } else if d.causal {
            first
        } else if first > 0 {
            d.tokens
        } else {
            0
        };
        for (from, right, to) in [(&*scores, &*douts_across, dvalues), (&*slopes, &*queries_across, dkeys)] {
            let source = Source { data: &from[..seen * cut.strip], item_stride: cut.strip, depth_stride: 1 };
            pack_all(turned, cut.by_key.1, seen, rows, source, p);
            let left = Left { words: turned, of: cut.by_key, depth: rows };
            // SAFETY: this group's keys and values are this task's.
            unsafe { add_rows(left, right, cut, rows, to, width, (seen, written)) };
        }
        let right = match p {
            Precision::F32 => &*slopes,
            Precision::Bf16 => {
                paired[..(seen) * cut.strip].copy_from_slice(&slopes[..seen * cut.strip]);
                pair_up(paired, cut.strip, seen);
                &*paired
            }
        };
        let whole_rows = cut.by_dimension.1.count * cut.by_dimension.1.width;
        // SAFETY: as above.
        unsafe { multiply(turned_keys, right, strip, seen, p, whole(output, cut.strip, whole_rows, 1.0)) };
        let at = |i: usize| dqkv.at(start + (first + i) * width + q);
        // SAFETY: these queries' gradients are this task's.
        unsafe { write_rows(cut, output, by_query, rows, at, &[1.0; 32]) };
    }
}

/// Adds a product to the gradients of the keys (or values) `0..seen`; those from `written` on have no value yet.
///
/// # Safety
/// No other thread touches them.
unsafe fn add_rows(
    left: Left,
    right: &[f32],
    cut: &Cut,
    depth: usize,
    to: Target,
    stride: usize,
    (seen, written): (usize, usize),
) {
    for row in written..seen {
        // SAFETY: the caller's.
        unsafe { to.at(row * stride).zero(cut.d.head_dim) };
    }
    let place = Place { start: to.start(), stride, rows: seen, columns: cut.d.head_dim, factor: 1.0, add: true };
    // SAFETY: the caller's.
    unsafe { multiply(left, right, cut.across, depth, cut.precision, place) };
}

/// Turns scores into probabilities, and their gradients into those of the unscaled scores.
fn probabilities_and_gradients(
    h: &Head,
    s: &Saved,
    strip: usize,
    (first, rows): (usize, usize),
    seen: usize,
    scores: &mut [f32],
    slopes: &mut [f32],
) {
    let d = &h.d;
    let (mut logs, mut means) = ([f32::INFINITY; 32], [0.0f32; 32]);
    for i in 0..rows {
        let r = h.row(first + i);
        let at = r * d.out_width() + h.head * d.head_dim;
        let pairs = s.out[at..][..d.head_dim].iter().zip(&s.dout[at..]);
        logs[i] = s.lse[r * d.heads + h.head];
        means[i] = pairs.map(|(o, g)| o * g).sum();
    }
    let scale = scale(d);
    vectorised(
        #[inline(always)]
        || {
            let (scores, slopes) = (&mut scores[..seen * strip], &mut slopes[..seen * strip]);
            for (p, dp) in scores.chunks_exact_mut(strip).zip(slopes.chunks_exact_mut(strip)) {
                for (((p, dp), log), mean) in p.iter_mut().zip(dp.iter_mut()).zip(&logs).zip(&means) {
                    // A query beyond the strip's end has no denominator and weighs nothing.
                    *p = if *log < f32::INFINITY { exp(*p - *log) } else { 0.0 };
                    *dp = *p * (*dp - *mean) * scale;
                }
            }
            if d.causal {
                hide(scores, strip, first, 0.0);
                hide(slopes, strip, first, 0.0);
            }
        },
    );
}
