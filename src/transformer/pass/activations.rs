//! What a forward pass leaves behind: everything for training, one layer's worth for inference.

use super::super::backend::{Alloc, AttentionDims, Category};
use super::super::error::SessionError;
use super::super::shape::{Activation, Family, Shape};

/// How many sequences of how many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub batch: usize,
    pub tokens: usize,
}

impl Extent {
    /// N
    pub(crate) fn rows(&self) -> usize {
        self.batch * self.tokens
    }

    /// The dimensions of attention over whole sequences of this extent.
    pub(crate) fn attention(&self, s: &Shape) -> AttentionDims {
        AttentionDims {
            batch: self.batch,
            tokens: self.tokens,
            heads: s.n_heads as usize,
            kv_heads: s.n_kv_heads as usize,
            head_dim: s.head_dim as usize,
            causal: s.family != Family::Block,
        }
    }
}

/// One layer's.
#[derive(Debug)]
pub(crate) struct LayerActivations<T> {
    /// Mean and reciprocal deviation, `[N, 2]`, where there is a norm
    pub norm1: Option<T>,
    /// `[N, (H + 2 KV) * D]`
    pub qkv: T,
    /// `[N, H * D]`
    pub attention: T,
    /// `[N, H]`
    pub lse: T,
    pub norm2: Option<T>,
    /// `[N, F]`, or `[N, 2 F]` for SwiGLU
    pub pre: T,
}

/// What one layer after the other writes into the same place. The backward pass makes it again from what is kept: elementwise
/// work is cheaper than the memory of every layer's (Chen et al. 2016, section 3).
#[derive(Debug)]
pub(crate) struct Shared<T> {
    /// A norm's output, `[N, C]`, where there are norms
    pub normed: Option<T>,
    /// The hidden activation, `[N, F]`
    pub act: T,
}

/// A whole pass's.
#[derive(Debug)]
pub(crate) struct Activations<T> {
    pub extent: Extent,
    /// The stream `[N, C]` before, within and after the layers: 2 L + 1 for training, 2 in turn for inference.
    pub residual: Vec<T>,
    /// L for training, 1 for inference.
    pub layers: Vec<LayerActivations<T>>,
    pub shared: Shared<T>,
    /// After the last norm, `[N, C]` and `[N, 2]`.
    pub last: Option<(T, T)>,
}

/// Whether a backward pass will follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    All,
    OneLayer,
}

impl<T> Activations<T> {
    /// Buffers for passes of the given extent.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn new<A: Alloc<Buffer = T>>(
        a: &A,
        s: &Shape,
        extent: Extent,
        keep: Keep,
    ) -> Result<Self, SessionError> {
        let n = extent.rows();
        let [c, f, h] = [s.d_model, s.d_ff, s.n_heads].map(|x| x as usize);
        let inner = if s.activation == Activation::SwiGlu { 2 * f } else { f };
        let new = |len: usize| a.alloc(len, Category::Activations);
        let statistics = |len: usize| a.alloc(len, Category::Statistics);
        // The block has no norms.
        let of_norm = |len: usize| (s.family != Family::Block).then(|| new(len)).transpose();
        let norm_statistics = || (s.family != Family::Block).then(|| statistics(n * 2)).transpose();
        let (streams, layers) = match keep {
            Keep::All => (2 * s.n_layers as usize + 1, s.n_layers as usize),
            Keep::OneLayer => (2, 1),
        };
        let d = extent.attention(s);
        let layer = || -> Result<LayerActivations<T>, SessionError> {
            Ok(LayerActivations {
                norm1: norm_statistics()?,
                qkv: new(n * d.qkv_width())?,
                attention: new(n * d.out_width())?,
                lse: statistics(n * h)?,
                norm2: norm_statistics()?,
                pre: new(n * inner)?,
            })
        };
        Ok(Self {
            extent,
            residual: (0..streams).map(|_| new(n * c)).collect::<Result<_, _>>()?,
            layers: (0..layers).map(|_| layer()).collect::<Result<_, _>>()?,
            shared: Shared { normed: of_norm(n * c)?, act: new(n * f)? },
            last: of_norm(n * c)?.zip(norm_statistics()?),
        })
    }

    /// What the head reads: after the last norm, or the stream's end where there is none.
    pub(crate) fn output(&self, n_layers: usize) -> &T {
        match &self.last {
            Some((last, _)) => last,
            None => &self.residual[(2 * n_layers) % self.residual.len()],
        }
    }
}

/// What a backward pass needs beside the activations.
#[derive(Debug)]
pub(crate) struct Scratch<T> {
    /// Gradient of the stream, `[N, C]`
    pub stream: T,
    /// Gradient of a branch, `[N, C]`
    pub branch: T,
    /// `[N, F]`
    pub act: T,
    /// `[N, H * D]`
    pub attention: T,
    /// `[N, (H + 2 KV) * D]`
    pub qkv: T,
}

impl<T> Scratch<T> {
    /// Buffers for backward passes of the given extent.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn new<A: Alloc<Buffer = T>>(a: &A, s: &Shape, extent: Extent) -> Result<Self, SessionError> {
        let n = extent.rows();
        let d = extent.attention(s);
        let new = |len: usize| a.alloc(len, Category::Activations);
        Ok(Self {
            stream: new(n * s.d_model as usize)?,
            branch: new(n * s.d_model as usize)?,
            act: new(n * s.d_ff as usize)?,
            attention: new(n * d.out_width())?,
            qkv: new(n * d.qkv_width())?,
        })
    }
}
