//! Attention as single families have it: windows, scores of another scale, caps, ALiBi, logits beside the scores; and stretches of
//! prompts, whose keys are in the cache and beside it.

use super::super::backend::{Alloc, AttentionDims, Backend, CacheDims, Category, Scores};
use super::super::cpu::naive::Naive;
use super::Size;
use super::attention::HEAD_DIMS;
use super::bounds::{FUNCTION, UNIT, sum};
use super::case::{Case, Known, by, changed, given, result, room};
use super::parts::PLAIN;
use super::{attention, attention_bounds, decode};
use Category::{Activations, Gradients, KvCache, Statistics, Weights};

pub(super) fn list<B: Backend + 'static>(_: Size, to: &mut Vec<Case<B>>) {
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
    let few = AttentionDims { batch: 1, heads: 2, kv_heads: 1, ..PLAIN };
    // So long that whole stretches of keys are before every window of a strip, in both formats.
    for window in [33, 300] {
        let scores = Scores { window: Some(window), ..Scores::PLAIN };
        let d = AttentionDims { tokens: 1100, scores, ..few };
        to.extend([attention::attention(d), decode::cached(d), after_cache(d, 700)]);
    }
    to.extend([after_cache(PLAIN, 3), after_cache(AttentionDims { tokens: 33, ..few }, 600)]);
    of_each_family(few, to);
    for (tokens, heads, head_dim) in [(1, 3, 10), (65, 4, 16), (200, 2, 64), (33, 6, 130)] {
        let d = AttentionDims { tokens, heads, head_dim, ..PLAIN };
        to.extend([sinks(d), sinks_backward(d)]);
    }
}

/// Windows, caps and ALiBi at the head_dim of every family of kernels, over tiles that are whole, cut, and left out.
fn of_each_family<B: Backend + 'static>(few: AttentionDims, to: &mut Vec<Case<B>>) {
    for head_dim in HEAD_DIMS {
        // Those by warpgroups have the most to leave out.
        let long = [64, 128].contains(&head_dim);
        for (tokens, window) in [(140, 40), (if long { 430 } else { 130 }, if long { 70 } else { 100 })] {
            let d = AttentionDims { tokens, head_dim, scores: Scores { window: Some(window), ..Scores::PLAIN }, ..few };
            to.push(attention::attention(d));
        }
        let windowed = Scores { window: Some(70), ..Scores::PLAIN };
        to.push(after_cache(AttentionDims { tokens: 135, head_dim, scores: windowed, ..few }, 91));
        let others = [
            Scores { soft_cap: Some(2.0), window: Some(70), scale: Some(0.2), ..Scores::PLAIN },
            Scores { alibi: true, ..Scores::PLAIN },
            Scores { soft_cap: Some(3.0), alibi: true, ..Scores::PLAIN },
        ];
        for scores in others {
            to.push(attention::attention(AttentionDims { tokens: 130, head_dim, scores, ..few }));
        }
        to.push(after_cache(AttentionDims { tokens: 65, head_dim, ..few }, 75));
        let not_causal = Scores { soft_cap: Some(2.0), alibi: true, ..Scores::PLAIN };
        let d = AttentionDims { tokens: 33, head_dim, causal: false, scores: not_causal, ..few };
        to.push(attention::attention(d));
    }
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
            let c = CacheDims { batch, kv_heads, head_dim, capacity, element: on.dtype().into() };
            let mut cache = on.alloc(c.words(), KvCache)?;
            on.cache_append(prompt, &mut cache, 0, first, c);
            on.attention_after(qkv, &cache, out, lse, before, d, c);
        }
        Ok(())
    })
}

/// A head's logit, the log of its denominator before and after it has joined, and the part of that which was there before, from the
/// first two.
fn joined(sink: f32, own: f32) -> [f64; 4] {
    let (sink, own) = (f64::from(sink), f64::from(own));
    let both = own.max(sink) + (-(own - sink).abs()).exp().ln_1p();
    [sink, own, both, (own - both).exp()]
}

fn sinks<B: Backend + 'static>(d: AttentionDims) -> Case<B> {
    let (rows, heads, dim) = (d.rows(), d.heads, d.head_dim);
    let of = |b: &Known<'_>, item: usize, heads: usize| joined(b.before[0][item % heads], b.before[2][item]);
    // Differences of logs are off by their roundings, and so is what shrinks by them, of itself.
    let of_log = |[sink, own, both, _]: [f64; 4]| FUNCTION + 4.0 * UNIT * (sink.abs() + own.abs() + both.abs());
    let of_out = by(move |b: &Known<'_>| {
        let one = |i: usize| {
            let logs = of(b, i / dim, heads);
            f64::from(b.before[1][i].abs()) * logs[3] * (FUNCTION + of_log(logs))
        };
        (0..rows * heads * dim).map(one).collect()
    });
    let of_lse = by(move |b: &Known<'_>| (0..rows * heads).map(|i| of_log(of(b, i, heads))).collect());
    let slots = vec![
        given(heads, Weights),
        changed("sinks", rows * d.out_width(), Activations, of_out),
        changed("sinks", rows * heads, Statistics, of_lse),
    ];
    Case::new("sinks", attention::text(d), rows * d.out_width(), slots, move |on: &B, b| {
        if let [sinks, out, lse] = b {
            on.sinks(sinks, out, lse, d);
        }
        Ok(())
    })
}

fn sinks_backward<B: Backend + 'static>(d: AttentionDims) -> Case<B> {
    let (rows, heads, dim) = (d.rows(), d.heads, d.head_dim);
    let off = by(move |b: &Known<'_>| {
        let mut off = vec![0.0; heads];
        for i in 0..rows * heads {
            let (sink, log) = (f64::from(b.before[0][i % heads]), f64::from(b.before[3][i]));
            let [out, dout] = [1, 2].map(|from| &b.before[from][i * dim..][..dim]);
            let along: f64 = out.iter().zip(dout).map(|(a, b)| f64::from((a * b).abs())).sum();
            let relative = sum(rows * dim) + FUNCTION + 4.0 * UNIT * (sink.abs() + log.abs());
            off[i % heads] += (sink - log).exp() * along * relative;
        }
        off
    });
    let slots = vec![
        given(heads, Weights),
        given(rows * d.out_width(), Activations),
        given(rows * d.out_width(), Activations),
        given(rows * heads, Statistics),
        result("sinks_backward", heads, Gradients, off),
    ];
    Case::new("sinks_backward", attention::text(d), rows * d.out_width(), slots, move |on: &B, b| {
        if let [sinks, out, dout, lse, dsinks] = b {
            on.sinks_backward(sinks, out, dout, lse, dsinks, d);
        }
        Ok(())
    })
}
