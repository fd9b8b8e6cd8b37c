//! The feed-forward layer's function and its slope, vectorised.

use super::super::shape::Activation;
#[cfg(target_arch = "x86_64")]
use super::instructions::Instructions;
use super::instructions::vectorised;
use super::math::{self, exp, normal_cdf, sigmoid, tanh};
use super::pool::{Pool, reading, writing};

/// sqrt(2 / pi)
const K: f32 = 0.797_884_6;
/// 1 / sqrt(2 pi)
const DENSITY: f32 = 0.398_942_3;

/// gpt-oss's.
const CLAMP: f32 = 7.0;
const STEEPNESS: f32 = 1.702;

#[inline(always)]
fn value(kind: Activation, x: f32) -> f32 {
    match kind {
        Activation::Relu => {
            if x > 0.0 {
                x
            } else {
                0.0
            }
        }
        Activation::GeluTanh | Activation::GeGlu => 0.5 * x * (1.0 + tanh(K * (x + 0.044_715 * x * x * x))),
        Activation::GeluErf => x * normal_cdf(x),
        Activation::SwiGlu => x * sigmoid(x),
        Activation::ClampedSwiGlu => {
            let x = if x > CLAMP { CLAMP } else { x };
            x * sigmoid(STEEPNESS * x)
        }
    }
}

#[inline(always)]
fn slope(kind: Activation, x: f32) -> f32 {
    match kind {
        Activation::Relu => {
            if x > 0.0 {
                1.0
            } else {
                0.0
            }
        }
        Activation::GeluTanh | Activation::GeGlu => {
            let t = tanh(K * (x + 0.044_715 * x * x * x));
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * K * (1.0 + 3.0 * 0.044_715 * x * x)
        }
        Activation::GeluErf => normal_cdf(x) + x * DENSITY * exp(-0.5 * x * x),
        Activation::ClampedSwiGlu => {
            let s = sigmoid(STEEPNESS * x);
            if x > CLAMP { 0.0 } else { s * (1.0 + STEEPNESS * x * (1.0 - s)) }
        }
        Activation::SwiGlu => {
            let s = sigmoid(x);
            s * (1.0 + x * (1.0 - s))
        }
    }
}

pub(super) fn forward(pool: &Pool, kind: Activation, pre: &[f32], out: &mut [f32], n: usize, f: usize) {
    let inner = kind.inner(f);
    let rows = pool.share(n, 1);
    let parts = (writing(&mut out[..n * f], rows * f), reading(&pre[..n * inner], rows * inner));
    pool.over(parts, |_, (out, pre)| {
        of_rows(
            kind,
            out.chunks_exact_mut(f).zip(pre.chunks_exact(inner)).map(
                #[inline(always)]
                |(out, pre)| {
                    let (gate, up) = pre.split_at(f);
                    (out, gate, up)
                },
            ),
        );
    });
}

/// Rows, or stretches of rows: where each goes, and what it is of, gate and up where it is gated.
#[inline(always)]
pub(super) fn of_rows<'a>(kind: Activation, rows: impl Iterator<Item = (&'a mut [f32], &'a [f32], &'a [f32])>) {
    #[cfg(target_arch = "x86_64")]
    if Instructions::taken() >= Instructions::Avx512 && x86::has(kind) {
        // SAFETY: the machine has the instructions.
        return unsafe { x86::of_rows(kind, rows) };
    }
    // One loop a function: the match stays outside of it.
    match kind {
        Activation::SwiGlu => gate(
            rows,
            #[inline(always)]
            |g, u| value(Activation::SwiGlu, g) * u,
        ),
        Activation::GeGlu => gate(
            rows,
            #[inline(always)]
            |g, u| value(Activation::GeGlu, g) * u,
        ),
        Activation::ClampedSwiGlu => gate(
            rows,
            #[inline(always)]
            |g, u| value(Activation::ClampedSwiGlu, g) * (u.clamp(-CLAMP, CLAMP) + 1.0),
        ),
        Activation::Relu => map(
            rows,
            #[inline(always)]
            |x| value(Activation::Relu, x),
        ),
        Activation::GeluTanh => map(
            rows,
            #[inline(always)]
            |x| value(Activation::GeluTanh, x),
        ),
        Activation::GeluErf => map(
            rows,
            #[inline(always)]
            |x| value(Activation::GeluErf, x),
        ),
    }
}

/// A function of gate and up.
#[inline(always)]
fn gate<'a>(rows: impl Iterator<Item = (&'a mut [f32], &'a [f32], &'a [f32])>, of: impl Fn(f32, f32) -> f32) {
    vectorised(
        #[inline(always)]
        || {
            for (out, gate, up) in rows {
                for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
                    *o = of(*g, *u);
                }
            }
        },
    );
}

/// A function of one number.
#[inline(always)]
fn map<'a>(rows: impl Iterator<Item = (&'a mut [f32], &'a [f32], &'a [f32])>, f: impl Fn(f32) -> f32) {
    vectorised(
        #[inline(always)]
        || {
            for (out, x, _) in rows {
                for (o, x) in out.iter_mut().zip(x) {
                    *o = f(*x);
                }
            }
        },
    );
}

/// The same back, in place: the gate's slope and what it is multiplied by, and the slope of the other half.
#[inline(always)]
fn gate_backward(pre: &mut [f32], dout: &[f32], f: usize, slopes: impl Fn(f32, f32) -> (f32, f32, f32)) {
    vectorised(
        #[inline(always)]
        || {
            for (pre, dout) in pre.chunks_exact_mut(2 * f).zip(dout.chunks_exact(f)) {
                let (gate, up) = pre.split_at_mut(f);
                for ((g, u), d) in gate.iter_mut().zip(up).zip(dout) {
                    let (of_gate, other, of_up) = slopes(*g, *u);
                    *g = d * of_gate * other;
                    *u = d * of_up;
                }
            }
        },
    );
}

