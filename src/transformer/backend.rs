//! The operations that the model is made of. A backend is a folder that implements them; the model is written once over
//! this trait, and the conformance tests hold every backend against the naive one.
//!
//! Shapes by the legend of [`super`]. All matrices are row-major and dense; a linear layer's weight is `[outputs, inputs]`,
//! as in PyTorch. Queries, keys and values of a token stand side by side in one row of `(H + 2 KV) * D` numbers.
//!
//! Gradients are *overwritten* by the operations that compute them, never accumulated over steps: one step touches each
//! gradient once. The two exceptions say `+=`.
//!
//! Deliberately absent: streams, devices, allocation strategies. A backend owns those.

use super::collective::threads::Exchange;
use super::session::SessionError;
use super::shape::{Activation, Rope};
use super::{BackendKind, Dtype, OptimizerKind};

/// What a buffer holds, for the account of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    Weights,
    Gradients,
    Optimizer,
    Activations,
    KvCache,
    Workspace,
}

/// A product's dimensions: N rows in, K inputs, M outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearDims {
    pub n: usize,
    pub k: usize,
    pub m: usize,
}

/// Whether a result replaces what is there or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Overwrite,
    Accumulate,
}

/// Attention over whole sequences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionDims {
    /// B
    pub batch: usize,
    /// T
    pub tokens: usize,
    /// H
    pub heads: usize,
    /// KV
    pub kv_heads: usize,
    /// D
    pub head_dim: usize,
    pub causal: bool,
}

impl AttentionDims {
    /// Numbers in one row of queries, keys and values.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
    /// Numbers in one row of attention's output.
    pub fn out_width(&self) -> usize {
        self.heads * self.head_dim
    }
    /// N = B * T
    pub fn rows(&self) -> usize {
        self.batch * self.tokens
    }
}

/// The KV cache of one layer, in one buffer: keys `[B, KV, D, capacity]`, so that scores run along whole vectors of positions,
/// then values `[B, KV, capacity, D]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheDims {
    pub batch: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Positions that fit.
    pub capacity: usize,
    /// Format of keys and values.
    pub dtype: Dtype,
}

impl CacheDims {
    /// Numbers in the whole buffer.
    pub fn len(&self) -> usize {
        2 * self.half()
    }
    /// Words of 32 bits that it takes.
    pub fn words(&self) -> usize {
        (self.len() * self.dtype.size() as usize).div_ceil(4)
    }
    /// Where the values begin.
    pub fn half(&self) -> usize {
        self.batch * self.kv_heads * self.capacity * self.head_dim
    }
    /// Whether nothing fits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Normalisation over the last dimension.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormDims {
    pub n: usize,
    pub c: usize,
    pub eps: f32,
    /// RMSNorm: no mean is taken off.
    pub rms: bool,
}

/// Where dropout is applied: which elements fall follows from the seed and the element's index alone, so that the backward
/// pass finds the same ones without a stored mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    pub probability: f32,
    /// Differs by step, layer and place.
    pub seed: u64,
}

/// Constants of a parameter update. Sources: Adam and Adamax, Kingma & Ba 2015 (algorithms 1 and 2); AdamW, Loshchilov &
/// Hutter 2019; momentum as in PyTorch (no dampening).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    pub kind: OptimizerKind,
    pub learning_rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// Decoupled decay, AdamW only.
    pub weight_decay: f32,
    /// SGD only.
    pub momentum: f32,
    /// Keras's form of Adam adds eps to the uncorrected root: `lr_t m / (sqrt(v) + eps)`.
    pub eps_before_correction: bool,
}

/// A target that takes no part in the loss (Hugging Face's -100).
pub const IGNORED_TARGET: u32 = u32::MAX;

/// Where buffers come from. Apart from [`Backend`], so that the account of memory can run the very code that allocates,
/// with buffers that only count.
pub trait Alloc {
    /// A device array of f32, zeroed when made.
    type Buffer;

    /// # Errors
    /// [`SessionError::OutOfMemory`].
    fn alloc(&self, len: usize, category: Category) -> Result<Self::Buffer, SessionError>;
}

