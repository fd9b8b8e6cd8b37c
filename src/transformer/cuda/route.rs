//! Which experts tokens go to, and the gradient of that choice.

use super::super::backend::ExpertDims;
use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at, blocks, int};

/// Experts of a layer that the kernels hold in a warp's registers, and count in shared memory.
pub(super) const MOST_EXPERTS: u32 = 512;

/// A warp a token, whatever the format of anything else: logits are f32.
fn run(on: &dyn Device, name: &'static str, operands: [Address; 4], d: ExpertDims) {
    let ExpertDims { n, experts, per_token, normalised, .. } = d;
    let mut args: Vec<Arg> = operands.into_iter().take(if name == "route" { 3 } else { 4 }).map(at).collect();
    args.extend([int(n), int(experts), int(per_token), Arg::I32(normalised.into())]);
    let grid = blocks(on, n, THREADS as usize / 32);
    Kernel { on, file: "route", name, real: Real::F32 }.run(grid, THREADS, &args);
}

/// `chosen [n, K]` and `weights [n, K]` of `logits [n, E]`.
pub(super) fn route(on: &dyn Device, logits: Address, chosen: Address, weights: Address, d: ExpertDims) {
    run(on, "route", [logits, chosen, weights, 0], d);
}

/// `dlogits [n, E]` from the gradient of the weights.
pub(super) fn route_backward(
    on: &dyn Device,
    [logits, chosen, dweights]: [Address; 3],
    dlogits: Address,
    d: ExpertDims,
) {
    run(on, "route_backward", [logits, chosen, dweights, dlogits], d);
}