/// `x = cap tanh(x / cap)`
pub(super) fn soft_cap(pool: &Pool, x: &mut [f32], cap: f32) {
    let share = pool.share(x.len(), 1 << 12);
    pool.over(writing(x, share), |_, x| {
        vectorised(
            #[inline(always)]
            || math::soft_cap(x, cap),
        );
    });
}

pub(super) fn backward(pool: &Pool, kind: Activation, pre: &mut [f32], dout: &[f32], n: usize, f: usize) {
    let inner = kind.inner(f);
    let rows = pool.share(n, 1);
    let parts = (writing(&mut pre[..n * inner], rows * inner), reading(&dout[..n * f], rows * f));
    pool.over(parts, |_, (pre, dout)| match kind {
        Activation::SwiGlu => gate_backward(
            pre,
            dout,
            f,
            #[inline(always)]
            |g, u| (slope(Activation::SwiGlu, g), u, value(Activation::SwiGlu, g)),
        ),
        Activation::GeGlu => gate_backward(
            pre,
            dout,
            f,
            #[inline(always)]
            |g, u| (slope(Activation::GeGlu, g), u, value(Activation::GeGlu, g)),
        ),
        Activation::ClampedSwiGlu => gate_backward(
            pre,
            dout,
            f,
            #[inline(always)]
            |g, u| {
                let of_up = if u.abs() > CLAMP { 0.0 } else { value(Activation::ClampedSwiGlu, g) };
                (slope(Activation::ClampedSwiGlu, g), u.clamp(-CLAMP, CLAMP) + 1.0, of_up)
            },
        ),
        Activation::Relu => scale(
            pre,
            dout,
            #[inline(always)]
            |x| slope(Activation::Relu, x),
        ),
        Activation::GeluTanh => scale(
            pre,
            dout,
            #[inline(always)]
            |x| slope(Activation::GeluTanh, x),
        ),
        Activation::GeluErf => scale(
            pre,
            dout,
            #[inline(always)]
            |x| slope(Activation::GeluErf, x),
        ),
    });
}

#[inline(always)]
fn scale(pre: &mut [f32], dout: &[f32], f: impl Fn(f32) -> f32) {
    vectorised(
        #[inline(always)]
        || {
            for (p, d) in pre.iter_mut().zip(dout) {
                *p = d * f(*p);
            }
        },
    );
}

/// The functions that are made of a sigmoid, a register at a time.
#[cfg(target_arch = "x86_64")]
mod x86 {
    #![allow(
        clippy::multiple_unsafe_ops_per_block,
        reason = "a kernel: each line is an intrinsic or a pointer's step, all under the one obligation of its function"
    )]

    use super::super::math::wide::{mask, times_sigmoid};
    use super::{Activation, CLAMP, K, STEEPNESS};
    use std::arch::x86_64::*;

    pub(super) fn has(kind: Activation) -> bool {
        kind.gated() || kind == Activation::GeluTanh
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn of_rows<'a>(kind: Activation, rows: impl Iterator<Item = (&'a mut [f32], &'a [f32], &'a [f32])>) {
        match kind {
            Activation::SwiGlu => each::<true>(rows, |g, u| _mm512_mul_ps(times_sigmoid(g, g), u)),
            Activation::GeGlu => each::<true>(rows, |g, u| _mm512_mul_ps(gelu(g), u)),
            Activation::ClampedSwiGlu => each::<true>(rows, |g, u| {
                let [low, high] = [-CLAMP, CLAMP].map(|x| _mm512_set1_ps(x));
                let g = _mm512_min_ps(high, g);
                let u = _mm512_max_ps(low, _mm512_min_ps(high, u));
                let gate = times_sigmoid(g, _mm512_mul_ps(_mm512_set1_ps(STEEPNESS), g));
                _mm512_mul_ps(gate, _mm512_add_ps(u, _mm512_set1_ps(1.0)))
            }),
            Activation::GeluTanh | Activation::GeluErf | Activation::Relu => each::<false>(rows, |x, _| gelu(x)),
        }
    }

    /// 0.5 (1 + tanh y) is the sigmoid of 2 y.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn gelu(x: __m512) -> __m512 {
        let cubic = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(2.0 * K * 0.044_715), _mm512_set1_ps(2.0 * K));
        times_sigmoid(x, _mm512_mul_ps(x, cubic))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn each<'a, const GATED: bool>(
        rows: impl Iterator<Item = (&'a mut [f32], &'a [f32], &'a [f32])>,
        of: impl Fn(__m512, __m512) -> __m512,
    ) {
        for (out, x, up) in rows {
            assert!(x.len() == out.len() && (!GATED || up.len() == out.len()), "rows of one width");
            for at in (0..out.len()).step_by(16) {
                let here = mask(out.len() - at);
                // SAFETY: the mask keeps loads and stores within the rows, which are of one width, checked above.
                unsafe {
                    let load = |row: &[f32]| _mm512_maskz_loadu_ps(here, row.as_ptr().add(at));
                    let (x, up) = (load(x), if GATED { load(up) } else { _mm512_setzero_ps() });
                    _mm512_mask_storeu_ps(out.as_mut_ptr().add(at), here, of(x, up));
                }
            }
        }
    }
}
