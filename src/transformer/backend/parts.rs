//! Operations that only some models are made of: norms of queries and keys, caps, scaled embeddings, experts, latent
//! attention; and prompts in stretches.
//! What has a body here is computed on the host where a backend has nothing better.

use super::experts::{ExpertDims, Experts, ExpertsBackward};
use super::latent::{BlockCopy, LatentDims};
use super::split::{OwnHeads, OwnWords};
use super::{
    Alloc, AttentionDims, Backend, CacheDims, LinearDims, Loss, QkNormDims, Store, Stretch, latent_on_host, on_host,
    split_on_host,
};
use crate::transformer::shape::Routing;
use std::ops::Range;

/// Beside [`Backend`], of which it is a part.
#[allow(clippy::too_many_arguments)]
pub trait Parts: Alloc {
    /// Attention of the stretch of a prompt in `qkv`, whose queries begin at `position`, over what the cache holds before it and over
    /// itself; the stretch is not in the cache yet. `lse` is as of [`Backend::attention`], but for a constant of each query with ALiBi.
    fn attention_after(
        &self,
        qkv: &Self::Buffer,
        cache: &Self::Buffer,
        out: &mut Self::Buffer,
        lse: &mut Self::Buffer,
        position: usize,
        d: AttentionDims,
        c: CacheDims,
    );

    /// A logit of each head, `sinks [H]`, joins its scores in the softmax: `out [N, H*D]` shrinks and `lse [N, H]` grows.
    fn sinks(&self, sinks: &Self::Buffer, out: &mut Self::Buffer, lse: &mut Self::Buffer, d: AttentionDims)
    where
        Self: Backend,
    {
        on_host::sinks(self, sinks, out, lse, d);
    }
    /// `dsinks [H]`, from what attention's gradient is computed from.
    fn sinks_backward(
        &self,
        sinks: &Self::Buffer,
        out: &Self::Buffer,
        dout: &Self::Buffer,
        lse: &Self::Buffer,
        dsinks: &mut Self::Buffer,
        d: AttentionDims,
    ) where
        Self: Backend,
    {
        on_host::sinks_backward(self, [sinks, out, dout, lse], dsinks, d);
    }

    /// Norms queries and keys in place, by a gain of each; `kept` takes what they were, `[N, (H + KV) * D]`, and the reciprocal roots
    /// of their mean squares, `[N, stretches]`, for the backward pass. `own` where all heads are normed together and each rank has
    /// some of them.
    fn qk_norm(
        &self,
        qkv: &mut Self::Buffer,
        gains: [&Self::Buffer; 2],
        kept: Option<(&mut Self::Buffer, &mut Self::Buffer)>,
        d: QkNormDims,
        own: Option<OwnHeads<'_, Self::Buffer>>,
    ) where
        Self: Backend,
    {
        on_host::qk_norm(self, qkv, gains, kept, d, own);
    }
    /// Gradients of queries and keys, in `dqkv`, become those of what was normed; gradients of the gains are overwritten. `own` as of
    /// [`Parts::qk_norm`].
    fn qk_norm_backward(
        &self,
        x: &Self::Buffer,
        gains: [&Self::Buffer; 2],
        stats: &Self::Buffer,
        dqkv: &mut Self::Buffer,
        dgains: [&mut Self::Buffer; 2],
        d: QkNormDims,
        own: Option<OwnHeads<'_, Self::Buffer>>,
    ) where
        Self: Backend,
    {
        on_host::qk_norm_backward(self, (x, stats), gains, dqkv, dgains, (d, own));
    }

    /// `x[i] *= factor` for the first `len` elements.
    fn scale(&self, x: &mut Self::Buffer, len: usize, factor: f32)
    where
        Self: Backend,
    {
        on_host::map(self, x, len, |x| x * factor);
    }
    /// A stretch of `from` replaces one of `to`, or is added to it.
    fn put(&self, from: &Self::Buffer, to: &mut Self::Buffer, stretch: Stretch, into: Store)
    where
        Self: Backend,
    {
        on_host::put(self, from, to, stretch, into);
    }
    /// `to[0] =` the sum of the squares of some elements of each of these.
    fn squares(&self, of: &[(&Self::Buffer, Range<usize>)], to: &mut Self::Buffer)
    where
        Self: Backend,
    {
        on_host::squares(self, of, to);
    }
    /// `x[i] = cap tanh(x[i] / cap)` for the first `len` elements.
    fn soft_cap(&self, x: &mut Self::Buffer, len: usize, cap: f32)
    where
        Self: Backend,
    {
        on_host::map(self, x, len, |x| (f64::from(cap) * (f64::from(x) / f64::from(cap)).tanh()) as f32);
    }

    /// [`Backend::cross_entropy`] where each rank has some rows of the vocabulary, `w [V, C]`, and the others' logits count too. Targets
    /// are words of the whole; `dx` is what the rank's own words give it.
    fn cross_entropy_split(
        &self,
        x: &Self::Buffer,
        w: &Self::Buffer,
        targets: &[u32],
        gradients: Option<(&mut Self::Buffer, &mut Self::Buffer)>,
        cap: Option<f32>,
        d: LinearDims,
        own: OwnWords<'_, Self::Buffer>,
    ) -> Loss
    where
        Self: Backend,
    {
        split_on_host::cross_entropy(self, [x, w], targets, gradients, cap, d, own)
    }

