//! Products of a few rows with all that surrounds them, against the oracle's single operations.
//!
//! Tolerance: the oracle's norm is rounded to the format as the kernel's is, so that results differ by their own rounding, by the
//! order of f32 sums, and by the few normed elements that lie so near the middle between two bf16 that they went the other way: each
//! moves a sum by 2^-8 of its term. Weights are of size 1 / sqrt(K), normed elements and weights at most 4.5 times their size.

use super::super::backend::{AttentionDims, Backend, Frequencies, LinearDims, NormDims, Scores, Store};
use super::super::cpu::array::Array;
use super::super::cpu::naive::Naive;
use super::super::shape::{Activation, Rope};
use super::device::{Device, Real};
use super::host::{HostDevice, array, random, rounded, within};
use super::matvec::{CacheAt, Matvec, NormAt, takes};
use super::rope::Angles;

/// What a product is of, on the device and for the oracle.
struct Case {
    real: Real,
    d: LinearDims,
    /// RMSNorm, LayerNorm with a bias, or none.
    norm: Option<bool>,
    matvec: Matvec,
    /// `x w^T + bias` of the normed, rounded x.
    sums: Array,
    stats: Vec<f32>,
}

impl Case {
    fn new(on: &HostDevice, real: Real, d: LinearDims, norm: Option<bool>, with_bias: bool) -> Self {
        let LinearDims { n, k, m } = d;
        assert!(takes(on, real, norm.is_some(), d), "{d:?}");
        let scaled = |len, stream, by: f32| rounded(real, random(len, stream).into_iter().map(|x| x * by).collect());
        let (x, w) = (scaled(n * k, 1, 1.0), scaled(m * k, 2, 1.0 / (k as f32).sqrt()));
        let (bias, gain, shift) = (scaled(m, 3, 1.0), scaled(k, 4, 1.0), scaled(k, 5, 1.0));
        // A mean that a norm has to take off.
        let x: Vec<f32> = rounded(real, x.iter().map(|x| x + 0.5).collect());
        let (mut stats, mut input) = (array(&vec![0.0; 2 * n]), array(&x));
        let rms = norm == Some(true);
        // RMSNorm of an odd number of rows as Gemma has it.
        let offset = if rms && n % 2 == 1 { 1.0 } else { 0.0 };
        if norm.is_some() {
            let dims = NormDims { n, c: k, eps: 1e-5, rms, gain_offset: offset };
            let shift = (!rms).then(|| array(&shift));
            Naive.norm(&array(&x), &array(&gain), shift.as_ref(), &mut input, &mut stats, dims);
            input = array(&rounded(real, input.to_vec()));
        }
        let mut sums = array(&vec![0.0; n * m]);
        let of_oracle = with_bias.then(|| array(&bias));
        Naive.linear(&input, &array(&w), of_oracle.as_ref(), &mut sums, Store::Overwrite, d);
        let norm_at = norm.map(|rms| NormAt {
            gain: on.put(real, &gain),
            bias: (!rms).then(|| on.put(real, &shift)),
            stats: on.put(Real::F32, &vec![f32::NAN; 2 * n]),
            eps: 1e-5,
            offset,
            rms,
        });
        let bias = with_bias.then(|| on.put(real, &bias));
        let w = on.put(real, &w);
        let matvec = Matvec { real, x: on.put(real, &x), w, scales: None, bias, norm: norm_at, d };
        Self { real, d, norm, matvec, sums, stats: stats.to_vec() }
    }

    fn what(&self) -> String {
        format!("{:?} {:?}, rms {:?}", self.real, self.d, self.norm)
    }

    /// `steepness`: what is made of a sum moves by so many times of what the sum moves by.
    fn close(&self, got: &[f32], want: &[f32], steepness: f32) {
        let scale = want.iter().fold(1.0f32, |m, x| m.max(x.abs()));
        let rotated = 2f32.powi(-8) * 4.5 * 4.5 / (self.d.k as f32).sqrt();
        let (relative, rotated) = match self.real {
            Real::F32 => (0.0, 0.0),
            Real::Bf16 => (2f32.powi(-8), if self.norm.is_some() { rotated } else { 0.0 }),
        };
        within(&self.what(), got, want, relative, 2e-5 * scale + steepness * rotated);
    }

