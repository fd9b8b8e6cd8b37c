//! The forward pass: one definition for every family, backend and phase.
//!
//! Per layer, with a residual stream x: `x += out(attention(qkv(norm1(x))))`, `x += down(activation(up(norm2(x))))`. Norms stand
//! before branches, after them, or both; the branches follow one another or read the same x; the block has neither norms nor
//! residuals. Which it is, the shape's parts say.
//!
//! Dropout, in training: on the embedding and on both branches (where there are residuals); on attention's output and on the hidden
//! activation (block). Attention probabilities are never dropped: the fused kernels do not hold them.
//!
//! Where ranks split the layers (Shoeybi et al. 2019, section 3), each computes its own heads and its own stretch of the hidden
//! activation; the two products that end the branches are summed over the ranks. All else every rank computes whole.

use super::super::backend::{
    AttentionDims, Backend, CachePlace, Dropout, LinearDims, NormBefore, NormDims, NormedLinear, Store, Tokens,
};
use super::super::shape::parts::{NormKind, Residual};
use super::activations::{
    Activations, BeforeNorm, Extent, OfAttention, OfFeedForward, Rooms, Shared, expert_dims, qk_norm_dims,
};
pub(in crate::transformer) use super::dropout::Place;
pub(crate) use super::dropout::StepDropout;
use super::generate::Cache;
use super::model::{LayerIndex, Linear, Model, Norm};

/// Where a branch ends: its last product, and the norm that stands after it.
struct BranchEnd<'a, T> {
    linear: &'a Linear,
    norm: Option<(&'a Norm, &'a mut BeforeNorm<T>)>,
    dropout: Option<Dropout>,
}

impl<B: Backend> Model<B> {
    pub(in crate::transformer) fn norm_dims(&self, n: usize) -> NormDims {
        let (s, kind) = (&self.shape, self.shape.parts().norm);
        let rms = kind != NormKind::Layer;
        NormDims { n, c: s.d_model as usize, eps: s.norm_eps, rms, gain_offset: kind.gain_offset() }
    }

    pub(in crate::transformer) fn linear_dims(&self, l: &Linear, n: usize) -> LinearDims {
        let spec = &self.index.specs[l.weight];
        LinearDims { n, k: spec.columns, m: spec.rows }
    }

    pub(in crate::transformer) fn residual(&self) -> bool {
        self.shape.parts().residual != Residual::None
    }

    pub(super) fn weight_and_bias(&self, l: &Linear) -> (&B::Buffer, Option<&B::Buffer>) {
        (&self.parameters[l.weight], l.bias.map(|b| &self.parameters[b]))
    }

    pub(in crate::transformer) fn norm(
        &self,
        norm: &Norm,
        x: &B::Buffer,
        out: &mut B::Buffer,
        stats: &mut B::Buffer,
        n: usize,
    ) {
        let p = &self.parameters;
        self.backend.norm(x, &p[norm.gain], norm.bias.map(|b| &p[b]), out, stats, self.norm_dims(n));
    }

