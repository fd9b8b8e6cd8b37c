//! Logits that stand beside the scores of attention, one of each head.

use super::super::backend::AttentionDims;
use super::columns::sum_partials;
use super::device::{Address, Device, Real};
use super::launch::{Kernel, THREADS, at, int};

/// `out [N, H*D]` shrinks and `lse [N, H]` grows as the denominators of the softmax do.
pub(super) fn sinks(on: &dyn Device, real: Real, (logits, out, lse): (Address, Address, Address), d: &AttentionDims) {
    let warps = d.rows() * d.heads;
    let args = [at(logits), at(out), at(lse), int(d.rows()), int(d.heads), int(d.head_dim)];
    Kernel { on, file: "sinks", name: "sinks", real }.run(warps.div_ceil(THREADS as usize / 32) as u32, THREADS, &args);
}

/// Shares of the rows that the blocks of a head take.
fn shares(on: &dyn Device, d: &AttentionDims) -> usize {
    // Eight blocks a multiprocessor; 8 rows for each of a block's warps.
    let at_once = 8 * on.facts().multiprocessors.max(1) as usize;
    at_once.div_ceil(d.heads).min(d.rows().div_ceil(64)).max(1)
}

/// Elements of f32 that [`sinks_backward`] asks for as `partial`.
pub(super) fn partial_len(on: &dyn Device, d: &AttentionDims) -> usize {
    shares(on, d) * d.heads
}

/// What [`sinks_backward`] reads and writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backward {
    pub logits: Address,
    pub out: Address,
    pub dout: Address,
    pub lse: Address,
    /// [`partial_len`]; what is in it does not matter.
    pub partial: Address,
    /// `[H]` f32, overwritten.
    pub dlogits: Address,
}

/// The gradient of the logits, `dout` being that of `out` as it is with them.
pub(super) fn sinks_backward(on: &dyn Device, real: Real, b: Backward, d: &AttentionDims) {
    let shares = shares(on, d);
    // One share's partial sums are the sums.
    let to = if shares == 1 { b.dlogits } else { b.partial };
    let [n, heads, head_dim, rows] = [d.rows(), d.heads, d.head_dim, d.rows().div_ceil(shares)].map(int);
    let args = [at(b.logits), at(b.out), at(b.dout), at(b.lse), at(to), n, heads, head_dim, rows];
    let grid = [d.heads as u32, shares as u32, 1];
    Kernel { on, file: "sinks", name: "sinks_backward", real }.run_grid(grid, THREADS, &args);
    if shares > 1 {
        sum_partials(on, real, b.partial, b.dlogits, shares, d.heads);
    }
}
