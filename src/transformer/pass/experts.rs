//! Layers of experts: a token goes to a few, which say something together, and through those that all tokens share. Forward and
//! backward. Experts that are spread over ranks are [`super::dispatch`]'s.

use super::super::backend::{Backend, Dropout, ExpertDims, Experts, ExpertsBackward, Store};
use super::super::loads::Loads;
use super::super::shape::Routing;
use super::activations::{Activations, OfFeedForward, RoutedTokens, Shared, expert_dims};
use super::backward::{EndFrom, Half};
use super::gradients::Gradients;
use super::model::{LayerIndex, Linear, Model};
use super::scratch::Scratch;

impl<B: Backend> Model<B> {
    /// The experts of a layer over the stream `x`, up to what they say together.
    pub(super) fn experts(
        &self,
        layer: &LayerIndex,
        router: &Linear,
        x: &B::Buffer,
        (act, shared): (&mut OfFeedForward<B::Buffer>, &mut Shared<B::Buffer>),
        d: ExpertDims,
    ) {
        let Shared { normed, act: hidden, experts: Some(said), post, .. } = shared else { return };
        let input = self.input_again(layer.norm2.as_ref(), x, normed, act.norm2.as_mut(), d.n);
        let Some(routed) = &mut act.routed else { return };
        self.route(layer, router, input, routed, d);
        match post {
            Some(post) => self.experts_over_ranks(layer, input, routed, [&mut act.pre, hidden, said], (post, d)),
            None => {
                let of = self.experts_of(layer, &routed.chosen, &routed.weights, d);
                self.backend.experts(input, &of, &mut act.pre, hidden, said);
            }
        }
        let first = self.tensor.rank() == 0;
        // Those that every token goes through.
        if let (Some([up, down]), Some(pre)) = (&layer.shared, &mut act.shared_pre) {
            let ((w, bias), of_up) = (self.weight_and_bias(up), self.linear_dims(up, d.n));
            self.backend.linear_activation(self.shape.activation, input, w, bias, pre, hidden, of_up);
            let ((w, bias), of_down) = (self.weight_and_bias(down), self.linear_dims(down, d.n));
            self.backend.linear(hidden, w, bias.filter(|_| first), said, Store::Accumulate, of_down);
        }
        self.sum_over_parts(said);
    }

    /// Where tokens go.
    fn route(
        &self,
        layer: &LayerIndex,
        router: &Linear,
        input: &B::Buffer,
        routed: &mut RoutedTokens<B::Buffer>,
        d: ExpertDims,
    ) {
        let (RoutedTokens { logits, chosen, weights, .. }, (w, bias)) = (routed, self.weight_and_bias(router));
        self.backend.linear(input, w, bias, logits, Store::Overwrite, self.linear_dims(router, d.n));
        let by = self.routing();
        if by.is_plain() {
            return self.backend.route(logits, chosen, weights, d);
        }
        let correction = layer.correction.map(|c| &self.parameters[c]);
        self.backend.route_by(logits, correction, chosen, weights, (d, by));
    }

    /// By what experts are chosen.
    fn routing(&self) -> Routing {
        self.shape.experts.map_or(Routing::PLAIN, |e| e.routing)
    }

