//! Operations as the parts of single families have them: norms of queries and keys, rotary positions on a part of a head, gains of
//! 1 + w, capped logits. Attention's are in `scores`.

use super::super::backend::{
    AttentionDims, Backend, Category, Frequencies, LinearDims, NormDims, OwnHeads, QkNormDims, Scores, Store, Stretch,
};
use super::super::error::SessionError;
use super::super::shape::{Rope, RopeScaling};
use super::Size;
use super::bounds::{FUNCTION, UNIT, sum};
use super::case::{Allowed, Case, Known, by, changed, given, result, room};
use super::{attention, losses, norms, tokens};
use Category::{Activations, Gradients, Statistics, Weights};
use std::ops::Range;

pub(super) const PLAIN: AttentionDims =
    AttentionDims { batch: 2, tokens: 65, heads: 4, kv_heads: 2, head_dim: 16, causal: true, scores: Scores::PLAIN };

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_context: 64,
        truncate: true,
        attention_factor: 1.2,
    };
    for (rotated, scaling) in [(6, None), (16, Some(yarn)), (8, Some(RopeScaling::Linear { factor: 3.0 }))] {
        let frequencies = Frequencies::new(&Rope { theta: 10_000.0, scaling }, rotated);
        for (first, inverse) in [(0, false), (4000, true)] {
            to.push(attention::rope_by(frequencies.clone(), PLAIN, first, inverse));
        }
    }
    for (n, c) in [(3, 17), (33, 100)] {
        let d = NormDims { n, c, eps: 1e-6, rms: true, gain_offset: 1.0 };
        to.extend([norms::norm(d), norms::backward(d)]);
    }
    // Of whole 16-byte accesses and of others.
    for (whole, gain_offset, head_dim) in
        [(false, 0.0, 16), (false, 1.0, 24), (false, 0.0, 10), (true, 0.0, 10), (true, 0.0, 128)]
    {
        let of = AttentionDims { head_dim, tokens: 40, ..PLAIN };
        let d = QkNormDims { of, whole, eps: 1e-6, gain_offset };
        to.extend([qk_norm(d, false), qk_norm_backward(d, false)]);
        if whole {
            to.extend([qk_norm(d, true), qk_norm_backward(d, true)]);
        }
    }
    if size == Size::Full {
        // Of real layers; more rows than run at once.
        let of = AttentionDims { batch: 1, tokens: 1025, heads: 32, kv_heads: 8, head_dim: 128, ..PLAIN };
        for whole in [false, true] {
            let d = QkNormDims { of, whole, eps: 1e-6, gain_offset: 0.0 };
            to.extend([qk_norm(d, false), qk_norm_backward(d, false)]);
        }
        to.push(losses::cross_entropy(LinearDims { n: 17, k: 64, m: 50_257 }, Some(1.5)));
    }
    to.extend([scale(333), soft_cap(333)]);
    let parts = [(1, 0..1, 0..1), (333, 0..333, 5..5), (40_007, 17..40_003, 0..300)];
    to.extend(parts.map(|(len, a, b)| squares(len, [a, b])));
    to.extend(
        [(1, 0, 0, 1), (101, 3, 16, 77), (40_009, 17, 0, 39_991)]
            .map(|(all, from, to, len)| put(all, Stretch { from, to, len })),
    );
    to.extend([(5, 16, 31), (600, 8, 100)].map(|(n, k, m)| losses::cross_entropy(LinearDims { n, k, m }, Some(1.5))));
    // So many words that the largest number of so many bits is a word's.
    to.push(tokens::embed_backward((65, 13, 256, 20), 2, Some(4)));
}

fn put<B: Backend + 'static>(len: usize, stretch: Stretch) -> Case<B> {
    let slots = vec![
        given(len, Gradients),
        changed("put", len, Gradients, Allowed::Exactly),
        changed("put", len, Gradients, Allowed::Sum(1)),
        changed("put", len, Weights, Allowed::Exactly),
    ];
    let text = format!("{} from {} to {} of {len}", stretch.len, stretch.from, stretch.to);
    Case::new("put", text, len, slots, move |on: &B, b| {
        if let [from, over, onto, parameter] = b {
            on.put(from, over, stretch, Store::Overwrite);
            on.put(from, onto, stretch, Store::Accumulate);
            on.put(from, parameter, stretch, Store::Overwrite);
        }
        Ok(())
    })
}

