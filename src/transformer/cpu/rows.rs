//! Rows that are put in another order, and added up: those of tokens to the experts that they go to, and back.

use super::pool::{Pool, reading, writing};

/// Row i of `to [rows, width]` is row `from_row(i)` of `from`.
pub(super) fn take(
    pool: &Pool,
    from: &[f32],
    to: &mut [f32],
    (rows, width): (usize, usize),
    from_row: impl Fn(usize) -> usize + Sync,
) {
    let share = pool.share(rows, 16);
    pool.over(writing(&mut to[..rows * width], share * width), |part, to| {
        for (i, row) in to.chunks_exact_mut(width).enumerate() {
            row.copy_from_slice(&from[from_row(part * share + i) * width..][..width]);
        }
    });
}

/// Row i of `to [n, width]` is the sum of rows `places[i * each..][..each]` of `from`, each times the factor of its place among all, in
/// their order.
pub(super) fn sum(
    pool: &Pool,
    from: &[f32],
    to: &mut [f32],
    places: &[usize],
    (each, width): (usize, usize),
    factor: impl Fn(usize) -> f32 + Sync,
) {
    let n = places.len() / each;
    let share = pool.share(n, 8);
    let parts = (writing(&mut to[..n * width], share * width), reading(places, share * each));
    pool.over(parts, |part, (to, places)| {
        for (i, (to, places)) in to.chunks_exact_mut(width).zip(places.chunks_exact(each)).enumerate() {
            to.fill(0.0);
            let first = (part * share + i) * each;
            for (slot, place) in places.iter().enumerate() {
                let by = factor(first + slot);
                to.iter_mut().zip(&from[place * width..][..width]).for_each(|(to, x)| *to += by * x);
            }
        }
    });
}
