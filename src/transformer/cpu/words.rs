//! The vocabulary projection and its cross-entropy where each rank has some of the vocabulary's rows: by blocks of rows as in
//! [`super::loss`], whose largest logits and sums the ranks tell one another.

use super::super::backend::{IGNORED_TARGET, LinearDims, OwnWords, ROWS_AT_A_TIME};
use super::buffer::Buffer;
use super::instructions::vectorised;
use super::math::{exp, maximum, soft_cap, sum};
use super::matmul::matmul;
use super::pool::{Pool, writing};
use super::product::{Onto, Precision, View};
use super::spans;

#[allow(clippy::too_many_arguments, reason = "the operands of `Parts::cross_entropy_split`")]
pub(super) fn cross_entropy(
    pool: &Pool,
    precision: Precision,
    x: &[f32],
    w: &[f32],
    targets: &[u32],
    mut gradients: Option<(&mut [f32], &mut [f32])>,
    cap: Option<f32>,
    d: LinearDims,
    own: OwnWords<'_, Buffer>,
) -> f32 {
    let LinearDims { n, k, m: v } = d;
    let OwnWords { first: word, largest, sums, over_largest, over_sums } = own;
    let weights = View::dense(&w[..v * k], v, k);
    let counted = targets.iter().filter(|&&t| t != IGNORED_TARGET).count().max(1) as f32;
    let wanted = gradients.is_some();
    let mut scratch = pool.scratch(n.min(ROWS_AT_A_TIME) * v);
    let mut total = 0.0;
    for first in (0..n).step_by(ROWS_AT_A_TIME) {
        let rows = ROWS_AT_A_TIME.min(n - first);
        let (logits, targets, of_block) =
            (&mut scratch[..rows * v], &targets[first..first + rows], LinearDims { n: rows, ..d });
        let place = |row: usize| OwnWords::<Buffer>::place(word, v, targets[row]);
        let x = View::dense(&x[first * k..][..rows * k], rows, k);
        {
            let _span = spans::part_of_loss(1.0, of_block);
            matmul(pool, precision, logits, Onto::Nothing, x, weights.transposed());
            let parts = (writing(logits, v), writing(&mut largest.plain_mut()[..rows], 1));
            pool.over(parts, |_, (row, largest)| {
                largest[0] = vectorised(
                    #[inline(always)]
                    || largest_of(row, cap),
                )
            });
        }
        over_largest(largest);
        let largest = &largest.plain()[..rows];
        {
            let _span = spans::part_of_loss(0.0, of_block);
            let parts = (writing(logits, v), writing(&mut sums.plain_mut()[..2 * rows], 2));
            pool.over(parts, |i, (row, sums)| {
                sums[1] = place(i).map_or(0.0, |p| row[p]);
                // The gradient of what is capped goes through it.
                sums[0] = match cap {
                    Some(_) if wanted => {
                        let room = &mut pool.scratch(v)[..v];
                        room.copy_from_slice(row);
                        vectorised(
                            #[inline(always)]
                            || exponentials(room, largest[i]),
                        )
                    }
                    _ => vectorised(
                        #[inline(always)]
                        || exponentials(row, largest[i]),
                    ),
                };
            });
        }
        over_sums(sums);
        let sums = &sums.plain()[..2 * rows];
        let of_row = |(i, target): (usize, &u32)| match *target {
            IGNORED_TARGET => 0.0,
            _ => f64::from(largest[i] + sums[2 * i].ln() - sums[2 * i + 1]),
        };
        total += targets.iter().enumerate().map(of_row).sum::<f64>();
        let Some((dx, dw)) = gradients.as_mut() else { continue };
        let _span = spans::part_of_loss(2.0, of_block);
        pool.over(writing(logits, v), |i, row| {
            if targets[i] == IGNORED_TARGET {
                return row.fill(0.0);
            }
            let factor = 1.0 / (sums[2 * i] * counted);
            vectorised(
                #[inline(always)]
                || gradient(row, place(i), (largest[i], factor, 1.0 / counted), cap),
            );
        });
        let dlogits = View::dense(logits, rows, v);
        matmul(pool, precision, &mut dx[first * k..][..rows * k], Onto::Nothing, dlogits, weights);
        let onto = if first > 0 { Onto::Target } else { Onto::Nothing };
        matmul(pool, precision, &mut dw[..v * k], onto, dlogits.transposed(), x);
    }
    total as f32 / counted
}

#[inline(always)]
fn largest_of(row: &mut [f32], cap: Option<f32>) -> f32 {
    if let Some(cap) = cap {
        soft_cap(row, cap);
    }
    maximum(row)
}

/// Logits become their exponentials, whose sum comes back.
#[inline(always)]
fn exponentials(row: &mut [f32], largest: f32) -> f32 {
    for l in row.iter_mut() {
        *l = exp(*l - largest);
    }
    sum(row)
}

/// The gradient of a row's logits: of their exponentials, or, where there is a cap, of what was capped.
#[inline(always)]
fn gradient(row: &mut [f32], target: Option<usize>, (largest, factor, hit): (f32, f32, f32), cap: Option<f32>) {
    let Some(cap) = cap else {
        row.iter_mut().for_each(|e| *e *= factor);
        if let Some(target) = target {
            row[target] -= hit;
        }
        return;
    };
    let inverse = 1.0 / cap;
    let of_target = target.map(|target| (target, row[target]));
    for l in row.iter_mut() {
        let share = *l * inverse;
        *l = exp(*l - largest) * factor * (1.0 - share * share);
    }
    if let Some((target, l)) = of_target {
        let share = l * inverse;
        row[target] -= hit * (1.0 - share * share);
    }
}
