//! Which experts tokens go to, and the gradient of that choice.

use super::super::backend::ExpertDims;
use super::super::shape::{Routing, Scoring};
use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at, at_or_null, blocks, int};

/// Experts of a layer that the kernels hold in a warp's registers, and count in shared memory.
pub(super) const MOST_EXPERTS: u32 = 512;

/// A warp a token, whatever the format of anything else: logits are f32.
fn run(on: &dyn Device, name: &'static str, operands: &[Arg], d: ExpertDims, rest: &[Arg]) {
    let ExpertDims { n, experts, per_token, normalised, .. } = d;
    let mut args = operands.to_vec();
    args.extend([int(n), int(experts), int(per_token), Arg::I32(normalised.into())]);
    args.extend_from_slice(rest);
    let grid = blocks(on, n, THREADS as usize / 32);
    Kernel { on, file: "route", name, real: Real::F32 }.run(grid, THREADS, &args);
}

fn sigmoid(by: Routing) -> Arg {
    Arg::I32((by.scoring == Scoring::Sigmoid).into())
}

/// `chosen [n, K]` and `weights [n, K]` of `logits [n, E]`.
pub(super) fn route(on: &dyn Device, logits: Address, chosen: Address, weights: Address, d: ExpertDims) {
    run(on, "route", &[logits, chosen, weights].map(at), d, &[]);
}

/// The same by a rule, with `correction [E]` f32 added to scores where experts are chosen.
pub(super) fn route_by(
    on: &dyn Device,
    [logits, chosen, weights]: [Address; 3],
    correction: Option<Address>,
    (d, by): (ExpertDims, Routing),
) {
    let operands = [at(logits), at_or_null(correction), at(chosen), at(weights)];
    let [groups, groups_per_token] = [by.groups, by.groups_per_token].map(|g| int(g as usize));
    run(on, "route_by", &operands, d, &[sigmoid(by), groups, groups_per_token, Arg::F32(by.scale)]);
}

/// `dlogits [n, E]` from the gradient of the weights, of `[logits, chosen, dweights]`.
pub(super) fn route_backward(
    on: &dyn Device,
    [logits, chosen, dweights]: [Address; 3],
    dlogits: Address,
    (d, by): (ExpertDims, Routing),
) {
    run(on, "route_backward", &[logits, chosen, dweights, dlogits].map(at), d, &[sigmoid(by), Arg::F32(by.scale)]);
}