/// Of two buffers of one length together.
fn squares<B: Backend + 'static>(len: usize, parts: [Range<usize>; 2]) -> Case<B> {
    let of = by(|b: &Known<'_>| b.after[2].iter().map(|x| 4.0 * UNIT * f64::from(*x)).collect());
    let slots = vec![given(len, Gradients), given(len, Gradients), result("squares", 1, Statistics, of)];
    let text = parts.clone().map(|part| format!("{} to {}", part.start, part.end)).join(" and ");
    Case::new("squares", format!("{text} of {len}"), len, slots, move |on: &B, b| {
        if let [x, y, to] = b {
            let [a, b] = parts.clone();
            on.squares(&[(&*x, a), (&*y, b)], to);
        }
        Ok(())
    })
}

fn text(d: QkNormDims, split: bool) -> String {
    let gain = if d.gain_offset == 0.0 { String::new() } else { format!(" by {} + w", d.gain_offset) };
    let ranks = if split { " of two ranks" } else { "" };
    format!("{} of {}{ranks}{gain}", attention::text(d.of), if d.whole { "all heads" } else { "each head" })
}

/// For each element of queries and keys, its row's and its own place, the stretch that it is of, and its place in the gain.
fn places(d: QkNormDims) -> impl Iterator<Item = (usize, usize, usize, (usize, usize, bool))> {
    let stretches: Vec<(usize, (usize, usize, bool))> = d.stretches().enumerate().collect();
    (0..d.of.rows()).flat_map(move |r| {
        let of_stretch = move |(i, s): (usize, (usize, usize, bool))| (0..s.1).map(move |j| (r, i, j, s));
        stretches.clone().into_iter().flat_map(of_stretch)
    })
}

/// A mean square is off by its sum, its root by half of that; the result by that and its own roundings.
fn of_root(len: usize) -> f64 {
    sum(len) / 2.0 + 8.0 * UNIT
}

/// Of the statistics, the fifth buffer.
fn of_statistics(d: QkNormDims) -> Allowed {
    by(move |b: &Known<'_>| {
        let mut off = vec![0.0; d.of.rows() * d.count()];
        for (r, i, _, (_, len, _)) in places(d) {
            let at = r * d.count() + i;
            off[at] = f64::from(b.after[4][at]) * of_root(len);
        }
        off
    })
}

/// What it comes to on one rank, or where another one has the same heads.
fn among<B: Backend + 'static>(
    on: &B,
    d: QkNormDims,
    split: bool,
    run: impl FnOnce(Option<OwnHeads<'_, B::Buffer>>),
) -> Result<(), SessionError> {
    if !split {
        run(None);
        return Ok(());
    }
    let mut sums = on.alloc(2 * d.of.rows(), Statistics)?;
    let over_sums = |sums: &mut B::Buffer| on.scale(sums, 2 * d.of.rows(), 2.0);
    run(Some(OwnHeads { ranks: 2, sums: &mut sums, over_sums: &over_sums }));
    Ok(())
}

fn qk_norm<B: Backend + 'static>(d: QkNormDims, split: bool) -> Case<B> {
    let (rows, row, width) = (d.of.rows(), d.of.qkv_width(), d.width());
    let of_result = by(move |b: &Known<'_>| {
        let mut off = vec![0.0; rows * row];
        for (r, _, j, (at, len, _)) in places(d) {
            let i = r * row + at + j;
            off[i] = f64::from(b.after[0][i].abs()) * of_root(len);
        }
        off
    });
    let [q, k] = d.gains();
    let slots = vec![
        changed("qk_norm", rows * row, Activations, of_result),
        given(q, Weights),
        given(k, Weights),
        result("qk_norm", rows * width, Activations, Allowed::Exactly),
        result("qk_norm", rows * d.count(), Statistics, of_statistics(d)),
    ];
    Case::new("qk_norm", text(d, split), rows * row, slots, move |on: &B, b| {
        let [qkv, q, k, x, stats] = b else { return Ok(()) };
        among(on, d, split, |own| on.qk_norm(qkv, [q, k], Some((x, stats)), d, own))
    })
}

