//! The kernel of products with weights of 4 bits: one tile of the result from two panels, as `int4_groups` packs them.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a kernel: each line is an intrinsic or a pointer's step, all under the one obligation of its function"
)]

use super::int4_groups::{Groups, MIDDLE, NIBBLES};
use super::int8_groups::WORDS;
use super::int8_kernel::{Bytes, IntegerKernel};
use super::kernel::{LINE, Run, Tile};
use crate::transformer::cpu::instructions::Instructions;
use std::ptr::null;

/// The kernel for products of so many rows, all tiles alike.
pub(super) fn of(instructions: Instructions, rows: usize, groups: Groups) -> IntegerKernel {
    let table = if groups == Groups::Of32 { of_32::by_rows(instructions) } else { of_128::by_rows(instructions) };
    IntegerKernel::new(table, instructions, rows)
}

/// The one source: of each group, or part of one that a chunk has, integer sums in registers, which are taken off the zero-point's
/// share, scaled and added to sums of f32. A chunk has `SUMS` of them, and a block `3 - SUMS` chunks.
#[inline(always)]
unsafe fn tile<L: Nibbles, const ROWS: usize, const V: usize, const SUMS: usize>(
    blocks: usize,
    a: *const f32,
    b: *const f32,
    to: Tile,
) {
    let (chunks, width) = (3 - SUMS, V * L::WIDTH);
    let right_rows = chunks * NIBBLES + 1;
    // Rows of words of a sum.
    let each = NIBBLES / SUMS;
    // SAFETY: the caller keeps the panels and the tile valid, and the machine has L's instructions.
    unsafe {
        let mut sums = [[L::zero(); V]; ROWS];
        let (mut a, mut b) = (a, b);
        for block in 0..blocks {
            let scales = b.add(chunks * NIBBLES * width);
            L::prefetch(to.ahead.wrapping_add((block * right_rows + chunks * NIBBLES) * LINE));
            for chunk in 0..chunks {
                for part in 0..SUMS {
                    let mut whole = [[L::whole_zero(); V]; ROWS];
                    for e in 0..each {
                        let row = (chunk * SUMS + part) * each + e;
                        L::prefetch(to.ahead.wrapping_add((block * right_rows + row) * LINE));
                        let (mut low, mut high) = ([L::whole_zero(); V], [L::whole_zero(); V]);
                        for v in 0..V {
                            let eight = L::load_whole(b.add(row * width + v * L::WIDTH));
                            (low[v], high[v]) = (L::low(eight), L::high(eight));
                        }
                        let first = a.add((2 * part * each + e) * ROWS);
                        for (r, row) in whole.iter_mut().enumerate() {
                            let left = [L::splat_whole(first.add(r)), L::splat_whole(first.add(each * ROWS + r))];
                            for (v, s) in row.iter_mut().enumerate() {
                                *s = L::dot_small(L::dot_small(*s, low[v], left[0]), high[v], left[1]);
                            }
                        }
                    }
                    for v in 0..V {
                        let bits = L::load_whole(scales.add(v * L::WIDTH));
                        let (scale, zero) = match (SUMS, part) {
                            (2, 0) => (L::low_half(bits), L::number(f32::from(MIDDLE))),
                            (2, _) => (L::high_half(bits), L::number(f32::from(MIDDLE))),
                            _ => (L::high_half(bits), L::low_byte(bits)),
                        };
                        for r in 0..ROWS {
                            let minus = L::splat(a.add((WORDS + 1 + part) * ROWS + r));
                            let x = L::multiply_add(zero, minus, L::convert(whole[r][v]));
                            let scale = L::multiply(scale, L::splat(a.add(WORDS * ROWS + r)));
                            sums[r][v] = L::multiply_add(x, scale, sums[r][v]);
                        }
                    }
                }
                a = a.add((WORDS + 1 + SUMS) * ROWS);
            }
            b = b.add(right_rows * width);
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (v, s) in sums.into_iter().enumerate() {
                let column = v * L::WIDTH;
                let base = if to.base.is_null() { null() } else { to.base.add(r * to.base_stride + column) };
                L::store(s, to.factor, base, to.start.add(r * to.stride + column));
            }
        }
    }
}

