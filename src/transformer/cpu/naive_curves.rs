//! The oracle's functions between the products of a feed-forward layer, in f64.

use super::super::shape::Activation;

/// gpt-oss's.
const CLAMP: f64 = 7.0;
const STEEPNESS: f64 = 1.702;

/// What a gate's other half is as a factor, and the slope of that.
pub(in crate::transformer) fn other_half(kind: Activation, up: f64) -> (f64, f64) {
    match kind {
        Activation::ClampedSwiGlu => (up.clamp(-CLAMP, CLAMP) + 1.0, if up.abs() > CLAMP { 0.0 } else { 1.0 }),
        _ => (up, 1.0),
    }
}

/// f(x) and f'(x).
pub(in crate::transformer) fn activate(kind: Activation, x: f64) -> (f64, f64) {
    match kind {
        Activation::Relu => (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }),
        Activation::GeluTanh | Activation::GeGlu => {
            let k = (2.0 / std::f64::consts::PI).sqrt();
            let t = (k * (x + 0.044715 * x * x * x)).tanh();
            (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * k * (1.0 + 3.0 * 0.044715 * x * x))
        }
        Activation::GeluErf => {
            let phi = 0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2));
            (x * phi, phi + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt())
        }
        // Of the gate, within its clamp; `gated` has the rest.
        Activation::ClampedSwiGlu => {
            let (x, open) = if x > CLAMP { (CLAMP, 0.0) } else { (x, 1.0) };
            let s = 1.0 / (1.0 + (-STEEPNESS * x).exp());
            (x * s, open * s * (1.0 + STEEPNESS * x * (1.0 - s)))
        }
        Activation::SwiGlu => {
            let s = 1.0 / (1.0 + (-x).exp());
            (x * s, s * (1.0 + x * (1.0 - s)))
        }
    }
}

/// The error function, to 1e-15: the Maclaurin series up to 3, the continued fraction beyond (Abramowitz & Stegun 7.1.5,
/// 7.1.14).
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 3.0 {
        let mut term = a;
        let mut sum = a;
        for n in 1..100 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let tail = (1..=60).rev().fold(0.0, |t, n| f64::from(n) / 2.0 / (a + t));
        1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + tail)
    };
    value.copysign(x)
}
