//! The forward pass: one definition for every family, backend and phase.
//!
//! Per layer, with a residual stream x (the block has neither norms nor residuals):
//! `x += out(attention(qkv(norm1(x))))`, `x += down(activation(up(norm2(x))))`.
//!
//! Dropout, in training: on the embedding and on both branches (GPT-2, Llama); on attention's output and on the hidden
//! activation (block). Attention probabilities are never dropped: the fused kernels do not hold them.
//!
//! Where ranks split the layers (Shoeybi et al. 2019, section 3), each computes its own heads and its own stretch of the hidden
//! activation; the two products that end the branches are summed over the ranks. All else every rank computes whole.

use super::super::backend::{
    Backend, CachePlace, Dropout, LinearDims, NormBefore, NormDims, NormedLinear, Store, Tokens,
};
use super::super::collective::{Job, Reduce};
use super::super::shape::Family;
use super::activations::{Activations, Extent, LayerActivations, Shared};
use super::generate::Cache;
use super::model::{LayerIndex, Linear, Model, Norm};

/// Dropout of one training step: every place in the model draws its own seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepDropout {
    pub probability: f32,
    pub seed: u64,
}

/// Where in the model dropout is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transformer) enum Place {
    Embedding,
    Attention(usize),
    FeedForward(usize),
}

impl StepDropout {
    pub(in crate::transformer) fn at(&self, place: Place) -> Dropout {
        let place = match place {
            Place::Embedding => 0,
            Place::Attention(layer) => 2 * layer as u64 + 1,
            Place::FeedForward(layer) => 2 * layer as u64 + 2,
        };
        Dropout { probability: self.probability, seed: self.seed, place, part: 0 }
    }
}

impl<B: Backend> Model<B> {
    pub(in crate::transformer) fn norm_dims(&self, n: usize) -> NormDims {
        let s = &self.shape;
        NormDims { n, c: s.d_model as usize, eps: s.norm_eps, rms: s.family == Family::Llama }
    }

    pub(in crate::transformer) fn linear_dims(&self, l: &Linear, n: usize) -> LinearDims {
        let spec = &self.index.specs[l.weight];
        LinearDims { n, k: spec.columns, m: spec.rows }
    }

    pub(in crate::transformer) fn residual(&self) -> bool {
        self.shape.family != Family::Block
    }

    fn weight_and_bias(&self, l: &Linear) -> (&B::Buffer, Option<&B::Buffer>) {
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
        let end = (2 * self.index.layers.len()) % a.residual.len();
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
        let n = a.extent.rows();
        let c = self.shape.d_model as usize;
        let first = cache.as_ref().map_or(0, |k| k.length);
        let positions = self.index.positions.map(|i| &self.parameters[i]);
        let table = &self.parameters[self.index.table];
        self.backend.embed_tokens(ids, n, a.extent.tokens, first, table, positions, &mut a.residual[0], c);
        if let (Some(d), true) = (dropout, self.residual()) {
            self.backend.dropout(&mut a.residual[0], n * c, d.at(Place::Embedding));
        }
        let (streams, kept) = (a.residual.len(), a.layers.len());
        for (l, layer) in self.index.layers.iter().enumerate() {
            let act = &mut a.layers[l % kept];
            let (x, mid) = two(&mut a.residual, (2 * l) % streams, (2 * l + 1) % streams);
            let cached = cache.as_deref_mut().map(|k| (k, l));
            self.attention_half(
                layer,
                x,
                mid,
                (act, &mut a.shared),
                a.extent,
                dropout.map(|d| d.at(Place::Attention(l))),
                cached,
            );
            let (mid, out) = two(&mut a.residual, (2 * l + 1) % streams, (2 * l + 2) % streams);
            self.feed_forward_half(
                layer,
                mid,
                out,
                (act, &mut a.shared),
                n,
                dropout.map(|d| d.at(Place::FeedForward(l))),
            );
        }
        if let Some(k) = cache {
            k.length = first + a.extent.tokens;
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn attention_half(
        &self,
        layer: &LayerIndex,
        x: &B::Buffer,
        out: &mut B::Buffer,
        (act, shared): (&mut LayerActivations<B::Buffer>, &mut Shared<B::Buffer>),
        extent: Extent,
        dropout: Option<Dropout>,
        cached: Option<(&mut Cache<B::Buffer>, usize)>,
    ) {
        let n = extent.rows();
        let d = extent.attention(&self.shape);
        let room = shared.normed.as_mut().zip(act.norm1.as_mut());
        let input = self.after_norm(layer.norm1.as_ref(), &layer.qkv, x, room, n);
        let angles = self.frequencies.as_ref();
        match cached {
            Some((k, l)) => {
                let (position, dims) = (k.length, k.dims);
                let place = CachePlace { layer: &mut k.layers[l], position, dims };
                self.backend.norm_qkv_cached(input, angles, &mut act.qkv, place, d);
                if extent.tokens == 1 {
                    self.backend.attention_cached(&act.qkv, &k.layers[l], &mut act.attention, position + 1, d, dims);
                } else {
                    self.backend.attention(&act.qkv, &mut act.attention, &mut act.lse, d);
                }
            }
            None => {
                self.backend.norm_linear(input, &mut act.qkv);
                if let Some(f) = angles {
                    self.backend.rope(&mut act.qkv, f, 0, false, d);
                }
                self.backend.attention(&act.qkv, &mut act.attention, &mut act.lse, d);
            }
        }
        self.branch(&layer.out, &act.attention, x, out, n, dropout);
    }

    fn feed_forward_half(
        &self,
        layer: &LayerIndex,
        x: &B::Buffer,
        out: &mut B::Buffer,
        (act, shared): (&mut LayerActivations<B::Buffer>, &mut Shared<B::Buffer>),
        n: usize,
        dropout: Option<Dropout>,
    ) {
        let f = self.shape.d_ff as usize;
        let room = shared.normed.as_mut().zip(act.norm2.as_mut());
        let input = self.after_norm(layer.norm2.as_ref(), &layer.up, x, room, n);
        self.backend.norm_linear_activation(self.shape.activation, input, &mut act.pre, &mut shared.act);
        if self.residual() {
            self.branch(&layer.down, &shared.act, x, out, n, dropout);
        } else {
            if let Some(d) = dropout {
                self.backend.dropout(&mut shared.act, n * f, self.of_part(d));
            }
            self.end_of_branch(&layer.down, &shared.act, None, out, n);
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

    /// Sums what every rank of the replica has a part of.
    pub(in crate::transformer) fn sum_over_parts(&self, buffer: &mut B::Buffer) {
        self.tensor.run(Job::AllReduce(Reduce::Sum), std::slice::from_mut(buffer));
    }

    /// Dropout of what each rank has another part of: masks of their own.
    pub(in crate::transformer) fn of_part(&self, d: Dropout) -> Dropout {
        Dropout { part: self.tensor.rank() as u64, ..d }
    }

    /// `out = x + dropout(linear(input))`, or without `x` where the family has no residuals.
    fn branch(
        &self,
        l: &Linear,
        input: &B::Buffer,
        x: &B::Buffer,
        out: &mut B::Buffer,
        n: usize,
        dropout: Option<Dropout>,
    ) {
        let len = n * self.shape.d_model as usize;
        match (self.residual(), dropout) {
            (true, None) => self.end_of_branch(l, input, Some(x), out, n),
            (residual, dropout) => {
                self.end_of_branch(l, input, None, out, n);
                if let Some(d) = dropout {
                    self.backend.dropout(out, len, d);
                }
                if residual {
                    self.backend.add(x, out, len);
                }
            }
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
