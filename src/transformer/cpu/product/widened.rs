//! Weights of few bits as panels of bf16, a stretch of columns at a time, for products of many rows where tiles of bf16 are multiplied
//! faster than bytes are: what widening a weight costs is shared by all rows, and the left operand keeps the 8 bits of a bf16 where
//! it would have been rounded to integers that share a scale.

use super::super::instructions::{Instructions, vectorised};
use super::super::math::bf16_bits;
use super::super::pool::Pool;
use super::int4_groups::{self, CHUNK, Groups, NIBBLES};
use super::int8_groups::{GROUP, RIGHT_ROWS, WORDS};
use super::panels::{KBlock, PackedBuffer, Panels};
use super::weights::{PackedWeight, Stored};

/// Columns of a panel on the path that widens.
const WIDTH: usize = 32;
/// Rows of the left operand from which it pays: fewer are bound by reading the weights as they are stored.
const ROWS: usize = 64;

/// Whether a product of so many rows by such weights goes over panels of bf16.
pub(super) fn pays(rows: usize, stored: Stored) -> bool {
    matches!(stored, Stored::Int8 | Stored::Int4(_)) && rows >= ROWS && Instructions::taken() == Instructions::Amx
}

/// Writes the panels `first..first + block.count` of the weights into `to`, which holds them as `block` says.
pub(super) fn widen(
    pool: &Pool,
    weights: &PackedWeight,
    first: usize,
    to: &mut [f32],
    block: Panels,
    k_blocks: &[KBlock],
) {
    let layout = weights.layout;
    assert_eq!((layout.width, block.width), (WIDTH, WIDTH), "panels of so many columns");
    let len = layout.panel_words();
    let to = PackedBuffer::of(to);
    pool.each(block.count, |panel| {
        let from = &weights.words[(first + panel) * len..][..len];
        for b in k_blocks {
            // SAFETY: each panel is one task's.
            let to = unsafe { to.part(block.at(*b, panel), WIDTH * b.words) };
            vectorised(
                #[inline(always)]
                || match layout.stored {
                    Stored::Int4(groups) => four_bits(from, to, *b, groups),
                    Stored::Int8 | Stored::F8 | Stored::Whole(_) => eight_bits(from, to, *b),
                },
            );
        }
    });
}

/// A row of a panel.
type Row<T> = [T; WIDTH];

#[inline(always)]
fn row(panel: &[f32], at: usize) -> Row<u32> {
    let mut row = [0; WIDTH];
    row.iter_mut().zip(&panel[at * WIDTH..][..WIDTH]).for_each(|(to, x)| *to = x.to_bits());
    row
}

/// A NaN of the usual bits, which rounding does not turn into a number.
#[inline(always)]
fn usual(scale: f32) -> f32 {
    if scale.is_nan() { f32::NAN } else { scale }
}

/// Puts four weights of each column, whose bytes begin at `shift` of its word, into two rows of pairs of `to`, as far as `to` goes.
#[inline(always)]
fn put(to: &mut [f32], pair: usize, word: &Row<u32>, (shift, mask): (u32, u32), zero: &Row<f32>, scale: &Row<f32>) {
    for (i, to) in to.chunks_exact_mut(WIDTH).skip(pair).take(2).enumerate() {
        #[cfg(target_arch = "x86_64")]
        if Instructions::taken() >= Instructions::Avx512 {
            // SAFETY: the machine has the instructions.
            unsafe { put_avx512(to, word, (shift + 16 * i as u32, mask), zero, scale) };
            continue;
        }
        for (lane, to) in to.iter_mut().enumerate() {
            let weight = |byte: u32| ((word[lane] >> (shift + 8 * byte) & mask) as f32 - zero[lane]) * scale[lane];
            let (low, high) = (weight(2 * i as u32), weight(2 * i as u32 + 1));
            *to = f32::from_bits(bf16_bits(low) >> 16 | bf16_bits(high) & 0xffff_0000);
        }
    }
}

/// A row of pairs, of the two bytes from `shift` on.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[allow(clippy::multiple_unsafe_ops_per_block, reason = "three loads, each of a row that has so many lanes")]
fn put_avx512(to: &mut [f32], word: &Row<u32>, (shift, mask): (u32, u32), zero: &Row<f32>, scale: &Row<f32>) {
    use super::super::math::wide::pairs;
    use std::arch::x86_64::*;
    assert_eq!(to.len(), WIDTH, "a row of pairs");
    let mask = _mm512_set1_epi32(mask as i32);
    for lane in (0..WIDTH).step_by(16) {
        // SAFETY: each row has so many lanes.
        let (word, zero, scale) = unsafe {
            (
                _mm512_loadu_epi32(word.as_ptr().add(lane).cast()),
                _mm512_loadu_ps(zero.as_ptr().add(lane)),
                _mm512_loadu_ps(scale.as_ptr().add(lane)),
            )
        };
        let [low, high] = [shift, shift + 8].map(|shift| {
            let integer = _mm512_and_si512(_mm512_srl_epi32(word, _mm_cvtsi32_si128(shift as i32)), mask);
            _mm512_mul_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(integer), zero), scale)
        });
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr().add(lane), pairs(low, high)) };
    }
}

