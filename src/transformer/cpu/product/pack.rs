//! Panels: the operands of a product in the order in which its kernel reads them.
//!
//! A panel holds `width` rows of `a` (or columns of `b`) for a k-block: `width` words side by side for each word along the inner
//! dimension. A word is an f32, or two bf16 that are neighbours along the inner dimension. What does not exist is zero.

use super::super::instructions::Instructions;
use super::Precision;
#[cfg(target_arch = "x86_64")]
use super::pack_avx2;
pub(in crate::transformer::cpu) use super::source::{Source, SourceTile};
use crate::amx::{SIDE, TILE};
use half::bf16;

/// How a panel's words lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transformer::cpu) enum Order {
    /// `width` of them for each word of the inner dimension.
    ByWord,
    /// Of a panel of 32 rows of bf16: for every 16 words of the inner dimension two tiles, of rows 0 to 15 and 16 to 31, a row's 16
    /// words side by side in each. What is left of the inner dimension lies as in the other order.
    InTiles,
}

impl Order {
    /// Elements of the inner dimension that a product may end after, short of the panel's own end.
    pub(in crate::transformer::cpu) fn step(self) -> usize {
        match self {
            Self::ByWord => 1,
            Self::InTiles => 2 * TILE,
        }
    }
}

/// Words along the inner dimension for so many elements.
pub(in crate::transformer::cpu) fn words(depth: usize, precision: Precision) -> usize {
    match precision {
        Precision::F32 | Precision::Rounded => depth,
        Precision::Bf16 => depth.div_ceil(2),
    }
}

/// Packs a panel of `width * words(s.depth)` words.
pub(in crate::transformer::cpu) fn pack(
    panel: &mut [f32],
    width: usize,
    source: Source,
    s: SourceTile,
    precision: Precision,
) {
    assert!(s.items <= width && panel.len() >= width * words(s.depth, precision), "a panel too small for its source");
    if s.items > 0 && s.depth > 0 {
        let last =
            (s.first_item + s.items - 1) * source.item_stride + (s.first_depth + s.depth - 1) * source.depth_stride;
        assert!(last < source.data.len(), "a panel beyond its source");
    }
    #[cfg(target_arch = "x86_64")]
    if source.item_stride == 1 || source.depth_stride == 1 {
        // SAFETY: the machine has the instructions; panel and source were checked above.
        let packed = unsafe { by_vectors(panel, width, source, s, precision) };
        if packed {
            return;
        }
    }
    match precision {
        Precision::F32 => plain(panel, width, source, s, |x| x),
        Precision::Rounded => plain(panel, width, source, s, |x| bf16::from_f32(x).to_f32()),
        Precision::Bf16 => plain_pairs(panel, width, source, s),
    }
}

/// Packs a panel by the instructions taken, where they have a way: whether they had.
///
/// # Safety
/// `panel` and `source` hold what `s` says; one stride is 1.
#[cfg(target_arch = "x86_64")]
unsafe fn by_vectors(panel: &mut [f32], width: usize, source: Source, s: SourceTile, precision: Precision) -> bool {
    match (precision, Instructions::taken()) {
        (_, Instructions::Portable) | (Precision::Bf16, Instructions::Avx2 | Instructions::Avx512) => return false,
        // SAFETY: the caller's; what is taken is there.
        (Precision::F32, Instructions::Avx2) => unsafe { pack_avx2::pack::<false>(panel, width, source, s) },
        // SAFETY: as above.
        (Precision::Rounded, Instructions::Avx2) => unsafe { pack_avx2::pack::<true>(panel, width, source, s) },
        // SAFETY: as above.
        _ => unsafe { x86::pack(panel, width, source, s, precision) },
    }
    true
}

/// Packs a panel in the order that its kernel reads.
pub(in crate::transformer::cpu) fn pack_in(
    order: Order,
    panel: &mut [f32],
    width: usize,
    source: Source,
    s: SourceTile,
    precision: Precision,
) {
    match order {
        Order::ByWord => pack(panel, width, source, s, precision),
        Order::InTiles => pack_tiles(panel, source, s),
    }
}

