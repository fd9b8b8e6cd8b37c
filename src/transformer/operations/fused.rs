//! Products with a norm before them and more behind: a few rows, for which backends have kernels of their own, and many.

use super::super::backend::{
    AttentionDims, Backend, CacheDims, CachePlace, Category, Frequencies, LinearDims, NormBefore, NormDims,
    NormedLinear, Scores,
};
use super::super::error::SessionError;
use super::super::shape::{Activation, Rope};
use super::Size;
use super::attention::{ANGLE, text};
use super::bounds::{FUNCTION, UNIT, sum};
use super::case::{Case, Known, Slot, by, given, result, scaled};
use super::elementwise::{ACTIVATIONS, inner, more};
use super::norms;
use Category::{Activations, KvCache, Statistics, Weights};

/// N, K, M: up to 8 rows and more, of whole 16-byte accesses and of others.
const SMALL: [(usize, usize, usize); 7] =
    [(1, 48, 64), (2, 264, 40), (3, 136, 33), (8, 128, 34), (5, 31, 20), (9, 64, 40), (17, 72, 24)];
/// Widths of real layers, and a vocabulary.
const WIDE: [(usize, usize, usize); 5] =
    [(1, 4096, 4096), (8, 2048, 1032), (4, 5120, 264), (1, 768, 50257), (20, 1024, 512)];

/// B, T, H, KV, D, K, position.
type Cached = (usize, usize, usize, usize, usize, usize, usize);
const CACHED: [Cached; 6] = [
    (1, 1, 4, 2, 64, 64, 5),
    (8, 1, 2, 2, 16, 136, 0),
    (2, 3, 3, 1, 10, 72, 2),
    (1, 8, 2, 1, 128, 40, 1),
    (3, 1, 2, 1, 6, 31, 1),
    (3, 4, 2, 1, 8, 48, 0),
];
const CACHED_WIDE: [Cached; 2] = [(1, 1, 32, 8, 128, 4096, 7), (8, 1, 16, 16, 96, 1536, 0)];

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    let (mut products, mut cached) = (SMALL.to_vec(), CACHED.to_vec());
    if size == Size::Full {
        products.extend(WIDE);
        cached.extend(CACHED_WIDE);
    }
    for (i, (n, k, m)) in products.into_iter().enumerate() {
        let of = |m| [Some(false), Some(true), None].map(|rms| Of { rms, gain_offset: 0.0, d: LinearDims { n, k, m } });
        to.extend(of(m).map(norm_linear));
        to.push(norm_linear(Of { rms: Some(true), gain_offset: 1.0, d: LinearDims { n, k, m } }));
        if m < 10_000 {
            to.extend(ACTIVATIONS.map(|kind| norm_linear_activation(kind, of(inner(kind, m))[i % 3])));
        }
    }
    for c in cached {
        // All of a head, three quarters of it, and nothing.
        let head_dim = c.4;
        to.extend([head_dim, (head_dim * 3 / 8 * 2).max(2), 0].map(|rotated| norm_qkv_cached(c, rotated)));
    }
}

/// A product, and the norm before it: RMSNorm, LayerNorm, or none.
#[derive(Clone, Copy)]
struct Of {
    rms: Option<bool>,
    gain_offset: f32,
    d: LinearDims,
}

impl Of {
    fn norm(self) -> NormDims {
        let Self { rms, gain_offset, d } = self;
        NormDims { n: d.n, c: d.k, eps: 1e-5, rms: rms == Some(true), gain_offset }
    }

    fn text(self) -> String {
        let LinearDims { n, k, m } = self.d;
        let norm = match self.rms {
            Some(true) if self.gain_offset != 0.0 => "rms by 1 + w",
            Some(true) => "rms",
            Some(false) => "norm",
            None => "no norm",
        };
        format!("N {n} K {k} M {m} {norm}")
    }

    /// x, gain, the norm's bias, weight, bias: what every case of this file begins with.
    fn inputs(self) -> Vec<Slot> {
        let LinearDims { n, k, m } = self.d;
        vec![
            given(n * k, Activations),
            given(k, Weights),
            given(k, Weights),
            scaled(m * k, Weights, 1.0 / (k as f32).sqrt()),
            given(m, Weights),
        ]
    }

