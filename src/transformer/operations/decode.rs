//! The KV cache and attention over it: a step by itself, and steps that a backend may capture and replay.

use super::super::CacheFormat;
use super::super::backend::few_bits_on_host::rows_as_kept;
use super::super::backend::{
    AttentionDims, Backend, CacheDims, CacheElement, Captured, Category, Frequencies, Scores, Varying,
};
use super::super::shape::Rope;
use super::Size;
use super::attention::{HEAD_DIMS, text};
use super::attention_bounds::{of_shaping, of_share, shaped};
use super::bounds::{UNIT, length, longest, sum};
use super::case::{Case, Known, by, given, result};
use Category::{Activations, KvCache, Statistics};
use std::ops::Range;

/// Batch, length of the context, query heads, and heads of keys and values.
const SHORT: [(usize, usize, usize, usize); 6] =
    [(1, 1, 2, 2), (1, 64, 4, 2), (17, 65, 2, 1), (2, 130, 6, 2), (1, 200, 12, 1), (3, 31, 3, 3)];
const LONG: [(usize, usize, usize, usize); 6] =
    [(1, 1025, 32, 8), (17, 1025, 4, 2), (1, 4096, 8, 8), (17, 4096, 2, 1), (1, 4096, 16, 1), (64, 63, 4, 4)];

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    let mut add = |(batch, length, heads, kv_heads), head_dim| {
        to.push(cached(AttentionDims {
            batch,
            tokens: length,
            heads,
            kv_heads,
            head_dim,
            causal: true,
            scores: Scores::default(),
        }));
    };
    SHORT.into_iter().for_each(|d| add(d, 64));
    for head_dim in [8, 10, 40, 130].into_iter().chain(HEAD_DIMS) {
        // Heads that share keys and values: 1, 2, 4 and 8 of them.
        [(2, 65, 4, 2), (1, 130, 8, 1), (1, 33, 3, 3), (1, 31, 4, 1)].into_iter().for_each(|d| add(d, head_dim));
        if size == Size::Full {
            LONG.into_iter()
                .filter(|(batch, length, ..)| head_dim <= 128 || batch * length < 10_000)
                .for_each(|d| add(d, head_dim));
        }
    }
    for (head_dim, window) in [(64, None), (128, None), (64, Some(3)), (128, Some(1))] {
        let scores = Scores { window, ..Scores::PLAIN };
        let d = AttentionDims { batch: 2, tokens: 1, heads: 4, kv_heads: 2, head_dim, causal: true, scores };
        to.push(captured_steps(d));
    }
}

/// What an element's product with its scale may be off by, of itself, wherever in a sum it is made: the oracle rounds it, and others the
/// sum and the share that it is multiplied by.
pub(super) fn of_scales(element: CacheElement) -> f64 {
    if element.is_scaled() { 4.0 * UNIT } else { 0.0 }
}

/// Words for a cache: the oracle keeps what numbers of few bits come to in whole ones.
pub(super) fn words(c: CacheDims) -> usize {
    if c.element.is_scaled() { c.len().max(c.words()) } else { c.words() }
}

/// What the result of a query `q` (its heads side by side), and the logs of its denominators, may be off by, keys and values being off
/// by `off` of themselves.
pub(super) fn of_query(
    q: &[f32],
    row: impl Fn(usize, usize) -> Vec<f32>,
    seen: Range<usize>,
    d: AttentionDims,
    off: f64,
    u: f64,
) -> [Vec<f64>; 2] {
    let (dim, scale) = (d.head_dim, d.scale());
    let (mut all, mut logs) = (Vec::with_capacity(d.out_width()), Vec::new());
    for h in 0..d.heads {
        let group = h / (d.heads / d.kv_heads);
        let keys: Vec<Vec<f32>> = seen.clone().map(|s| row(s, (d.heads + group) * dim)).collect();
        let query = &q[h * dim..][..dim];
        let score = |(s, k): (usize, &Vec<f32>)| shaped(&d, h, f64::from(super::bounds::dot(query, k)), s).0;
        let scores: Vec<f64> = seen.clone().zip(&keys).map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
        let products = length(query) * keys.iter().map(|k| longest(k, dim)).fold(0.0, f64::max) * scale;
        // Query and key are off by `off` each; what that makes of a share is not small enough to be linear.
        let share = of_share(products, dim) + of_shaping(&d, h, seen.end) + (2.0 * off * products).exp_m1();
        let by = 2.0 * share + u + off + sum(seen.len());
        logs.push(share + sum(seen.len()) + 4.0 * UNIT * (most + total.ln()).abs());
        let mut result = vec![0.0; dim];
        for (s, score) in seen.clone().zip(&scores) {
            let p = (score - most).exp() / total;
            let value = row(s, (d.heads + d.kv_heads + group) * dim);
            result.iter_mut().zip(&value).for_each(|(e, v)| *e += p * by * f64::from(v.abs()));
        }
        all.extend(result);
    }
    [all, logs]
}

/// A prompt of all tokens but the last goes into the cache, then the last, whose attention is computed. With a window the cache holds no
/// more than that.
pub(super) fn cached<B: Backend + 'static>(d: AttentionDims) -> Case<B> {
    cached_as(d, CacheFormat::Dtype)
}

