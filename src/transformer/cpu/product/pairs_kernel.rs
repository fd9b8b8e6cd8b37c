//! The kernel of products with weights in pairs of bf16 where no instruction takes pairs: the left operand is rounded numbers in words of
//! f32, and weights are expanded in registers, once for all rows of a tile, so that what is read is half of what f32 would be.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a kernel: each line is an intrinsic or a pointer's step, all under the one obligation of its function"
)]

use super::kernel::{Kernel, LINE, Run, Tile, add, kernels, put};
use super::lanes::{Lanes, Portable};
use crate::amx::pair;
use crate::transformer::cpu::instructions::Instructions;

/// The kernel for products of so many rows. Its depth is in words of the left operand, an element each.
pub(super) fn kernel(instructions: Instructions, rows: usize) -> Kernel {
    let table: &[Run] = match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Amx | Instructions::Avx512Bf16 | Instructions::Avx512 => &avx512::BY_ROWS,
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => &avx2::BY_ROWS,
        _ => &portable::BY_ROWS,
    };
    Kernel::from_table(table, instructions, rows)
}

/// The one source: a word of `a` is an f32, one of `b` a pair of bf16.
#[inline(always)]
unsafe fn tile<L: Pairs, const ROWS: usize, const V: usize>(depth: usize, a: *const f32, b: *const f32, to: Tile) {
    // SAFETY: the caller keeps the panels and the tile valid, and the machine has L's instructions.
    unsafe {
        // Few rows would wait for their own sums: those of second elements are kept apart, where registers are left.
        let apart = ROWS <= 3;
        let (mut sums, mut second) = ([[L::zero(); V]; ROWS], [[L::zero(); V]; ROWS]);
        let (mut a, mut b) = (a, b);
        for k in 0..depth / 2 {
            L::prefetch(to.ahead.wrapping_add(k * LINE));
            let words: [L::Vector; V] = std::array::from_fn(|v| L::load(b.add(v * L::WIDTH)));
            add::<L, ROWS, V>(&mut sums, a, words.map(|w| L::first(w)));
            add::<L, ROWS, V>(if apart { &mut second } else { &mut sums }, a.add(ROWS), words.map(|w| L::second(w)));
            a = a.add(2 * ROWS);
            b = b.add(V * L::WIDTH);
        }
        if depth % 2 == 1 {
            add::<L, ROWS, V>(&mut sums, a, std::array::from_fn(|v| L::first(L::load(b.add(v * L::WIDTH)))));
        }
        if apart {
            for (sums, second) in sums.as_flattened_mut().iter_mut().zip(second.as_flattened()) {
                *sums = L::sum(*sums, *second);
            }
        }
        put::<L, ROWS, V>(sums, to);
    }
}

/// Words of pairs, expanded.
trait Pairs: Lanes {
    /// # Safety
    /// For all: the machine has the instructions.
    unsafe fn sum(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The first and the second bf16 of each word, as f32.
    unsafe fn first(words: Self::Vector) -> Self::Vector;
    unsafe fn second(words: Self::Vector) -> Self::Vector;
}

impl Pairs for Portable {
    #[inline(always)]
    unsafe fn sum(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn first(words: Self::Vector) -> Self::Vector {
        words.map(|w| pair(w)[0])
    }
    #[inline(always)]
    unsafe fn second(words: Self::Vector) -> Self::Vector {
        words.map(|w| pair(w)[1])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::lanes::{Avx2, Avx512};
    use super::Pairs;
    use std::arch::x86_64::*;

    impl Pairs for Avx2 {
        #[inline(always)]
        unsafe fn sum(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller's, here and below.
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn first(words: __m256) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(words), 16)) }
        }
        #[inline(always)]
        unsafe fn second(words: __m256) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_and_ps(words, _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000_u32 as i32))) }
        }
    }

    impl Pairs for Avx512 {
        #[inline(always)]
        unsafe fn sum(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the caller's, here and below.
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn first(words: __m512) -> __m512 {
            // SAFETY: the caller's.
            unsafe { _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(words), 16)) }
        }
        #[inline(always)]
        unsafe fn second(words: __m512) -> __m512 {
            // SAFETY: the caller's.
            unsafe {
                let mask = _mm512_set1_epi32(0xffff_0000_u32 as i32);
                _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(words), mask))
            }
        }
    }
}

kernels! {
    portable: Portable, 2, [1, 2, 3, 4];
}
#[cfg(target_arch = "x86_64")]
kernels! {
    #[target_feature(enable = "avx2,fma")] avx2: Avx2, 2, [1, 2, 3, 4, 5, 6];
    #[target_feature(enable = "avx512f")] avx512: Avx512, 2, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
}
