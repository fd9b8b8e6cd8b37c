//! The vocabulary projection in blocks of rows, so that logits never exist whole: what stands before the loss of a block and after it.
//! The losses themselves are in `loss`, and in `words` where each rank has some of the vocabulary.

use super::super::backend::{IGNORED_TARGET, LinearDims, ROWS_AT_A_TIME};
use super::matmul::matmul;
use super::pool::Pool;
use super::product::{Onto, Precision, View};
use std::ops::Range;

/// Rows a block.
pub(super) const BLOCK: usize = ROWS_AT_A_TIME;

/// `x [N, C]` and `w [V, C]`, and how they are multiplied.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub pool: &'a Pool,
    pub precision: Precision,
    pub x: &'a [f32],
    pub w: &'a [f32],
    pub d: LinearDims,
}

impl Head<'_> {
    /// The rows of each block.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        let n = self.d.n;
        (0..n).step_by(BLOCK).map(move |first| first..(first + BLOCK).min(n))
    }

    fn rows(&self, block: &Range<usize>) -> View<'_> {
        let k = self.d.k;
        View::dense(&self.x[block.start * k..block.end * k], block.len(), k)
    }

    fn words(&self) -> View<'_> {
        View::dense(&self.w[..self.d.m * self.d.k], self.d.m, self.d.k)
    }

    /// The logits of a block, `[R, V]`.
    pub(super) fn logits(&self, block: &Range<usize>, to: &mut [f32]) {
        matmul(self.pool, self.precision, to, Onto::Nothing, self.rows(block), self.words().transposed());
    }

    /// From a block's `dlogits [R, V]` the gradient of its rows of `x`, which is overwritten, and what it adds to that of `w`, which
    /// the first block overwrites.
    pub(super) fn backward(&self, block: &Range<usize>, dlogits: &[f32], (dx, dw): &mut (&mut [f32], &mut [f32])) {
        let LinearDims { k, m: v, .. } = self.d;
        let dlogits = View::dense(dlogits, block.len(), v);
        let dx = &mut dx[block.start * k..block.end * k];
        matmul(self.pool, self.precision, dx, Onto::Nothing, dlogits, self.words());
        let onto = if block.start > 0 { Onto::Target } else { Onto::Nothing };
        matmul(self.pool, self.precision, &mut dw[..v * k], onto, dlogits.transposed(), self.rows(block));
    }
}

/// How many targets a mean loss is over: one, where all are ignored.
pub(super) fn counted(targets: &[u32]) -> f32 {
    targets.iter().filter(|&&t| t != IGNORED_TARGET).count().max(1) as f32
}