/// Vectors of words that hold eight weights each, and of scales beside them.
trait Nibbles: Bytes {
    /// # Safety
    /// For all: the machine has the instructions.
    ///
    /// The low halves of bytes, and the high ones.
    unsafe fn low(x: Self::Whole) -> Self::Whole;
    unsafe fn high(x: Self::Whole) -> Self::Whole;
    /// [`Bytes::dot`] of unsigned bytes up to 15.
    unsafe fn dot_small(sum: Self::Whole, unsigned: Self::Whole, signed: Self::Whole) -> Self::Whole;
    /// The bf16 in the low half of words, and in the high one.
    unsafe fn low_half(x: Self::Whole) -> Self::Vector;
    unsafe fn high_half(x: Self::Whole) -> Self::Vector;
    /// The lowest bytes as numbers.
    unsafe fn low_byte(x: Self::Whole) -> Self::Vector;
    unsafe fn convert(x: Self::Whole) -> Self::Vector;
    unsafe fn number(x: f32) -> Self::Vector;
    unsafe fn multiply(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `sum + a b`
    unsafe fn multiply_add(a: Self::Vector, b: Self::Vector, sum: Self::Vector) -> Self::Vector;
}

impl Nibbles for super::lanes::Portable {
    #[inline(always)]
    unsafe fn low(x: [i32; 8]) -> [i32; 8] {
        x.map(|x| x & 0x0f0f_0f0f)
    }
    #[inline(always)]
    unsafe fn high(x: [i32; 8]) -> [i32; 8] {
        x.map(|x| (x >> 4) & 0x0f0f_0f0f)
    }
    #[inline(always)]
    unsafe fn dot_small(sum: [i32; 8], unsigned: [i32; 8], signed: [i32; 8]) -> [i32; 8] {
        // SAFETY: the caller's.
        unsafe { Self::dot(sum, unsigned, signed) }
    }
    #[inline(always)]
    unsafe fn low_half(x: [i32; 8]) -> [f32; 8] {
        x.map(|x| f32::from_bits((x as u32) << 16))
    }
    #[inline(always)]
    unsafe fn high_half(x: [i32; 8]) -> [f32; 8] {
        x.map(|x| f32::from_bits(x as u32 & 0xffff_0000))
    }
    #[inline(always)]
    unsafe fn low_byte(x: [i32; 8]) -> [f32; 8] {
        x.map(|x| (x & 0xff) as f32)
    }
    #[inline(always)]
    unsafe fn convert(x: [i32; 8]) -> [f32; 8] {
        x.map(|x| x as f32)
    }
    #[inline(always)]
    unsafe fn number(x: f32) -> [f32; 8] {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn multiply(mut a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
        a
    }
    #[inline(always)]
    unsafe fn multiply_add(a: [f32; 8], b: [f32; 8], mut sum: [f32; 8]) -> [f32; 8] {
        for i in 0..8 {
            sum[i] += a[i] * b[i];
        }
        sum
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::lanes::{Avx2, Avx512, Avx512Bf16};
    use super::Nibbles;
    use std::arch::x86_64::*;

    /// Of 15 times 127 four fit into 16 bits with a sign, and two are added up at a time.
    impl Nibbles for Avx2 {
        #[inline(always)]
        unsafe fn low(x: __m256i) -> __m256i {
            // SAFETY: the caller's, here and below.
            unsafe { _mm256_and_si256(x, _mm256_set1_epi8(15)) }
        }
        #[inline(always)]
        unsafe fn high(x: __m256i) -> __m256i {
            // SAFETY: the caller's.
            unsafe { _mm256_and_si256(_mm256_srli_epi32(x, 4), _mm256_set1_epi8(15)) }
        }
        #[inline(always)]
        unsafe fn dot_small(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
            // SAFETY: the caller's.
            unsafe {
                let pairs = _mm256_maddubs_epi16(unsigned, signed);
                _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }
        #[inline(always)]
        unsafe fn low_half(x: __m256i) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)) }
        }
        #[inline(always)]
        unsafe fn high_half(x: __m256i) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xffff_0000_u32 as i32))) }
        }
        #[inline(always)]
        unsafe fn low_byte(x: __m256i) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xff))) }
        }
        #[inline(always)]
        unsafe fn convert(x: __m256i) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_cvtepi32_ps(x) }
        }
        #[inline(always)]
        unsafe fn number(x: f32) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn multiply(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn multiply_add(a: __m256, b: __m256, sum: __m256) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_fmadd_ps(a, b, sum) }
        }
    }

    macro_rules! of_512_bits {
        ($lanes:ty, |$sum:ident, $unsigned:ident, $signed:ident| $dot:expr) => {
            impl Nibbles for $lanes {
                #[inline(always)]
                unsafe fn low(x: __m512i) -> __m512i {
                    // SAFETY: the caller's, here and below.
                    unsafe { _mm512_and_si512(x, _mm512_set1_epi8(15)) }
                }
                #[inline(always)]
                unsafe fn high(x: __m512i) -> __m512i {
                    // SAFETY: the caller's.
                    unsafe { _mm512_and_si512(_mm512_srli_epi32(x, 4), _mm512_set1_epi8(15)) }
                }
                #[inline(always)]
                unsafe fn dot_small($sum: __m512i, $unsigned: __m512i, $signed: __m512i) -> __m512i {
                    // SAFETY: the caller's.
                    unsafe { $dot }
                }
                #[inline(always)]
                unsafe fn low_half(x: __m512i) -> __m512 {
                    // SAFETY: the caller's.
                    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)) }
                }
                #[inline(always)]
                unsafe fn high_half(x: __m512i) -> __m512 {
                    // SAFETY: the caller's.
                    unsafe { _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(0xffff_0000_u32 as i32))) }
                }
                #[inline(always)]
                unsafe fn low_byte(x: __m512i) -> __m512 {
                    // SAFETY: the caller's.
                    unsafe { _mm512_cvtepi32_ps(_mm512_and_si512(x, _mm512_set1_epi32(0xff))) }
                }
                #[inline(always)]
                unsafe fn convert(x: __m512i) -> __m512 {
                    // SAFETY: the caller's.
                    unsafe { _mm512_cvtepi32_ps(x) }
                }
                #[inline(always)]
                unsafe fn number(x: f32) -> __m512 {
                    // SAFETY: the caller's.
                    unsafe { _mm512_set1_ps(x) }
                }
                #[inline(always)]
                unsafe fn multiply(a: __m512, b: __m512) -> __m512 {
                    // SAFETY: the caller's.
                    unsafe { _mm512_mul_ps(a, b) }
                }
                #[inline(always)]
                unsafe fn multiply_add(a: __m512, b: __m512, sum: __m512) -> __m512 {
                    // SAFETY: the caller's.
                    unsafe { _mm512_fmadd_ps(a, b, sum) }
                }
            }
        };
    }
    of_512_bits!(Avx512Bf16, |sum, unsigned, signed| _mm512_dpbusd_epi32(sum, unsigned, signed));
    of_512_bits!(Avx512, |sum, unsigned, signed| {
        let pairs = _mm512_maddubs_epi16(unsigned, signed);
        _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
    });
}

