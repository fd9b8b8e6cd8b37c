//! The vocabulary projection and its cross-entropy in blocks of rows: the logits never exist whole.

use super::super::backend::{IGNORED_TARGET, LinearDims, ROWS_AT_A_TIME};
use super::instructions::vectorised;
use super::math::{exp, maximum, soft_cap, sum};
use super::matmul::matmul;
use super::pool::{Pool, reading, writing};
use super::product::{Onto, Precision, View};

/// Rows a block.
pub(super) const BLOCK: usize = ROWS_AT_A_TIME;

/// Elements of scratch that a pass over `n` rows of a vocabulary of `v` takes.
pub(super) fn scratch_len(n: usize, v: usize) -> usize {
    n.min(BLOCK) * v + n
}

#[allow(clippy::too_many_arguments, reason = "the operands of `Backend::cross_entropy`")]
pub(super) fn cross_entropy(
    pool: &Pool,
    precision: Precision,
    x: &[f32],
    w: &[f32],
    targets: &[u32],
    mut gradients: Option<(&mut [f32], &mut [f32])>,
    cap: Option<f32>,
    d: LinearDims,
) -> f32 {
    let LinearDims { n, k, m: v } = d;
    let weights = View::dense(&w[..v * k], v, k);
    let counted = targets.iter().filter(|&&t| t != IGNORED_TARGET).count().max(1) as f32;
    let mut scratch = pool.scratch(scratch_len(n, v));
    let (logits, losses) = scratch.split_at_mut(n.min(BLOCK) * v);
    for first in (0..n).step_by(BLOCK) {
        let rows = BLOCK.min(n - first);
        let logits = &mut logits[..rows * v];
        let x = View::dense(&x[first * k..][..rows * k], rows, k);
        matmul(pool, precision, logits, Onto::Nothing, x, weights.transposed());
        let wanted = gradients.is_some();
        let parts = (writing(logits, v), writing(&mut losses[first..first + rows], 1));
        pool.over(parts, |i, (row, loss)| {
            loss[0] = vectorised(
                #[inline(always)]
                || match cap {
                    None => softmax_row(row, targets[first + i], wanted, counted),
                    Some(cap) => {
                        capped_row(row, targets[first + i], wanted.then_some(&mut *pool.scratch(v)), counted, cap)
                    }
                },
            );
        });
        if let Some((dx, dw)) = gradients.as_mut() {
            let dlogits = View::dense(logits, rows, v);
            matmul(pool, precision, &mut dx[first * k..][..rows * k], Onto::Nothing, dlogits, weights);
            let onto = if first > 0 { Onto::Target } else { Onto::Nothing };
            matmul(pool, precision, &mut dw[..v * k], onto, dlogits.transposed(), x);
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