/// Packs a panel of 32 rows of bf16 in tiles.
pub(super) fn pack_tiles(panel: &mut [f32], source: Source, s: SourceTile) {
    let whole = words(s.depth, Precision::Bf16) / TILE * TILE;
    let (tiles, rest) = panel.split_at_mut(SIDE * whole);
    let of_tiles = SourceTile { depth: s.depth.min(2 * whole), ..s };
    let after = SourceTile { first_depth: s.first_depth + of_tiles.depth, depth: s.depth - of_tiles.depth, ..s };
    pack(rest, SIDE, source, after, Precision::Bf16);
    #[cfg(target_arch = "x86_64")]
    if source.depth_stride == 1 && of_tiles.depth == 2 * whole && Instructions::taken() >= Instructions::Avx512Bf16 {
        let last = (s.first_item + s.items.max(1) - 1) * source.item_stride + s.first_depth + 2 * whole;
        assert!(s.items <= SIDE && last <= source.data.len(), "a panel beyond its source");
        // SAFETY: the machine has the instructions; the source was checked above, and the tiles hold as many words of 32 rows.
        return unsafe { x86::rows_in_tiles(tiles, source, s, whole) };
    }
    pack(tiles, SIDE, source, of_tiles, Precision::Bf16);
    for block in tiles.chunks_exact_mut(SIDE * TILE) {
        into_tiles(block);
    }
}

/// 16 words of 32 rows, from the one order to the other.
fn into_tiles(block: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if Instructions::taken() >= Instructions::Avx512 && block.len() == SIDE * TILE {
        // SAFETY: the machine has the instructions, and the block its words.
        return unsafe { x86::into_tiles(block) };
    }
    let by_word = block.to_vec();
    for (at, word) in block.iter_mut().enumerate() {
        let (row, k) = (at / TILE, at % TILE);
        *word = by_word[k * SIDE + row];
    }
}

pub(super) fn plain(panel: &mut [f32], width: usize, source: Source, s: SourceTile, of: impl Fn(f32) -> f32) {
    for (k, row) in panel.chunks_exact_mut(width).take(s.depth).enumerate() {
        let from = s.first_item * source.item_stride + (s.first_depth + k) * source.depth_stride;
        for (i, x) in row.iter_mut().enumerate() {
            *x = if i < s.items { of(source.data[from + i * source.item_stride]) } else { 0.0 };
        }
    }
}

/// Two bf16 in the bits of an f32, the first in the low half.
fn pair(first: f32, second: f32) -> f32 {
    let [first, second] = [first, second].map(|x| u32::from(bf16::from_f32(x).to_bits()));
    f32::from_bits(first | second << 16)
}

