//! What the operations of [`super::backend`] are told: dimensions, constants, and what becomes of a result.

use super::random::mix;
use super::shape::Rope;
use super::{Dtype, OptimizerKind};
use std::ops::Range;

/// What a buffer holds, for the account of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Parameters that an optimizer may update.
    Weights,
    /// Parameters that are only read: of inference, those that no product multiplies by.
    FixedWeights,
    /// Gradients of parameters.
    Gradients,
    /// The optimizer's moments.
    Optimizer,
    /// What a pass keeps.
    Activations,
    /// What stays in f32 whatever the activations' format: statistics of norms and of softmax, losses, logits that a token is
    /// chosen by, tokens. Counted with the activations.
    Statistics,
    /// Keys and values of earlier tokens.
    KvCache,
    /// Scratch of an operation.
    Workspace,
}

/// The loss of a pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    Known(f32),
    /// On the device, or still to be computed: [`Backend::read_loss`] reads the one that was asked for last.
    OnDevice,
}

/// Tokens of a pass, row by row.
#[derive(Debug)]
pub enum Tokens<'a, T> {
    Host(&'a [u32]),
    /// As [`Backend::put_tokens`] and [`Backend::argmax_into`] leave them.
    Placed(&'a T),
}

impl<T> Clone for Tokens<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Tokens<'_, T> {}

/// Whether a step's operations have been captured ([`Backend::captured`]).
#[derive(Debug, Default)]
pub enum Captured {
    #[default]
    NotYet,
    /// They have run once: what they need has been compiled and allocated.
    HaveRun,
    As(u64),
    /// The device cannot.
    Never,
}

/// One parameter of an update: with its gradient and its moments, as many as the kind has.
#[derive(Debug)]
pub struct Updated<'a, T> {
    /// The elements of parameter and gradient that are updated, all of them unless ranks share the work; moments hold these alone.
    pub part: Range<usize>,
    /// What is updated.
    pub parameter: &'a mut T,
    /// Its gradient.
    pub gradient: &'a T,
    /// The first moment, where the kind has one.
    pub first: Option<&'a mut T>,
    /// The second moment, where the kind has one.
    pub second: Option<&'a mut T>,
}

/// A product's dimensions: N rows in, K inputs, M outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearDims {
    /// Rows, N.
    pub n: usize,
    /// Inputs, K.
    pub k: usize,
    /// Outputs, M.
    pub m: usize,
}

/// A norm whose result one product takes and nothing else.
#[derive(Debug)]
pub struct NormBefore<'a, T> {
    pub gain: &'a T,
    pub bias: Option<&'a T>,
    /// Room for the result, `[N, C]`; what is in it afterwards means nothing.
    pub room: &'a mut T,
    /// `[N, 2]`, takes mean and rstd.
    pub stats: &'a mut T,
    pub d: NormDims,
}

/// `norm(x) w[M, K]^T + bias`: a branch's beginning, or the head. Without a norm, of `x` itself.
#[derive(Debug)]
pub struct NormedLinear<'a, T> {
    pub x: &'a T,
    pub norm: Option<NormBefore<'a, T>>,
    pub w: &'a T,
    pub bias: Option<&'a T>,
    pub d: LinearDims,
}

/// A layer's KV cache, and the position that a pass starts at.
#[derive(Debug)]
pub struct CachePlace<'a, T> {
    pub layer: &'a mut T,
    pub position: usize,
    pub dims: CacheDims,
}

/// Whether a result replaces what is there or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// What is there goes.
    Overwrite,
    /// The result is added to it.
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
    /// A token sees those before it and itself.
    pub causal: bool,
}

impl AttentionDims {
    /// Elements in one row of queries, keys and values.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
    /// Elements in one row of attention's output.
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
    /// B
    pub batch: usize,
    /// KV
    pub kv_heads: usize,
    /// D
    pub head_dim: usize,
    /// Positions that fit.
    pub capacity: usize,
    /// Format of keys and values.
    pub dtype: Dtype,
}

impl CacheDims {
    /// Elements in the whole buffer.
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
    /// Rows, N.
    pub n: usize,
    /// Elements of a row, C.
    pub c: usize,
    /// Added to the variance.
    pub eps: f32,
    /// RMSNorm: no mean is taken off.
    pub rms: bool,
}

/// Where dropout is applied: which elements fall follows from the key and the element's index alone, so that the backward
/// pass finds the same ones without a stored mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    pub probability: f32,
    /// The step's.
    pub seed: u64,
    /// Where in the model.
    pub place: u64,
    /// Which rank's part of it, from 0.
    pub part: u64,
}

impl Dropout {
    /// The generator's key, another for every step, place and part.
    pub fn key(&self) -> u64 {
        match (mix(self.seed ^ mix(self.place)), self.part) {
            (key, 0) => key,
            (key, part) => mix(key ^ part),
        }
    }
}

/// What differs from one run of a captured step to the next, apart from the contents of buffers ([`Backend::captured`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct Varying<'a> {
    /// Position that all operations start from.
    pub position: usize,
    /// Seed of the step's dropout.
    pub dropout: u64,
    /// The optimizer's step, from 1.
    pub update: Option<(&'a Update, u32)>,
}

/// Constants of a parameter update. Sources: Adam and Adamax, Kingma & Ba 2015 (algorithms 1 and 2); AdamW, Loshchilov &
/// Hutter 2019; momentum as in PyTorch (no dampening).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Which of them.
    pub kind: OptimizerKind,
    /// Step size.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled decay, AdamW only.
    pub weight_decay: f32,
    /// SGD only.
    pub momentum: f32,
    /// Keras's form of Adam adds eps to the uncorrected root: `lr_t m / (sqrt(v) + eps)`.
    pub eps_before_correction: bool,
}

/// A target that takes no part in the loss (Hugging Face's -100).
pub(crate) const IGNORED_TARGET: u32 = u32::MAX;

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
