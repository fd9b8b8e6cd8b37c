//! How operands of 8 bits are rounded and packed.
//!
//! Weights are stored as integers from -127 to 127 with one f32 scale for every [`GROUP`] elements along the inner
//! dimension (8.5 bits a weight). The left operand is rounded in the same way as it is packed, so that a group's products are
//! added up exactly, in integers, and only their sums are scaled: what llama.cpp does with its Q8_0, in panels.
//!
//! A word of 32 bits holds four elements that are neighbours along the inner dimension. Of a panel of weights, a group is 16 rows
//! of `width` words and a row of `width` scales; the integers stand there plus 128, because the instructions multiply unsigned by
//! signed bytes. Of a panel of the left operand, a group is 16 rows of words, a row of scales, and a row of what the 128 add to a
//! sum too much, negative: where it starts from.

use super::super::instructions::vectorised;
use super::View;

/// Elements along the inner dimension that share a scale.
pub(super) const GROUP: usize = 64;
/// Words that hold a group of one row or column.
pub(super) const WORDS: usize = GROUP / 4;
/// Rows of a group's panels: words and scales; on the left also where sums start.
pub(super) const RIGHT_ROWS: usize = WORDS + 1;
pub(super) const LEFT_ROWS: usize = WORDS + 2;
/// The largest magnitude of a stored integer.
const LARGEST: f32 = 127.0;
/// Words of a panel of weights of that depth.
pub(super) fn right_words(depth: usize, width: usize) -> usize {
    depth.div_ceil(GROUP) * RIGHT_ROWS * width
}

/// A group of elements as integers (rest 0), and the scale that gives them back. The scale of what is not finite is NaN.
#[inline(always)]
pub(super) fn quantise(x: &[f32], to: &mut [i8; GROUP]) -> f32 {
    let (mut largest, mut poison) = (0.0f32, 0.0f32);
    for x in x {
        largest = if x.abs() > largest { x.abs() } else { largest };
        poison += x * 0.0;
    }
    let inverse = if largest > 0.0 { LARGEST / largest } else { 0.0 };
    // A denormal's inverse is infinite: such a group is nothing.
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    // Adding 1.5 * 2^23 rounds to an integer, which the low bits then hold.
    const ROUND: f32 = 12_582_912.0;
    if let Ok(x) = <&[f32; GROUP]>::try_from(x) {
        for (to, x) in to.iter_mut().zip(x) {
            *to = (x * inverse + ROUND).to_bits() as i8;
        }
    } else {
        *to = [0; GROUP];
        for (to, x) in to.iter_mut().zip(x) {
            *to = (x * inverse + ROUND).to_bits() as i8;
        }
    }
    largest / LARGEST + poison
}

/// Four neighbours in a word.
pub(super) fn word(bytes: [u8; 4]) -> f32 {
    f32::from_bits(u32::from_le_bytes(bytes))
}

/// Packs a panel of weights from rows of `depth` elements, of which there are at most `width`.
pub(super) fn quantise_right(panel: &mut [f32], width: usize, rows: &[f32], depth: usize) {
    panel.fill(0.0);
    for (column, row) in rows.chunks_exact(depth).enumerate() {
        for (group, x) in panel.chunks_exact_mut(RIGHT_ROWS * width).zip(row.chunks(GROUP)) {
            let mut integers = [0; GROUP];
            let scale = quantise(x, &mut integers);
            for (e, four) in integers.as_chunks::<4>().0.iter().enumerate() {
                group[e * width + column] = word(four.map(|q| (i16::from(q) + 128) as u8));
            }
            group[WORDS * width + column] = scale;
        }
    }
}

/// Column `column` of a panel of weights, as it was rounded.
pub(super) fn row(panel: &[f32], width: usize, column: usize, out: &mut [f32]) {
    for (out, group) in out.chunks_mut(GROUP).zip(panel.chunks_exact(RIGHT_ROWS * width)) {
        let scale = group[WORDS * width + column];
        for (e, out) in out.chunks_mut(4).enumerate() {
            let four = group[e * width + column].to_bits().to_le_bytes();
            for (o, q) in out.iter_mut().zip(four) {
                *o = f32::from(i16::from(q) - 128) * scale;
            }
        }
    }
}

/// Packs rows `first..` of the left operand, as many as a tile has; rows that do not exist are zero.
pub(super) fn quantise_left(panel: &mut [f32], tile: usize, a: View, first: usize) {
    let rows = tile.min(a.rows - first);
    if rows < tile {
        panel.fill(0.0);
    }
    vectorised(
        #[inline(always)]
        || {
            for r in 0..rows {
                let row = &a.data[(first + r) * a.row_stride..][..a.columns];
                for (group, x) in panel.chunks_exact_mut(LEFT_ROWS * tile).zip(row.chunks(GROUP)) {
                    let mut integers = [0; GROUP];
                    let scale = quantise(x, &mut integers);
                    for (e, four) in integers.as_chunks::<4>().0.iter().enumerate() {
                        group[e * tile + r] = word(four.map(|q| q as u8));
                    }
                    let sum: i32 = integers.iter().map(|&q| i32::from(q)).sum();
                    group[WORDS * tile + r] = scale;
                    group[(WORDS + 1) * tile + r] = f32::from_bits((-128 * sum) as u32);
                }
            }
        },
    );
}
