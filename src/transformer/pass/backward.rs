//! The backward pass: the gradient of every parameter, from what the forward pass left behind.
//!
//! Layers are walked in reverse; each gradient is written once. The vocabulary projection and its loss are one operation, so
//! that a backend need never hold all logits. Where ranks split the layers, the gradient of what enters the split products is
//! summed over them.

use super::super::backend::{AttentionDims, Backend, Dropout, Loss, Store, Tokens};
use super::super::shape::parts::Residual;
use super::activations::{Activations, BeforeNorm, Extent, OfAttention, OfFeedForward, Rooms, Shared, qk_norm_dims};
use super::forward::{Place, StepDropout};
use super::gradients::Gradients;
use super::model::{Linear, Model, Norm};
use super::scratch::Scratch;
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

/// What is done between a backward pass's layers.
pub(crate) trait Turns<B: Backend> {
    /// A layer is about to be walked through.
    fn before(&mut self, _model: &mut Model<B>, _layer: usize) {}
    /// The gradients of some neighbouring parameters are there.
    fn finished(&mut self, model: &mut Model<B>, parameters: Range<usize>, gradients: &mut Gradients<B::Buffer>);
}

impl<B: Backend, F: FnMut(&mut Model<B>, Range<usize>, &mut Gradients<B::Buffer>)> Turns<B> for F {
    fn finished(&mut self, model: &mut Model<B>, parameters: Range<usize>, gradients: &mut Gradients<B::Buffer>) {
        self(model, parameters, gradients);
    }
}

/// One of a layer's branches: the stream `x` that it read, and what its forward pass left behind.
pub(super) struct Half<'a, T, A> {
    pub l: usize,
    pub extent: Extent,
    pub x: &'a T,
    pub act: &'a mut A,
    pub shared: &'a mut Shared<T>,
}

/// What stands between a branch's last product and the stream.
pub(super) struct EndFrom<'a, T> {
    /// The stream's gradient.
    pub stream: &'a T,
    /// Room for the gradient of what the norm was given.
    pub room: Option<&'a mut T>,
    pub norm: Option<(&'a Norm, &'a BeforeNorm<T>)>,
    pub dropout: Option<Dropout>,
}

impl<B: Backend> Model<B> {
    /// The loss of the last forward pass, without gradients.
    pub(crate) fn loss(&self, a: &mut Activations<B::Buffer>, targets: &Targets<'_, B::Buffer>) -> f32 {
        let n = a.extent.rows();
        let end = a.at_the_end();
        let loss = match targets {
            Targets::Tokens(t) => self.token_loss(end, Tokens::Host(t), None, n),
            Targets::Placed(t) => self.token_loss(end, Tokens::Placed(t), None, n),
            Targets::Vectors(t) => self.backend.mean_squared_error(end.0, t, None, n * self.shape.d_model as usize),
        };
        self.backend.read_loss(loss)
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
        self.stem_backward(Tokens::Host(ids), a, scratch, gradients, dropout);
        self.backend.read_loss(loss)
    }