/// The same with a cache in a format, few bits being what the oracle keeps of keys and values.
pub(super) fn cached_as<B: Backend + 'static>(d: AttentionDims, format: CacheFormat) -> Case<B> {
    let AttentionDims { batch, tokens, kv_heads, head_dim, .. } = d;
    let (one, before) = (AttentionDims { tokens: 1, ..d }, AttentionDims { tokens: tokens - 1, ..d });
    let width = d.qkv_width();
    let off = move |part: usize| {
        by(move |b: &Known<'_>| {
            let (mut all, element) = (Vec::new(), b.format.element(format));
            let kept = [0, 1].map(|from| rows_as_kept(&b.before[from], d, element));
            for sequence in 0..batch {
                let row = |s: usize, column: usize| {
                    let (from, r) = if s + 1 < tokens { (0, sequence * (tokens - 1) + s) } else { (1, sequence) };
                    kept[from][r * width + column..][..head_dim].to_vec()
                };
                let query = &b.before[1][sequence * width..][..width];
                let off = of_scales(element);
                let both = of_query(query, row, d.seen(tokens - 1), d, off, b.format.on_the_way());
                all.extend_from_slice(&both[part]);
            }
            all
        })
    };
    let slots = vec![
        given(before.rows() * width, Activations),
        given(batch * width, Activations),
        result("attention_cached", batch * d.out_width(), Activations, off(0)),
        result("attention_cached", batch * d.heads, Statistics, off(1)),
    ];
    let of_cache = if format == CacheFormat::Dtype { String::new() } else { format!(", cache {format}") };
    Case::new("attention_cached", text(d) + &of_cache, 8 * d.rows() * d.heads * head_dim, slots, move |on: &B, b| {
        if let [prompt, qkv, out, lse] = b {
            let c = CacheDims {
                batch,
                kv_heads,
                head_dim,
                capacity: d.scores.window.unwrap_or(tokens + 3),
                element: CacheElement::of(on.dtype(), format),
            };
            let mut cache = on.alloc(words(c), KvCache)?;
            if tokens > 1 {
                on.cache_append(prompt, &mut cache, 0, before, c);
            }
            on.cache_append(qkv, &mut cache, tokens - 1, one, c);
            on.attention_cached(qkv, &cache, out, Some(lse), tokens, one, c);
        }
        Ok(())
    })
}

/// Steps of [`captured_steps`]: one as it is, one captured, and replays.
const STEPS: usize = 5;

/// Steps on the same buffers that differ by their position alone: rotary positions, the cache, attention over what is in it. After the
/// rotation queries and keys are rounded to their storage, which moves the shares.
fn captured_steps<B: Backend + 'static>(d: AttentionDims) -> Case<B> {
    let AttentionDims { batch, kv_heads, head_dim, .. } = d;
    let (width, angles) = (d.qkv_width(), frequencies(d));
    let whole = AttentionDims { tokens: STEPS, ..d };
    let off = move |step: usize| {
        by(move |b: &Known<'_>| {
            // Rotation leaves lengths as they are; the shares that it moves are bounded by the largest there can be.
            let u = b.format.stored(Activations) + 1e-6;
            let mut all = Vec::new();
            for sequence in 0..batch {
                let of = |s: usize| &b.before[s][sequence * width..][..width];
                let rows: Vec<Vec<f32>> = (0..=step).map(|s| rotated(of(s), &frequencies(d), s, d)).collect();
                let row = |s: usize, column: usize| rows[s][column..][..head_dim].to_vec();
                let [out, _] = of_query(&rows[step], row, whole.seen(step), d, u, b.format.on_the_way());
                all.extend(out);
            }
            all
        })
    };
    let mut slots: Vec<_> = (0..STEPS).map(|_| given(batch * width, Activations)).collect();
    slots.extend((0..STEPS).map(|s| result("captured", batch * d.out_width(), Activations, off(s))));
    Case::new("captured", text(d), batch * width, slots, move |on: &B, b| {
        let c = CacheDims {
            batch,
            kv_heads,
            head_dim,
            capacity: d.scores.window.unwrap_or(STEPS + 1),
            element: on.dtype().into(),
        };
        let mut cache = on.alloc(c.words(), KvCache)?;
        let mut qkv = on.alloc(batch * width, Activations)?;
        let mut out = on.alloc(batch * d.out_width(), Activations)?;
        let mut captured = Captured::NotYet;
        let (from, to) = b.split_at_mut(STEPS);
        for (position, (from, to)) in from.iter().zip(to).enumerate() {
            on.copy(from, &mut qkv, batch * width);
            let varying = Varying { position, ..Varying::default() };
            on.captured(&varying, &mut captured, &mut || {
                on.rope(&mut qkv, &angles, position, false, d);
                on.cache_append(&qkv, &mut cache, position, d, c);
                on.attention_cached(&qkv, &cache, &mut out, None, position + 1, d, c);
            });
            on.copy(&out, to, batch * d.out_width());
        }
        Ok(())
    })
}

fn frequencies(d: AttentionDims) -> Frequencies {
    Frequencies::new(&Rope { theta: 10_000.0, scaling: None }, d.head_dim)
}

/// A row of queries, keys and values with the former two rotated.
fn rotated(row: &[f32], by: &Frequencies, position: usize, d: AttentionDims) -> Vec<f32> {
    let (dim, half) = (d.head_dim, d.head_dim / 2);
    let mut row = row.to_vec();
    for head in row.chunks_exact_mut(dim).take(d.heads + d.kv_heads) {
        for (i, f) in by.radians.iter().enumerate() {
            let (sine, cosine) = (position as f32 * f).sin_cos();
            (head[i], head[i + half]) =
                (head[i] * cosine - head[i + half] * sine, head[i + half] * cosine + head[i] * sine);
        }
    }
    row
}
