//! The kernel of products of a few rows with weights in floats of 8 bits, as decoding has them: one tile of the result from two panels,
//! weights being expanded in registers.
//!
//! A byte of e4m3 in the upper bits of an f32, sign, exponent and mantissa each at its place, is the number over 2^120, whichever it is:
//! subnormals of the one are subnormals of the other. The left operand brings 2^60 of them (`f8_panels::pack_left`), the sum the
//! other 2^60, once a column, with the column's scale. Weights are expanded once for all rows of the tile.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a kernel: each line is an intrinsic or a pointer's step, all under the one obligation of its function"
)]

use super::super::cached::{Cached, E4m3};
use super::f8_panels::FOUR;
use super::int8_kernel::Bytes;
use super::kernel::{Run, Tile};
use crate::transformer::cpu::instructions::Instructions;
use std::ptr::null;

/// The kernel of one row, of two, and so on: as many as leave room in the registers. Their depth is in words of weights.
pub(super) fn by_rows(instructions: Instructions) -> &'static [Run] {
    match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Amx | Instructions::Avx512Bf16 | Instructions::Avx512 => &avx512::BY_ROWS,
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => &avx2::BY_ROWS,
        _ => &portable::BY_ROWS,
    }
}

/// What numbers and sums lack.
const LIFT: f32 = E4m3::LIFT;

/// The one source: sums of f32 in registers, scaled at the end.
#[inline(always)]
unsafe fn tile<L: Floats, const ROWS: usize, const V: usize>(depth: usize, a: *const f32, b: *const f32, to: Tile) {
    // SAFETY: the caller keeps the panels and the tile valid, and the machine has L's instructions.
    unsafe {
        let mut sums = [[L::zero(); V]; ROWS];
        let (mut a, mut b) = (a, b);
        for _ in 0..depth {
            let mut words = [L::whole_zero(); V];
            for (v, words) in words.iter_mut().enumerate() {
                *words = L::load_whole(b.add(v * L::WIDTH));
            }
            add::<L, 0, ROWS, V>(&words, a, &mut sums);
            add::<L, 1, ROWS, V>(&words, a.add(ROWS), &mut sums);
            add::<L, 2, ROWS, V>(&words, a.add(2 * ROWS), &mut sums);
            add::<L, 3, ROWS, V>(&words, a.add(3 * ROWS), &mut sums);
            a = a.add(FOUR * ROWS);
            b = b.add(V * L::WIDTH);
        }
        let lift = L::splat(&LIFT);
        for (r, sums) in sums.into_iter().enumerate() {
            for (v, s) in sums.into_iter().enumerate() {
                let column = v * L::WIDTH;
                let base = if to.base.is_null() { null() } else { to.base.add(r * to.base_stride + column) };
                // Lifted first: what a scale makes of it is then what it is.
                let s = L::multiply(L::multiply(s, lift), L::load(b.add(column)));
                L::store(s, to.factor, base, to.start.add(r * to.stride + column));
            }
        }
    }
}

/// Adds the products of weight `I` of each word with its element of each row.
#[inline(always)]
unsafe fn add<L: Floats, const I: usize, const ROWS: usize, const V: usize>(
    words: &[L::Whole; V],
    a: *const f32,
    sums: &mut [[L::Vector; V]; ROWS],
) {
    // SAFETY: the caller's.
    unsafe {
        let mut right = [L::zero(); V];
        for (x, words) in right.iter_mut().zip(words) {
            *x = L::number::<I>(*words);
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            let left = L::splat(a.add(r));
            for (s, x) in sums.iter_mut().zip(right) {
                *s = L::fma(left, x, *s);
            }
        }
    }
}

/// Vectors of words that hold four weights each.
pub(super) trait Floats: Bytes {
    /// Weight `I` of each word, over 2^120.
    ///
    /// # Safety
    /// For all: the machine has the instructions.
    unsafe fn number<const I: usize>(words: Self::Whole) -> Self::Vector;
    unsafe fn multiply(a: Self::Vector, b: Self::Vector) -> Self::Vector;
}

/// Sign, exponent and mantissa of a byte that stands in a word's upper bits, once these are moved four to the right.
const PLACES: i32 = 0x87f0_0000_u32 as i32;

impl Floats for super::lanes::Portable {
    #[inline(always)]
    unsafe fn number<const I: usize>(words: [i32; 8]) -> [f32; 8] {
        words.map(|w| f32::from_bits(((w << (24 - 8 * I)) >> 4 & PLACES) as u32))
    }
    #[inline(always)]
    unsafe fn multiply(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::lanes::{Avx2, Avx512};
    use super::{Floats, PLACES};
    use std::arch::x86_64::*;

    impl Floats for Avx2 {
        #[inline(always)]
        unsafe fn number<const I: usize>(words: __m256i) -> __m256 {
            // SAFETY: the caller's, here and below.
            unsafe {
                let above = match I {
                    0 => _mm256_slli_epi32(words, 24),
                    1 => _mm256_slli_epi32(words, 16),
                    2 => _mm256_slli_epi32(words, 8),
                    _ => words,
                };
                _mm256_castsi256_ps(_mm256_and_si256(_mm256_srai_epi32(above, 4), _mm256_set1_epi32(PLACES)))
            }
        }
        #[inline(always)]
        unsafe fn multiply(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_mul_ps(a, b) }
        }
    }

    impl Floats for Avx512 {
        #[inline(always)]
        unsafe fn number<const I: usize>(words: __m512i) -> __m512 {
            // SAFETY: the caller's, here and below.
            unsafe {
                let above = match I {
                    0 => _mm512_slli_epi32(words, 24),
                    1 => _mm512_slli_epi32(words, 16),
                    2 => _mm512_slli_epi32(words, 8),
                    _ => words,
                };
                _mm512_castsi512_ps(_mm512_and_si512(_mm512_srai_epi32(above, 4), _mm512_set1_epi32(PLACES)))
            }
        }
        #[inline(always)]
        unsafe fn multiply(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the caller's.
            unsafe { _mm512_mul_ps(a, b) }
        }
    }
}

super::kernel::kernels! {
    portable: Portable, 2, [1, 2];
}
#[cfg(target_arch = "x86_64")]
super::kernel::kernels! {
    #[target_feature(enable = "avx2,fma")] avx2: Avx2, 2, [1, 2, 3, 4];
    #[target_feature(enable = "avx512f,avx512bw")] avx512: Avx512, 2, [1, 2, 3, 4, 5, 6, 7, 8];
}
