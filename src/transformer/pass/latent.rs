//! Attention through latents (DeepSeek-AI 2024, section 2.1): forward, backward, and over a cache.
//!
//! Of the stream come a latent of keys and values and one rotated key that all heads share; queries come of a latent too, or of the
//! stream. Whole sequences are attended to with keys and values of every head made of the latent, as any other attention: a head of
//! queries and keys is `[rotated, not rotated]`, one of values is as wide and zero beyond its own width. Over a cache, which holds
//! latents and rotated keys alone, queries meet the latents themselves ([`Parts::latent_attention`](super::super::backend::Parts)).

use super::super::backend::{AttentionDims, Backend, BlockCopy, Blocks, LatentDims, NormDims, Store};
use super::super::shape::Latent;
use super::activations::{BeforeNorm, Extent, LatentRoom, OfAttention, Shared};
use super::generate::Cache;
use super::gradients::Gradients;
use super::model::{LatentIndex, LayerIndex, Linear, Model, Norm};
use super::scratch::{LatentScratch, Scratch};

/// Where a layer's attention is through latents: its parameters, the model's sizes, and the dimensions of its attention.
#[derive(Clone, Copy)]
pub(super) struct Through<'a> {
    layer: &'a LayerIndex,
    index: &'a LatentIndex,
    sizes: Latent,
    d: AttentionDims,
}

impl Through<'_> {
    /// Blocks of a row of queries, keys and values: the `part`-th third, from an element of each head on.
    fn of_qkv(&self, part: usize, from: usize) -> Blocks {
        let d = self.d;
        Blocks { first: part * d.out_width() + from, row: d.qkv_width(), head: d.head_dim }
    }

    /// Heads of the given width, one after the other, from an element of each on.
    fn heads(&self, width: usize, from: usize) -> Blocks {
        Blocks { first: from, row: self.d.heads * width, head: width }
    }

    /// Copies a block of so many elements of every head.
    fn copy(&self, len: u32, from: Blocks, to: Blocks) -> BlockCopy {
        BlockCopy { n: self.d.rows(), heads: self.d.heads, len: len as usize, from, to }
    }

    /// What every row of queries, keys and values is made of: the places of queries, of rotated keys, of the others, and of values,
    /// in buffers of their own and in the row.
    fn pieces(&self) -> [BlockCopy; 4] {
        let Latent { rope, nope, value, .. } = self.sizes;
        let (kv, rotated) = (self.sizes.kv_head() as usize, rope as usize);
        let shared = Blocks { first: 0, row: rotated, head: 0 };
        [
            self.copy(rope + nope, self.heads(self.d.head_dim, 0), self.of_qkv(0, 0)),
            self.copy(rope, shared, self.of_qkv(1, 0)),
            self.copy(nope, self.heads(kv, 0), self.of_qkv(1, rotated)),
            self.copy(value, self.heads(kv, nope as usize), self.of_qkv(2, 0)),
        ]
    }

    /// From values of their own width to as wide as queries.
    fn widened(&self) -> BlockCopy {
        self.copy(self.sizes.value, self.heads(self.sizes.value as usize, 0), self.heads(self.d.head_dim, 0))
    }
}

/// There and back.
fn back(copy: BlockCopy) -> BlockCopy {
    BlockCopy { from: copy.to, to: copy.from, ..copy }
}

