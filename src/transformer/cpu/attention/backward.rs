//! The gradient of attention, over the same strips.

use super::super::instructions::vectorised;
use super::super::math::exp;
use super::super::pool::Pool;
use super::super::product::pack::Source;
use super::super::product::panels::{Panels, take};
use super::super::product::{Precision, Target};
use super::softmax::{pair_up, round};
use super::strip::{Cut, Destination, Left, multiply, pack_right, whole, write_rows};
use super::{Head, Shaping, Strip};
use crate::transformer::backend::AttentionDims;

/// What the backward pass reads.
#[derive(Clone, Copy)]
pub(in crate::transformer::cpu) struct SavedAttention<'a> {
    pub qkv: &'a [f32],
    pub out: &'a [f32],
    pub dout: &'a [f32],
    pub lse: &'a [f32],
}

pub(in crate::transformer::cpu) fn backward(
    pool: &Pool,
    precision: Precision,
    s: SavedAttention,
    dqkv: &mut [f32],
    d: AttentionDims,
) {
    let cut = Cut::new(precision, d);
    let to = Target::new(dqkv, d.qkv_width());
    let group = d.heads / d.kv_heads;
    // Queries of a group add to the same keys and values: a group is one task.
    pool.each_with(d.batch * d.kv_heads, cut.backward_len(), |i, scratch| {
        let (batch, kv) = (i / d.kv_heads, i % d.kv_heads);
        for head in kv * group..(kv + 1) * group {
            let h = Head { qkv: s.qkv, width: d.qkv_width(), d, batch, head };
            // SAFETY: the queries of these heads and the keys and values that they share are this task's alone.
            unsafe { backward_head(&cut, &h, &s, scratch, to, head == kv * group) };
        }
    });
}

/// # Safety
/// No other thread touches this head's queries, keys and values in `dqkv`. `fresh`: the first head of its group, which
/// overwrites the keys' and values' gradients instead of adding to them.
unsafe fn backward_head(cut: &Cut, h: &Head, s: &SavedAttention, mut rest: &mut [f32], dqkv: Target, fresh: bool) {
    let (d, p) = (&cut.d, cut.precision);
    let [q, k, v] = h.columns();
    let width = d.qkv_width();
    let keys = take(&mut rest, cut.keys_len());
    let values = take(&mut rest, cut.keys_len());
    let transposed_keys = take(&mut rest, cut.dimensions_len());
    let keys = Left::pack(keys, cut.by_key, d.tokens, d.head_dim, h.tokens(k, 0), p);
    let values = Left::pack(values, cut.by_key, d.tokens, d.head_dim, h.tokens(v, 0), p);
    let transposed_keys = Left::pack(transposed_keys, cut.by_dimension, d.head_dim, d.tokens, h.dimensions(k, 0), p);
    let [queries, douts] = [(); 2].map(|()| take(&mut rest, cut.strip_len()));
    let [scores, slopes, paired] = [(); 3].map(|()| take(&mut rest, cut.scores_len()));
    let output = take(&mut rest, cut.output_len());
    let by_query = take(&mut rest, cut.rows_len());
    let [queries_across, douts_across] = [(); 2].map(|()| take(&mut rest, cut.across.len(cut.strip, p)));
    let transposed = take(&mut rest, cut.by_key.1.len(cut.strip, p));
    let strip = Panels::of(cut.strip, cut.strip);
    let start = h.row(0) * width;
    let (dkeys, dvalues) = (dqkv.at(start + k), dqkv.at(start + v));
    for first in (0..d.tokens).step_by(cut.strip) {
        let rows = cut.strip.min(d.tokens - first);
        let of = Strip::new(cut, h, first, rows);
        let at = h.row(first) * d.out_width() + h.head * d.head_dim;
        let dout = Source { data: &s.dout[at..], item_stride: d.out_width(), depth_stride: 1 };
        let dout_across = Source { item_stride: 1, depth_stride: d.out_width(), ..dout };
        pack_right(queries, strip, rows, d.head_dim, h.tokens(q, first), p);
        pack_right(douts, strip, rows, d.head_dim, dout, p);
        pack_right(queries_across, cut.across, d.head_dim, rows, h.dimensions(q, first), p);
        pack_right(douts_across, cut.across, d.head_dim, rows, dout_across, p);
        // SAFETY: the scratch is this task's; scores hold whole tiles.
        unsafe { multiply(keys, queries, strip, 0..d.head_dim, p, of.place(cut, scores, d.scale() as f32)) };
        // SAFETY: as above; slopes hold whole tiles.
        unsafe { multiply(values, douts, strip, 0..d.head_dim, p, of.place(cut, slopes, 1.0)) };
        probabilities_and_gradients(h, s, of, rows, scores, slopes);
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
            let data = &from[of.from * cut.strip..of.past * cut.strip];
            let source = Source { data, item_stride: cut.strip, depth_stride: 1 };
            let left = Left::pack(transposed, cut.by_key, of.past - of.from, rows, source, p);
            // SAFETY: this group's keys and values are this task's.
            unsafe { add_rows(left, right, cut, to, width, (of, written)) };
        }
        let right = match p {
            Precision::F32 => &*slopes,
            Precision::Rounded => {
                round(of.of(slopes));
                &*slopes
            }
            Precision::Bf16 => {
                of.of(paired).copy_from_slice(of.of(slopes));
                pair_up(paired, of);
                &*paired
            }
        };
        let whole_rows = cut.by_dimension.1.count * cut.by_dimension.1.width;
        // SAFETY: as above.
        unsafe {
            multiply(transposed_keys, right, strip, of.from..of.past, p, whole(output, cut.strip, whole_rows, 1.0))
        };
        let at = |i: usize| dqkv.at(start + (first + i) * width + q);
        // SAFETY: these queries' gradients are this task's.
        unsafe { write_rows(cut, output, by_query, rows, at, &[1.0; 32]) };
    }
}

