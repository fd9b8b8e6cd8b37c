//! The feed-forward layer's function and its slope, vectorised.

use super::super::shape::Activation;
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
    pool.over(parts, |_, (out, pre)| match kind {
        // One loop a function: the match stays outside of it.
        Activation::SwiGlu => gate(
            out,
            pre,
            f,
            #[inline(always)]
            |g, u| value(Activation::SwiGlu, g) * u,
        ),
        Activation::GeGlu => gate(
            out,
            pre,
            f,
            #[inline(always)]
            |g, u| value(Activation::GeGlu, g) * u,
        ),
        Activation::ClampedSwiGlu => gate(
            out,
            pre,
            f,
            #[inline(always)]
            |g, u| value(Activation::ClampedSwiGlu, g) * (u.clamp(-CLAMP, CLAMP) + 1.0),
        ),
        Activation::Relu => map(
            out,
            pre,
            #[inline(always)]
            |x| value(Activation::Relu, x),
        ),
        Activation::GeluTanh => map(
            out,
            pre,
            #[inline(always)]
            |x| value(Activation::GeluTanh, x),
        ),
        Activation::GeluErf => map(
            out,
            pre,
            #[inline(always)]
            |x| value(Activation::GeluErf, x),
        ),
    });
}

/// `out [n, f]` of `pre [n, 2 f]`: gate, then up, by a function of both.
#[inline(always)]
fn gate(out: &mut [f32], pre: &[f32], f: usize, of: impl Fn(f32, f32) -> f32) {
    vectorised(
        #[inline(always)]
        || {
            for (out, pre) in out.chunks_exact_mut(f).zip(pre.chunks_exact(2 * f)) {
                let (gate, up) = pre.split_at(f);
                for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
                    *o = of(*g, *u);
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

#[inline(always)]
fn map(out: &mut [f32], x: &[f32], f: impl Fn(f32) -> f32) {
    vectorised(
        #[inline(always)]
        || {
            for (o, x) in out.iter_mut().zip(x) {
                *o = f(*x);
            }
        },
    );
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
