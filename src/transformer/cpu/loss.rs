//! The vocabulary projection and its cross-entropy in blocks of rows: the logits never exist whole.

use super::super::backend::{IGNORED_TARGET, LinearDims};
use super::math::{exp, maximum, sum, vectorised};
use super::matmul::{View, matmul};
use super::pool::Pool;
use rayon::prelude::*;

/// Rows a block: enough for an efficient product, few enough that a block of logits stays small beside the weights.
const BLOCK: usize = 256;

/// Numbers of scratch that a pass over `n` rows of a vocabulary of `v` takes.
pub(super) fn scratch_len(n: usize, v: usize) -> usize {
    n.min(BLOCK) * v
}

pub(super) fn cross_entropy(
    pool: &Pool,
    x: &[f32],
    w: &[f32],
    targets: &[u32],
    mut gradients: Option<(&mut [f32], &mut [f32])>,
    d: LinearDims,
) -> f32 {
    let LinearDims { n, k, m: v } = d;
    let weights = View::dense(&w[..v * k], v, k);
    let counted = targets.iter().filter(|&&t| t != IGNORED_TARGET).count().max(1) as f32;
    let mut logits = pool.scratch(scratch_len(n, v));
    let mut losses = pool.scratch(n);
    for first in (0..n).step_by(BLOCK) {
        let rows = BLOCK.min(n - first);
        let logits = &mut logits[..rows * v];
        let x = View::dense(&x[first * k..][..rows * k], rows, k);
        matmul(pool, logits, false, x, weights.transposed());
        let wanted = gradients.is_some();
        pool.run(|| {
            logits.par_chunks_mut(v).zip(&mut losses[first..first + rows]).zip(&targets[first..first + rows]).for_each(
                |((row, loss), &target)| {
                    *loss = vectorised(
                        #[inline(always)]
                        || softmax_row(row, target, wanted, counted),
                    )
                },
            );
        });
        if let Some((dx, dw)) = gradients.as_mut() {
            let dlogits = View::dense(logits, rows, v);
            matmul(pool, &mut dx[first * k..][..rows * k], false, dlogits, weights);
            matmul(pool, &mut dw[..v * k], first > 0, dlogits.transposed(), x);
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

pub(super) fn mean_squared_error(pool: &Pool, x: &[f32], target: &[f32], dx: Option<&mut [f32]>) -> f32 {
    let share = pool.share(x.len(), 1024);
    let factor = 2.0 / x.len() as f32;
    let parts = x.par_chunks(share).zip(target.par_chunks(share));
    let squares = |x: &[f32], t: &[f32]| x.iter().zip(t).map(|(x, t)| f64::from(x - t).powi(2)).sum::<f64>();
    let total: f64 = pool.run(|| match dx {
        Some(dx) => parts
            .zip(dx.par_chunks_mut(share))
            .map(|((x, t), dx)| {
                for ((dx, x), t) in dx.iter_mut().zip(x).zip(t) {
                    *dx = factor * (x - t);
                }
                squares(x, t)
            })
            .sum(),
        None => parts.map(|(x, t)| squares(x, t)).sum(),
    });
    (total / x.len() as f64) as f32
}