/// Adds a product to the gradients of the strip's keys (or values); those from `written` on have no value yet.
///
/// # Safety
/// No other thread touches them.
unsafe fn add_rows(left: Left, right: &[f32], cut: &Cut, to: Target, stride: usize, (of, written): (Strip, usize)) {
    for row in written..of.past {
        // SAFETY: the caller's.
        unsafe { to.at(row * stride).zero(cut.d.head_dim) };
    }
    let (rows, columns) = (of.past - of.from, cut.d.head_dim);
    let start = to.at(of.from * stride).start();
    let place = Destination { start, stride, rows, skipped: 0, columns, factor: 1.0, add: true };
    // SAFETY: the caller's.
    unsafe { multiply(left, right, cut.across, 0..left.depth, cut.precision, place) };
}

/// Turns scores into probabilities, and their gradients into those of the unscaled scores.
fn probabilities_and_gradients(
    h: &Head,
    s: &SavedAttention,
    of: Strip,
    rows: usize,
    scores: &mut [f32],
    slopes: &mut [f32],
) {
    let d = &h.d;
    let (mut logs, mut means, mut caps) = ([f32::INFINITY; 32], [0.0f32; 32], [1.0f32; 32]);
    for i in 0..rows {
        let r = h.row(of.first + i);
        let at = r * d.out_width() + h.head * d.head_dim;
        let pairs = s.out[at..][..d.head_dim].iter().zip(&s.dout[at..]);
        logs[i] = s.lse[r * d.heads + h.head];
        means[i] = pairs.map(|(o, g)| o * g).sum();
    }
    let (scale, strip, shaping) = (d.scale() as f32, of.width, Shaping::of(h));
    vectorised(
        #[inline(always)]
        || {
            let (scores, slopes) = (of.of(scores), of.of(slopes));
            let rows = scores.chunks_exact_mut(strip).zip(slopes.chunks_exact_mut(strip));
            for (key, (p, dp)) in (of.from..).zip(rows) {
                if !shaping.is_plain() {
                    let (cap, uncapped) = (Shaping { slope: 0.0, ..shaping }, Shaping { cap: None, ..shaping });
                    cap.apply(key, p);
                    // The slope of the cap, by which the gradient will be multiplied.
                    if let Some(cap) = shaping.cap {
                        caps.iter_mut().zip(&*p).for_each(|(c, s)| *c = 1.0 - (s / cap) * (s / cap));
                    }
                    uncapped.apply(key, p);
                }
                for (((p, dp), log), mean) in p.iter_mut().zip(dp.iter_mut()).zip(&logs).zip(&means) {
                    // A query beyond the strip's end has no denominator and weighs nothing.
                    *p = if *log < f32::INFINITY { exp(*p - *log) } else { 0.0 };
                    *dp = *p * (*dp - *mean) * scale;
                }
                if shaping.cap.is_some() {
                    dp.iter_mut().zip(&caps).for_each(|(dp, c)| *dp *= c);
                }
            }
            of.hide(scores, 0.0);
            of.hide(slopes, 0.0);
        },
    );
}
