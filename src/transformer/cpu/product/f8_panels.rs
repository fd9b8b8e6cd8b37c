//! How weights in floats of 8 bits are packed.
//!
//! A weight is e4m3, rounded as the KV cache's numbers are (`cached`), with one f32 scale for each output, a row of `w`, that brings the
//! row's largest weight to the largest there is: 8 bits a weight and 32 an output. Whole numbers have a scale for every 64 inputs
//! (`int8_groups`), because their step is that of the group's largest; a float's step is its own, down to 2^-15 of the row's largest,
//! so that more scales would make it no smaller. The left operand is not rounded to 8 bits.
//!
//! A word of 32 bits holds four weights that are neighbours along the inner dimension. A panel is a row of `width` words for every four
//! elements of it, and a row of `width` scales. What does not exist is zero.

use super::super::cached::{Cached, E4m3, scale, stored};
use super::super::instructions::vectorised;
use super::{Precision, View};
use half::bf16;

/// Weights in a word.
pub(super) const FOUR: usize = 4;

/// Words of a panel of weights of that depth.
pub(super) fn right_words(depth: usize, width: usize) -> usize {
    (depth.div_ceil(FOUR) + 1) * width
}

/// Packs a panel of weights from rows of `depth` elements, of which there are at most `width`.
pub(super) fn quantise_right(panel: &mut [f32], width: usize, rows: &[f32], depth: usize) {
    panel.fill(0.0);
    let (words, scales) = panel.split_at_mut(panel.len() - width);
    for (column, row) in rows.chunks_exact(depth).enumerate() {
        let by = scale::<E4m3>(row);
        for (words, four) in words.chunks_exact_mut(width).zip(row.chunks(FOUR)) {
            let mut codes = [0; FOUR];
            codes.iter_mut().zip(four).for_each(|(code, x)| *code = stored::<E4m3>(*x, by).code());
            words[column] = f32::from_bits(u32::from_le_bytes(codes));
        }
        scales[column] = by;
    }
}

/// Column `column` of a panel of weights, as it was rounded.
pub(super) fn row(panel: &[f32], width: usize, column: usize, out: &mut [f32]) {
    let (words, scales) = panel.split_at(panel.len() - width);
    for (out, words) in out.chunks_mut(FOUR).zip(words.chunks_exact(width)) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = number(words[column], i) * scales[column];
        }
    }
}

/// Weight `i` of a word, over its scale.
#[inline(always)]
fn number(word: f32, i: usize) -> f32 {
    E4m3::of_code((word.to_bits() >> (8 * i)) as u8).to_f32()
}

/// Makes words of weights, over their scales, into those of a panel of `precision`: as many rows of `width` as `to` holds. They are
/// what they were: three bits of mantissa fit into either.
pub(super) fn expand(words: &[f32], width: usize, to: &mut [f32], precision: Precision) {
    vectorised(
        #[inline(always)]
        || match precision {
            Precision::F32 | Precision::Rounded => {
                for (to, words) in to.chunks_mut(FOUR * width).zip(words.chunks_exact(width)) {
                    for (i, to) in to.chunks_exact_mut(width).enumerate() {
                        to.iter_mut().zip(words).for_each(|(to, word)| *to = number(*word, i));
                    }
                }
            }
            Precision::Bf16 => {
                for (to, words) in to.chunks_mut(FOUR / 2 * width).zip(words.chunks_exact(width)) {
                    for (i, to) in to.chunks_exact_mut(width).enumerate() {
                        for (to, word) in to.iter_mut().zip(words) {
                            let [first, second] = [number(*word, 2 * i), number(*word, 2 * i + 1)].map(f32::to_bits);
                            *to = f32::from_bits(first >> 16 | second & 0xffff_0000);
                        }
                    }
                }
            }
        },
    );
}

/// Packs the left operand of a few rows for the kernel that expands weights itself (`f8_kernel`): a row of words for each element of
/// the inner dimension, rounded as the precision says, and multiplied by what the kernel's numbers lack ([`Cached::LIFT`]).
pub(super) fn pack_left(panel: &mut [f32], a: View, precision: Precision) {
    let rows = a.rows;
    panel[rows * a.columns..].fill(0.0);
    vectorised(
        #[inline(always)]
        || {
            for r in 0..rows {
                let row = &a.data[r * a.row_stride..][..a.columns];
                for (to, x) in panel.chunks_exact_mut(rows).zip(row) {
                    let x = if precision == Precision::F32 { *x } else { bf16::from_f32(*x).to_f32() };
                    to[r] = x * E4m3::LIFT;
                }
            }
        },
    );
}