    /// The same, telling `turns` as soon as the gradients of some neighbouring parameters are there and the pass has no more
    /// use for the parameters: of each layer in turn, then of what stands before and after the layers. The loss is to be read
    /// when all has been asked for. A stage of a pipeline begins with the gradient in `scratch`'s stream, unless it is the last, which
    /// alone has a loss, and leaves there what the stage before begins with.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn backward_by_layers(
        &mut self,
        ids: Tokens<'_, B::Buffer>,
        targets: &Targets<'_, B::Buffer>,
        a: &mut Activations<B::Buffer>,
        scratch: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        dropout: Option<StepDropout>,
        mut turns: impl Turns<B>,
    ) -> Loss {
        let stage = self.index.stage;
        let mut loss = Loss::OnDevice;
        if stage.is_last() {
            loss = self.head_backward(targets, a, scratch, gradients);
        }
        for l in stage.layers().rev() {
            turns.before(self, l);
            self.layer_backward(l, a, scratch, gradients, dropout);
            let parameters = self.index.of_layer(l);
            turns.finished(self, parameters, gradients);
        }
        if stage.is_first() {
            self.stem_backward(ids, a, scratch, gradients, dropout);
        }
        for parameters in self.index.around_layers() {
            if !parameters.is_empty() {
                turns.finished(self, parameters, gradients);
            }
        }
        loss
    }

    /// Runs a layer forward again, as far as its way back asks for it and it is not there ([`Activations::again`]). Bits are the same:
    /// masks of dropout follow from the step's seed.
    fn layer_again(&self, l: usize, a: &mut Activations<B::Buffer>, dropout: Option<StepDropout>) {
        let [attention, feed_forward] = a.again(l);
        let layer = &self.index.layers[l];
        if attention {
            // The stream between the halves is the second's input, unless both read the same.
            let end = layer.norm1_after.is_some() || (feed_forward && !self.shape.parts().parallel());
            self.attention_half(l, a, dropout, None, end);
        }
        if feed_forward {
            self.feed_forward_half(l, a, dropout, layer.norm2_after.is_some());
        }
    }

    fn layer_backward(
        &self,
        l: usize,
        a: &mut Activations<B::Buffer>,
        scratch: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        dropout: Option<StepDropout>,
    ) {
        self.layer_again(l, a, dropout);
        let (extent, [x, mid, _]) = (a.extent, a.streams(l));
        let (n, residual) = (extent.rows(), self.shape.parts().residual);
        if let (Residual::Parallel, Some(aside)) = (residual, &mut scratch.aside) {
            self.backend.copy(&scratch.stream, aside, n * self.shape.d_model as usize);
        }
        let read = if self.shape.parts().parallel() { x } else { mid };
        let Rooms { streams, attention, feed_forward, shared } = a.rooms(l);
        let half = Half { l, extent, x: &streams[read], act: feed_forward, shared: &mut *shared };
        self.feed_forward_backward(half, scratch, gradients, dropout.map(|d| d.at(Place::FeedForward(l))));
        let half = Half { l, extent, x: &streams[x], act: attention, shared };
        self.attention_half_backward(half, scratch, gradients, dropout.map(|d| d.at(Place::Attention(l))));
    }

    fn stem_backward(
        &self,
        ids: Tokens<'_, B::Buffer>,
        a: &Activations<B::Buffer>,
        scratch: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        dropout: Option<StepDropout>,
    ) {
        let len = a.extent.rows() * self.shape.d_model as usize;
        if let (Some(d), true) = (dropout, self.residual()) {
            self.backend.dropout(&mut scratch.stream, len, d.at(Place::Embedding));
        }
        if self.shape.parts().scaled_embedding {
            self.backend.scale(&mut scratch.stream, len, self.embedding_scale());
        }
        if let (Some(norm), Some(BeforeNorm { x, stats })) = (&self.index.embedding_norm, &a.embedding) {
            std::mem::swap(&mut scratch.stream, &mut scratch.branch);
            self.backend.fill(&mut scratch.stream, 0.0);
            self.norm_backward(norm, x, stats, scratch, gradients, a.extent.rows());
        }
        self.embedding_backward(ids, a.extent, scratch, gradients);
    }

    fn head_backward(
        &self,
        targets: &Targets<'_, B::Buffer>,
        a: &mut Activations<B::Buffer>,
        scratch: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
    ) -> Loss {
        let (n, c) = (a.extent.rows(), self.shape.d_model as usize);
        let (end, dx) = (a.at_the_end(), &mut scratch.branch);
        let head = self.index.head.unwrap_or(self.index.table);
        let loss = match targets {
            Targets::Tokens(t) => self.token_loss(end, Tokens::Host(t), Some((dx, gradients.of(head))), n),
            Targets::Placed(t) => self.token_loss(end, Tokens::Placed(t), Some((dx, gradients.of(head))), n),
            Targets::Vectors(t) => self.backend.mean_squared_error(end.0, t, Some(dx), n * c),
        };
        match (&self.index.last_norm, &a.last) {
            (Some(norm), Some((_, stats))) => {
                self.backend.fill(&mut scratch.stream, 0.0);
                let x = &a.residual[a.end()];
                self.norm_backward(norm, x, stats, scratch, gradients, n);
            }
            _ => std::mem::swap(&mut scratch.stream, &mut scratch.branch),
        }
        loss
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

    pub(super) fn linear_dw(
        &self,
        l: &Linear,
        x: &B::Buffer,
        dout: &B::Buffer,
        gradients: &mut Gradients<B::Buffer>,
        n: usize,
    ) {
        let (weight, bias) = gradients.weight_and_bias(l.weight, l.bias);
        self.backend.linear_dw(x, dout, weight, bias, self.linear_dims(l, n));
    }

    pub(super) fn linear_dx(&self, l: &Linear, dout: &B::Buffer, dx: &mut B::Buffer, n: usize) {
        self.backend.linear_dx(dout, &self.parameters[l.weight], dx, Store::Overwrite, self.linear_dims(l, n));
    }

    /// The gradient of a branch's last product, which the stream's is unless dropout or a norm stands between.
    pub(super) fn branch_end<'a>(
        &self,
        from: EndFrom<'a, B::Buffer>,
        branch: &'a mut B::Buffer,
        gradients: &mut Gradients<B::Buffer>,
        n: usize,
    ) -> &'a B::Buffer {
        let EndFrom { stream, room, norm, dropout } = from;
        if dropout.is_none() && norm.is_none() {
            return stream;
        }
        let len = n * self.shape.d_model as usize;
        self.backend.copy(stream, branch, len);
        if let Some(d) = dropout {
            self.backend.dropout(branch, len, d);
        }
        if let (Some((norm, BeforeNorm { x, stats })), Some(room)) = (norm, room) {
            let (gain, bias) = gradients.weight_and_bias(norm.gain, norm.bias);
            self.backend.fill(room, 0.0);
            let weight = &self.parameters[norm.gain];
            self.backend.norm_backward(x, weight, stats, branch, room, gain, bias, self.norm_dims(n));
            return room;
        }
        branch
    }

    /// What a branch says of the stream that it reads, `branch`, is added to the stream's gradient, or replaces it where the branch
    /// replaces the stream.
    pub(super) fn branch_start(
        &self,
        norm: Option<&Norm>,
        x: &B::Buffer,
        stats: Option<&B::Buffer>,
        (s, gradients): (&mut Scratch<B::Buffer>, &mut Gradients<B::Buffer>),
        n: usize,
    ) {
        match (norm, stats) {
            (Some(norm), Some(stats)) => self.norm_backward(norm, x, stats, s, gradients, n),
            _ if self.residual() => self.backend.add(&s.branch, &mut s.stream, n * self.shape.d_model as usize),
            _ => std::mem::swap(&mut s.stream, &mut s.branch),
        }
    }

    fn feed_forward_backward(
        &self,
        half: Half<'_, B::Buffer, OfFeedForward<B::Buffer>>,
        s: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        dropout: Option<Dropout>,
    ) {
        if self.index.layers[half.l].router.is_some() {
            return self.experts_backward(half, s, gradients, dropout);
        }
        let Half { l, extent, x, act, shared } = half;
        let (n, layer) = (extent.rows(), &self.index.layers[l]);
        let (f, kind) = (self.shape.d_ff as usize, self.shape.activation);
        // At a branch's end, or, where there is no stream to add it to, on the hidden activation.
        let (of_branch, of_hidden) = if self.residual() { (dropout, None) } else { (None, dropout) };
        // Made again, as the forward pass made it.
        self.backend.activation(kind, &act.pre, &mut shared.act, n, f);
        if let Some(d) = of_hidden {
            self.backend.dropout(&mut shared.act, n * f, self.of_part(d));
        }
        let norm = layer.norm2_after.as_ref().zip(act.after.as_ref());
        let from = EndFrom { stream: &s.stream, room: s.before_norm.as_mut(), norm, dropout: of_branch };
        let dout = self.branch_end(from, &mut s.branch, gradients, n);
        self.linear_dw(&layer.down, &shared.act, dout, gradients, n);
        if let Some(d) = of_hidden {
            self.linear_dx(&layer.down, dout, &mut s.act, n);
            self.backend.dropout(&mut s.act, n * f, self.of_part(d));
            self.backend.activation_backward(kind, &mut act.pre, &s.act, n, f);
        } else {
            let (w, d) = (&self.parameters[layer.down.weight], self.linear_dims(&layer.down, n));
            self.backend.linear_dx_activation(kind, dout, w, &mut act.pre, &mut s.act, d);
        }
        let input = self.input_again(layer.norm2.as_ref(), x, &mut shared.normed, act.norm2.as_mut(), n);
        self.linear_dw(&layer.up, input, &act.pre, gradients, n);
        self.linear_dx(&layer.up, &act.pre, &mut s.branch, n);
        self.sum_over_parts(&mut s.branch);
        match (self.shape.parts().residual, &mut s.aside) {
            // The norm is attention's too: it goes through it once, with what attention says.
            (Residual::ParallelOneNorm, Some(aside)) => std::mem::swap(aside, &mut s.branch),
            _ => self.branch_start(layer.norm2.as_ref(), x, act.norm2.as_ref(), (s, gradients), n),
        }
    }

    fn attention_half_backward(
        &self,
        half: Half<'_, B::Buffer, OfAttention<B::Buffer>>,
        s: &mut Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        dropout: Option<Dropout>,
    ) {
        let Half { l, extent, x, act, shared } = half;
        let (n, layer, d) = (extent.rows(), &self.index.layers[l], extent.attention(&self.shape, l));
        let norm = layer.norm1_after.as_ref().zip(act.after.as_ref());
        let stream = match (self.shape.parts().residual, &s.aside) {
            (Residual::Parallel, Some(aside)) => aside,
            _ => &s.stream,
        };
        let from = EndFrom { stream, room: s.before_norm.as_mut(), norm, dropout };
        let dout = self.branch_end(from, &mut s.branch, gradients, n);
        self.linear_dw(&layer.out, &act.attention, dout, gradients, n);
        self.linear_dx(&layer.out, dout, &mut s.attention, n);
        match self.through(l, extent) {
            Some(latents) => self.through_backward(latents, x, (&mut *act, shared), (s, gradients)),
            None => self.heads_backward((l, d), x, (&mut *act, shared), (s, gradients)),
        }
        self.sum_over_parts(&mut s.branch);
        if let (Residual::ParallelOneNorm, Some(aside)) = (self.shape.parts().residual, &s.aside) {
            self.backend.add(aside, &mut s.branch, n * self.shape.d_model as usize);
        }
        self.branch_start(layer.norm1.as_ref(), x, act.norm1.as_ref(), (s, gradients), n);
    }

    /// From the gradient of what attention hands on, in `s.attention`, to that of the layer's input, in `s.branch`.
    fn heads_backward(
        &self,
        (l, d): (usize, AttentionDims),
        x: &B::Buffer,
        (act, shared): (&mut OfAttention<B::Buffer>, &mut Shared<B::Buffer>),
        (s, gradients): (&mut Scratch<B::Buffer>, &mut Gradients<B::Buffer>),
    ) {
        let (layer, n) = (&self.index.layers[l], d.rows());
        if let Some(sinks) = layer.sinks {
            let (at, to) = (&self.parameters[sinks], gradients.of(sinks));
            self.backend.sinks_backward(at, &act.attention, &s.attention, &act.lse, to, d);
        }
        self.backend.attention_backward(&act.qkv, &act.attention, &s.attention, &act.lse, &mut s.qkv, d);
        if let Some(f) = self.frequencies(l) {
            self.backend.rope(&mut s.qkv, f, 0, true, d);
        }
        if let (Some(gains), Some(before), Some(d)) = (layer.qk_norm, &act.qk_norm, qk_norm_dims(&self.shape, d)) {
            let to = (&mut *gradients, &mut shared.told);
            self.norm_heads_backward((&before.x, &before.stats), gains, &mut s.qkv, to, d);
        }
        let input = self.input_again(layer.norm1.as_ref(), x, &mut shared.normed, act.norm1.as_mut(), n);
        self.linear_dw(&layer.qkv, input, &s.qkv, gradients, n);
        self.sum_copies(&layer.qkv, gradients, &mut shared.told);
        self.linear_dx(&layer.qkv, &s.qkv, &mut s.branch, n);
    }
}
