//! The backward pass: the gradient of every parameter, from what the forward pass left behind.
//!
//! Layers are walked in reverse; each gradient is written once. The vocabulary projection and its loss are one operation, so
//! that a backend need never hold all logits. Where ranks split the layers, the gradient of what enters the split products is
//! summed over them.

use super::super::backend::{Backend, Dropout, LinearDims, Loss, Store, Tokens};
use super::activations::{Activations, Extent, LayerActivations, Scratch, Shared};
use super::forward::{Place, StepDropout};
use super::gradients::Gradients;
use super::model::{LayerIndex, Linear, Model, Norm};
use std::ops::Range;

/// What the model should have said.
#[derive(Debug)]
pub(crate) enum Targets<'a, T> {
    /// The next token of every position, for the families with a vocabulary.
    Tokens(&'a [u32]),
    /// The same, as [`Backend::put_tokens`] leaves them.
    Placed(&'a T),
    /// A vector for every position, `[N, C]`, for the block.
    Vectors(&'a T),
}

impl<B: Backend> Model<B> {
    /// The loss of the last forward pass, without gradients.
    pub(crate) fn loss(&self, a: &Activations<B::Buffer>, targets: &Targets<'_, B::Buffer>) -> f32 {
        let output = a.output(self.index.layers.len());
        let loss = match targets {
            Targets::Tokens(t) => self.token_loss(output, Tokens::Host(t), a.extent),
            Targets::Placed(t) => self.token_loss(output, Tokens::Placed(t), a.extent),
            Targets::Vectors(t) => {
                self.backend.mean_squared_error(output, t, None, a.extent.rows() * self.shape.d_model as usize)
            }
        };
        self.backend.read_loss(loss)
    }

    fn token_loss(&self, output: &B::Buffer, targets: Tokens<'_, B::Buffer>, extent: Extent) -> Loss {
        let head = &self.parameters[self.index.head.unwrap_or(self.index.table)];
        self.backend.cross_entropy_tokens(output, head, targets, None, self.head_dims(extent.rows()))
    }

    pub(in crate::transformer) fn head_dims(&self, n: usize) -> LinearDims {
        LinearDims { n, k: self.shape.d_model as usize, m: self.shape.vocab_size as usize }
    }

    /// Writes the gradient of every parameter into `gradients`, which has a buffer for each, and returns the loss. `a` holds the
    /// forward pass of `ids` with the same dropout; its `pre` are used up.
    pub(crate) fn backward(
        &self,
        ids: &[u32],
        targets: &Targets<'_, B::Buffer>,
        a: &mut Activations<B::Buffer>,
        scratch: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        dropout: Option<StepDropout>,
    ) -> f32 {
        let loss = self.head_backward(targets, a, scratch, gradients);
        for l in (0..self.index.layers.len()).rev() {
            self.layer_backward(l, a, scratch, gradients, dropout);
        }
        self.stem_backward(Tokens::Host(ids), a.extent, scratch, gradients, dropout);
        self.backend.read_loss(loss)
    }

    /// The same, calling `finished` as soon as the gradients of some neighbouring parameters are there and the pass has no more
    /// use for the parameters: of each layer in turn, then of what stands before and after the layers. The loss is to be read
    /// when all has been asked for.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn backward_by_layers(
        &mut self,
        ids: Tokens<'_, B::Buffer>,
        targets: &Targets<'_, B::Buffer>,
        a: &mut Activations<B::Buffer>,
        scratch: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        dropout: Option<StepDropout>,
        mut finished: impl FnMut(&mut Self, Range<usize>, &mut Gradients<B::Buffer>),
    ) -> Loss {
        let loss = self.head_backward(targets, a, scratch, gradients);
        for l in (0..self.index.layers.len()).rev() {
            self.layer_backward(l, a, scratch, gradients, dropout);
            let parameters = self.index.of_layer(l);
            finished(self, parameters, gradients);
        }
        self.stem_backward(ids, a.extent, scratch, gradients, dropout);
        let layers = self.index.of_layers();
        for parameters in [0..layers.start, layers.end..self.index.specs.len()] {
            if !parameters.is_empty() {
                finished(self, parameters, gradients);
            }
        }
        loss
    }

    fn layer_backward(
        &self,
        l: usize,
        a: &mut Activations<B::Buffer>,
        scratch: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        dropout: Option<StepDropout>,
    ) {
        let (extent, layer) = (a.extent, &self.index.layers[l]);
        let (n, act) = (extent.rows(), &mut a.layers[l]);
        let d = dropout.map(|d| d.at(Place::FeedForward(l)));
        self.feed_forward_backward(layer, &a.residual[2 * l + 1], (act, &mut a.shared), scratch, gradients, n, d);
        let d = dropout.map(|d| d.at(Place::Attention(l)));
        self.attention_half_backward(layer, &a.residual[2 * l], (act, &mut a.shared), scratch, gradients, extent, d);
    }

    fn stem_backward(
        &self,
        ids: Tokens<'_, B::Buffer>,
        extent: Extent,
        scratch: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        dropout: Option<StepDropout>,
    ) {
        if let (Some(d), true) = (dropout, self.residual()) {
            let len = extent.rows() * self.shape.d_model as usize;
            self.backend.dropout(&mut scratch.stream, len, d.at(Place::Embedding));
        }
        self.embedding_backward(ids, extent, scratch, gradients);
    }

    fn head_backward(
        &self,
        targets: &Targets<'_, B::Buffer>,
        a: &Activations<B::Buffer>,
        scratch: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
    ) -> Loss {
        let (n, c) = (a.extent.rows(), self.shape.d_model as usize);
        let output = a.output(self.index.layers.len());
        let loss = match targets {
            Targets::Tokens(t) => self.token_loss_backward(output, Tokens::Host(t), scratch, gradients, n),
            Targets::Placed(t) => self.token_loss_backward(output, Tokens::Placed(t), scratch, gradients, n),
            Targets::Vectors(t) => self.backend.mean_squared_error(output, t, Some(&mut scratch.branch), n * c),
        };
        match (&self.index.last_norm, &a.last) {
            (Some(norm), Some((_, stats))) => {
                self.backend.fill(&mut scratch.stream, 0.0);
                let x = &a.residual[2 * self.index.layers.len()];
                self.norm_backward(norm, x, stats, scratch, gradients, n);
            }
            _ => std::mem::swap(&mut scratch.stream, &mut scratch.branch),
        }
        loss
    }

    fn token_loss_backward(
        &self,
        output: &B::Buffer,
        targets: Tokens<'_, B::Buffer>,
        scratch: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        n: usize,
    ) -> Loss {
        let head = self.index.head.unwrap_or(self.index.table);
        let (into, w) = ((&mut scratch.branch, gradients.of(head)), &self.parameters[head]);
        self.backend.cross_entropy_tokens(output, w, targets, Some(into), self.head_dims(n))
    }

    /// `stream +=` the gradient of `branch` through the norm.
    fn norm_backward(
        &self,
        norm: &Norm,
        x: &B::Buffer,
        stats: &B::Buffer,
        scratch: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        n: usize,
    ) {
        let (gain, bias) = gradients.weight_and_bias(norm.gain, norm.bias);
        let parameter = &self.parameters[norm.gain];
        let d = self.norm_dims(n);
        self.backend.norm_backward(x, parameter, stats, &scratch.branch, &mut scratch.stream, gain, bias, d);
    }

    fn linear_dw(&self, l: &Linear, x: &B::Buffer, dout: &B::Buffer, gradients: &mut Gradients<B::Buffer>, n: usize) {
        let (weight, bias) = gradients.weight_and_bias(l.weight, l.bias);
        self.backend.linear_dw(x, dout, weight, bias, self.linear_dims(l, n));
    }

    fn linear_dx(&self, l: &Linear, dout: &B::Buffer, dx: &mut B::Buffer, n: usize) {
        self.backend.linear_dx(dout, &self.parameters[l.weight], dx, Store::Overwrite, self.linear_dims(l, n));
    }

    /// Gradient of a branch's end, which the stream's is unless dropout stands between; `branch` is room for it.
    fn branch_end<'a>(
        &self,
        stream: &'a B::Buffer,
        branch: &'a mut B::Buffer,
        n: usize,
        dropout: Option<Dropout>,
    ) -> &'a B::Buffer {
        let Some(d) = dropout else { return stream };
        let len = n * self.shape.d_model as usize;
        self.backend.copy(stream, branch, len);
        self.backend.dropout(branch, len, d);
        branch
    }

    #[allow(clippy::too_many_arguments)]
    fn feed_forward_backward(
        &self,
        layer: &LayerIndex,
        x: &B::Buffer,
        (act, shared): (&mut LayerActivations<B::Buffer>, &mut Shared<B::Buffer>),
        s: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        n: usize,
        dropout: Option<Dropout>,
    ) {
        let (f, kind) = (self.shape.d_ff as usize, self.shape.activation);
        // At a branch's end, or, where there is no stream to add it to, on the hidden activation.
        let (of_branch, of_hidden) = if self.residual() { (dropout, None) } else { (None, dropout) };
        // Made again, as the forward pass made it.
        self.backend.activation(kind, &act.pre, &mut shared.act, n, f);
        if let Some(d) = of_hidden {
            self.backend.dropout(&mut shared.act, n * f, self.of_part(d));
        }
        let dout = self.branch_end(&s.stream, &mut s.branch, n, of_branch);
        self.linear_dw(&layer.down, &shared.act, dout, gradients, n);
        if let Some(d) = of_hidden {
            self.linear_dx(&layer.down, dout, &mut s.act, n);
            self.backend.dropout(&mut s.act, n * f, self.of_part(d));
            self.backend.activation_backward(kind, &mut act.pre, &s.act, n, f);
        } else {
            let (w, d) = (&self.parameters[layer.down.weight], self.linear_dims(&layer.down, n));
            self.backend.linear_dx_activation(kind, dout, w, &mut act.pre, &mut s.act, d);
        }
        if let (Some(norm), Some(out), Some(stats)) = (&layer.norm2, &mut shared.normed, &mut act.norm2) {
            self.norm(norm, x, out, stats, n);
        }
        let input = shared.normed.as_ref().unwrap_or(x);
        self.linear_dw(&layer.up, input, &act.pre, gradients, n);
        self.linear_dx(&layer.up, &act.pre, &mut s.branch, n);
        self.sum_over_parts(&mut s.branch);
        match (&layer.norm2, &act.norm2) {
            (Some(norm), Some(stats)) => self.norm_backward(norm, x, stats, s, gradients, n),
            _ => std::mem::swap(&mut s.stream, &mut s.branch),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn attention_half_backward(
        &self,
        layer: &LayerIndex,
        x: &B::Buffer,
        (act, shared): (&mut LayerActivations<B::Buffer>, &mut Shared<B::Buffer>),
        s: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        extent: Extent,
        dropout: Option<Dropout>,
    ) {
        let n = extent.rows();
        let d = extent.attention(&self.shape);
        let dout = self.branch_end(&s.stream, &mut s.branch, n, dropout);
        self.linear_dw(&layer.out, &act.attention, dout, gradients, n);
        self.linear_dx(&layer.out, dout, &mut s.attention, n);
        self.backend.attention_backward(&act.qkv, &act.attention, &s.attention, &act.lse, &mut s.qkv, d);
        if let Some(f) = &self.frequencies {
            self.backend.rope(&mut s.qkv, f, 0, true, d);
        }
        if let (Some(norm), Some(out), Some(stats)) = (&layer.norm1, &mut shared.normed, &mut act.norm1) {
            self.norm(norm, x, out, stats, n);
        }
        let input = shared.normed.as_ref().unwrap_or(x);
        self.linear_dw(&layer.qkv, input, &s.qkv, gradients, n);
        self.linear_dx(&layer.qkv, &s.qkv, &mut s.branch, n);
        self.sum_over_parts(&mut s.branch);
        match (&layer.norm1, &act.norm1) {
            (Some(norm), Some(stats)) => self.norm_backward(norm, x, stats, s, gradients, n),
            _ => std::mem::swap(&mut s.stream, &mut s.branch),
        }
    }

    fn embedding_backward(
        &self,
        ids: Tokens<'_, B::Buffer>,
        extent: Extent,
        s: &Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
    ) {
        if !self.index.tied() {
            self.backend.fill(gradients.of(self.index.table), 0.0);
        }
        let c = self.shape.d_model as usize;
        let (table, positions) = gradients.weight_and_bias(self.index.table, self.index.positions);
        self.backend.embed_backward_tokens(ids, extent.rows(), extent.tokens, &s.stream, table, positions, c);
    }
}
