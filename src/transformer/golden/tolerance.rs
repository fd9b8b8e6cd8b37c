//! How far a result in a format may be from a golden one.

use crate::transformer::shape::{Activation, Shape};
use crate::transformer::{Dtype, WeightFormat};

/// Largest error that passes in f32.
pub(super) const TOLERANCE: f64 = 1e-4;

/// Of a group of 64 numbers in 8 bits, in their deviations: the largest, about 2.5 of them, / 127.
const STEP_OF_8_BITS: f64 = 2.5 / 127.0;

/// The step of weights in few bits, in their deviations.
fn step(weights: WeightFormat) -> Option<f64> {
    match weights {
        WeightFormat::Dtype => None,
        WeightFormat::Int8 => Some(STEP_OF_8_BITS),
        // An eighth of the largest of 32, or of 128.
        WeightFormat::Int4 => Some(2.3 / 8.0),
        WeightFormat::Int4Group128 => Some(2.8 / 8.0),
        // A fifteenth of what lies between the least and the largest of 128.
        WeightFormat::Int4Group128ZeroPoints => Some(2.0 * 2.6 / 15.0),
        // An eighth of the power of two below each weight. These are 0.68 of the weights, as root mean squares, where the logarithms of
        // magnitudes are spread evenly over an octave, m of which has the mean square 1.5 / ln 2.
        WeightFormat::F8 => Some(0.68 / 8.0),
    }
}

/// Largest error that passes in a format, for a model of so many layers.
///
/// bf16 keeps 8 bits: each factor of a product is off by at most u = 2^-9 of itself, so that a product's terms are off by
/// 2 u, at random. A gradient has gone through about 14 products a layer (4 forward, 8 backward, 2 of attention each way);
/// independent errors add up as the root of their number, and the largest of thousands of elements is three times the
/// typical one: 6 u sqrt(14 L + 2). f32's bound is the fixed one that the field agrees on. TF32 keeps 11 bits, and tensor cores may cut the rest off instead of rounding it: u = 2^-11.
///
/// Weights of few bits: each factor of a product is off by its step / sqrt(12), a product by both; there are 4 a layer and the head's on
/// the way to the logits, and again the largest error is three times the typical one. The other factor of whole numbers is in 8 bits;
/// that of floats is in the dtype, whose errors come on top.
pub(crate) fn tolerance(dtype: Dtype, weights: WeightFormat, shape: &Shape) -> f64 {
    let of_unit = |u: f64| 6.0 * u * f64::from(14 * shape.n_layers + 2).sqrt();
    let of_dtype = match dtype {
        Dtype::F32 => TOLERANCE,
        Dtype::Tf32 => of_unit(2f64.powi(-11)),
        Dtype::Bf16 => of_unit(2f64.powi(-9)),
    };
    let Some(step) = step(weights) else { return of_dtype };
    let beside = |step_beside: f64| {
        let of_product = step.hypot(step_beside) / 12f64.sqrt();
        3.0 * of_product * f64::from(4 * shape.n_layers + 1).sqrt()
    };
    if weights == WeightFormat::F8 { beside(0.0) + of_dtype } else { beside(STEP_OF_8_BITS) }
}

/// The same of gradients that are sums over so many tokens. A ReLU whose input is within rounding of zero may be open on one side and
/// shut on the other, which takes a token's whole share out of a gradient or puts it in, however fine the format: rounding only says
/// how often. Of a sum of n independent shares one is 1 / sqrt(n), the largest of thousands of shares being as many deviations of
/// theirs as the largest of thousands of sums; layers do so independently: sqrt(L / n). (Finite differences of the loss of OPT's golden
/// file, 2 layers and 34 tokens, give two single tokens' shares of 0.25 and 0.15 of the largest gradient; the bound is 0.24 and
/// rounding's 0.06.) f32 is held to the fixed bound: that close to zero is no input of the files.
pub(crate) fn of_gradients(dtype: Dtype, weights: WeightFormat, shape: &Shape, tokens: usize) -> f64 {
    let jumps = shape.activation == Activation::Relu && dtype != Dtype::F32;
    let of_jumps = if jumps { (f64::from(shape.n_layers) / tokens.max(1) as f64).sqrt() } else { 0.0 };
    of_jumps + tolerance(dtype, weights, shape)
}