    /// Of every token's `logits [N, E]` the K largest, the first of equals: `chosen [N, K]` (as tokens are kept) and `weights [N, K]`, the
    /// softmax over all experts, divided by its sum over the chosen where [`ExpertDims::normalised`].
    fn route(&self, logits: &Self::Buffer, chosen: &mut Self::Buffer, weights: &mut Self::Buffer, d: ExpertDims)
    where
        Self: Backend,
    {
        on_host::route(self, logits, None, (chosen, weights), d, Routing::PLAIN);
    }
    /// `dlogits [N, E]` from the gradient of the weights.
    fn route_backward(
        &self,
        logits: &Self::Buffer,
        chosen: &Self::Buffer,
        dweights: &Self::Buffer,
        dlogits: &mut Self::Buffer,
        d: ExpertDims,
    ) where
        Self: Backend,
    {
        on_host::route_backward(self, [logits, chosen, dweights], dlogits, d, Routing::PLAIN);
    }
    /// `Parts::route` by another rule than the plain one; `correction [E]` is added to scores where experts are chosen, where the rule
    /// has it.
    fn route_by(
        &self,
        logits: &Self::Buffer,
        correction: Option<&Self::Buffer>,
        chosen: &mut Self::Buffer,
        weights: &mut Self::Buffer,
        (d, by): (ExpertDims, Routing),
    ) where
        Self: Backend,
    {
        on_host::route(self, logits, correction, (chosen, weights), d, by);
    }
    /// [`Parts::route_backward`] by another rule. A correction has no gradient.
    fn route_by_backward(
        &self,
        logits: &Self::Buffer,
        chosen: &Self::Buffer,
        dweights: &Self::Buffer,
        dlogits: &mut Self::Buffer,
        (d, by): (ExpertDims, Routing),
    ) where
        Self: Backend,
    {
        on_host::route_backward(self, [logits, chosen, dweights], dlogits, d, by);
    }
    /// `out [N, C]`: of each token what its experts say, weighted. `pre [N * K, inner]` is kept for the backward pass, in an order of
    /// the backend's own; `act [N * K, F]` is room.
    fn experts(
        &self,
        x: &Self::Buffer,
        of: &Experts<'_, Self::Buffer>,
        pre: &mut Self::Buffer,
        act: &mut Self::Buffer,
        out: &mut Self::Buffer,
    ) where
        Self: Backend,
    {
        on_host::experts(self, x, of, pre, act, out);
    }
    /// The gradients of `Parts::experts`, `dout` being that of `out`; all are overwritten.
    fn experts_backward(
        &self,
        x: &Self::Buffer,
        of: &Experts<'_, Self::Buffer>,
        dout: &Self::Buffer,
        to: ExpertsBackward<'_, Self::Buffer>,
    ) where
        Self: Backend,
    {
        on_host::experts_backward(self, x, of, dout, to);
    }

    /// How many numbers a buffer has room for.
    fn numbers(&self, buffer: &Self::Buffer) -> usize;
    /// Row i of `to [R, width]` is row `rows[i]` of `from`.
    fn take_rows(&self, from: &Self::Buffer, to: &mut Self::Buffer, rows: &[usize], width: usize)
    where
        Self: Backend,
    {
        on_host::sum_rows(self, from, to, rows, (1, width));
    }
    /// Row i of `to [N, width]` is the sum of rows `rows[i * each..][..each]` of `from`.
    fn sum_rows(&self, from: &Self::Buffer, to: &mut Self::Buffer, rows: &[usize], (each, width): (usize, usize))
    where
        Self: Backend,
    {
        on_host::sum_rows(self, from, to, rows, (each, width));
    }

    /// Copies blocks of rows, or adds them up: what one buffer has of every head to where another has it.
    fn copy_blocks(&self, from: &Self::Buffer, to: &mut Self::Buffer, d: BlockCopy)
    where
        Self: Backend,
    {
        latent_on_host::copy_blocks(self, from, to, d);
    }
    /// Puts `latent [N, R]` and `rotated [N, P]` of `d.tokens` a sequence into the cache `[B, capacity, R + P]`, from `position` on.
    fn latent_append(
        &self,
        latent: &Self::Buffer,
        rotated: &Self::Buffer,
        cache: &mut Self::Buffer,
        position: usize,
        d: LatentDims,
    ) where
        Self: Backend,
    {
        latent_on_host::append(self, [latent, rotated], cache, position, d);
    }
    /// `out [N, H * value]`: attention of `queries [N, H * (P + nope)]`, the first of each sequence at `position`, over what the cache
    /// holds up to each of them. Keys and values are `w [H * (nope + value), R]` times its latents.
    fn latent_attention(
        &self,
        queries: &Self::Buffer,
        w: &Self::Buffer,
        cache: &Self::Buffer,
        out: &mut Self::Buffer,
        position: usize,
        d: LatentDims,
    ) where
        Self: Backend,
    {
        latent_on_host::attention(self, [queries, w, cache], out, position, d);
    }
}
