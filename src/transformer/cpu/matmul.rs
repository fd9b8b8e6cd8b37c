//! Matrix products over the whole pool: large ones in panels, products of few rows by streaming the weights once.

use super::super::backend::LinearDims;
use super::instructions::vectorised;
use super::math::dot;
use super::pool::{Pool, reading, writing};
use super::product::{Onto, Precision, Right, Target, View, product};

/// `to [a.rows, b.columns] (+)= a b`, dense, on the whole pool.
pub(super) fn matmul(pool: &Pool, precision: Precision, to: &mut [f32], onto: Onto, a: View, b: View) {
    let target = Target::new(&mut to[..a.rows * b.columns], b.columns);
    // SAFETY: `to` is borrowed exclusively for the call.
    unsafe { product(pool, target, onto, 1.0, a, Right::View(b), precision) };
}

/// Rows of input below which the weights are streamed once, instead of being packed for a blocked product.
pub(super) const FEW_ROWS: usize = 8;

/// Whether a plain weight is read once, as it stands, by so many rows.
pub(super) fn is_streamed(rows: usize, precision: Precision) -> bool {
    rows <= FEW_ROWS && precision == Precision::F32
}

/// `out [N, M] (+)= x [N, K] w[M, K]^T + bias` for N <= [`FEW_ROWS`]: bound by reading w.
pub(super) fn few_rows(
    pool: &Pool,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    out: &mut [f32],
    add: bool,
    d: LinearDims,
) {
    let LinearDims { n, k, m } = d;
    let share = pool.share(m, 16);
    let mut columns = pool.scratch(n * m);
    // Computed as [M, N], so that a thread writes one stretch; transposed after.
    pool.over((writing(&mut columns, share * n), reading(w, share * k)), |_, (to, weights)| {
        vectorised(
            #[inline(always)]
            || {
                for (to, row) in to.chunks_exact_mut(n).zip(weights.chunks_exact(k)) {
                    for (to, x) in to.iter_mut().zip(x.chunks_exact(k)) {
                        *to = dot(x, row);
                    }
                }
            },
        );
    });
    for (r, out) in out.chunks_exact_mut(m).enumerate() {
        for (o, value) in out.iter_mut().enumerate() {
            let before = if add { *value } else { 0.0 };
            *value = before + columns[o * n + r] + bias.map_or(0.0, |b| b[o]);
        }
    }
}
