//! Layers of experts: tokens are grouped by the experts that they go to, each expert multiplies its own, and what they say is put
//! together again, all on the device.
//!
//! Nothing is gathered: a product looks up the rows of tokens where they lie. What experts say before it is put together, and gradients
//! between the products, lie in scratch, in the format of activations.

use super::super::backend::{ExpertDims, Experts, ExpertsBackward};
use super::Cuda;
use super::activation::{activation, activation_backward};
use super::buffer::Buffer;
use super::device::{Address, Device, Real};
use super::grouped::{self, Groups, Rows, Weights, room};
use super::launch::{Kernel, THREADS, at, at_or_null, blocks, blocks_over_rows, int};

/// Bytes of scratch that a layer of experts takes: its groups, and a row of the wider of what stands between the products for each.
pub(super) fn scratch_bytes(d: ExpertDims, real: Real, training: bool) -> usize {
    let width = if training { d.c.max(d.f) } else { d.c };
    grouped::bytes(d) + room(d.rows() * width * real.size())
}

/// First and second products' weights.
fn weights(of: &Experts<'_, Buffer>) -> [Weights; 2] {
    let ExpertDims { c, f, kind, .. } = of.d;
    [Weights { at: of.up.at(), k: c, m: kind.inner(f) }, Weights { at: of.down.at(), k: f, m: c }]
}

/// `out [N, C] =` of each token the sum of its rows, weighted where there are weights.
fn combine(
    on: &dyn Device,
    real: Real,
    g: &Groups,
    rows: Address,
    weights: Option<Address>,
    out: Address,
    d: ExpertDims,
) {
    let args = [at(rows), at(g.places), at_or_null(weights), at(out), int(d.n), int(d.c), int(d.per_token)];
    Kernel { on, file: "experts", name: "combine", real }.run(blocks_over_rows(on, real, d.n, d.c), THREADS, &args);
}

impl Cuda {
    /// `Parts::experts`
    pub(super) fn experts_forward(
        &self,
        x: &Buffer,
        of: &Experts<'_, Buffer>,
        pre: &Buffer,
        act: &Buffer,
        out: &Buffer,
    ) {
        let (on, real, d) = (self.on(), x.format(), of.d);
        let Some(scratch) = self.state.scratch(scratch_bytes(d, real, false)) else { return };
        let groups = Groups::of(on, real, of.chosen.wide(), scratch, false, d);
        let said = scratch + grouped::bytes(d) as Address;
        let ([up, down], [of_up, of_down]) = (weights(of), of.biases.map(|b| b.map(Buffer::at)));
        groups.up(on, (Rows::OfTokens(x.at()), up, of_up), (pre.at(), act.at()));
        groups.linear(on, Rows::Own(act.at()), down, of_down, said);
        combine(on, real, &groups, said, Some(of.weights.wide()), out.at(), d);
    }

    /// `Parts::experts_backward`. The weights of a token's experts are put on the gradient of what is between the products and on that
    /// itself, so that the gradient of the result need not be copied for each expert.
    pub(super) fn experts_gradients(
        &self,
        x: &Buffer,
        of: &Experts<'_, Buffer>,
        dout: &Buffer,
        to: &ExpertsBackward<'_, Buffer>,
    ) {
        let (on, real, d) = (self.on(), x.format(), of.d);
        let Some(scratch) = self.state.scratch(scratch_bytes(d, real, true)) else { return };
        let groups = Groups::of(on, real, of.chosen.wide(), scratch, true, d);
        let between = scratch + grouped::bytes(d) as Address;
        let [up, down] = weights(of);
        let (pre, act, dout, rows) = (to.pre.at(), to.act.at(), Rows::OfTokens(dout.at()), d.rows());
        activation(on, real, d.kind, pre, act, rows, d.f);
        groups.input(on, dout, down, between);
        self.weigh(&groups, of, dout, [act, between], to.dweights.wide());
        groups.weight(on, dout, Rows::Own(act), Weights { at: to.ddown.wide(), ..down });
        activation_backward(on, real, d.kind, pre, between, rows, d.f);
        groups.weight(on, Rows::Own(pre), Rows::OfTokens(x.at()), Weights { at: to.dup.wide(), ..up });
        if let Some([of_up, of_down]) = &to.dbiases {
            groups.sums(on, Rows::Own(pre), None, of_up.wide(), up.m);
            groups.sums(on, dout, Some(of.weights.wide()), of_down.wide(), down.m);
        }
        groups.input(on, Rows::Own(pre), up, between);
        combine(on, real, &groups, between, None, to.dx.at(), d);
    }

    /// The gradient of the weights; `act` and its gradient `[N * K, F]` are weighted.
    fn weigh(&self, g: &Groups, of: &Experts<'_, Buffer>, dout: Rows, [act, dact]: [Address; 2], dweights: Address) {
        let (Rows::OfTokens(dout) | Rows::Own(dout), d) = (dout, of.d);
        let (bias, real) = (of.biases[1].map(Buffer::at), of.down.format());
        let mut args = vec![at(g.order), at(of.chosen.wide()), at(of.weights.wide())];
        args.extend([at_or_null(bias), at(dout), at(act), at(dact), at(dweights)]);
        args.extend([d.rows(), d.per_token, d.f, d.c].map(int));
        let grid = blocks(self.on(), d.rows(), THREADS as usize / 32);
        Kernel { on: self.on(), file: "experts", name: "weigh", real }.run(grid, THREADS, &args);
    }
}
