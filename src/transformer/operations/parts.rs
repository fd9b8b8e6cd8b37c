//! Operations as the parts of single families have them: attention's windows, caps and slopes, norms of queries and keys, rotary
//! positions on a part of a head, gains of 1 + w, capped logits.

use super::super::backend::{
    Alloc, AttentionDims, Backend, CacheDims, Category, Frequencies, LinearDims, NormDims, QkNormDims, Scores,
};
use super::super::cpu::naive::Naive;
use super::super::shape::{Rope, RopeScaling};
use super::Size;
use super::bounds::{FUNCTION, UNIT, sum};
use super::case::{Allowed, Case, Known, by, changed, given, result, room};
use super::{attention, attention_bounds, decode, losses, norms, tokens};
use Category::{Activations, Gradients, KvCache, Statistics, Weights};

const PLAIN: AttentionDims =
    AttentionDims { batch: 2, tokens: 65, heads: 4, kv_heads: 2, head_dim: 16, causal: true, scores: Scores::PLAIN };

/// Attention by other scores than most models have, and of prompts in stretches.
pub(super) fn scores<B: Backend + 'static>(to: &mut Vec<Case<B>>) {
    let scores = [
        Scores { window: Some(1), ..Scores::PLAIN },
        Scores { window: Some(17), ..Scores::PLAIN },
        Scores { window: Some(64), scale: Some(0.3), ..Scores::PLAIN },
        Scores { soft_cap: Some(2.0), ..Scores::PLAIN },
        Scores { soft_cap: Some(1.5), window: Some(7), scale: Some(0.5), ..Scores::PLAIN },
        Scores { alibi: true, ..Scores::PLAIN },
    ];
    for scores in scores {
        // Twelve heads have slopes of two series.
        for (tokens, heads, head_dim) in [(1, 4, 8), (65, 4, 16), (130, 12, 64)] {
            let d = AttentionDims { tokens, heads, head_dim, scores, ..PLAIN };
            to.extend([attention::attention(d), decode::cached(d)]);
            to.extend([after_cache(d, 1), after_cache(d, 40)]);
        }
    }
    // So long that whole stretches of keys are before every window of a strip, in both formats.
    for window in [33, 300] {
        let scores = Scores { window: Some(window), ..Scores::PLAIN };
        let d = AttentionDims { batch: 1, tokens: 1100, heads: 2, kv_heads: 1, scores, ..PLAIN };
        to.extend([attention::attention(d), decode::cached(d), after_cache(d, 700)]);
    }
    to.extend([after_cache(PLAIN, 3), after_cache(AttentionDims { tokens: 33, heads: 2, kv_heads: 1, ..PLAIN }, 600)]);
}

/// The others.
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
        to.extend([qk_norm(d), qk_norm_backward(d)]);
    }
    if size == Size::Full {
        // Of real layers; more rows than run at once.
        let of = AttentionDims { batch: 1, tokens: 1025, heads: 32, kv_heads: 8, head_dim: 128, ..PLAIN };
        for whole in [false, true] {
            let d = QkNormDims { of, whole, eps: 1e-6, gain_offset: 0.0 };
            to.extend([qk_norm(d), qk_norm_backward(d)]);
        }
        to.push(losses::cross_entropy(LinearDims { n: 17, k: 64, m: 50_257 }, Some(1.5)));
    }
    to.extend([scale(333), soft_cap(333)]);
    to.extend([(5, 16, 31), (600, 8, 100)].map(|(n, k, m)| losses::cross_entropy(LinearDims { n, k, m }, Some(1.5))));
    // So many words that the largest number of so many bits is a word's.
    to.push(tokens::embed_backward((65, 13, 256, 20), 2, Some(4)));
}

/// A prompt of `before` tokens is in the cache, which holds a window's where there is one; `d.tokens` more come after it.
fn after_cache<B: Backend + 'static>(d: AttentionDims, before: usize) -> Case<B> {
    let AttentionDims { batch, tokens, kv_heads, head_dim, .. } = d;
    let (width, out_width) = (d.qkv_width(), d.out_width());
    let (first, whole) = (AttentionDims { tokens: before, ..d }, AttentionDims { tokens: before + tokens, ..d });
    // As if all of it were one prompt.
    let off = by(move |b: &Known<'_>| {
        let rows = |from: &[f32], len: usize, s: usize| from[s * len * width..(s + 1) * len * width].to_vec();
        let all = (0..batch).flat_map(|s| [rows(&b.before[0], before, s), rows(&b.before[1], tokens, s)].concat());
        let qkv: Vec<f32> = all.collect();
        let (n, mut made) = (whole.rows(), Vec::new());
        for len in [qkv.len(), n * out_width, n * d.heads] {
            made.push(Naive.alloc(len, Activations));
        }
        let [Ok(mut of), Ok(mut out), Ok(mut lse)] =
            made.try_into().unwrap_or_else(|_| [(); 3].map(|()| Naive.alloc(0, Activations)))
        else {
            return Vec::new();
        };
        of.copy_from_slice(&qkv);
        Naive.attention(&of, &mut out, &mut lse, whole);
        let before_and_after =
            [[qkv, vec![0.0; n * out_width]].to_vec(), [vec![], vec![], out.to_vec(), lse.to_vec()].to_vec()];
        let errors = attention_bounds::errors(&before_and_after[0], &before_and_after[1], whole, b.format).out;
        errors.chunks_exact((before + tokens) * out_width).flat_map(|s| s[before * out_width..].to_vec()).collect()
    });
    let slots = vec![
        given(first.rows() * width, Activations),
        given(d.rows() * width, Activations),
        result("attention_after", d.rows() * out_width, Activations, off),
        room(d.rows() * d.heads, Statistics),
    ];
    let shape = format!("{} after {before}", attention::text(d));
    Case::new("attention_after", shape, 16 * d.rows() * whole.tokens * d.heads * head_dim, slots, move |on: &B, b| {
        if let [prompt, qkv, out, lse] = b {
            let capacity = d.scores.window.unwrap_or(usize::MAX).min(before + tokens);
            let c = CacheDims { batch, kv_heads, head_dim, capacity, dtype: on.dtype() };
            let mut cache = on.alloc(c.words(), KvCache)?;
            on.cache_append(prompt, &mut cache, 0, first, c);
            on.attention_after(qkv, &cache, out, lse, before, d, c);
        }
        Ok(())
    })
}

fn text(d: QkNormDims) -> String {
    let gain = if d.gain_offset == 0.0 { String::new() } else { format!(" by {} + w", d.gain_offset) };
    format!("{} of {}{gain}", attention::text(d.of), if d.whole { "all heads" } else { "each head" })
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

fn qk_norm<B: Backend + 'static>(d: QkNormDims) -> Case<B> {
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
    Case::new("qk_norm", text(d), rows * row, slots, move |on: &B, b| {
        if let [qkv, q, k, x, stats] = b {
            on.qk_norm(qkv, [q, k], Some((x, stats)), d);
        }
        Ok(())
    })
}

/// Of the norm's own statistics.
fn qk_norm_backward<B: Backend + 'static>(d: QkNormDims) -> Case<B> {
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
    Case::new("qk_norm_backward", text(d), rows * row, slots, move |on: &B, b| {
        if let [given, q, k, x, stats, dqkv, dq, dk, qkv] = b {
            on.copy(given, qkv, rows * row);
            on.qk_norm(qkv, [q, k], Some((x, stats)), d);
            on.qk_norm_backward(x, [q, k], stats, dqkv, [dq, dk], d);
        }
        Ok(())
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
