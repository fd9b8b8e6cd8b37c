//! The kernel of products in 8 bits: one tile of the result from two panels, group by group.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a kernel: each line is an intrinsic or a pointer's step, all under the one obligation of its function"
)]

use super::int8_groups::{LEFT_ROWS, RIGHT_ROWS, WORDS};
use super::kernel::{LINE, Run, Tile};
use super::lanes::Lanes;
use crate::transformer::cpu::instructions::Instructions;
use std::ptr::null;

/// How a tile is laid out for one instruction path.
#[derive(Clone, Copy, Debug)]
pub(super) struct IntegerKernel {
    /// Rows of a tile.
    pub rows: usize,
    columns: usize,
    run: Run,
}

impl IntegerKernel {
    /// The kernel for products of so many rows with weights of 8 bits, all tiles alike.
    pub(super) fn of_8_bits(instructions: Instructions, rows: usize) -> Self {
        let table: &[Run] = match instructions {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Bf16 | Instructions::Amx => &vnni::BY_ROWS,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => &avx512::BY_ROWS,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => &avx2::BY_ROWS,
            _ => &portable::BY_ROWS,
        };
        Self::new(table, instructions, rows)
    }

    /// Of a table of kernels by rows.
    pub(super) fn new(table: &[Run], instructions: Instructions, rows: usize) -> Self {
        let tiles = rows.div_ceil(table.len()).max(1);
        let rows = rows.div_ceil(tiles).max(1);
        let columns = super::kernel::Kernel::columns_of(instructions);
        Self { rows, columns, run: table[rows - 1] }
    }

    /// Multiplies so many groups of two panels (of 4 bits: blocks). A tile of which only a part exists is made beside and copied.
    ///
    /// # Safety
    /// The panels hold as many groups; the existing part of the tile is the caller's alone to write; the machine has the
    /// kernel's instructions.
    pub(super) unsafe fn multiply(&self, groups: usize, a: *const f32, b: *const f32, to: Tile) {
        // SAFETY: the caller's.
        unsafe { to.whole_or_beside(self.rows, self.columns, |to| (self.run)(groups, a, b, to)) };
    }
}