    fn check_stats(&self, on: &HostDevice) {
        if let Some(norm) = self.matvec.norm {
            let got = on.get(Real::F32, norm.stats, self.stats.len());
            within(&format!("{}: statistics", self.what()), &got, &self.stats, 2e-5, 1e-6);
        }
    }

    fn done(&self, on: &HostDevice) {
        on.wait().unwrap_or_else(|e| panic!("{}: {e}", self.what()));
        self.check_stats(on);
    }
}

const REALS: [Real; 2] = [Real::F32, Real::Bf16];

/// One k-block and less, several a warp, more than a round of them, whole ones and parts; one tile and more than there are blocks.
const SIZES: [(usize, usize); 9] =
    [(8, 1), (16, 15), (64, 16), (72, 33), (200, 40), (520, 17), (1024, 130), (2056, 34), (4104, 8)];

#[test]
fn every_number_of_rows_and_size_agrees() {
    let Some(on) = HostDevice::new() else { return };
    for real in REALS {
        for (i, (k, m)) in SIZES.into_iter().enumerate() {
            for n in [1 + i % 8, 8 - i % 8, 3] {
                for norm in [None, Some(true), Some(false)] {
                    let case = Case::new(&on, real, LinearDims { n, k, m }, norm, n != 3);
                    let out = on.put(real, &vec![f32::NAN; n * m]);
                    case.matvec.linear(&on, None, out, real == Real::F32);
                    case.done(&on);
                    case.close(&on.get(real, out, n * m), &case.sums, 1.0);
                }
            }
        }
    }
}

#[test]
fn a_residual_is_added_and_may_be_the_result_and_logits_are_f32() {
    let Some(on) = HostDevice::new() else { return };
    let d = LinearDims { n: 5, k: 136, m: 50 };
    for (real, to) in [(Real::F32, Real::F32), (Real::Bf16, Real::Bf16), (Real::Bf16, Real::F32)] {
        for norm in [None, Some(true)] {
            let case = Case::new(&on, real, d, norm, true);
            let before = rounded(to, random(d.n * d.m, 9));
            let [plus, out, both] = [(); 3].map(|()| on.put(to, &before));
            on.set(to, out, &vec![f32::NAN; d.n * d.m]);
            case.matvec.linear(&on, Some(plus), out, to == Real::F32);
            case.matvec.linear(&on, Some(both), both, to == Real::F32);
            case.done(&on);
            let want: Vec<f32> = case.sums.iter().zip(&before).map(|(a, b)| a + b).collect();
            for at in [out, both] {
                case.close(&on.get(to, at, d.n * d.m), &want, 1.0);
            }
        }
    }
}

#[test]
fn the_first_product_of_a_feed_forward_layer_is_kept_and_activated() {
    let Some(on) = HostDevice::new() else { return };
    let kinds = Activation::ALL;
    for real in REALS {
        for (i, (n, k, f)) in [(1, 64, 34), (8, 40, 7), (2, 1096, 21), (5, 512, 48)].into_iter().enumerate() {
            for kind in kinds.iter().copied() {
                let m = kind.inner(f);
                let norm = [None, Some(true), Some(false)][i % 3];
                let case = Case::new(&on, real, LinearDims { n, k, m }, norm, i % 2 == 0);
                let (pre, out) = (on.put(real, &vec![f32::NAN; n * m]), on.put(real, &vec![f32::NAN; n * f]));
                case.matvec.up(&on, kind, pre, out);
                case.done(&on);
                case.close(&on.get(real, pre, n * m), &case.sums, 1.0);
                let mut want = array(&vec![0.0; n * f]);
                Naive.activation(kind, &case.sums, &mut want, n, f);
                // Slopes are at most 1.13, and SwiGLU's halves, of size 1 with a bias of size 1, are multiplied.
                let steepness = if kind.gated() { 2.2 * 4.5 * 1.5 } else { 1.2 };
                case.close(&on.get(real, out, n * f), &want, steepness);
            }
        }
    }
}

/// Where the cache has keys or values of a token.
fn cached(
    numbers: &[f32],
    capacity: usize,
    d: &AttentionDims,
    sequence: usize,
    head: usize,
    position: usize,
) -> Vec<f32> {
    numbers[((sequence * d.kv_heads + head) * capacity + position) * d.head_dim..][..d.head_dim].to_vec()
}