    /// What begins a branch: the layer after the norm, where the family has one, with room for what is between and its statistics.
    pub(super) fn after_norm<'a>(
        &'a self,
        norm: Option<&Norm>,
        l: &Linear,
        x: &'a B::Buffer,
        room: Option<(&'a mut B::Buffer, &'a mut B::Buffer)>,
        n: usize,
    ) -> NormedLinear<'a, B::Buffer> {
        let (w, bias) = self.weight_and_bias(l);
        let p = &self.parameters;
        let norm = norm.zip(room).map(|(norm, (room, stats))| {
            let (gain, bias) = (&p[norm.gain], norm.bias.map(|b| &p[b]));
            NormBefore { gain, bias, room, stats, d: self.norm_dims(n) }
        });
        NormedLinear { x, norm, w, bias, d: self.linear_dims(l, n) }
    }

    /// Runs the layers over `ids` (`[B, T]`, row by row) and leaves everything in `a`; the head reads
    /// [`Activations::output`].
    pub(crate) fn forward(&self, ids: &[u32], a: &mut Activations<B::Buffer>, dropout: Option<StepDropout>) {
        self.forward_of(Tokens::Host(ids), a, dropout);
    }

    /// [`Model::forward`] of tokens wherever they are.
    pub(in crate::transformer) fn forward_of(
        &self,
        ids: Tokens<'_, B::Buffer>,
        a: &mut Activations<B::Buffer>,
        dropout: Option<StepDropout>,
    ) {
        self.layers(ids, a, dropout, None);
        self.after_layers(a);
    }

    /// The same, calling `before` before each layer. A stage of a pipeline begins with what stands in [`Activations::entrance`], unless
    /// it is the first, and leaves what the next begins with in [`Activations::exit`].
    pub(in crate::transformer) fn forward_by_layers(
        &mut self,
        ids: Tokens<'_, B::Buffer>,
        a: &mut Activations<B::Buffer>,
        dropout: Option<StepDropout>,
        mut before: impl FnMut(&mut Self, usize),
    ) {
        let stage = self.index.stage;
        if stage.is_first() {
            self.embed(ids, 0, a, dropout);
        }
        for l in stage.layers() {
            before(self, l);
            self.attention_half(l, a, dropout, None, true);
            self.feed_forward_half(l, a, dropout, true);
        }
        self.after_layers(a);
    }

    fn after_layers(&self, a: &mut Activations<B::Buffer>) {
        let end = a.end();
        if let (Some(norm), Some((out, stats))) = (&self.index.last_norm, &mut a.last) {
            self.norm(norm, &a.residual[end], out, stats, a.extent.rows());
        }
    }

    /// [`Model::forward`] up to the last norm, of tokens wherever they are. With a cache, keys and values are appended to it, and a
    /// single token a sequence attends to all of it.
    pub(super) fn layers(
        &self,
        ids: Tokens<'_, B::Buffer>,
        a: &mut Activations<B::Buffer>,
        dropout: Option<StepDropout>,
        mut cache: Option<&mut Cache<B::Buffer>>,
    ) {
        let first = cache.as_ref().map_or(0, |k| k.length);
        self.embed(ids, first, a, dropout);
        for l in 0..self.index.layers.len() {
            self.attention_half(l, a, dropout, cache.as_deref_mut(), true);
            self.feed_forward_half(l, a, dropout, true);
        }
        if let Some(k) = cache {
            k.length = first + a.extent.tokens;
        }
    }

    /// A layer's attention; `end` says whether up to the stream, or up to its last product.
    pub(super) fn attention_half(
        &self,
        l: usize,
        a: &mut Activations<B::Buffer>,
        dropout: Option<StepDropout>,
        cache: Option<&mut Cache<B::Buffer>>,
        end: bool,
    ) {
        let (layer, extent, [x, mid, _]) = (&self.index.layers[l], a.extent, a.streams(l));
        let Rooms { streams, attention: act, shared, .. } = a.rooms(l);
        self.attend(l, &streams[x], (act, shared), extent, cache);
        if end {
            let norm = layer.norm1_after.as_ref().zip(act.after.as_mut());
            let end = BranchEnd { linear: &layer.out, norm, dropout: dropout.map(|d| d.at(Place::Attention(l))) };
            let (stream, to) = two(streams, x, mid);
            self.branch(end, &act.attention, stream, to, extent.rows());
        }
    }

    /// The same of its second half.
    pub(super) fn feed_forward_half(
        &self,
        l: usize,
        a: &mut Activations<B::Buffer>,
        dropout: Option<StepDropout>,
        end: bool,
    ) {
        let (layer, n, [x, mid, out]) = (&self.index.layers[l], a.extent.rows(), a.streams(l));
        let Rooms { streams, feed_forward: act, shared, .. } = a.rooms(l);
        let read = if self.shape.parts().parallel() { x } else { mid };
        let dropout = dropout.map(|d| d.at(Place::FeedForward(l)));
        self.feed_forward(layer, &streams[read], (act, shared), n, dropout);
        if !end {
            return;
        }
        let norm = layer.norm2_after.as_ref().zip(act.after.as_mut());
        let end = BranchEnd { linear: &layer.down, norm, dropout: dropout.filter(|_| self.residual()) };
        let (stream, to) = two(streams, mid, out);
        match (&layer.router, &mut shared.experts) {
            (Some(_), Some(said)) => self.join(end, said, stream, to, n),
            _ => self.branch(end, &shared.act, stream, to, n),
        }
    }

    /// The row of the table of learned positions that a position has.
    pub(in crate::transformer) fn position_row(&self, position: usize) -> usize {
        position + self.shape.parts().position_offset as usize
    }

    /// What embeddings are multiplied by, where they are.
    pub(super) fn embedding_scale(&self) -> f32 {
        (self.shape.d_model as f32).sqrt()
    }

    /// Attention of a layer over the stream `x`, up to its last product.
    fn attend(
        &self,
        l: usize,
        x: &B::Buffer,
        (act, shared): (&mut OfAttention<B::Buffer>, &mut Shared<B::Buffer>),
        extent: Extent,
        cache: Option<&mut Cache<B::Buffer>>,
    ) {
        if let Some(latents) = self.through(l, extent) {
            return self.attend_through((l, latents), x, (act, shared), cache);
        }
        let (layer, d) = (&self.index.layers[l], extent.attention(&self.shape, l));
        match cache {
            None => {
                self.queries_and_keys(l, x, (act, shared), 0, d);
                self.backend.attention(&act.qkv, &mut act.attention, &mut act.lse, d);
            }
            Some(k) => self.attend_cached(l, x, (act, shared), k, d),
        }
        if let Some(sinks) = layer.sinks {
            self.backend.sinks(&self.parameters[sinks], &mut act.attention, &mut act.lse, d);
        }
    }

    /// Queries, keys and values of positions from `first` on.
    fn queries_and_keys(
        &self,
        l: usize,
        x: &B::Buffer,
        (act, shared): (&mut OfAttention<B::Buffer>, &mut Shared<B::Buffer>),
        first: usize,
        d: AttentionDims,
    ) {
        let layer = &self.index.layers[l];
        let room = shared.normed.as_mut().zip(act.norm1.as_mut());
        let input = self.after_norm(layer.norm1.as_ref(), &layer.qkv, x, room, d.rows());
        self.backend.norm_linear(input, &mut act.qkv);
        if let Some((gains, d)) = layer.qk_norm.zip(qk_norm_dims(&self.shape, d)) {
            // What they were is kept where a backward pass will follow.
            let kept = act.qk_norm.as_mut().map(|BeforeNorm { x, stats }| (x, stats));
            self.norm_heads(&mut act.qkv, gains, kept, &mut shared.told, d);
        }
        if let Some(f) = self.frequencies(l) {
            self.backend.rope(&mut act.qkv, f, first, false, d);
        }
    }

    /// Attention over what the cache holds and the tokens themselves, which are appended to it.
    fn attend_cached(
        &self,
        l: usize,
        x: &B::Buffer,
        (act, shared): (&mut OfAttention<B::Buffer>, &mut Shared<B::Buffer>),
        k: &mut Cache<B::Buffer>,
        d: AttentionDims,
    ) {
        let (position, dims, layer) = (k.length, k.dims(l), &self.index.layers[l]);
        // A stretch of a prompt sees its own keys where they are: a window's cache may not hold them beside what is before.
        if d.tokens > 1 && position > 0 {
            self.queries_and_keys(l, x, (act, shared), position, d);
            let (out, lse) = (&mut act.attention, &mut act.lse);
            self.backend.attention_after(&act.qkv, &k.layers[l], out, lse, position, d, dims);
            self.backend.cache_append(&act.qkv, &mut k.layers[l], position, d, dims);
            return;
        }
        if layer.qk_norm.is_some() {
            self.queries_and_keys(l, x, (act, shared), position, d);
            self.backend.cache_append(&act.qkv, &mut k.layers[l], position, d, dims);
        } else {
            let room = shared.normed.as_mut().zip(act.norm1.as_mut());
            let input = self.after_norm(layer.norm1.as_ref(), &layer.qkv, x, room, d.rows());
            let place = CachePlace { layer: &mut k.layers[l], position, dims };
            self.backend.norm_qkv_cached(input, self.frequencies(l), &mut act.qkv, place, d);
        }
        if d.tokens == 1 {
            // A sink beside the scores needs their denominator.
            let (out, lse) = (&mut act.attention, layer.sinks.is_some().then_some(&mut act.lse));
            self.backend.attention_cached(&act.qkv, &k.layers[l], out, lse, position + 1, d, dims);
        } else {
            self.backend.attention(&act.qkv, &mut act.attention, &mut act.lse, d);
        }
    }

    /// The feed-forward layer over the stream `x`, up to its last product.
    fn feed_forward(
        &self,
        layer: &LayerIndex,
        x: &B::Buffer,
        (act, shared): (&mut OfFeedForward<B::Buffer>, &mut Shared<B::Buffer>),
        n: usize,
        dropout: Option<Dropout>,
    ) {
        if let (Some(d), Some(router)) = (expert_dims(&self.shape, n), &layer.router) {
            return self.experts(layer, router, x, (act, shared), d);
        }
        let room = shared.normed.as_mut().zip(act.norm2.as_mut());
        let input = self.after_norm(layer.norm2.as_ref(), &layer.up, x, room, n);
        self.backend.norm_linear_activation(self.shape.activation, input, &mut act.pre, &mut shared.act);
        if let Some(d) = dropout.filter(|_| !self.residual()) {
            self.backend.dropout(&mut shared.act, n * self.shape.d_ff as usize, self.of_part(d));
        }
    }

    /// `out = x + dropout(norm(said))`, of what a branch says already.
    fn join(&self, end: BranchEnd<'_, B::Buffer>, said: &B::Buffer, x: &B::Buffer, out: &mut B::Buffer, n: usize) {
        let len = n * self.shape.d_model as usize;
        match end.norm {
            Some((norm, BeforeNorm { x, stats })) => {
                self.backend.copy(said, x, len);
                self.norm(norm, x, out, stats, n);
            }
            None => self.backend.copy(said, out, len),
        }
        if let Some(d) = end.dropout {
            self.backend.dropout(out, len, d);
        }
        if self.residual() {
            self.backend.add(x, out, len);
        }
    }

    /// A branch's first norm, as the input of what follows it; the stream itself where there is none.
    pub(super) fn input_again<'a>(
        &self,
        norm: Option<&Norm>,
        x: &'a B::Buffer,
        normed: &'a mut Option<B::Buffer>,
        stats: Option<&mut B::Buffer>,
        n: usize,
    ) -> &'a B::Buffer {
        match (norm, normed, stats) {
            (Some(norm), Some(out), Some(stats)) => {
                self.norm(norm, x, out, stats, n);
                out
            }
            _ => x,
        }
    }

    /// `out = linear(input) (+ x)`, summed over the ranks that hold a part of the weight. Only tensor-parallel rank 0 adds the bias
    /// and the residual.
    fn end_of_branch(&self, l: &Linear, input: &B::Buffer, x: Option<&B::Buffer>, out: &mut B::Buffer, n: usize) {
        let (w, bias) = self.weight_and_bias(l);
        let (first, d) = (self.tensor.rank() == 0, self.linear_dims(l, n));
        match x.filter(|_| first) {
            Some(x) => self.backend.linear_plus(input, w, bias, x, out, d),
            None => self.backend.linear(input, w, bias.filter(|_| first), out, Store::Overwrite, d),
        }
        self.sum_over_parts(out);
    }

    /// `out = x + dropout(norm(linear(input)))`, as far as the branch has them, or without `x` where there are no residuals.
    fn branch(&self, end: BranchEnd<'_, B::Buffer>, input: &B::Buffer, x: &B::Buffer, out: &mut B::Buffer, n: usize) {
        let BranchEnd { linear, norm, dropout } = end;
        let len = n * self.shape.d_model as usize;
        if self.residual() && dropout.is_none() && norm.is_none() {
            return self.end_of_branch(linear, input, Some(x), out, n);
        }
        match norm {
            Some((norm, BeforeNorm { x, stats })) => {
                self.end_of_branch(linear, input, None, x, n);
                self.norm(norm, x, out, stats, n);
            }
            None => self.end_of_branch(linear, input, None, out, n),
        }
        if let Some(d) = dropout {
            self.backend.dropout(out, len, d);
        }
        if self.residual() {
            self.backend.add(x, out, len);
        }
    }
}

/// Two different elements, the first to read, the second to write.
fn two<T>(all: &mut [T], read: usize, write: usize) -> (&T, &mut T) {
    if read < write {
        let (low, high) = all.split_at_mut(write);
        (&low[read], &mut high[0])
    } else {
        let (low, high) = all.split_at_mut(read);
        (&high[0], &mut low[write])
    }
}
