//! Panels by AVX2: eight lanes at a time, where the items or the depth of a source lie side by side.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a kernel: each line is an intrinsic or a pointer's step, all under the one obligation of its function"
)]

use super::source::{Source, SourceTile};
use std::arch::x86_64::*;

/// Lanes of a vector.
const LANES: usize = 8;

/// Packs words of f32, rounded to bf16 where `ROUND` says so.
///
/// # Safety
/// The machine has AVX2; `panel` and `source` hold what `s` says; one stride is 1.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn pack<const ROUND: bool>(panel: &mut [f32], width: usize, source: Source, s: SourceTile) {
    let at = s.first_item * source.item_stride + s.first_depth * source.depth_stride;
    let from = source.data.as_ptr().wrapping_add(at);
    for group in (0..width).step_by(LANES) {
        let items = s.items.saturating_sub(group).min(LANES);
        let from = from.wrapping_add(group * source.item_stride);
        // SAFETY: the caller's; the group's items start `group` further on both sides.
        unsafe {
            let to = Group { start: panel.as_mut_ptr().add(group), width, lanes: (width - group).min(LANES) };
            if source.depth_stride == 1 {
                transposed::<ROUND>(from, source.item_stride, items, s.depth, to);
            } else {
                straight::<ROUND>(from, source.depth_stride, items, s.depth, to);
            }
        }
    }
}

/// Eight lanes, or fewer at the panel's end, of each of its rows of words.
#[derive(Clone, Copy)]
struct Group {
    start: *mut f32,
    width: usize,
    lanes: usize,
}

impl Group {
    /// Writes a row. Stores under a mask take an AMD processor tens of cycles; a panel of six is a store of four and one of two.
    #[target_feature(enable = "avx2")]
    unsafe fn put(self, row: usize, x: __m256) {
        // SAFETY: the caller keeps `row` within the panel, and no more than its lanes are written.
        unsafe {
            let to = self.start.add(row * self.width);
            let (low, high) = (_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            match self.lanes {
                LANES => _mm256_storeu_ps(to, x),
                6 => {
                    _mm_storeu_ps(to, low);
                    _mm_storel_pd(to.add(4).cast(), _mm_castps_pd(high));
                }
                4 => _mm_storeu_ps(to, low),
                lanes => {
                    let mut all = [0.0; LANES];
                    _mm256_storeu_ps(all.as_mut_ptr(), x);
                    to.copy_from_nonoverlapping(all.as_ptr(), lanes);
                }
            }
        }
    }
}

/// As [`super::super::math::bf16_bits`] rounds, with a NaN for every NaN.
#[inline]
#[target_feature(enable = "avx2")]
fn rounded<const ROUND: bool>(x: __m256) -> __m256 {
    if !ROUND {
        return x;
    }
    let bits = _mm256_castps_si256(x);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    let number = _mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(0xffff_0000_u32 as i32)));
    // A NaN's upper half, made quiet.
    let upper = _mm256_and_si256(bits, _mm256_set1_epi32(0xffff_0000_u32 as i32));
    let quiet = _mm256_castsi256_ps(_mm256_or_si256(upper, _mm256_set1_epi32(0x0040_0000)));
    _mm256_blendv_ps(number, quiet, _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x))
}

/// The first `n` of eight numbers, the others zero.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(from: *const f32, n: usize) -> __m256 {
    const KEPT: [i32; 2 * LANES] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the mask keeps the load within the caller's numbers; it lies within the table, as `n` is at most eight.
    unsafe { _mm256_maskload_ps(from, _mm256_loadu_si256(KEPT.as_ptr().add(LANES - n).cast())) }
}

/// Items side by side in the source: rows are copied.
#[target_feature(enable = "avx2")]
unsafe fn straight<const ROUND: bool>(from: *const f32, stride: usize, items: usize, depth: usize, to: Group) {
    for k in 0..depth {
        let from = from.wrapping_add(k * stride);
        // SAFETY: the items are there, and so is the panel's row.
        unsafe {
            let row = if items == LANES { _mm256_loadu_ps(from) } else { load(from, items) };
            to.put(k, rounded::<ROUND>(row));
        }
    }
}

/// Depth side by side in the source: blocks of 8 x 8 are transposed.
#[target_feature(enable = "avx2")]
unsafe fn transposed<const ROUND: bool>(from: *const f32, stride: usize, items: usize, depth: usize, to: Group) {
    for k in (0..depth).step_by(LANES) {
        let here = (depth - k).min(LANES);
        let mut block = [_mm256_setzero_ps(); LANES];
        for (i, row) in block.iter_mut().enumerate().take(items) {
            let at = from.wrapping_add(i * stride + k);
            // SAFETY: so many of the item's numbers are there.
            *row = unsafe { if here == LANES { _mm256_loadu_ps(at) } else { load(at, here) } };
        }
        for (j, x) in transpose(block).into_iter().enumerate().take(here) {
            // SAFETY: k + j is within the depth.
            unsafe { to.put(k + j, rounded::<ROUND>(x)) };
        }
    }
}

/// A block of 8 x 8 transposed, in three rounds of shuffles.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(r: [__m256; LANES]) -> [__m256; LANES] {
    let mut t = [_mm256_setzero_ps(); LANES];
    for i in 0..4 {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    // u[4 i + j] has columns j and j + 4 of rows 4 i to 4 i + 3, a half each.
    let mut u = [_mm256_setzero_ps(); LANES];
    for i in 0..2 {
        for j in 0..2 {
            let (a, b) = (t[4 * i + j], t[4 * i + 2 + j]);
            u[4 * i + 2 * j] = _mm256_shuffle_ps::<0x44>(a, b);
            u[4 * i + 2 * j + 1] = _mm256_shuffle_ps::<0xee>(a, b);
        }
    }
    let mut out = [_mm256_setzero_ps(); LANES];
    for j in 0..4 {
        out[j] = _mm256_permute2f128_ps::<0x20>(u[j], u[4 + j]);
        out[4 + j] = _mm256_permute2f128_ps::<0x31>(u[j], u[4 + j]);
    }
    out
}