/// `rotated`: elements of a head that are; none without rotary positions.
fn check_cache(on: &HostDevice, real: Real, d: AttentionDims, k: usize, rotated: usize, position: usize) {
    let rotary = rotated > 0;
    let (n, m, capacity) = (d.rows(), d.qkv_width(), 21);
    let case = Case::new(on, real, LinearDims { n, k, m }, Some(rotary), !rotary);
    let mut f = Frequencies::new(&Rope { theta: 10_000.0, scaling: None }, rotated);
    f.factor = if rotated < d.head_dim { 1.2 } else { 1.0 };
    let half = d.batch * d.kv_heads * capacity * d.head_dim;
    let [keys, values] = [(); 2].map(|()| on.put(real, &vec![-7.0; half]));
    let first = on.put_words(&[position as u32]);
    let qkv = on.put(real, &vec![f32::NAN; n * m]);
    let frequencies = on.put(Real::F32, &f.radians);
    let angles = rotary.then_some(Angles { frequencies, pairs: f.radians.len(), longer: f.factor });
    case.matvec.qkv(on, qkv, CacheAt { keys, values, capacity, first, angles }, d);
    case.done(on);
    let mut want = array(&case.sums);
    if rotary {
        Naive.rope(&mut want, &f, position, false, d);
    }
    let got = on.get(real, qkv, n * m);
    case.close(&got, &want, 1.5 * f.factor);
    // The cache, a ring, has what qkv has, and nothing else has changed.
    let mut changed = 0;
    for (part, at) in [(0, keys), (1, values)] {
        let there = on.get(real, at, half);
        for row in 0..n {
            let place = (position + row % d.tokens) % capacity;
            for head in 0..d.kv_heads {
                let column = (d.heads + part * d.kv_heads + head) * d.head_dim;
                let want = &got[row * m + column..][..d.head_dim];
                assert_eq!(cached(&there, capacity, &d, row / d.tokens, head, place), want, "{}", case.what());
            }
        }
        changed += there.iter().filter(|x| **x != -7.0).count();
    }
    assert_eq!(changed, 2 * d.rows() * d.kv_heads * d.head_dim, "{}", case.what());
}

#[test]
fn queries_and_keys_are_rotated_and_the_cache_has_what_it_should() {
    let Some(on) = HostDevice::new() else { return };
    let sizes =
        [(1, 1, 4, 4, 64), (3, 1, 4, 2, 10), (2, 3, 6, 2, 16), (1, 8, 3, 1, 34), (8, 1, 2, 2, 2), (1, 5, 1, 1, 128)];
    for real in REALS {
        for (batch, tokens, heads, kv_heads, head_dim) in sizes {
            let d = AttentionDims { batch, tokens, heads, kv_heads, head_dim, causal: true, scores: Scores::default() };
            for (k, position) in [(72, 0), (648, 17)] {
                check_cache(&on, real, d, k, head_dim, position);
                // Of a part that leaves pairs of the rest, half of those apart.
                check_cache(&on, real, d, k, (3 * head_dim / 8 * 2).max(2), position);
                check_cache(&on, real, d, k, 0, position);
            }
        }
        // Without rotations a head may be of any width.
        let odd = AttentionDims {
            batch: 2,
            tokens: 2,
            heads: 3,
            kv_heads: 1,
            head_dim: 7,
            causal: true,
            scores: Scores::default(),
        };
        check_cache(&on, real, odd, 40, 0, 3);
    }
}

#[test]
fn what_the_kernels_do_not_take_is_decided_by_shapes_alone() {
    let Some(on) = HostDevice::new() else { return };
    let d = LinearDims { n: 8, k: 4096, m: 40 };
    for (real, norm, d, want) in [
        (Real::Bf16, true, d, true),
        (Real::Bf16, true, LinearDims { n: 9, ..d }, false),
        (Real::Bf16, true, LinearDims { n: 0, ..d }, false),
        (Real::Bf16, false, LinearDims { k: 4100, ..d }, false),
        (Real::F32, false, LinearDims { k: 4100, ..d }, true),
        (Real::F32, false, LinearDims { k: 4098, ..d }, false),
        // Rows of x that do not fit into shared memory: only a norm needs them there.
        (Real::Bf16, false, LinearDims { k: 1 << 15, ..d }, true),
        (Real::Bf16, true, LinearDims { k: 1 << 15, ..d }, false),
    ] {
        assert_eq!(takes(&on, real, norm, d), want, "{real:?} {norm} {d:?}");
    }
}