#[inline(always)]
fn eight_bits(from: &[f32], to: &mut [f32], b: KBlock) {
    for (group, to) in to.chunks_mut(GROUP / 2 * WIDTH).enumerate() {
        let panel = &from[(b.first / GROUP + group) * RIGHT_ROWS * WIDTH..][..RIGHT_ROWS * WIDTH];
        let scale = row(panel, WORDS).map(f32::from_bits).map(usual);
        for e in 0..WORDS {
            put(to, 2 * e, &row(panel, e), (0, 255), &[128.0; WIDTH], &scale);
        }
    }
}

#[inline(always)]
fn four_bits(from: &[f32], to: &mut [f32], b: KBlock, groups: Groups) {
    let rows = groups.right_rows();
    // Elements whose low halves of bytes come first, then the high ones.
    let part = CHUNK / groups.sums();
    for (chunk, to) in to.chunks_mut(CHUNK / 2 * WIDTH).enumerate() {
        let chunk = b.first / CHUNK + chunk;
        let panel = &from[chunk / groups.chunks() * rows * WIDTH..][..rows * WIDTH];
        let bits = row(panel, rows - 1);
        for sum in 0..groups.sums() {
            let mut scale = [0.0; WIDTH];
            let mut zero = [0.0; WIDTH];
            for ((scale, zero), bits) in scale.iter_mut().zip(&mut zero).zip(bits) {
                let (of_group, stands_for_zero) = int4_groups::scale_and_zero(groups, sum, bits);
                (*scale, *zero) = (usual(of_group), stands_for_zero);
            }
            for r in 0..part / 8 {
                let word = row(panel, chunk % groups.chunks() * NIBBLES + sum * part / 8 + r);
                put(to, sum * part / 2 + 2 * r, &word, (0, 15), &zero, &scale);
                put(to, sum * part / 2 + part / 4 + 2 * r, &word, (4, 15), &zero, &scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Precision;
    use super::super::panels::k_blocks;
    use super::super::weights::PackedLayout;
    use super::*;
    use crate::transformer::cpu::array::Array;
    use half::bf16;

    #[test]
    fn panels_hold_the_stored_weights_rounded_to_bf16() {
        let pool = Pool::new(2, None).unwrap();
        let forms = [Groups::Of32, Groups::Of128, Groups::Of128ZeroPoints].map(Stored::Int4);
        for stored in forms.into_iter().chain([Stored::Int8]) {
            for (columns, depth) in [(1, 1), (70, 513), (33, 64), (100, 700), (32, 31)] {
                let layout = PackedLayout { depth, columns, stored, width: WIDTH };
                let mut seed = 0;
                let weight = layout.fill(&pool, Array::zeros(layout.len()).unwrap(), |rows| {
                    for x in rows {
                        seed += 1;
                        *x = ((seed * 7919) % 2003) as f32 / 1001.0 - 0.8;
                    }
                });
                let blocks: Vec<KBlock> = k_blocks(depth, Precision::Bf16).collect();
                // All but the first panel, to see where they begin.
                let first = (columns / WIDTH).min(1);
                let panels = Panels::of(columns - first * WIDTH, WIDTH);
                let mut wide = vec![7.0; panels.len(depth, Precision::Bf16)];
                widen(&pool, &weight, first, &mut wide, panels, &blocks);
                let mut row = vec![0.0; depth];
                for column in first * WIDTH..columns {
                    weight.row(column, &mut row);
                    let (panel, lane) = (column / WIDTH - first, column % WIDTH);
                    for b in &blocks {
                        for (k, x) in row[b.first..][..b.len].iter().enumerate() {
                            let word = wide[panels.at(*b, panel) + k / 2 * WIDTH + lane].to_bits();
                            let got = bf16::from_bits((word >> (16 * (k % 2))) as u16);
                            assert_eq!(got, bf16::from_f32(*x), "{stored:?}: {columns} x {depth}, {column}, {k}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_scale_that_is_not_a_number_stays_none() {
        let odd = f32::from_bits(u32::MAX);
        assert!(f32::from_bits(bf16_bits(usual(odd)) & 0xffff_0000).is_nan());
        assert_eq!(usual(0.25).to_bits(), 0.25f32.to_bits());
    }
}
