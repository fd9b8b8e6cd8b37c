//! The vocabulary projection and its loss, some rows at a time: no more logits are held than [`MOST_BYTES`], and what one block
//! of them is for (its loss, its part of both gradients) is done before the next is computed.
//!
//! Rows of logits are a multiple of 64 elements apart: GPT-2's vocabulary of 50257 would start them at odd addresses, and a
//! product of such rows runs at a fraction of its speed.

use super::super::backend::LinearDims;
use super::buffer::Buffer;
use super::device::{Address, Device, Matrix, Product, Real};
use super::linear::{dense, plain};
use super::loss::{self, LogitRows, Scale, SoftmaxLoss};
use super::state::{Slot, State};

/// Bytes of logits that a block has at least, where there are so many: the products over the vocabulary run at their full speed.
const LEAST_BYTES: usize = if cfg!(test) { 32 << 10 } else { 256 << 20 };

/// And at most. What has more logits than that has several times as many activations: GPT-2 124M keeps some 3 GB of them for the 10,624
/// rows that this is.
const MOST_BYTES: usize = if cfg!(test) { 32 << 10 } else { 1 << 30 };

/// Elements of `dx` that its product has two waves of tiles of 128 x 256 for, on 132 multiprocessors (H100): `dx [rows, C]` is the
/// smallest result of a block. With 256 MiB, GPT-2's 2,560 rows of 768 are 60 tiles, under half a wave. Fewer blocks also
/// read and write `dw [V, C]` in f32 fewer times: 0.3 GB each for GPT-2, at 3 TB/s 0.1 ms.
const ELEMENTS_OF_DX: usize = 2 * 132 * 128 * 256;

/// Rows of a block, and elements from one of its rows to the next.
fn block(n: usize, width: usize, vocabulary: usize, real: Real) -> (usize, usize) {
    let stride = vocabulary.next_multiple_of(64);
    let of_bytes = |bytes: usize| (bytes / (stride * real.size()) / 128 * 128).max(128);
    let of_dx = ELEMENTS_OF_DX.div_ceil(width.max(1)).next_multiple_of(128);
    (of_dx.clamp(of_bytes(LEAST_BYTES), of_bytes(MOST_BYTES)).min(n.max(1)), stride)
}

/// Bytes of scratch: a block of logits, and a loss for every row.
pub(super) fn scratch_bytes(n: usize, width: usize, vocabulary: usize, real: Real) -> usize {
    let (rows, stride) = block(n, width, vocabulary, real);
    (rows * stride * real.size()).next_multiple_of(256) + 4 * n
}

/// What the loss is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub on: &'a dyn Device,
    pub state: &'a State,
    pub tf32: bool,
}

impl Head<'_> {
    /// Mean cross-entropy of `softmax(x w^T)`, into the word of the loss, against the words at `targets`, logits being
    /// capped where there is a cap; `dx` and `dw` are overwritten by its gradients.
    pub(super) fn cross_entropy(
        &self,
        x: &Buffer,
        w: &Buffer,
        targets: Address,
        gradients: Option<(&Buffer, &Buffer)>,
        cap: Option<f32>,
        d: LinearDims,
    ) {
        let real = x.format();
        let (rows, stride) = block(d.n, d.k, d.m, real);
        let Some(logits) = self.state.scratch(scratch_bytes(d.n, d.k, d.m, real)) else { return };
        let losses = logits + (rows * stride * real.size()).next_multiple_of(256) as Address;
        let scale = self.state.at(Slot::Scale);
        loss::mean_scale(self.on, targets, scale, d.n);
        for first in (0..d.n).step_by(rows) {
            let n = rows.min(d.n - first);
            let at = |base: Address, size: usize| base + (first * size) as Address;
            let rows_of_x = dense(at(x.at(), d.k * real.size()), real, d.k);
            let weight = dense(w.at(), real, d.k);
            let block = Matrix { stride, ..dense(logits, real, d.m) };
            self.on.product(&plain(rows_of_x, Matrix { transposed: true, ..weight }, block, [n, d.k, d.m], self.tf32));
            let (targets, losses) = (at(targets, 4), at(losses, 4));
            let o = SoftmaxLoss { logits, targets, losses, scale, gradients: gradients.is_some(), cap };
            loss::softmax_loss(self.on, real, o, LogitRows { rows: n, v: d.m, stride });
            let Some((dx, dw)) = gradients else { continue };
            let dx = dense(at(dx.at(), d.k * real.size()), real, d.k);
            self.on.product(&plain(block, weight, dx, [n, d.m, d.k], self.tf32));
            let to = dense(dw.wide(), Real::F32, d.k);
            let transposed = Matrix { transposed: true, ..block };
            let plus = (first > 0).then_some(dw.wide());
            self.on.product(&Product { plus, ..plain(transposed, rows_of_x, to, [d.m, n, d.k], self.tf32) });
        }
        loss::sum(self.on, losses, self.state.at(Slot::Loss), d.n, Scale::At(scale));
    }
}
