//! Functions of sixteen numbers in a register of AVX-512, with multiply-adds: of `math`'s one source the compiler makes multiplications
//! and additions apart, twice as many instructions.

#![allow(clippy::excessive_precision, reason = "the constants of `math`, as they are there")]

use std::arch::x86_64::*;

/// e^x to 1.5 ulp between -87.3 and 88.3, clamped outside: as `math::exp`, by the same polynomial. Of no number it is none.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::transformer::cpu) fn exp(x: __m512) -> __m512 {
    // The second operand is what comes of a comparison with no number.
    let x = _mm512_max_ps(_mm512_set1_ps(-87.3), _mm512_min_ps(_mm512_set1_ps(88.3), x));
    let n = _mm512_roundscale_ps::<8>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), x);
    let r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.121_944_4e-4), r);
    let mut p = _mm512_set1_ps(1.987_569_2e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    _mm512_scalef_ps(p, n)
}

/// x / (1 + e^-y): x times the sigmoid of y.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::transformer::cpu) fn times_sigmoid(x: __m512, y: __m512) -> __m512 {
    let e = exp(_mm512_sub_ps(_mm512_setzero_ps(), y));
    _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0), e))
}

/// As `math::bf16_bits`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::transformer::cpu) fn bf16_bits(x: __m512) -> __m512i {
    let bits = _mm512_castps_si512(x);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    _mm512_add_epi32(bits, _mm512_add_epi32(_mm512_set1_epi32(0x7fff), odd))
}

/// Two bf16 in the bits of an f32 each, the first in the low half.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::transformer::cpu) fn pairs(first: __m512, second: __m512) -> __m512 {
    let high = upper(bf16_bits(second));
    _mm512_castsi512_ps(_mm512_or_si512(_mm512_srli_epi32::<16>(bf16_bits(first)), high))
}

/// The upper half of each word, and zeros.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::transformer::cpu) fn upper(bits: __m512i) -> __m512i {
    _mm512_and_si512(bits, _mm512_set1_epi32(0xffff_0000_u32 as i32))
}

/// The first so many lanes.
#[inline]
pub(in crate::transformer::cpu) fn mask(lanes: usize) -> __mmask16 {
    ((1u32 << lanes.min(16)) - 1) as __mmask16
}

#[cfg(test)]
mod tests {
    use super::super::super::instructions::Instructions;
    use super::*;

    fn register(x: [f32; 16]) -> __m512 {
        // SAFETY: sixteen numbers are a register's.
        unsafe { std::mem::transmute(x) }
    }

    fn numbers(x: __m512) -> [f32; 16] {
        // SAFETY: as above.
        unsafe { std::mem::transmute(x) }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        if Instructions::taken() < Instructions::Avx512 {
            return eprintln!("skipped: no AVX-512");
        }
        // SAFETY: the machine has the instructions.
        let exp = |x: f32| numbers(unsafe { exp(register([x; 16])) })[7];
        for i in -8700..=8800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "exp({x}): {error:e}");
        }
        assert!(exp(-1e9) < 1.3e-38 && exp(1e9) > 1e38 && exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn pairs_are_rounded_as_single_numbers() {
        if Instructions::taken() < Instructions::Avx512 {
            return eprintln!("skipped: no AVX-512");
        }
        let (x, y) = (std::array::from_fn(|i| 0.3 + i as f32 / 7.0), std::array::from_fn(|i| i as f32 / 3.0 - 1.7));
        // SAFETY: the machine has the instructions.
        let both = unsafe { pairs(register(x), register(y)) };
        for ((both, x), y) in numbers(both).into_iter().zip(x).zip(y) {
            let [x, y] = [x, y].map(|x| u32::from(half::bf16::from_f32(x).to_bits()));
            assert_eq!(both.to_bits(), x | y << 16);
        }
    }
}
