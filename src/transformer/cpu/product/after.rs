//! What becomes of a result, a part at a time: where a product calls it for a tile that it has just summed up, that tile still lies in
//! its core's cache, and no pass over memory is needed.

use super::super::instructions::vectorised;
use super::super::pool::Pool;
use super::Target;
use std::ops::Range;

/// What becomes of a result.
#[derive(Clone, Copy, Debug)]
pub(in crate::transformer::cpu) enum After<'a> {
    Nothing,
    /// An element for each column is added to it.
    Bias(&'a [f32]),
}

impl After<'_> {
    pub(super) fn check(self, columns: usize) {
        if let Self::Bias(bias) = self {
            assert!(bias.len() >= columns, "a bias for each column");
        }
    }

    /// Hands these rows and columns on.
    ///
    /// # Safety
    /// No other thread touches these elements of `of`, and its buffer is alive.
    pub(super) unsafe fn part(self, of: Target, rows: Range<usize>, columns: Range<usize>) {
        let Self::Bias(bias) = self else { return };
        let bias = &bias[columns.clone()];
        vectorised(
            #[inline(always)]
            || {
                for row in rows {
                    // SAFETY: the caller's.
                    let x = unsafe { stretch(of, row * of.row_stride + columns.start, columns.len()) };
                    x.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
                }
            },
        );
    }

    /// The same of whole rows, on all threads.
    ///
    /// # Safety
    /// As of [`After::part`].
    pub(super) unsafe fn pass(self, pool: &Pool, of: Target, rows: usize, columns: usize) {
        if matches!(self, Self::Nothing) {
            return;
        }
        let share = pool.share(rows, 1);
        pool.each(rows.div_ceil(share), |i| {
            // SAFETY: the caller's; each row is one task's.
            unsafe { self.part(of, i * share..((i + 1) * share).min(rows), 0..columns) };
        });
    }
}

/// `len` elements from `at` on.
///
/// # Safety
/// No other thread touches them while they are borrowed, and the buffer is alive.
#[inline(always)]
unsafe fn stretch<'b>(of: Target, at: usize, len: usize) -> &'b mut [f32] {
    let of = of.at(at);
    assert!(len <= of.len, "a part beyond its buffer");
    // SAFETY: within the buffer, checked above; the caller keeps others away.
    unsafe { std::slice::from_raw_parts_mut(of.start(), len) }
}
