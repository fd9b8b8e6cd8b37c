//! The softmax of a strip's scores, which leaves the weights as the next product reads them.

#[cfg(target_arch = "x86_64")]
use super::super::instructions::Instructions;
use super::super::instructions::vectorised;
use super::super::math::{bf16_bits, exp};
use super::super::product::Precision;
use super::super::product::pack::Order;
use super::{Shaping, Strip};

/// Turns scores `[keys, strip]` into e^(score - max) a query, and gives the logs of the denominators; `inverse` takes
/// 1 / denominator. Keys that a query does not see weigh nothing. Weights of 16 bits are pairs, as [`pair_up`] makes them, or rounded.
pub(super) fn softmax(
    scores: &mut [f32],
    s: Strip,
    shaping: Shaping,
    precision: Precision,
    inverse: &mut [f32; 32],
) -> [f32; 32] {
    let strip = s.width;
    vectorised(
        #[inline(always)]
        || {
            let scores = s.of(scores);
            if !shaping.is_plain() {
                (s.from..).zip(scores.chunks_exact_mut(strip)).for_each(|(key, row)| shaping.apply(key, row));
            }
            s.hide(scores, -1e30);
        },
    );
    #[cfg(target_arch = "x86_64")]
    if Instructions::taken() >= Instructions::Avx512 {
        // SAFETY: the machine has the instructions.
        return unsafe { x86::weights(scores, s, precision, inverse) };
    }
    let logs = weights(s.of(scores), strip, inverse);
    match precision {
        Precision::F32 => {}
        Precision::Rounded => round(s.of(scores)),
        Precision::Bf16 => pair_up(scores, s),
    }
    logs
}

fn weights(scores: &mut [f32], strip: usize, inverse: &mut [f32; 32]) -> [f32; 32] {
    let mut logs = [0.0f32; 32];
    vectorised(
        #[inline(always)]
        || {
            // Whole registers, whatever the strip's width.
            for at in (0..strip).step_by(16) {
                let mut most = [f32::NEG_INFINITY; 16];
                for row in scores.chunks_exact(strip) {
                    for (m, s) in most.iter_mut().zip(&row[at..at + 16]) {
                        *m = if *s > *m { *s } else { *m };
                    }
                }
                let mut total = [0.0f32; 16];
                for row in scores.chunks_exact_mut(strip) {
                    for ((s, m), t) in row[at..at + 16].iter_mut().zip(&most).zip(&mut total) {
                        *s = exp(*s - *m);
                        *t += *s;
                    }
                }
                for i in 0..16 {
                    inverse[at + i] = 1.0 / total[i];
                    logs[at + i] = most[i] + total[i].ln();
                }
            }
        },
    );
    logs
}

/// Rows up to where a product by tiles may read.
fn end(scores: &[f32], s: Strip) -> usize {
    s.past.next_multiple_of(Order::InTiles.step()).min(scores.len() / s.width)
}

/// Rounds to bf16, each in its word.
pub(super) fn round(scores: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || scores.iter_mut().for_each(|s| *s = f32::from_bits(bf16_bits(*s) & 0xffff_0000)),
    );
}

/// Makes pairs of bf16 of neighbouring keys, in place: row e takes rows 2 e and 2 e + 1. What stands after the last key, up to where a
/// product by tiles may read, is zero.
pub(super) fn pair_up(scores: &mut [f32], s: Strip) {
    let (strip, seen) = (s.width, s.past);
    let end = end(scores, s);
    vectorised(
        #[inline(always)]
        || {
            scores[seen * strip..end * strip].fill(0.0);
            // `from` is even; where `seen` is odd there is a row after it.
            for e in s.from / 2..end / 2 {
                for at in (0..strip).step_by(16) {
                    let [mut low, mut high, mut both] = [[0.0f32; 16]; 3];
                    low.copy_from_slice(&scores[2 * e * strip + at..][..16]);
                    high.copy_from_slice(&scores[(2 * e + 1) * strip + at..][..16]);
                    for ((both, low), high) in both.iter_mut().zip(low).zip(high) {
                        *both = f32::from_bits(bf16_bits(low) >> 16 | bf16_bits(high) & 0xffff_0000);
                    }
                    scores[e * strip + at..][..16].copy_from_slice(&both);
                }
            }
        },
    );
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![allow(
        clippy::multiple_unsafe_ops_per_block,
        reason = "a kernel: each line is an intrinsic or a pointer's step, all under the one obligation of its function"
    )]

    use super::super::super::math::wide::{bf16_bits, exp, pairs, upper};
    use super::{Precision, Strip, end};
    use std::arch::x86_64::*;

    /// The same a register at a time, pairs made as weights are.
    #[target_feature(enable = "avx512f")]
    pub(super) fn weights(scores: &mut [f32], s: Strip, precision: Precision, inverse: &mut [f32; 32]) -> [f32; 32] {
        let (strip, end) = (s.width, end(scores, s));
        assert!(
            strip % 16 == 0 && strip <= 32 && end * strip <= scores.len() && s.from < s.past && s.past <= end,
            "whole rows of scores"
        );
        let start = scores.as_mut_ptr();
        let [mut largest, mut totals] = [[0.0f32; 32]; 2];
        for at in (0..strip).step_by(16) {
            // SAFETY: rows before `end` are there, checked above, and a register of each from `at` on; the others hold 32 numbers.
            unsafe {
                let load = |row: usize| _mm512_loadu_ps(start.add(row * strip + at));
                // Two at a time, since one waits for the one before; `from` is even.
                let [mut most, mut other] = [_mm512_set1_ps(f32::NEG_INFINITY); 2];
                for e in s.from / 2..s.past / 2 {
                    most = _mm512_max_ps(load(2 * e), most);
                    other = _mm512_max_ps(load(2 * e + 1), other);
                }
                most = _mm512_max_ps(load(s.past - 1), _mm512_max_ps(most, other));
                let weight = |row: usize| exp(_mm512_sub_ps(load(row), most));
                let mut total = _mm512_setzero_ps();
                match precision {
                    Precision::F32 | Precision::Rounded => {
                        for row in s.from..s.past {
                            let x = weight(row);
                            total = _mm512_add_ps(total, x);
                            let rounded = _mm512_castsi512_ps(upper(bf16_bits(x)));
                            let x = if precision == Precision::Rounded { rounded } else { x };
                            _mm512_storeu_ps(start.add(row * strip + at), x);
                        }
                    }
                    Precision::Bf16 => {
                        // A last key without a neighbour has nothing in its place.
                        for e in s.from / 2..s.past.div_ceil(2) {
                            let low = weight(2 * e);
                            let high = if 2 * e + 1 < s.past { weight(2 * e + 1) } else { _mm512_setzero_ps() };
                            total = _mm512_add_ps(_mm512_add_ps(total, low), high);
                            _mm512_storeu_ps(start.add(e * strip + at), pairs(low, high));
                        }
                    }
                }
                _mm512_storeu_ps(largest.as_mut_ptr().add(at), most);
                _mm512_storeu_ps(totals.as_mut_ptr().add(at), total);
                _mm512_storeu_ps(inverse.as_mut_ptr().add(at), _mm512_div_ps(_mm512_set1_ps(1.0), total));
            }
        }
        if precision == Precision::Bf16 {
            scores[s.past.div_ceil(2) * strip..end / 2 * strip].fill(0.0);
        }
        let mut logs = [0.0; 32];
        logs.iter_mut().zip(largest).zip(totals).take(strip).for_each(|((log, m), t)| *log = m + t.ln());
        logs
    }
}
