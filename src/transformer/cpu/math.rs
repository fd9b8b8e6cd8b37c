//! Elementary functions and reductions written so that the compiler turns them into vector code of whatever width the
//! machine has: one source, compiled for each instruction set, chosen at run time.

#[cfg(target_arch = "x86_64")]
pub(super) mod wide;

/// Lanes of the reductions below: an AVX-512 register, two of AVX2, four of NEON.
const LANES: usize = 16;

/// Sums in two times sixteen lanes, so that the order of additions does not depend on the instruction set.
#[inline(always)]
fn reduce(x: &[f32], y: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let (x, rest_of_x) = x.as_chunks::<{ 2 * LANES }>();
    let (y, rest_of_y) = y.as_chunks::<{ 2 * LANES }>();
    let mut lanes = [0.0f32; 2 * LANES];
    for (x, y) in x.iter().zip(y) {
        for i in 0..2 * LANES {
            lanes[i] += term(x[i], y[i]);
        }
    }
    let rest: f32 = rest_of_x.iter().zip(rest_of_y).map(|(x, y)| term(*x, *y)).sum();
    across(&lanes) + rest
}

/// The sum of all lanes. Not inlined: the order of these few additions would keep the compiler from taking whole registers before.
#[inline(never)]
fn across(lanes: &[f32; 2 * LANES]) -> f32 {
    let mut both = [0.0f32; LANES];
    for i in 0..LANES {
        both[i] = lanes[i] + lanes[LANES + i];
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            both[i] += both[i + half];
        }
    }
    both[0]
}

#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    reduce(x, x, |x, _| x)
}

#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let len = x.len().min(y.len());
    reduce(&x[..len], &y[..len], |x, y| x * y)
}

/// `sum (x - mean)^2`
#[inline(always)]
pub(super) fn squared_distance(x: &[f32], mean: f32) -> f32 {
    reduce(x, x, |x, _| (x - mean) * (x - mean))
}

#[inline(always)]
pub(super) fn maximum(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (m, v) in lanes.iter_mut().zip(chunk) {
            *m = if *v > *m { *v } else { *m };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, v| if *v > m { *v } else { m })
}

/// e^x to 2 ulp between -87.3 and 88.3, clamped outside. Cephes' expf: x = n ln 2 + r, a polynomial in r, times 2^n.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer that stands in the low bits: 1.5 * 2^23.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4;
    let r = r + n * 2.121_944_4e-4;
    let mut p = 1.987_569_2e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let y = p * r * r + r + 1.0;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    y * f32::from_bits(power)
}

/// tanh x = 1 - 2 / (e^2x + 1); near 0, where that loses digits, its error is absolute (6e-8), which is all GELU needs.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// `x = cap tanh(x / cap)`
#[inline(always)]
pub(super) fn soft_cap(x: &mut [f32], cap: f32) {
    let inverse = 1.0 / cap;
    x.iter_mut().for_each(|x| *x = cap * tanh(*x * inverse));
}

/// 1 / (1 + e^-x)
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The normal distribution's cumulative probability, to 1.5e-7 (Abramowitz & Stegun 7.1.26).
#[inline(always)]
pub(super) fn normal_cdf(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = ((((1.061_405_4 * t - 1.453_152) * t) + 1.421_413_7) * t - 0.284_496_74) * t + 0.254_829_6;
    let tail = 0.5 * p * t * exp(-z * z);
    if x > 0.0 { 1.0 - tail } else { tail }
}

/// The bits of a number rounded to bf16 (to nearest, ties to even) in their upper half. For finite numbers, and NaNs of the usual bits.
#[inline(always)]
pub(super) fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -8700..=8800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "exp({x}): {error:e}");
        }
        assert!(exp(-1e9) < 1.3e-38);
    }

    #[test]
    fn bounded_functions_are_within_rounding() {
        for i in -3000..=3000 {
            let x = i as f32 * 0.004;
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 2.5e-7, "tanh({x})");
            assert!((f64::from(sigmoid(x)) - 1.0 / (1.0 + (-f64::from(x)).exp())).abs() < 2e-7, "sigmoid({x})");
        }
    }

    #[test]
    fn reductions_see_every_element_at_odd_lengths() {
        for len in [0, 1, 15, 16, 31, 32, 33, 100, 257] {
            let x: Vec<f32> = (0..len).map(|i| i as f32).collect();
            assert_eq!(sum(&x), (0..len).sum::<usize>() as f32);
            assert_eq!(dot(&x, &x), x.iter().map(|v| v * v).sum::<f32>());
            assert_eq!(maximum(&x), if len == 0 { f32::NEG_INFINITY } else { (len - 1) as f32 });
        }
    }
}
