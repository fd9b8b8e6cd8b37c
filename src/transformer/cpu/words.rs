//! The vocabulary projection and its cross-entropy where each rank has some of the vocabulary's rows: by blocks of rows as in
//! [`super::loss`], whose largest logits and sums the ranks tell one another.

use super::super::backend::{IGNORED_TARGET, LinearDims, OwnWords};
use super::buffer::Buffer;
use super::head::{BLOCK, Head, counted};
use super::instructions::vectorised;
use super::math::{exp, maximum, soft_cap, sum};
use super::pool::writing;
use super::spans;

/// `Parts::cross_entropy_split`
pub(super) fn cross_entropy(
    head: Head<'_>,
    targets: &[u32],
    mut gradients: Option<(&mut [f32], &mut [f32])>,
    cap: Option<f32>,
    own: OwnWords<'_, Buffer>,
) -> f32 {
    let (pool, LinearDims { n, m: v, .. }) = (head.pool, head.d);
    let OwnWords { first: word, largest, sums, over_largest, over_sums } = own;
    let (counted, wanted) = (counted(targets), gradients.is_some());
    let mut scratch = pool.scratch(n.min(BLOCK) * v);
    let mut total = 0.0;
    for block in head.blocks() {
        let (rows, targets) = (block.len(), &targets[block.clone()]);
        let (logits, of_block) = (&mut scratch[..rows * v], LinearDims { n: rows, ..head.d });
        let place = |row: usize| OwnWords::<Buffer>::place(word, v, targets[row]);
        {
            let _span = spans::part_of_loss(1.0, of_block);
            head.logits(&block, logits);
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
        let Some(gradients) = gradients.as_mut() else { continue };
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
        head.backward(&block, logits, gradients);
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