/// The one source: per group integer sums in registers, which are scaled and added to sums of f32.
#[inline(always)]
unsafe fn tile<L: Bytes, const ROWS: usize, const V: usize>(groups: usize, a: *const f32, b: *const f32, to: Tile) {
    // SAFETY: the caller keeps the panels and the tile valid, and the machine has L's instructions.
    unsafe {
        let mut sums = [[L::zero(); V]; ROWS];
        let width = V * L::WIDTH;
        let (mut a, mut b) = (a, b);
        for g in 0..groups {
            L::prefetch(to.ahead.wrapping_add(g * RIGHT_ROWS * LINE));
            let mut whole = [[L::splat_whole(a.add((WORDS + 1) * ROWS)); V]; ROWS];
            for (r, row) in whole.iter_mut().enumerate() {
                *row = [L::splat_whole(a.add((WORDS + 1) * ROWS + r)); V];
            }
            for e in 0..WORDS {
                L::prefetch(to.ahead.wrapping_add((g * RIGHT_ROWS + 1 + e) * LINE));
                let mut right = [L::whole_zero(); V];
                for (v, x) in right.iter_mut().enumerate() {
                    *x = L::load_whole(b.add(e * width + v * L::WIDTH));
                }
                for (r, row) in whole.iter_mut().enumerate() {
                    let left = L::splat_whole(a.add(e * ROWS + r));
                    for (s, x) in row.iter_mut().zip(right) {
                        *s = L::dot(*s, x, left);
                    }
                }
            }
            for (v, scales) in (0..V).map(|v| (v, L::load(b.add(WORDS * width + v * L::WIDTH)))) {
                for r in 0..ROWS {
                    let scale = L::splat(a.add(WORDS * ROWS + r));
                    sums[r][v] = L::add_scaled(whole[r][v], scale, scales, sums[r][v]);
                }
            }
            a = a.add(LEFT_ROWS * ROWS);
            b = b.add(RIGHT_ROWS * width);
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

/// Vectors of integers beside those of f32.
pub(super) trait Bytes: Lanes {
    type Whole: Copy;

    /// # Safety
    /// For all: the machine has the instructions, and pointers are valid for what is read.
    unsafe fn whole_zero() -> Self::Whole;
    unsafe fn load_whole(from: *const f32) -> Self::Whole;
    unsafe fn splat_whole(from: *const f32) -> Self::Whole;
    /// In each word: the sum plus the products of four unsigned bytes with four signed ones.
    unsafe fn dot(sum: Self::Whole, unsigned: Self::Whole, signed: Self::Whole) -> Self::Whole;
    /// `sum + x a b`
    unsafe fn add_scaled(x: Self::Whole, a: Self::Vector, b: Self::Vector, sum: Self::Vector) -> Self::Vector;
}

impl Bytes for super::lanes::Portable {
    type Whole = [i32; 8];

    #[inline(always)]
    unsafe fn whole_zero() -> [i32; 8] {
        [0; 8]
    }
    #[inline(always)]
    unsafe fn load_whole(from: *const f32) -> [i32; 8] {
        // SAFETY: the caller's.
        unsafe { from.cast::<[i32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat_whole(from: *const f32) -> [i32; 8] {
        // SAFETY: the caller's.
        [unsafe { *from.cast::<i32>() }; 8]
    }
    #[inline(always)]
    unsafe fn dot(mut sum: [i32; 8], unsigned: [i32; 8], signed: [i32; 8]) -> [i32; 8] {
        for i in 0..8 {
            let (u, s) = (unsigned[i].to_le_bytes(), signed[i].to_le_bytes());
            for j in 0..4 {
                sum[i] += i32::from(u[j]) * i32::from(s[j] as i8);
            }
        }
        sum
    }
    #[inline(always)]
    unsafe fn add_scaled(x: [i32; 8], a: [f32; 8], b: [f32; 8], mut sum: [f32; 8]) -> [f32; 8] {
        for i in 0..8 {
            sum[i] += x[i] as f32 * (a[i] * b[i]);
        }
        sum
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::lanes::{Avx2, Avx512, Avx512Bf16};
    use super::Bytes;
    use std::arch::x86_64::*;

    impl Bytes for Avx2 {
        type Whole = __m256i;

        #[inline(always)]
        unsafe fn whole_zero() -> __m256i {
            // SAFETY: the caller's, here and below.
            unsafe { _mm256_setzero_si256() }
        }
        #[inline(always)]
        unsafe fn load_whole(from: *const f32) -> __m256i {
            // SAFETY: the caller's.
            unsafe { _mm256_loadu_si256(from.cast()) }
        }
        #[inline(always)]
        unsafe fn splat_whole(from: *const f32) -> __m256i {
            // SAFETY: the caller's.
            unsafe { _mm256_set1_epi32(*from.cast::<i32>()) }
        }
        #[inline(always)]
        unsafe fn dot(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
            // Even and odd bytes as 16 bits: sums of two of their products fit 32.
            // SAFETY: the caller's.
            unsafe {
                let low = _mm256_and_si256(unsigned, _mm256_set1_epi16(0xff));
                let even = _mm256_madd_epi16(low, _mm256_srai_epi16(_mm256_slli_epi16(signed, 8), 8));
                let odd = _mm256_madd_epi16(_mm256_srli_epi16(unsigned, 8), _mm256_srai_epi16(signed, 8));
                _mm256_add_epi32(sum, _mm256_add_epi32(even, odd))
            }
        }
        #[inline(always)]
        unsafe fn add_scaled(x: __m256i, a: __m256, b: __m256, sum: __m256) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_fmadd_ps(_mm256_cvtepi32_ps(x), _mm256_mul_ps(a, b), sum) }
        }
    }

    macro_rules! of_512_bits {
        ($lanes:ty, |$sum:ident, $unsigned:ident, $signed:ident| $dot:expr) => {
            impl Bytes for $lanes {
                type Whole = __m512i;

                #[inline(always)]
                unsafe fn whole_zero() -> __m512i {
                    // SAFETY: the caller's, here and below.
                    unsafe { _mm512_setzero_si512() }
                }
                #[inline(always)]
                unsafe fn load_whole(from: *const f32) -> __m512i {
                    // SAFETY: the caller's.
                    unsafe { _mm512_loadu_si512(from.cast()) }
                }
                #[inline(always)]
                unsafe fn splat_whole(from: *const f32) -> __m512i {
                    // SAFETY: the caller's.
                    unsafe { _mm512_set1_epi32(*from.cast::<i32>()) }
                }
                #[inline(always)]
                unsafe fn dot($sum: __m512i, $unsigned: __m512i, $signed: __m512i) -> __m512i {
                    // SAFETY: the caller's.
                    unsafe { $dot }
                }
                #[inline(always)]
                unsafe fn add_scaled(x: __m512i, a: __m512, b: __m512, sum: __m512) -> __m512 {
                    // SAFETY: the caller's.
                    unsafe { _mm512_fmadd_ps(_mm512_cvtepi32_ps(x), _mm512_mul_ps(a, b), sum) }
                }
            }
        };
    }
    of_512_bits!(Avx512Bf16, |sum, unsigned, signed| _mm512_dpbusd_epi32(sum, unsigned, signed));
    of_512_bits!(Avx512, |sum, unsigned, signed| {
        let low = _mm512_and_si512(unsigned, _mm512_set1_epi16(0xff));
        let even = _mm512_madd_epi16(low, _mm512_srai_epi16(_mm512_slli_epi16(signed, 8), 8));
        let odd = _mm512_madd_epi16(_mm512_srli_epi16(unsigned, 8), _mm512_srai_epi16(signed, 8));
        _mm512_add_epi32(sum, _mm512_add_epi32(even, odd))
    });
}

super::kernel::kernels! {
    portable: Portable, 2, [1, 2];
}
#[cfg(target_arch = "x86_64")]
super::kernel::kernels! {
    #[target_feature(enable = "avx2,fma")] avx2: Avx2, 2, [1, 2];
    #[target_feature(enable = "avx512f,avx512bw")] avx512: Avx512, 2, [1, 2, 3, 4, 5, 6];
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")] vnni: Avx512Bf16, 2, [1, 2, 3, 4, 5, 6];
}
