//! The cross-entropy of what the vocabulary projection gives, a block of rows at a time, and the mean squared error.

use super::super::backend::{IGNORED_TARGET, LinearDims};
use super::head::{BLOCK, Head, counted};
use super::instructions::vectorised;
use super::math::{exp, maximum, soft_cap, sum};
use super::pool::{Pool, reading, writing};

/// Elements of scratch that a pass over `n` rows of a vocabulary of `v` takes.
pub(super) fn scratch_len(n: usize, v: usize) -> usize {
    n.min(BLOCK) * v + n
}

/// `Backend::cross_entropy`
pub(super) fn cross_entropy(
    head: Head<'_>,
    targets: &[u32],
    mut gradients: Option<(&mut [f32], &mut [f32])>,
    cap: Option<f32>,
) -> f32 {
    let (pool, LinearDims { n, m: v, .. }) = (head.pool, head.d);
    let (counted, wanted) = (counted(targets), gradients.is_some());
    let mut scratch = pool.scratch(scratch_len(n, v));
    let (logits, losses) = scratch.split_at_mut(n.min(BLOCK) * v);
    for block in head.blocks() {
        let logits = &mut logits[..block.len() * v];
        head.logits(&block, logits);
        let targets = &targets[block.clone()];
        let parts = (writing(logits, v), writing(&mut losses[block.clone()], 1));
        pool.over(parts, |i, (row, loss)| {
            loss[0] = vectorised(
                #[inline(always)]
                || match cap {
                    None => softmax_row(row, targets[i], wanted, counted),
                    Some(cap) => capped_row(row, targets[i], wanted.then_some(&mut *pool.scratch(v)), counted, cap),
                },
            );
        });
        if let Some(gradients) = gradients.as_mut() {
            head.backward(&block, logits, gradients);
        }
    }
    losses.iter().map(|l| f64::from(*l)).sum::<f64>() as f32 / counted
}

/// The row's loss; with `wanted`, the row becomes its gradient.
#[inline(always)]
fn softmax_row(row: &mut [f32], target: u32, wanted: bool, counted: f32) -> f32 {
    if target == IGNORED_TARGET {
        if wanted {
            row.fill(0.0);
        }
        return 0.0;
    }
    let max = maximum(row);
    let of_target = row[target as usize];
    for l in row.iter_mut() {
        *l = exp(*l - max);
    }
    let total = sum(row);
    if wanted {
        let factor = 1.0 / (total * counted);
        for l in row.iter_mut() {
            *l *= factor;
        }
        row[target as usize] -= 1.0 / counted;
    }
    max + total.ln() - of_target
}

/// [`softmax_row`] of logits l as `cap tanh(l / cap)`, which `room` keeps until the gradient, where there is one, has gone through it.
#[inline(always)]
fn capped_row(row: &mut [f32], target: u32, room: Option<&mut [f32]>, counted: f32, cap: f32) -> f32 {
    let inverse = 1.0 / cap;
    soft_cap(row, cap);
    let Some(capped) = room.map(|room| &mut room[..row.len()]) else { return softmax_row(row, target, false, counted) };
    capped.copy_from_slice(row);
    let loss = softmax_row(row, target, true, counted);
    row.iter_mut().zip(capped).for_each(|(g, l)| *g *= 1.0 - (*l * inverse) * (*l * inverse));
    loss
}

pub(super) fn mean_squared_error(pool: &Pool, x: &[f32], target: &[f32], dx: Option<&mut [f32]>) -> f32 {
    let share = pool.share(x.len(), 1024);
    let factor = 2.0 / x.len() as f32;
    let squares = |x: &[f32], t: &[f32]| x.iter().zip(t).map(|(x, t)| f64::from(x - t).powi(2)).sum::<f64>();
    let mut sums = vec![0.0f64; x.len().div_ceil(share)];
    let (parts, to) = ((reading(x, share), reading(target, share)), writing(&mut sums, 1));
    match dx {
        Some(dx) => pool.over((parts, to, writing(dx, share)), |_, ((x, t), sum, dx)| {
            for ((dx, x), t) in dx.iter_mut().zip(x).zip(t) {
                *dx = factor * (x - t);
            }
            sum[0] = squares(x, t);
        }),
        None => pool.over((parts, to), |_, ((x, t), sum)| sum[0] = squares(x, t)),
    }
    let total: f64 = sums.iter().sum();
    (total / x.len() as f64) as f32
}