    /// A layer's experts, and where tokens go.
    pub(super) fn experts_of<'a>(
        &'a self,
        layer: &LayerIndex,
        chosen: &'a B::Buffer,
        weights: &'a B::Buffer,
        d: ExpertDims,
    ) -> Experts<'a, B::Buffer> {
        let [(up, of_up), (down, of_down)] = [&layer.up, &layer.down].map(|l| self.weight_and_bias(l));
        // What every rank adds to its part, one adds to the sum.
        Experts { up, down, biases: [of_up, of_down.filter(|_| self.tensor.rank() == 0)], chosen, weights, d }
    }

    /// From the stream's gradient back to it, through a layer of experts.
    pub(super) fn experts_backward(
        &self,
        half: Half<'_, B::Buffer, OfFeedForward<B::Buffer>>,
        s: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        dropout: Option<Dropout>,
    ) {
        let Half { l, extent, x, act, shared } = half;
        let (n, layer) = (extent.rows(), &self.index.layers[l]);
        let (Some(d), Some(router)) = (expert_dims(&self.shape, n), &layer.router) else { return };
        let (Some(routed), Some([dweights, dlogits])) = (&act.routed, &mut s.routed) else { return };
        let norm = layer.norm2_after.as_ref().zip(act.after.as_ref());
        let from = EndFrom { stream: &s.stream, room: s.before_norm.as_mut(), norm, dropout };
        let dout = self.branch_end(from, &mut s.branch, gradients, n);
        let Shared { normed, act: hidden, experts: Some(dx), post, .. } = shared else { return };
        let input = self.input_again(layer.norm2.as_ref(), x, normed, act.norm2.as_mut(), n);
        let [dup, of_up, ddown, of_down] = gradients.four([layer.up, layer.down]);
        let dbiases = of_up.zip(of_down).map(|(up, down)| [up, down]);
        let (Some(dup), Some(ddown)) = (dup, ddown) else { return };
        let to = ExpertsBackward { pre: &mut act.pre, act: &mut s.act, dup, ddown, dbiases, dx, dweights };
        match (post, &mut s.returning) {
            (Some(post), Some(returning)) => {
                self.experts_over_ranks_backward(layer, dout, routed, to, (post, returning, d));
            }
            _ => {
                let experts = self.experts_of(layer, &routed.chosen, &routed.weights, d);
                self.backend.experts_backward(input, &experts, dout, to);
            }
        }
        self.sum_over_parts(dweights);
        let by = self.routing();
        if by.is_plain() {
            self.backend.route_backward(&routed.logits, &routed.chosen, dweights, dlogits, d);
        } else {
            self.backend.route_by_backward(&routed.logits, &routed.chosen, dweights, dlogits, (d, by));
        }
        self.linear_dw(router, input, dlogits, gradients, n);
        // Every rank has all of it, and one adds it to what is summed.
        if self.tensor.rank() == 0 {
            let of_router = self.linear_dims(router, n);
            self.backend.linear_dx(dlogits, &self.parameters[router.weight], dx, Store::Accumulate, of_router);
        }
        if let (Some(shared), Some(pre)) = (&layer.shared, &mut act.shared_pre) {
            self.shared_backward(shared, (input, dout), [pre, hidden, &mut s.act, dx], gradients, n);
        }
        self.sum_over_parts(dx);
        std::mem::swap(dx, &mut s.branch);
        self.branch_start(layer.norm2.as_ref(), x, act.norm2.as_ref(), (s, gradients), n);
    }

    /// The same of those that every token goes through; `dx` grows.
    fn shared_backward(
        &self,
        [up, down]: &[Linear; 2],
        (input, dout): (&B::Buffer, &B::Buffer),
        [pre, hidden, room, dx]: [&mut B::Buffer; 4],
        gradients: &mut Gradients<B::Buffer>,
        n: usize,
    ) {
        let (kind, f) = (self.shape.activation, self.shape.d_ff_shared() as usize);
        self.backend.activation(kind, pre, hidden, n, f);
        self.linear_dw(down, hidden, dout, gradients, n);
        let (w, of_down) = (&self.parameters[down.weight], self.linear_dims(down, n));
        self.backend.linear_dx_activation(kind, dout, w, pre, room, of_down);
        self.linear_dw(up, input, pre, gradients, n);
        self.backend.linear_dx(pre, &self.parameters[up.weight], dx, Store::Accumulate, self.linear_dims(up, n));
    }

    /// How the tokens of the last pass were spread over the experts of the layers whose activations are kept: all in training that
    /// runs no layer again, else the one that ran last.
    pub(in crate::transformer) fn loads(&self, a: &Activations<B::Buffer>) -> Option<Loads> {
        let d = expert_dims(&self.shape, a.extent.rows())?;
        let routed = a.feed_forward.iter().filter_map(|act| act.routed.as_ref());
        Loads::mean(routed.filter_map(|r| Loads::of_layer(&self.backend.tokens(&r.chosen, d.rows()), d.experts)))
    }
}