/// The operations. Every method that can fail does so by the device or by memory; shapes are the caller's promise and are
/// checked by debug assertions and slice bounds.
#[allow(clippy::too_many_arguments)]
pub trait Backend: Alloc {
    fn kind(&self) -> BackendKind;
    /// The format that products take their factors in, and that the KV cache is kept in.
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    /// Host to device, from the start of `to`.
    fn upload(&self, from: &[f32], to: &mut Self::Buffer);
    /// Device to host: as many numbers as `to` holds, from `offset`.
    fn download(&self, from: &Self::Buffer, offset: usize, to: &mut [f32]);
    fn fill(&self, buffer: &mut Self::Buffer, value: f32);
    /// The first `len` numbers.
    fn copy(&self, from: &Self::Buffer, to: &mut Self::Buffer, len: usize);
    /// `to[i] += from[i]` for the first `len` numbers.
    fn add(&self, from: &Self::Buffer, to: &mut Self::Buffer, len: usize);

    /// A weight matrix `[rows, columns]` for inference, in whatever form products like best; it is only read by
    /// [`Backend::linear`] and [`Backend::embed`] from then on. `next` writes its numbers, some whole rows at a time, in their
    /// order.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    fn weights(
        &self,
        rows: usize,
        columns: usize,
        next: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Self::Buffer, SessionError> {
        let mut host = vec![0.0; rows * columns];
        next(&mut host);
        let mut buffer = self.alloc(host.len(), Category::Weights)?;
        self.upload(&host, &mut buffer);
        Ok(buffer)
    }

    /// Row r of `out [N, C]` is `table[ids[r]] (+ positions[first_position + r % tokens])`.
    fn embed(
        &self,
        ids: &[u32],
        tokens: usize,
        first_position: usize,
        table: &Self::Buffer,
        positions: Option<&Self::Buffer>,
        out: &mut Self::Buffer,
        c: usize,
    );
    /// `dtable[ids[r]] += dout[r]` (the one the tied head has written, or zeroed by the caller), and, where there are learned
    /// positions, `dpositions[r % tokens] =` the sum over the batch, rows past `tokens` zero.
    fn embed_backward(
        &self,
        ids: &[u32],
        tokens: usize,
        dout: &Self::Buffer,
        dtable: &mut Self::Buffer,
        dpositions: Option<&mut Self::Buffer>,
        c: usize,
    );

    /// `out = (x - mean) * rstd * gain (+ bias)`; `stats [N, 2]` takes mean and rstd for the backward pass.
    fn norm(
        &self,
        x: &Self::Buffer,
        gain: &Self::Buffer,
        bias: Option<&Self::Buffer>,
        out: &mut Self::Buffer,
        stats: &mut Self::Buffer,
        d: NormDims,
    );
    /// `dx +=` the gradient through the norm; `dgain` and `dbias` are overwritten.
    fn norm_backward(
        &self,
        x: &Self::Buffer,
        gain: &Self::Buffer,
        stats: &Self::Buffer,
        dout: &Self::Buffer,
        dx: &mut Self::Buffer,
        dgain: &mut Self::Buffer,
        dbias: Option<&mut Self::Buffer>,
        d: NormDims,
    );

    /// `out [N, M] (+)= x [N, K] w[M, K]^T + bias`
    fn linear(
        &self,
        x: &Self::Buffer,
        w: &Self::Buffer,
        bias: Option<&Self::Buffer>,
        out: &mut Self::Buffer,
        into: Store,
        d: LinearDims,
    );
    /// `dx [N, K] (+)= dout [N, M] w[M, K]`
    fn linear_dx(&self, dout: &Self::Buffer, w: &Self::Buffer, dx: &mut Self::Buffer, into: Store, d: LinearDims);
    /// `dw [M, K] = dout^T x`, `dbias [M] =` the column sums of `dout`
    fn linear_dw(
        &self,
        x: &Self::Buffer,
        dout: &Self::Buffer,
        dw: &mut Self::Buffer,
        dbias: Option<&mut Self::Buffer>,
        d: LinearDims,
    );

    /// `out [N, F] = f(pre)`; `pre` is `[N, F]`, or `[N, 2 F]` (gate, up) for SwiGLU.
    fn activation(&self, kind: Activation, pre: &Self::Buffer, out: &mut Self::Buffer, n: usize, f: usize);
    /// `dpre = f'(pre) dout`, `pre` being replaced by its gradient in place.
    fn activation_backward(&self, kind: Activation, pre: &mut Self::Buffer, dout: &Self::Buffer, n: usize, f: usize);

    /// Turns queries and keys of `qkv` by their positions `first_position + row % tokens`; `inverse` turns back (gradients).
    /// Pairs are `(i, i + D/2)`, as in Hugging Face's Llama.
    fn rope(
        &self,
        qkv: &mut Self::Buffer,
        frequencies: &Frequencies,
        first_position: usize,
        inverse: bool,
        d: AttentionDims,
    );

