//! The feed-forward layer's function and its slope, vectorised.

use super::super::shape::Activation;
use super::instructions::vectorised;
use super::math::{exp, normal_cdf, sigmoid, tanh};
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
        Activation::SwiGlu => gate(
            out,
            pre,
            f,
            #[inline(always)]
            |x| value(Activation::SwiGlu, x),
        ),
        Activation::GeGlu => gate(
            out,
            pre,
            f,
            #[inline(always)]
            |x| value(Activation::GeGlu, x),
        ),
        // One loop a function: the match stays outside of it.
        Activation::ClampedSwiGlu => vectorised(
            #[inline(always)]
            || {
                for (out, pre) in out.chunks_exact_mut(f).zip(pre.chunks_exact(2 * f)) {
                    let (gate, up) = pre.split_at(f);
                    for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
                        *o = value(Activation::ClampedSwiGlu, *g) * (u.clamp(-CLAMP, CLAMP) + 1.0);
                    }
                }
            },
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

/// `out [n, f]` of `pre [n, 2 f]`: gate, then up.
#[inline(always)]
fn gate(out: &mut [f32], pre: &[f32], f: usize, value: impl Fn(f32) -> f32) {
    vectorised(
        #[inline(always)]
        || {
            for (out, pre) in out.chunks_exact_mut(f).zip(pre.chunks_exact(2 * f)) {
                let (gate, up) = pre.split_at(f);
                for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
                    *o = value(*g) * u;
                }
            }
        },
    );
}

/// The same back, in place, by the function's value and slope.
#[inline(always)]
fn gate_backward(pre: &mut [f32], dout: &[f32], f: usize, curve: impl Fn(f32) -> (f32, f32)) {
    vectorised(
        #[inline(always)]
        || {
            for (pre, dout) in pre.chunks_exact_mut(2 * f).zip(dout.chunks_exact(f)) {
                let (gate, up) = pre.split_at_mut(f);
                for ((g, u), d) in gate.iter_mut().zip(up).zip(dout) {
                    let ((value, slope), y) = (curve(*g), *u);
                    *g = d * slope * y;
                    *u = d * value;
                }
            }
        },
    );
}

/// `x = cap tanh(x / cap)`
pub(super) fn soft_cap(pool: &Pool, x: &mut [f32], cap: f32) {
    let share = pool.share(x.len(), 1 << 12);
    let inverse = 1.0 / cap;
    pool.over(writing(x, share), |_, x| {
        vectorised(
            #[inline(always)]
            || x.iter_mut().for_each(|x| *x = cap * tanh(*x * inverse)),
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
            |x| (value(Activation::SwiGlu, x), slope(Activation::SwiGlu, x)),
        ),
        Activation::GeGlu => gate_backward(
            pre,
            dout,
            f,
            #[inline(always)]
            |x| (value(Activation::GeGlu, x), slope(Activation::GeGlu, x)),
        ),
        Activation::ClampedSwiGlu => vectorised(
            #[inline(always)]
            || {
                for (pre, dout) in pre.chunks_exact_mut(2 * f).zip(dout.chunks_exact(f)) {
                    let (gate, up) = pre.split_at_mut(f);
                    for ((g, u), d) in gate.iter_mut().zip(up).zip(dout) {
                        let (x, y) = (*g, *u);
                        *g = d * slope(Activation::ClampedSwiGlu, x) * (y.clamp(-CLAMP, CLAMP) + 1.0);
                        *u = if y.abs() > CLAMP { 0.0 } else { d * value(Activation::ClampedSwiGlu, x) };
                    }
                }
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
