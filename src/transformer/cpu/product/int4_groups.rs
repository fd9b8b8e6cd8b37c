//! How weights of 4 bits are rounded and packed, and the left operand beside them.
//!
//! Two forms. Groups of 32 weights with a scale, as llama.cpp's Q4_0: integers from -8 to 7, the number of largest magnitude being -8
//! (4.5 bits a weight). Groups of 128 with a scale and, if asked for, a zero-point, as AWQ and GPTQ have them (4.25 bits): integers
//! from 0 to 15 of which the zero-point, 8 without one, stands for zero. Scales are bf16: 16 bits as in those formats, with f32's range,
//! so that small weights have no scale of few bits; integers are chosen for the scale as it was rounded.
//!
//! The left operand is rounded to 8 bits as `int8_groups` does it, with a scale for every [`CHUNK`] elements. A word holds eight
//! weights: of a group's columns of words the first half's elements are the low halves of bytes, the second half's the high ones, so
//! that a mask and a shift make two words of four bytes that meet two words of the left operand.
//!
//! Of a panel of weights, a block is its rows of words and one row of scales (of 32: two of them in a word, the first in the low half;
//! of 128: one in the high half, the zero-point in the low byte). Of a panel of the left operand, a chunk is 16 rows of words, a row of
//! scales, and for each group or part of one that lies in the chunk a row of minus its sum, as f32: what a zero-point is taken off by.

use super::super::instructions::vectorised;
use super::View;
use super::int8_groups::{GROUP, WORDS, quantise, word};
use half::bf16;

/// Elements that the left operand has one scale for.
pub(super) const CHUNK: usize = GROUP;
/// Rows of words of a chunk's weights.
pub(super) const NIBBLES: usize = CHUNK / 8;
/// The integer that stands for zero where there are no zero-points.
pub(super) const MIDDLE: u8 = 8;

/// Which weights share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Groups {
    /// 32.
    Of32,
    /// 128.
    Of128,
    /// 128, with a zero-point.
    Of128ZeroPoints,
}

impl Groups {
    /// Weights of a group.
    pub(super) fn len(self) -> usize {
        if self == Self::Of32 { 32 } else { 128 }
    }
    /// Sums that a chunk has: groups that end in it, or the part of one that it is.
    pub(super) fn sums(self) -> usize {
        if self == Self::Of32 { 2 } else { 1 }
    }
    /// Chunks of a block.
    pub(super) fn chunks(self) -> usize {
        if self == Self::Of32 { 1 } else { 2 }
    }
    /// Rows of a block of weights, and of the left operand's block beside it.
    pub(super) fn right_rows(self) -> usize {
        self.chunks() * NIBBLES + 1
    }
    pub(super) fn left_rows(self) -> usize {
        self.chunks() * self.left_rows_of_chunk()
    }
    fn left_rows_of_chunk(self) -> usize {
        WORDS + 1 + self.sums()
    }
    /// Blocks of that depth.
    pub(super) fn blocks(self, depth: usize) -> usize {
        depth.div_ceil(self.chunks() * CHUNK)
    }
    /// Words of a panel of weights of that depth.
    pub(super) fn right_words(self, depth: usize, width: usize) -> usize {
        self.blocks(depth) * self.right_rows() * width
    }
    /// Row of words in a block, and half of its bytes (0: low), of an element; then which of the four bytes.
    fn place(self, element: usize) -> (usize, usize, usize) {
        let part = CHUNK / self.sums();
        let (before, within) = (element / part, element % part);
        let (half, within) = (within / (part / 2), within % (part / 2));
        (before * part / 8 + within / 4, half, within % 4)
    }
}

/// What gives a group back.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    scale: bf16,
    zero: u8,
}

impl Scale {
    /// Of a group's weights. The scale of what is not finite is NaN.
    fn of(x: &[f32], groups: Groups) -> Self {
        let poison: f32 = x.iter().map(|x| x * 0.0).sum();
        if groups == Groups::Of128ZeroPoints {
            let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(low, high), x| (low.min(*x), high.max(*x)));
            let scale = bf16::from_f32((high - low) / 15.0 + poison);
            return Self { scale, zero: (-low * inverse(scale)).round_ties_even().clamp(0.0, 15.0) as u8 };
        }
        let largest = x.iter().fold(0.0f32, |most, x| if x.abs() > most.abs() { *x } else { most });
        Self { scale: bf16::from_f32(largest / -f32::from(MIDDLE) + poison), zero: MIDDLE }
    }

    fn round(self, x: f32) -> u8 {
        (x * inverse(self.scale) + f32::from(self.zero)).round_ties_even().clamp(0.0, 15.0) as u8
    }

    fn back(self, q: u8) -> f32 {
        (f32::from(q) - f32::from(self.zero)) * self.scale.to_f32()
    }
}