    /// `out [N, H*D] = softmax(Q K^T / sqrt(D)) V`; `lse [N, H]` takes the log of the softmax's denominator.
    fn attention(&self, qkv: &Self::Buffer, out: &mut Self::Buffer, lse: &mut Self::Buffer, d: AttentionDims);
    /// `dqkv =` the gradient, `dout` that of `out`.
    fn attention_backward(
        &self,
        qkv: &Self::Buffer,
        out: &Self::Buffer,
        dout: &Self::Buffer,
        lse: &Self::Buffer,
        dqkv: &mut Self::Buffer,
        d: AttentionDims,
    );

    /// Copies keys and values of `qkv` (`d.tokens` a sequence) into the cache from `position` on.
    fn cache_append(
        &self,
        qkv: &Self::Buffer,
        cache: &mut Self::Buffer,
        position: usize,
        d: AttentionDims,
        c: CacheDims,
    );
    /// Attention of the one query a sequence (`d.tokens` = 1) over the first `length` positions of the cache.
    fn attention_cached(
        &self,
        qkv: &Self::Buffer,
        cache: &Self::Buffer,
        out: &mut Self::Buffer,
        length: usize,
        d: AttentionDims,
        c: CacheDims,
    );

    /// Zeroes elements with the given probability and scales the rest by 1 / (1 - p), in place. On a gradient with the same
    /// seed it is its own backward pass.
    fn dropout(&self, x: &mut Self::Buffer, len: usize, dropout: Dropout);

    /// Mean cross-entropy of `softmax(x [N, C] w[V, C]^T)` against `targets`, [`IGNORED_TARGET`]s left out. With `gradients`,
    /// `dx =` and `dw =` their gradients. An implementation need not hold all logits at once.
    fn cross_entropy(
        &self,
        x: &Self::Buffer,
        w: &Self::Buffer,
        targets: &[u32],
        gradients: Option<(&mut Self::Buffer, &mut Self::Buffer)>,
        d: LinearDims,
    ) -> f32;
    /// Mean of squared differences over the first `len` numbers; `dx = 2 (x - target) / len`.
    fn mean_squared_error(
        &self,
        x: &Self::Buffer,
        target: &Self::Buffer,
        dx: Option<&mut Self::Buffer>,
        len: usize,
    ) -> f32;
    /// Row `b` of `out [B, C]` is row `b * tokens + tokens - 1` of `x [B * tokens, C]`.
    fn last_rows(&self, x: &Self::Buffer, out: &mut Self::Buffer, batch: usize, tokens: usize, c: usize);
    /// Index of the largest of every row of `x [N, V]`; the first of equals.
    fn argmax(&self, x: &Self::Buffer, n: usize, v: usize) -> Vec<u32>;

    /// One optimizer step, the `step`-th from 1, over a parameter, its gradient and its moments (as many as the kind has).
    fn update(
        &self,
        update: &Update,
        step: u32,
        parameter: &mut Self::Buffer,
        gradient: &Self::Buffer,
        first: Option<&mut Self::Buffer>,
        second: Option<&mut Self::Buffer>,
    );

    /// Replaces gradients by their mean over all ranks of `exchange`.
    fn all_reduce_mean(&self, exchange: &Exchange, rank: usize, gradients: &mut [Self::Buffer]);

    /// Runs a rank's whole life where its operations start without a hand-over between threads.
    fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        f()
    }

    /// Waits until everything asked for has been computed.
    fn synchronize(&self) {}
}

/// `D/2` angles a position, in radians: `position * theta^(-2i/D)`, stretched for long contexts where the model says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Frequencies(pub Vec<f32>);

impl Frequencies {
    /// Su et al. 2021, equation 15; the stretch is Llama 3.1's, as Hugging Face computes it.
    pub fn new(rope: &Rope, head_dim: usize) -> Self {
        let base = |i: usize| f64::from(rope.theta).powf(-2.0 * i as f64 / head_dim as f64);
        let stretch = |f: f64| {
            let Some(s) = rope.scaling else { return f };
            let (factor, low, high) =
                (f64::from(s.factor), f64::from(s.low_freq_factor), f64::from(s.high_freq_factor));
            let wavelength = 2.0 * std::f64::consts::PI / f;
            let original = f64::from(s.original_context);
            if wavelength < original / high {
                f
            } else if wavelength > original / low {
                f / factor
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (1.0 - smooth) * f / factor + smooth * f
            }
        };
        Self((0..head_dim / 2).map(|i| stretch(base(i)) as f32).collect())
    }
}
