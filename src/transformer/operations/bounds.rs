//! How far a backend's result may be from the oracle's: derived from the format and from the length of sums, number by number.
//!
//! Inputs are rounded to the format before both get them, so that the factors of products are exact. What is left:
//!
//! - *Storage.* A number of p significant bits, rounded to nearest, is off by at most 2^-p of itself: 2^-8 for activations in bf16,
//!   2^-24 in f32.
//! - *Factors made on the way* (probabilities, gradients of scores and logits) are rounded once more before they are multiplied: 2^-8
//!   in bf16; in TF32, which keeps 11 bits and which tensor cores may cut instead of round, 2^-10.
//! - *Sums* are f32. A sum of K terms is off by more than `λ sqrt(K) 2^-24` times the sum of their magnitudes with a probability
//!   below `2 K exp(-λ²/2)` (Higham and Mary 2019, theorem 2.4, any order of summation); with λ = 8 that is 1e-10 at K = 4096, so that
//!   none of the 1e8 numbers that a full check compares is expected beyond it. Tensor cores cut what they add to 24 bits instead of
//!   rounding it (Fasi et al. 2021), 8 to 16 products at a time: K/8 errors of up to 2^-23, all of one sign, are K 2^-26, which is
//!   less than the above for every K below 2^10 λ², i.e. 65,536.
//! - *What is added to a product*, a bias or what lies at its place, may be added to a product that is stored already, so that it is
//!   rounded twice: some of cuBLASLt's kernels do so (seen on an H200: in bf16, where a bias's columns are odd or the result is added in
//!   place), as every program does that adds in a step of its own.
//! - *Functions* (exponential, tanh, logarithm, reciprocal) of a few instructions: [`FUNCTION`].
//!
//! The magnitudes come from the oracle too: of an operation that is linear in its inputs, they are its result on the inputs'
//! absolute values.

use super::super::backend::{CacheElement, Category};
use super::super::{CacheFormat, Dtype};
use half::bf16;

/// 2^-24: half a unit in the last place of 1 in f32.
pub(super) const UNIT: f64 = 1.0 / (1u64 << 24) as f64;

/// What a function of a few f32 instructions may be off by, of its scale: GPUs' exponential and division are within 2 units in the
/// last place (CUDA C++ Programming Guide, mathematical functions), their arguments within as many, and some six of these follow
/// one another.
pub(super) const FUNCTION: f64 = 32.0 * UNIT;

/// λ: how many deviations of a sum's error are let through.
const DEVIATIONS: f64 = 8.0;

/// What an f32 sum of so many terms may be off by, of the sum of their magnitudes.
pub(super) fn sum(terms: usize) -> f64 {
    DEVIATIONS * (terms.max(1) as f64).sqrt() * UNIT
}

/// A number format, as far as rounding goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format(pub Dtype);

impl Format {
    /// An element of a KV cache.
    pub(super) fn element(self, format: CacheFormat) -> CacheElement {
        CacheElement::of(self.0, format)
    }

    /// What storing a result of a category may be off by, of itself.
    pub(super) fn stored(self, category: Category) -> f64 {
        match (self.0, category) {
            (Dtype::Bf16, Category::Activations | Category::FixedWeights) => 1.0 / 256.0,
            _ => UNIT,
        }
    }

    /// The same of what attention and other operations that never use TF32 round on the way.
    pub(super) fn on_the_way(self) -> f64 {
        if self.0 == Dtype::Bf16 { 1.0 / 256.0 } else { 0.0 }
    }

    /// The same of a factor that a product takes.
    pub(super) fn factor(self) -> f64 {
        match self.0 {
            Dtype::F32 => 0.0,
            Dtype::Tf32 => 1.0 / 1024.0,
            Dtype::Bf16 => 1.0 / 256.0,
        }
    }

    /// A number as products take it, where the category's numbers are factors of products.
    pub(super) fn round(self, category: Category, x: f32) -> f32 {
        if !matches!(category, Category::Activations | Category::Weights | Category::FixedWeights) {
            return x;
        }
        match self.0 {
            Dtype::F32 => x,
            Dtype::Bf16 => bf16::from_f32(x).to_f32(),
            Dtype::Tf32 if x.is_finite() => {
                let bits = x.to_bits();
                f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & !0x1fff)
            }
            Dtype::Tf32 => x,
        }
    }
}

/// Largest length of a stretch of `dim` numbers.
pub(super) fn longest(numbers: &[f32], dim: usize) -> f64 {
    numbers.chunks_exact(dim).map(length).fold(0.0, f64::max)
}

/// Euclidean length.
pub(super) fn length(x: &[f32]) -> f64 {
    f64::from(dot(x, x)).sqrt()
}

/// A product of vectors, good to f32's sums: for magnitudes, which need no more.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (mut sums, n) = ([0.0f32; 8], a.len().min(b.len()));
    let (whole, rest) = (n / 8 * 8, n % 8);
    for (a, b) in a[..whole].chunks_exact(8).zip(b[..whole].chunks_exact(8)) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    let tail: f32 = a[whole..whole + rest].iter().zip(&b[whole..]).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tf32_keeps_eleven_bits_and_bf16_eight() {
        for x in [1.0f32, 1.0 / 3.0, -7.77, 1e-20, 3e20] {
            for (dtype, bits) in [(Dtype::Tf32, 11), (Dtype::Bf16, 8)] {
                let rounded = Format(dtype).round(Category::Weights, x);
                assert!(((rounded - x) / x).abs() <= 2f32.powi(-bits), "{dtype} {x}: {rounded}");
                assert_eq!(rounded.to_bits() & ((1 << (24 - bits)) - 1), 0);
                assert_eq!(Format(dtype).round(Category::Gradients, x), x);
            }
        }
    }

    #[test]
    fn vectors_are_multiplied_whole() {
        let a: Vec<f32> = (1..=19).map(|i| i as f32).collect();
        assert_eq!(dot(&a, &a), 2470.0);
        assert_eq!(longest(&[3.0, 4.0, 6.0, 8.0], 2), 10.0);
    }
}