    /// What the product's sums may be off by before they are stored in a category: each factor by what the norm is off by and by its
    /// rounding as a factor, the sum, and the product's rounding before the bias is added.
    fn sums(self, b: &Known<'_>, category: Category) -> Vec<f64> {
        let (LinearDims { n, k, m }, d) = (self.d, self.norm());
        let shift = (!d.rms).then_some(&*b.before[2]);
        let (normed, u): (Vec<(f64, f64)>, f64) = match self.rms {
            Some(_) => (norms::normed(&b.before[0], &b.before[1], shift, d), b.format.factor().max(UNIT)),
            None => (b.before[0].iter().map(|x| (f64::from(*x), 0.0)).collect(), 0.0),
        };
        let one = |i: usize| {
            let (row, w) = (&normed[i / m * k..][..k], &b.before[3][i % m * k..][..k]);
            let (mut off, mut magnitude, mut product) = (0.0, f64::from(b.before[4][i % m].abs()), 0.0);
            for ((value, apart), w) in row.iter().zip(w) {
                let w = f64::from(*w);
                off += w.abs() * (apart + u * (value.abs() + apart));
                magnitude += w.abs() * value.abs();
                product += w * value;
            }
            let off = off + sum(k + 1) * (magnitude + off);
            off + b.format.stored(category) * (product.abs() + off)
        };
        (0..n * m).map(one).collect()
    }

