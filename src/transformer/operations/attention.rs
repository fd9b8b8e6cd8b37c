//! Attention over whole sequences and its gradient, and rotary positions.

use super::super::backend::{AttentionDims, Backend, Category, Frequencies, Scores};
use super::super::shape::{Rope, RopeScaling};
use super::Size;
use super::attention_bounds::{Errors, errors};
use super::bounds::UNIT;
use super::case::{Case, Known, by, changed, given, result};
use Category::{Activations, Statistics};
use std::sync::{Arc, OnceLock};

/// Every family of kernels: 64, 80, 96, 128 and 256, what is padded to them, and what no vector divides.
pub(super) const HEAD_DIMS: [usize; 5] = [64, 80, 96, 128, 256];
const ODD_HEAD_DIMS: [usize; 4] = [8, 10, 40, 130];

/// B, T, H, KV of the short ones.
const SHORT: [(usize, usize, usize, usize); 5] =
    [(3, 1, 6, 1), (2, 63, 4, 2), (1, 64, 1, 1), (1, 130, 3, 3), (1, 200, 2, 1)];

fn dims(size: Size) -> Vec<AttentionDims> {
    let mut all = Vec::new();
    for causal in [true, false] {
        let mut add = |(batch, tokens, heads, kv_heads), head_dim| {
            all.push(AttentionDims { batch, tokens, heads, kv_heads, head_dim, causal, scores: Scores::default() });
        };
        SHORT.into_iter().for_each(|d| add(d, 64));
        ODD_HEAD_DIMS.into_iter().for_each(|head_dim| add((2, 65, 2, 1), head_dim));
        // As latents make heads of.
        add((1, 130, 2, 2), 192);
        for head_dim in HEAD_DIMS {
            match size {
                Size::Small if head_dim == 64 => {}
                Size::Small => add((1, 130, 2, 1), head_dim),
                Size::Full => {
                    let rest = [(3, 1, 6, 1), (2, 63, 4, 2), (2, 200, 3, 3), (1, 1025, 4, 2)];
                    rest.into_iter().for_each(|d| add(d, head_dim));
                    // The oracle takes some 16 ns for every pair of tokens and every 2 numbers of a head: one head, or two of 64.
                    add((1, 4096, if head_dim == 64 { 2 } else { 1 }, 1), head_dim);
                }
            }
        }
        if size == Size::Full {
            add((1, 513, 32, 4), 64);
        }
    }
    all
}

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    for d in dims(size) {
        to.push(attention(d));
        if d.causal && d.tokens < 1000 {
            to.extend([rope(d, 0, false), rope(d, 4000, true)]);
        }
    }
}

pub(super) fn text(d: AttentionDims) -> String {
    let AttentionDims { batch, tokens, heads, kv_heads, head_dim, causal, .. } = d;
    let mut text =
        format!("B {batch} T {tokens} H {heads} KV {kv_heads} D {head_dim}{}", if causal { " causal" } else { "" });
    let Scores { scale, soft_cap, window, alibi, .. } = d.scores;
    scale.iter().for_each(|s| text += &format!(" scale {s}"));
    soft_cap.iter().for_each(|c| text += &format!(" cap {c}"));
    window.iter().for_each(|w| text += &format!(" window {w}"));
    text + if alibi { " ALiBi" } else { "" }
}

pub(super) fn attention<B: Backend + 'static>(d: AttentionDims) -> Case<B> {
    let (rows, seen) = (d.rows(), d.seen(d.tokens / 2).len());
    // The three bounds are of one pass.
    let once = Arc::new(OnceLock::new());
    let of = move |part: fn(&Errors) -> &Vec<f64>| {
        let once = Arc::clone(&once);
        by(move |b: &Known<'_>| part(once.get_or_init(|| errors(b.before, b.after, d, b.format))).clone())
    };
    let slots = vec![
        given(rows * d.qkv_width(), Activations),
        given(rows * d.out_width(), Activations),
        result("attention", rows * d.out_width(), Activations, of(|e| &e.out)),
        result("attention", rows * d.heads, Statistics, of(|e| &e.lse)),
        result("attention_backward", rows * d.qkv_width(), Activations, of(|e| &e.dqkv)),
    ];
    Case::new("attention", text(d), 16 * rows * seen * d.heads * d.head_dim, slots, move |on: &B, b| {
        if let [qkv, dout, out, lse, dqkv] = b {
            on.attention(qkv, out, lse, d);
            on.attention_backward(qkv, out, dout, lse, dqkv, d);
        }
        Ok(())
    })
}

/// What an angle may be off by, in radians: positions below 2^24 are rotated by fractions of a turn that are known to 1e-6
/// (`kernels/rope.cu`), where the product of position and frequency in f32 would be off by 2^-24 of itself.
pub(super) const ANGLE: f64 = 1e-6;

fn rope<B: Backend + 'static>(d: AttentionDims, first: usize, inverse: bool) -> Case<B> {
    let scaling =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64 };
    let frequencies = Frequencies::new(&Rope { theta: 10_000.0, scaling: inverse.then_some(scaling) }, d.head_dim);
    rope_by(frequencies, d, first, inverse)
}

/// By these frequencies, on a part of each head where they are of a part.
pub(super) fn rope_by<B: Backend + 'static>(
    by_these: Frequencies,
    d: AttentionDims,
    first: usize,
    inverse: bool,
) -> Case<B> {
    let (half, longer) = (by_these.radians.len(), f64::from(by_these.factor));
    let off = by(move |b: &Known<'_>| {
        let dim = d.head_dim;
        let one = |i: usize| {
            let in_row = i % d.qkv_width();
            if in_row / dim >= d.heads + d.kv_heads || in_row % dim >= 2 * half {
                return 0.0;
            }
            let other = if in_row % dim < half { i + half } else { i - half };
            let both = f64::from(b.before[0][i].abs()) + f64::from(b.before[0][other].abs());
            (ANGLE + 4.0 * UNIT) * both * longer
        };
        (0..b.before[0].len()).map(one).collect()
    });
    let slots = vec![changed("rope", d.rows() * d.qkv_width(), Activations, off)];
    let part = if 2 * half < d.head_dim { format!(" R {}", 2 * half) } else { String::new() };
    let shape = format!("{}{part} from {first}{}", text(d), if inverse { " back" } else { "" });
    Case::new("rope", shape, d.rows() * d.qkv_width(), slots, move |on: &B, b| {
        if let [qkv] = b {
            on.rope(qkv, &by_these, first, inverse, d);
        }
        Ok(())
    })
}