pub(super) fn plain_pairs(panel: &mut [f32], width: usize, source: Source, s: SourceTile) {
    for (e, row) in panel.chunks_exact_mut(width).take(s.depth.div_ceil(2)).enumerate() {
        let k = 2 * e;
        let from = s.first_item * source.item_stride + (s.first_depth + k) * source.depth_stride;
        for (i, x) in row.iter_mut().enumerate() {
            let at = from + i * source.item_stride;
            let second = |at: usize| if k + 1 < s.depth { source.data[at + source.depth_stride] } else { 0.0 };
            *x = if i < s.items { pair(source.data[at], second(at)) } else { 0.0 };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![allow(
        clippy::multiple_unsafe_ops_per_block,
        reason = "a kernel: each line is an intrinsic or a pointer's step, all under the one obligation of its function"
    )]

    use super::super::super::math::wide::{bf16_bits, mask, upper};
    use super::{Precision, SIDE, Source, SourceTile, TILE};
    use std::arch::x86_64::*;

    /// # Safety
    /// The machine has AVX-512, for bf16 AVX512-BF16 too; `panel` and `source` hold what `s` says; one stride is 1.
    pub(super) unsafe fn pack(panel: &mut [f32], width: usize, source: Source, s: SourceTile, precision: Precision) {
        let at = s.first_item * source.item_stride + s.first_depth * source.depth_stride;
        // SAFETY: within the source, or just past it where nothing is taken.
        let from = unsafe { source.data.as_ptr().add(at) };
        let to = panel.as_mut_ptr();
        for group in (0..width).step_by(16) {
            let items = s.items.saturating_sub(group).min(16);
            let lanes = (width - group).min(16);
            // SAFETY: the caller's; the group's items start `group` further on both sides.
            unsafe {
                let from = from.wrapping_add(group * source.item_stride);
                let to = Group { start: to.add(group), width, lanes };
                match (precision, source.depth_stride == 1) {
                    (Precision::F32, true) => transposed::<false>(from, source.item_stride, items, s.depth, to),
                    (Precision::F32, false) => straight::<false>(from, source.depth_stride, items, s.depth, to),
                    (Precision::Rounded, true) => transposed::<true>(from, source.item_stride, items, s.depth, to),
                    (Precision::Rounded, false) => straight::<true>(from, source.depth_stride, items, s.depth, to),
                    (Precision::Bf16, true) => transposed_pairs(from, source.item_stride, items, s.depth, to),
                    (Precision::Bf16, false) => straight_pairs(from, source.depth_stride, items, s.depth, to),
                }
            }
        }
    }

    /// Sixteen lanes, or fewer at the panel's end, of each of its rows of words.
    #[derive(Clone, Copy)]
    struct Group {
        start: *mut f32,
        width: usize,
        lanes: usize,
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn put(to: Group, row: usize, x: __m512) {
        // SAFETY: the caller keeps `row` within the panel; the mask keeps the store within the group.
        unsafe { _mm512_mask_storeu_ps(to.start.add(row * to.width), mask(to.lanes), x) };
    }

    /// As the instruction rounds: to nearest, ties to even, a NaN to a NaN.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn rounded<const ROUND: bool>(x: __m512) -> __m512 {
        if !ROUND {
            return x;
        }
        let quiet = _mm512_or_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x0040_0000));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        _mm512_castsi512_ps(upper(_mm512_mask_mov_epi32(bf16_bits(x), nan, quiet)))
    }

    /// Items side by side in the source: rows are copied.
    #[target_feature(enable = "avx512f")]
    unsafe fn straight<const ROUND: bool>(from: *const f32, stride: usize, items: usize, depth: usize, to: Group) {
        for k in 0..depth {
            // SAFETY: the mask keeps the load within the items.
            unsafe {
                let row = _mm512_maskz_loadu_ps(mask(items), from.wrapping_add(k * stride));
                put(to, k, rounded::<ROUND>(row));
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16,avx512vl")]
    unsafe fn straight_pairs(from: *const f32, stride: usize, items: usize, depth: usize, to: Group) {
        // SAFETY: the masks keep the loads within the items; both bf16 vectors are 256 bits without further meaning.
        unsafe {
            let halves = |k: usize| {
                let kept = if k < depth { mask(items) } else { 0 };
                let row = _mm512_maskz_loadu_ps(kept, from.wrapping_add(k * stride));
                _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(row)))
            };
            for e in 0..depth.div_ceil(2) {
                let pairs = _mm512_or_si512(halves(2 * e), _mm512_slli_epi32(halves(2 * e + 1), 16));
                put(to, e, _mm512_castsi512_ps(pairs));
            }
        }
    }

    /// Depth side by side in the source: blocks of 16 x 16 are transposed.
    #[target_feature(enable = "avx512f,avx512dq")]
    unsafe fn transposed<const ROUND: bool>(from: *const f32, stride: usize, items: usize, depth: usize, to: Group) {
        for k in (0..depth).step_by(16) {
            let here = (depth - k).min(16);
            let mut block = [_mm512_setzero_ps(); 16];
            for (i, row) in block.iter_mut().enumerate().take(items) {
                // SAFETY: the mask keeps the load within the row.
                *row = unsafe { _mm512_maskz_loadu_ps(mask(here), from.wrapping_add(i * stride + k)) };
            }
            let block = transpose(block);
            for (j, x) in block.into_iter().enumerate().take(here) {
                // SAFETY: k + j is within the depth.
                unsafe { put(to, k + j, rounded::<ROUND>(x)) };
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512bf16")]
    unsafe fn transposed_pairs(from: *const f32, stride: usize, items: usize, depth: usize, to: Group) {
        for k in (0..depth).step_by(32) {
            let here = (depth - k).min(32);
            let mut block = [_mm512_setzero_ps(); 16];
            for (i, row) in block.iter_mut().enumerate().take(items) {
                let at = from.wrapping_add(i * stride + k);
                // SAFETY: the masks keep the loads within the row; the bf16 vector is 512 bits without further meaning.
                *row = unsafe {
                    let low = _mm512_maskz_loadu_ps(mask(here), at);
                    let high = _mm512_maskz_loadu_ps(mask(here.saturating_sub(16)), at.wrapping_add(16));
                    std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low))
                };
            }
            let block = transpose(block);
            for (j, x) in block.into_iter().enumerate().take(here.div_ceil(2)) {
                // SAFETY: k / 2 + j is within the panel's words.
                unsafe { put(to, k / 2 + j, x) };
            }
        }
    }

    /// Rows that lie side by side along the inner dimension: 32 elements of each are a tile's row.
    ///
    /// # Safety
    /// The source holds `s.items` rows of `whole` pairs from its first on, and `tiles` 32 rows of them; `whole` is a multiple of 16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn rows_in_tiles(tiles: &mut [f32], source: Source, s: SourceTile, whole: usize) {
        let to = tiles.as_mut_ptr();
        for row in 0..SIDE {
            let from = source.data.as_ptr().wrapping_add((s.first_item + row) * source.item_stride + s.first_depth);
            for block in 0..whole / TILE {
                // SAFETY: the row is one of the source's, or nothing is read; the bf16 vector is 512 bits without further meaning.
                unsafe {
                    let words = if row < s.items {
                        let at = from.add(block * 2 * TILE);
                        let (low, high) = (_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(TILE)));
                        std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low))
                    } else {
                        _mm512_setzero_ps()
                    };
                    _mm512_storeu_ps(to.add(block * SIDE * TILE + row * TILE), words);
                }
            }
        }
    }

    /// # Safety
    /// The block holds 16 words of 32 rows.
    #[target_feature(enable = "avx512f,avx512dq")]
    pub(super) unsafe fn into_tiles(block: &mut [f32]) {
        let at = block.as_mut_ptr();
        // SAFETY: 16 rows of 32 words, read before they are written over.
        unsafe {
            let half = |first: usize| std::array::from_fn(|k| _mm512_loadu_ps(at.add(k * SIDE + first)));
            let (low, high): ([__m512; TILE], [__m512; TILE]) = (half(0), half(TILE));
            for (tile, rows) in [transpose(low), transpose(high)].into_iter().enumerate() {
                for (row, words) in rows.into_iter().enumerate() {
                    _mm512_storeu_ps(at.add((tile * TILE + row) * TILE), words);
                }
            }
        }
    }

    /// A 16 x 16 block of words transposed, in four rounds of shuffles.
    #[target_feature(enable = "avx512f,avx512dq")]
    fn transpose(r: [__m512; 16]) -> [__m512; 16] {
        let mut t = [_mm512_setzero_ps(); 16];
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let mut u = [_mm512_setzero_ps(); 16];
        let [low, high] = [_mm512_unpacklo_pd, _mm512_unpackhi_pd];
        for i in 0..4 {
            let d = |x: __m512| _mm512_castps_pd(x);
            let s = |x: __m512d| _mm512_castpd_ps(x);
            let (a, b, c, e) = (t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]);
            u[4 * i] = s(low(d(a), d(c)));
            u[4 * i + 1] = s(high(d(a), d(c)));
            u[4 * i + 2] = s(low(d(b), d(e)));
            u[4 * i + 3] = s(high(d(b), d(e)));
        }
        // u[4 i + j] has columns j, j + 4, j + 8, j + 12 of rows 4 i to 4 i + 3, a quarter each.
        let mut out = [_mm512_setzero_ps(); 16];
        for j in 0..4 {
            let a = _mm512_shuffle_f32x4(u[j], u[4 + j], 0x88);
            let b = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0x88);
            let c = _mm512_shuffle_f32x4(u[j], u[4 + j], 0xdd);
            let e = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0xdd);
            out[j] = _mm512_shuffle_f32x4(a, b, 0x88);
            out[8 + j] = _mm512_shuffle_f32x4(a, b, 0xdd);
            out[4 + j] = _mm512_shuffle_f32x4(c, e, 0x88);
            out[12 + j] = _mm512_shuffle_f32x4(c, e, 0xdd);
        }
        out
    }
}