/// A group whose scale has no inverse is nothing.
fn inverse(scale: bf16) -> f32 {
    let inverse = 1.0 / scale.to_f32();
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The row of scales in a block, and what of its word is a group's.
fn scale_bits(groups: Groups, group_of_block: usize, scale: Scale) -> u32 {
    let bits = u32::from(scale.scale.to_bits());
    match groups {
        Groups::Of32 => bits << (16 * group_of_block),
        Groups::Of128 | Groups::Of128ZeroPoints => bits << 16 | u32::from(scale.zero),
    }
}

fn scale_of(groups: Groups, group_of_block: usize, bits: u32) -> Scale {
    match groups {
        Groups::Of32 => Scale { scale: bf16::from_bits((bits >> (16 * group_of_block)) as u16), zero: MIDDLE },
        Groups::Of128 | Groups::Of128ZeroPoints => {
            Scale { scale: bf16::from_bits((bits >> 16) as u16), zero: bits as u8 }
        }
    }
}

/// The scale and what stands for zero of a group, as numbers, from the bits of its word.
#[inline(always)]
pub(super) fn scale_and_zero(groups: Groups, group_of_block: usize, bits: u32) -> (f32, f32) {
    match groups {
        Groups::Of32 => (f32::from_bits(bits >> (16 * group_of_block) << 16), f32::from(MIDDLE)),
        Groups::Of128 | Groups::Of128ZeroPoints => (f32::from_bits(bits & 0xffff_0000), (bits & 255) as f32),
    }
}

/// Packs a panel of weights from rows of `depth` elements, of which there are at most `width`.
pub(super) fn quantise_right(panel: &mut [f32], width: usize, rows: &[f32], depth: usize, groups: Groups) {
    panel.fill(0.0);
    let (block_len, of_scales) = (groups.chunks() * CHUNK, groups.chunks() * NIBBLES);
    for (column, row) in rows.chunks_exact(depth).enumerate() {
        for (block, x) in panel.chunks_exact_mut(groups.right_rows() * width).zip(row.chunks(block_len)) {
            let mut words = [0u32; 2 * NIBBLES + 1];
            for (g, group) in x.chunks(groups.len()).enumerate() {
                let scale = Scale::of(group, groups);
                words[of_scales] |= scale_bits(groups, g, scale);
                for (i, x) in group.iter().enumerate() {
                    let element = g * groups.len() + i;
                    let (row, half, byte) = groups.place(element % CHUNK);
                    let q = u32::from(scale.round(*x));
                    words[element / CHUNK * NIBBLES + row] |= q << (8 * byte + 4 * half);
                }
            }
            for (row, word) in words[..=of_scales].iter().enumerate() {
                block[row * width + column] = f32::from_bits(*word);
            }
        }
    }
}

/// Column `column` of a panel of weights, as it was rounded.
pub(super) fn row(panel: &[f32], width: usize, column: usize, groups: Groups, out: &mut [f32]) {
    let (block_len, of_scales) = (groups.chunks() * CHUNK, groups.chunks() * NIBBLES);
    for (out, block) in out.chunks_mut(block_len).zip(panel.chunks_exact(groups.right_rows() * width)) {
        let bits = |row: usize| block[row * width + column].to_bits();
        for (element, out) in out.iter_mut().enumerate() {
            let scale = scale_of(groups, element / groups.len(), bits(of_scales));
            let (row, half, byte) = groups.place(element % CHUNK);
            let word = bits(element / CHUNK * NIBBLES + row);
            *out = scale.back((word >> (8 * byte + 4 * half)) as u8 & 15);
        }
    }
}

/// Packs rows `first..` of the left operand, as many as a tile has; rows that do not exist are zero.
pub(super) fn quantise_left(panel: &mut [f32], tile: usize, a: View, first: usize, groups: Groups) {
    let rows = tile.min(a.rows - first);
    let chunk_words = groups.left_rows_of_chunk() * tile;
    if rows < tile || !a.columns.is_multiple_of(groups.chunks() * CHUNK) {
        panel.fill(0.0);
    }
    vectorised(
        #[inline(always)]
        || {
            for r in 0..rows {
                let row = &a.data[(first + r) * a.row_stride..][..a.columns];
                for (chunk, x) in panel.chunks_exact_mut(chunk_words).zip(row.chunks(CHUNK)) {
                    let mut integers = [0; CHUNK];
                    let scale = quantise(x, &mut integers);
                    for (e, four) in integers.as_chunks::<4>().0.iter().enumerate() {
                        chunk[e * tile + r] = word(four.map(|q| q as u8));
                    }
                    chunk[WORDS * tile + r] = scale;
                    for (part, integers) in integers.chunks_exact(CHUNK / groups.sums()).enumerate() {
                        let sum: i32 = integers.iter().map(|&q| i32::from(q)).sum();
                        chunk[(WORDS + 1 + part) * tile + r] = -sum as f32;
                    }
                }
            }
        },
    );
}