/// Of the norm's own statistics.
fn qk_norm_backward<B: Backend + 'static>(d: QkNormDims, split: bool) -> Case<B> {
    let (rows, row, width, count) = (d.of.rows(), d.of.qkv_width(), d.width(), d.count());
    // x hat, 1 / root, gain and gradient of an element, from the buffers after and before.
    let element = move |b: &Known<'_>, (r, i, j, (at, _, of_keys)): (usize, usize, usize, (usize, usize, bool))| {
        let rstd = f64::from(b.after[4][r * count + i]);
        let hat = f64::from(b.after[3][r * width + at + j].abs()) * rstd;
        let gain = f64::from(b.before[1 + usize::from(of_keys)][j]) + f64::from(d.gain_offset);
        (hat, rstd, gain.abs(), f64::from(b.before[5][r * row + at + j].abs()))
    };
    let of_x = by(move |b: &Known<'_>| {
        let mut along = vec![0.0; rows * count];
        for place in places(d) {
            let (hat, _, gain, g) = element(b, place);
            along[place.0 * count + place.1] += hat * gain * g / place.3.1 as f64;
        }
        let mut off = vec![0.0; rows * row];
        for place @ (r, i, j, (at, len, _)) in places(d) {
            let (hat, rstd, gain, g) = element(b, place);
            let relative = of_root(len) + sum(len);
            off[r * row + at + j] = rstd * relative * 3.0 * (g * gain + hat * along[r * count + i]);
        }
        off
    });
    let of_gain = move |keys: bool| {
        by(move |b: &Known<'_>| {
            let mut off = vec![0.0; d.gains()[usize::from(keys)]];
            for place in places(d).filter(|(.., (_, _, of_keys))| *of_keys == keys) {
                let (hat, _, _, g) = element(b, place);
                off[place.2] += (sum(rows * d.of.heads) + of_root(place.3.1)) * hat * g;
            }
            off
        })
    };
    let [q, k] = d.gains();
    let slots = vec![
        given(rows * row, Activations),
        given(q, Weights),
        given(k, Weights),
        result("qk_norm", rows * width, Activations, Allowed::Exactly),
        result("qk_norm", rows * count, Statistics, of_statistics(d)),
        changed("qk_norm_backward", rows * row, Activations, of_x),
        result("qk_norm_backward", q, Gradients, of_gain(false)),
        result("qk_norm_backward", k, Gradients, of_gain(true)),
        room(rows * row, Activations),
    ];
    Case::new("qk_norm_backward", text(d, split), rows * row, slots, move |on: &B, b| {
        let [given, q, k, x, stats, dqkv, dq, dk, qkv] = b else { return Ok(()) };
        on.copy(given, qkv, rows * row);
        on.qk_norm(qkv, [q, k], Some((x, stats)), d, None);
        among(on, d, split, |own| on.qk_norm_backward(x, [q, k], stats, dqkv, [dq, dk], d, own))
    })
}

fn scale<B: Backend + 'static>(len: usize) -> Case<B> {
    let slots = vec![changed("scale", len, Activations, Allowed::Sum(1))];
    Case::new("scale", format!("{len} elements"), len, slots, move |on: &B, b| {
        if let [x] = b {
            on.scale(x, len, 6.9);
        }
        Ok(())
    })
}

fn soft_cap<B: Backend + 'static>(len: usize) -> Case<B> {
    // Of the cap: near zero the function is off by as much as elsewhere.
    let off = by(move |_: &Known<'_>| vec![FUNCTION * 0.7; len]);
    let slots = vec![changed("soft_cap", len, Statistics, off)];
    Case::new("soft_cap", format!("{len} elements"), len, slots, move |on: &B, b| {
        if let [x] = b {
            on.soft_cap(x, len, 0.7);
        }
        Ok(())
    })
}