/// The kernels of a form, whose chunks have so many sums.
macro_rules! form {
    ($name:ident, $sums:literal) => {
        mod $name {
            use super::{Instructions, Nibbles, Run, Tile};

            /// The kernels by their rows.
            pub(super) fn by_rows(instructions: Instructions) -> &'static [Run] {
                match instructions {
                    #[cfg(target_arch = "x86_64")]
                    Instructions::Avx512Bf16 | Instructions::Amx => &vnni::BY_ROWS,
                    #[cfg(target_arch = "x86_64")]
                    Instructions::Avx512 => &avx512::BY_ROWS,
                    #[cfg(target_arch = "x86_64")]
                    Instructions::Avx2 => &avx2::BY_ROWS,
                    _ => &portable::BY_ROWS,
                }
            }

            /// # Safety
            /// As of the one source.
            #[inline(always)]
            unsafe fn tile<L: Nibbles, const ROWS: usize, const V: usize>(
                blocks: usize,
                a: *const f32,
                b: *const f32,
                to: Tile,
            ) {
                // SAFETY: the caller's.
                unsafe { super::tile::<L, ROWS, V, $sums>(blocks, a, b, to) }
            }

            super::super::kernel::kernels! {
                portable: Portable, 2, [1, 2];
            }
            #[cfg(target_arch = "x86_64")]
            super::super::kernel::kernels! {
                #[target_feature(enable = "avx2,fma")] avx2: Avx2, 2, [1, 2];
                #[target_feature(enable = "avx512f,avx512bw")] avx512: Avx512, 2, [1, 2, 3, 4, 5, 6];
                #[target_feature(enable = "avx512f,avx512bw,avx512vnni")] vnni: Avx512Bf16, 2, [1, 2, 3, 4, 5, 6];
            }
        }
    };
}
form!(of_32, 2);
form!(of_128, 1);
