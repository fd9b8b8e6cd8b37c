//! What a backward pass works in.

use super::super::backend::{Alloc, Category};
use super::super::error::SessionError;
use super::super::shape::Shape;
use super::activations::{Extent, Hidden};
use super::post::Returning;

/// What a backward pass needs beside the activations.
#[derive(Debug)]
pub(crate) struct Scratch<T> {
    /// Gradient of the stream, `[N, C]`
    pub stream: T,
    /// Gradient of a branch, `[N, C]`
    pub branch: T,
    /// Where both branches read one stream, `[N, C]`: the stream's gradient before the first of them has added its own, or, where
    /// they share a norm, what the first has to say of its result.
    pub aside: Option<T>,
    /// Of what a norm after a branch was given, `[N, C]`, where there are such norms.
    pub before_norm: Option<T>,
    /// `[N, F]`, of the layer that has most
    pub act: T,
    /// Gradients of the weights and of the logits of experts, where there are any.
    pub routed: Option<[T; 2]>,
    /// What goes back from this rank's experts, where they are spread over ranks.
    pub returning: Option<Returning<T>>,
    /// `[N, H * D]`; of the values' width where attention is latent
    pub attention: T,
    /// `[N, (H + 2 KV) * D]`
    pub qkv: T,
    /// Where attention is latent.
    pub latent: Option<LatentScratch<T>>,
}

/// What the backward pass through latents needs beside a layer's room.
#[derive(Debug)]
pub(crate) struct LatentScratch<T> {
    /// Gradient of what attention hands on, as wide as queries, `[N, H * D]`
    pub wide: T,
    /// Gradients of a latent after and before its norm, of the wider of the two
    pub normed: T,
    pub latent: T,
}

impl<T> Scratch<T> {
    /// Buffers for backward passes of the given extent.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn new<A: Alloc<Buffer = T>>(a: &A, s: &Shape, extent: Extent) -> Result<Self, SessionError> {
        let n = extent.rows();
        let d = extent.attention(s, 0);
        let new = |len: usize| a.alloc(len, Category::Activations);
        Ok(Self {
            stream: new(n * s.d_model as usize)?,
            branch: new(n * s.d_model as usize)?,
            aside: s.parts().parallel().then(|| new(n * s.d_model as usize)).transpose()?,
            before_norm: s.parts().norm_after().then(|| new(n * s.d_model as usize)).transpose()?,
            act: new(Hidden::of(s, n, 0..s.n_layers as usize).room())?,
            routed: s
                .experts
                .map(|e| {
                    let new = |len: u32| a.alloc(n * len as usize, Category::Statistics);
                    Ok::<_, SessionError>([new(e.per_token)?, new(e.count)?])
                })
                .transpose()?,
            returning: Returning::new(a, s, n)?,
            attention: new(n * s.d_attn() as usize)?,
            qkv: new(n * d.qkv_width())?,
            latent: s
                .latent
                .map(|l| {
                    let widest = n * l.kv_rank.max(l.q_rank.unwrap_or(0)) as usize;
                    let (wide, normed, latent) = (new(n * d.out_width())?, new(widest)?, new(widest)?);
                    Ok::<_, SessionError>(LatentScratch { wide, normed, latent })
                })
                .transpose()?,
        })
    }
}