    /// Does something with the product on a backend.
    fn on<B: Backend>(
        self,
        on: &B,
        inputs: &[B::Buffer],
        f: impl FnOnce(NormedLinear<'_, B::Buffer>),
    ) -> Result<(), SessionError> {
        let [x, gain, shift, w, bias] = inputs else { return Ok(()) };
        let d = self.norm();
        let mut room = on.alloc(self.d.n * self.d.k, Activations)?;
        let mut stats = on.alloc(2 * self.d.n, Statistics)?;
        let bias_of_norm = (!d.rms).then_some(shift);
        let norm = NormBefore { gain, bias: bias_of_norm, room: &mut room, stats: &mut stats, d };
        f(NormedLinear { x, norm: self.rms.map(|_| norm), w, bias: Some(bias), d: self.d });
        Ok(())
    }
}

fn norm_linear<B: Backend + 'static>(of: Of) -> Case<B> {
    let LinearDims { n, k, m } = of.d;
    let mut slots = of.inputs();
    slots.push(result("norm_linear", n * m, Activations, by(move |b: &Known<'_>| of.sums(b, Activations))));
    // As logits are kept.
    slots.push(result("norm_linear", n * m, Statistics, by(move |b: &Known<'_>| of.sums(b, Statistics))));
    Case::new("norm_linear", of.text(), 4 * n * k * m, slots, move |on: &B, b| {
        let (inputs, results) = b.split_at_mut(5);
        for out in results {
            of.on(on, inputs, |of| on.norm_linear(of, out))?;
        }
        Ok(())
    })
}

/// As of `linear_activation`: the argument is off by its sum, and by its storage where the function is of what is stored; the
/// function carries that on.
fn norm_linear_activation<B: Backend + 'static>(kind: Activation, of: Of) -> Case<B> {
    let LinearDims { n, k, m } = of.d;
    let f = if kind.gated() { m / 2 } else { m };
    let of_result = by(move |b: &Known<'_>| {
        let off = b.stored(5, of.sums(b, Activations));
        let pre = |i: usize| (f64::from(b.after[5][i].abs()), off[i]);
        let one = |i: usize| {
            if !kind.gated() {
                let (x, off) = pre(i);
                return 1.13 * off + FUNCTION * x;
            }
            let ((gate, off_gate), (up, off_up)) = (pre(i / f * m + i % f), pre(i / f * m + f + i % f));
            let up = up + more(kind);
            1.13 * off_gate * (up + off_up) + gate * off_up + FUNCTION * gate * up
        };
        (0..n * f).map(one).collect()
    });
    let mut slots = of.inputs();
    slots.push(result("norm_linear_activation", n * m, Activations, by(move |b: &Known<'_>| of.sums(b, Activations))));
    slots.push(result("norm_linear_activation", n * f, Activations, of_result));
    let shape = format!("{} {kind:?}", of.text());
    Case::new("norm_linear_activation", shape, 2 * n * k * m, slots, move |on: &B, b| {
        let (inputs, results) = b.split_at_mut(5);
        let [pre, out] = results else { return Ok(()) };
        of.on(on, inputs, |of| on.norm_linear_activation(kind, of, pre, out))
    })
}

/// `rotated`: elements of a head that are; of a part of it they become longer too.
///
/// A rotation mixes two sums, each off by itself, and by its storage where it is rotated after that; angles are off too. Of two
/// numbers and their rotation the magnitudes' sums differ by a factor of at most sqrt(2).
///
/// The cache is asked for attention over all that is in it, by the last row: it must answer, bit for bit, as one that the very rows
/// of the result have been put into.
fn norm_qkv_cached<B: Backend + 'static>(
    (batch, tokens, heads, kv_heads, head_dim, k, position): Cached,
    rotated: usize,
) -> Case<B> {
    let d = AttentionDims { batch, tokens, heads, kv_heads, head_dim, causal: true, scores: Scores::default() };
    let (n, m) = (d.rows(), d.qkv_width());
    let (rotary, longer) = (rotated > 0, if rotated < head_dim { 1.25 } else { 1.0f32 });
    let of = Of { rms: Some(rotary), gain_offset: 0.0, d: LinearDims { n, k, m } };
    let off = by(move |b: &Known<'_>| {
        let (off, u) = (of.sums(b, Activations), b.format.stored(Activations));
        let one = |i: usize| {
            let (column, half) = (i % m, rotated / 2);
            if column / head_dim >= heads + kv_heads || column % head_dim >= rotated {
                return off[i];
            }
            let other = if column % head_dim < half { i + half } else { i - half };
            let magnitude = |at: usize| f64::from(b.after[5][at].abs());
            let off = f64::from(longer) * (off[i] + off[other]);
            let both = (magnitude(i) + magnitude(other)) * 2f64.sqrt();
            off + u * (both + off) + (ANGLE + 4.0 * UNIT) * both
        };
        (0..n * m).map(one).collect()
    });
    let mut slots = of.inputs();
    slots.push(result("norm_qkv_cached", n * m, Activations, off));
    let part = if rotary && rotated < head_dim { format!(" R {rotated}") } else { String::new() };
    let shape = format!("{}{part} at {position}, {}", text(d), of.text());
    let of_head = Frequencies::new(&Rope { theta: 10_000.0, scaling: None }, rotated);
    let frequencies = rotary.then_some(Frequencies { factor: longer, ..of_head });
    Case::new("norm_qkv_cached", shape, 2 * n * k * m, slots, move |on: &B, b| {
        let (inputs, results) = b.split_at_mut(5);
        let [qkv] = results else { return Ok(()) };
        let capacity = position + tokens + 3;
        let dims = CacheDims { batch, kv_heads, head_dim, capacity, element: on.dtype().into() };
        let (mut layer, mut again) = (on.alloc(dims.words(), KvCache)?, on.alloc(dims.words(), KvCache)?);
        of.on(on, inputs, |of| {
            let cache = CachePlace { layer: &mut layer, position, dims };
            on.norm_qkv_cached(of, frequencies.as_ref(), qkv, cache, d);
        })?;
        on.cache_append(qkv, &mut again, position, d, dims);
        let one = AttentionDims { tokens: 1, ..d };
        let mut query = on.alloc(batch * m, Activations)?;
        on.last_rows(qkv, &mut query, batch, tokens, m);
        let of_cache = |cache: &B::Buffer| {
            let mut out = on.alloc(batch * d.out_width(), Activations)?;
            on.attention_cached(&query, cache, &mut out, None, position + tokens, one, dims);
            let mut numbers = vec![0.0; batch * d.out_width()];
            on.download(&out, 0, &mut numbers);
            Ok::<_, SessionError>(numbers)
        };
        let (got, want) = (of_cache(&layer)?, of_cache(&again)?);
        match got.iter().zip(&want).position(|(a, b)| a.to_bits() != b.to_bits()) {
            None => Ok(()),
            Some(i) => Err(SessionError::Device(format!(
                "norm_qkv_cached: attention over the cache, number {i}: expected {} as of its rows put there, found {}",
                want[i], got[i]
            ))),
        }
    })
}