impl<B: Backend> Model<B> {
    /// A layer's attention through latents, where it is.
    pub(super) fn through(&self, l: usize, extent: Extent) -> Option<Through<'_>> {
        let layer = &self.index.layers[l];
        let (index, sizes) = (layer.latent.as_ref()?, self.shape.latent?);
        Some(Through { layer, index, sizes, d: extent.attention(&self.shape, l) })
    }

    /// Attention over the stream `x`, up to its last product; with a cache, over what that holds too.
    pub(super) fn attend_through(
        &self,
        (l, of): (usize, Through<'_>),
        x: &B::Buffer,
        (act, shared): (&mut OfAttention<B::Buffer>, &mut Shared<B::Buffer>),
        cache: Option<&mut Cache<B::Buffer>>,
    ) {
        let Shared { normed, latent: Some(room), .. } = shared else { return };
        let n = of.d.rows();
        let input = self.input_again(of.layer.norm1.as_ref(), x, normed, act.norm1.as_mut(), n);
        let first = cache.as_ref().map_or(0, |k| k.length);
        self.latents(of, input, act, room, first);
        let Some(k) = cache else { return self.attend_whole(of, act, room) };
        let Some(dims) = k.latent_dims(of.d.tokens) else { return };
        self.backend.latent_append(&room.of_kv, &room.rotated, &mut k.layers[l], first, dims);
        if of.d.tokens > 1 && first == 0 {
            return self.attend_whole(of, act, room);
        }
        let w = &self.parameters[of.index.up.weight];
        self.backend.latent_attention(&room.queries, w, &k.layers[l], &mut act.attention, first, dims);
    }

    /// Queries and rotated keys of positions from `first` on, and the latent of keys and values after its norm.
    fn latents(
        &self,
        of: Through<'_>,
        input: &B::Buffer,
        act: &mut OfAttention<B::Buffer>,
        room: &mut LatentRoom<B::Buffer>,
        first: usize,
    ) {
        let (n, Some(kept)) = (of.d.rows(), &mut act.latent) else { return };
        let queries = match (&of.index.queries, &mut kept.queries, &mut room.of_queries) {
            (Some((down, norm)), Some(before), Some(after)) => {
                self.product(down, input, &mut before.x, n);
                self.latent_norm(norm, before, after, n);
                &*after
            }
            _ => input,
        };
        self.product(&of.layer.qkv, queries, &mut room.queries, n);
        self.product(&of.index.down, input, &mut kept.kv.x, n);
        self.latent_norm(&of.index.norm, &mut kept.kv, &mut room.of_kv, n);
        self.product(&of.index.rotated, input, &mut room.rotated, n);
        self.turn(of, room, first, false);
    }

    /// Attention over whole sequences, keys and values being made of the latent.
    fn attend_whole(&self, of: Through<'_>, act: &mut OfAttention<B::Buffer>, room: &mut LatentRoom<B::Buffer>) {
        self.product(&of.index.up, &room.of_kv, &mut room.kv, of.d.rows());
        let pieces = of.pieces();
        for (from, copy) in [&room.queries, &room.rotated, &room.kv, &room.kv].into_iter().zip(pieces) {
            self.backend.copy_blocks(from, &mut act.qkv, copy);
        }
        self.backend.attention(&act.qkv, &mut room.wide, &mut act.lse, of.d);
        self.backend.copy_blocks(&room.wide, &mut act.attention, back(of.widened()));
    }

    /// From the gradient of what attention hands on, in `s.attention`, to that of the layer's input, in `s.branch`.
    pub(super) fn through_backward(
        &self,
        of: Through<'_>,
        x: &B::Buffer,
        (act, shared): (&mut OfAttention<B::Buffer>, &mut Shared<B::Buffer>),
        (s, gradients): (&mut Scratch<B::Buffer>, &mut Gradients<B::Buffer>),
    ) {
        let Shared { normed, latent: Some(room), .. } = shared else { return };
        let (n, Some(scratch), Some(kept)) = (of.d.rows(), &mut s.latent, &mut act.latent) else { return };
        self.backend.copy_blocks(&s.attention, &mut scratch.wide, of.widened());
        self.backend.copy_blocks(&act.attention, &mut room.wide, of.widened());
        self.backend.attention_backward(&act.qkv, &room.wide, &scratch.wide, &act.lse, &mut s.qkv, of.d);
        let [queries, rotated, keys, values] = of.pieces().map(back);
        self.backend.copy_blocks(&s.qkv, &mut room.queries, queries);
        self.backend.copy_blocks(&s.qkv, &mut room.rotated, rotated);
        self.backend.copy_blocks(&s.qkv, &mut room.kv, keys);
        self.backend.copy_blocks(&s.qkv, &mut room.kv, values);
        self.turn(of, room, 0, true);
        let input = self.input_again(of.layer.norm1.as_ref(), x, normed, act.norm1.as_mut(), n);
        let (up, down) = (of.index.up, of.index.down);
        self.latent_norm(&of.index.norm, &mut kept.kv, &mut room.of_kv, n);
        self.linear_dw(&up, &room.of_kv, &room.kv, gradients, n);
        self.linear_dx(&up, &room.kv, &mut scratch.normed, n);
        self.latent_norm_backward(&of.index.norm, &kept.kv, scratch, gradients, n);
        self.linear_dw(&down, input, &scratch.latent, gradients, n);
        self.linear_dx(&down, &scratch.latent, &mut s.branch, n);
        self.onto_input(&of.index.rotated, input, &room.rotated, (&mut s.branch, gradients), n);
        match (&of.index.queries, &mut kept.queries, &mut room.of_queries) {
            (Some((down, norm)), Some(before), Some(after)) => {
                self.latent_norm(norm, before, after, n);
                self.linear_dw(&of.layer.qkv, after, &room.queries, gradients, n);
                self.linear_dx(&of.layer.qkv, &room.queries, &mut scratch.normed, n);
                self.latent_norm_backward(norm, before, scratch, gradients, n);
                self.onto_input(down, input, &scratch.latent, (&mut s.branch, gradients), n);
            }
            _ => self.onto_input(&of.layer.qkv, input, &room.queries, (&mut s.branch, gradients), n),
        }
    }

    /// A product's gradients, that of its input being added to what is there.
    fn onto_input(
        &self,
        l: &Linear,
        input: &B::Buffer,
        dout: &B::Buffer,
        (dx, gradients): (&mut B::Buffer, &mut Gradients<B::Buffer>),
        n: usize,
    ) {
        self.linear_dw(l, input, dout, gradients, n);
        self.backend.linear_dx(dout, &self.parameters[l.weight], dx, Store::Accumulate, self.linear_dims(l, n));
    }

    fn product(&self, l: &Linear, x: &B::Buffer, out: &mut B::Buffer, n: usize) {
        self.backend.linear(x, &self.parameters[l.weight], None, out, Store::Overwrite, self.linear_dims(l, n));
    }

    /// Rotates queries and the key that all heads share, or gradients back.
    fn turn(&self, of: Through<'_>, room: &mut LatentRoom<B::Buffer>, first: usize, inverse: bool) {
        let Some(f) = self.frequencies(0) else { return };
        let queries = AttentionDims { kv_heads: 0, ..of.d };
        let key = AttentionDims { heads: 1, head_dim: of.sizes.rope as usize, ..queries };
        self.backend.rope(&mut room.queries, f, first, inverse, queries);
        self.backend.rope(&mut room.rotated, f, first, inverse, key);
    }

    fn latent_norm_dims(&self, norm: &Norm, n: usize) -> NormDims {
        NormDims { c: self.index.specs[norm.gain].len(), ..self.norm_dims(n) }
    }

    fn latent_norm(&self, norm: &Norm, before: &mut BeforeNorm<B::Buffer>, out: &mut B::Buffer, n: usize) {
        let (gain, bias) = (&self.parameters[norm.gain], norm.bias.map(|b| &self.parameters[b]));
        self.backend.norm(&before.x, gain, bias, out, &mut before.stats, self.latent_norm_dims(norm, n));
    }

    /// From `scratch.normed` to `scratch.latent`.
    fn latent_norm_backward(
        &self,
        norm: &Norm,
        before: &BeforeNorm<B::Buffer>,
        scratch: &mut LatentScratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
        n: usize,
    ) {
        let (dgain, dbias) = gradients.weight_and_bias(norm.gain, norm.bias);
        let (gain, d) = (&self.parameters[norm.gain], self.latent_norm_dims(norm, n));
        let LatentScratch { normed, latent, .. } = scratch;
        self.backend.fill(latent, 0.0);
        self.backend.norm_backward(&before.x, gain, &before.stats, normed, latent, dgain, dbias, d);
    }
}

impl<T> Cache<T> {
    /// The dimensions of attention of so many queries a sequence over a cache of latents.
    fn latent_dims(&self, tokens: usize) -> Option<LatentDims> {
        self.latent.map(|d| LatentDims { tokens, ..d })
    }
}
