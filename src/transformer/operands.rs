//! What the operations of [`super::backend`] are told: dimensions, constants, and what becomes of a result.

use super::OptimizerKind;
use super::kv_cache::CacheDims;
use super::random::mix;
use super::shape::{Rope, RopeScaling};
use std::ops::Range;

/// What a buffer holds, for the account of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Parameters that an optimizer may update.
    Weights,
    /// Parameters that no product reads, in every format as exact as an optimizer has them: shares, of which all ranks' are put together
    /// first, and what experts are chosen by. Counted with the others.
    ExactWeights,
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
    /// On the device, or still to be computed: [`Backend::read_loss`](super::backend::Backend::read_loss) reads the one that was
    /// asked for last.
    OnDevice,
}

/// Tokens of a pass, row by row.
#[derive(Debug)]
pub enum Tokens<'a, T> {
    Host(&'a [u32]),
    /// As [`Backend::put_tokens`](super::backend::Backend::put_tokens) and
    /// [`Backend::argmax_into`](super::backend::Backend::argmax_into) leave them.
    Placed(&'a T),
}

impl<T> Clone for Tokens<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Tokens<'_, T> {}

/// Whether a step's operations have been captured ([`Backend::captured`](super::backend::Backend::captured)).
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

/// What the gradients of a step are scaled down to where the norm of all together is beyond it (Pascanu et al. 2013, algorithm 1; as
/// PyTorch's `clip_grad_norm_`, whose 1e-6 is added to the norm).
#[derive(Debug)]
pub struct Clipping<'a, T> {
    /// One number: the sum of the squares of all gradients, of all ranks.
    pub squares: &'a T,
    /// The largest norm.
    pub largest: f32,
}

impl<T> Clone for Clipping<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Clipping<'_, T> {}

impl<T> Clipping<'_, T> {
    /// What gradients are multiplied by, of which this is the sum of squares. A norm that is no number scales nothing: what it comes of
    /// is to be seen.
    pub fn factor(&self, squares: f32) -> f32 {
        let factor = self.largest / (squares.sqrt() + 1e-6);
        if factor < 1.0 { factor } else { 1.0 }
    }
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

/// A stretch of one buffer that goes to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins.
    pub from: usize,
    /// Where it begins in the other.
    pub to: usize,
    pub len: usize,
}

/// Whether a result replaces what is there or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// What is there goes.
    Overwrite,
    /// The result is added to it.
    Accumulate,
}

/// How the product of a query and a key becomes a score, and which keys have one, beside the causal mask.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// What the product is multiplied by; `None` for 1 / sqrt(D).
    pub scale: Option<f32>,
    /// Scores s become `cap tanh(s / cap)`.
    pub soft_cap: Option<f32>,
    /// Keys that a query sees at most, its own the last of them. Only of causal attention.
    pub window: Option<usize>,
    /// Whether a score falls with the distance, at a slope of the head's (`alibi_slope`).
    pub alibi: bool,
    /// Whether a logit of the head stands beside the scores (`Parts::sinks`), so that the softmax's denominator is what
    /// the log of it says and not what the scores add up to.
    pub sinks: bool,
}

impl Scores {
    /// Of most models.
    pub(crate) const PLAIN: Self = Self { scale: None, soft_cap: None, window: None, alibi: false, sinks: false };
}

/// What a head's score loses for every position that the key stands before the query: a geometric series from 2^(-8/n), of the
/// largest power of two n that is no more than the heads, and every other number of the next one's for the rest (Press et al. 2022,
/// section 3, as BLOOM has it).
pub(super) fn alibi_slope(head: usize, heads: usize) -> f32 {
    let whole = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    let slope = |n: usize, i: usize| 2f64.powf(-8.0 * (i + 1) as f64 / n as f64) as f32;
    if head < whole { slope(whole, head) } else { slope(2 * whole, 2 * (head - whole)) }
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
    /// How scores become weights.
    pub scores: Scores,
}

impl AttentionDims {
    /// What the product of a query and a key is multiplied by.
    pub fn scale(&self) -> f64 {
        self.scores.scale.map_or(1.0 / (self.head_dim as f64).sqrt(), f64::from)
    }
    /// Keys that the query at a position sees.
    pub fn seen(&self, position: usize) -> Range<usize> {
        let past = if self.causal { position + 1 } else { self.tokens };
        let first = self.scores.window.filter(|_| self.causal).map_or(0, |w| past.saturating_sub(w));
        first..past
    }
    /// What a score gains with the key's position, in a head: a constant for each query is lost in the softmax.
    pub fn slope(&self, head: usize) -> f32 {
        if self.scores.alibi { alibi_slope(head, self.heads) } else { 0.0 }
    }
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
    /// The gain is this much more than its parameter: 0, or 1 in Gemma.
    pub gain_offset: f32,
}

/// Norms of queries and keys: RMSNorm of every head by itself, or of all query heads together and all key heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QkNormDims {
    /// The rows of queries, keys and values that it is of.
    pub of: AttentionDims,
    pub whole: bool,
    pub eps: f32,
    pub gain_offset: f32,
}

impl QkNormDims {
    /// Elements of queries and keys in a row.
    pub fn width(&self) -> usize {
        (self.of.heads + self.of.kv_heads) * self.of.head_dim
    }
    /// Stretches of a row that are normed, each: where it starts, how long it is, and whether it is of the keys.
    pub fn stretches(&self) -> impl Iterator<Item = (usize, usize, bool)> + use<> {
        let AttentionDims { heads, kv_heads, head_dim, .. } = self.of;
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        let whole = self.whole;
        let of = move |len: usize| if whole { len } else { head_dim };
        let (q, k) = (of(queries), of(keys));
        let queries_at = (0..queries).step_by(q).map(move |at| (at, q, false));
        queries_at.chain((0..keys).step_by(k).map(move |at| (queries + at, k, true)))
    }
    /// Elements of the gains of queries and of keys.
    pub(crate) fn gains(&self) -> [usize; 2] {
        let AttentionDims { heads, kv_heads, head_dim, .. } = self.of;
        if self.whole { [heads * head_dim, kv_heads * head_dim] } else { [head_dim; 2] }
    }
    /// Stretches of a row: statistics are `[N, this]`.
    pub fn count(&self) -> usize {
        if self.whole { 2 } else { self.of.heads + self.of.kv_heads }
    }
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

/// What differs from one run of a captured step to the next, apart from the contents of buffers
/// ([`Backend::captured`](super::backend::Backend::captured)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Varying<'a> {
    /// Position that all operations start from.
    pub position: usize,
    /// The row of the table of learned positions that it has.
    pub position_row: usize,
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

/// A token whose place has no row in the table's gradient.
pub(crate) const IGNORED_TOKEN: u32 = u32::MAX;

/// A target that takes no part in the loss (Hugging Face's -100).
pub(crate) const IGNORED_TARGET: u32 = u32::MAX;

/// R/2 angles a position, in radians, of the R rotated elements of a head: `position * theta^(-2i/R)`, stretched for long contexts
/// where the model says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Frequencies {
    /// R/2 angles a position.
    pub radians: Vec<f32>,
    /// What rotated elements are multiplied by.
    pub factor: f32,
}

impl Frequencies {
    /// Su et al. 2021, equation 15; the stretches are computed as Hugging Face computes them.
    pub fn new(rope: &Rope, rotary_dim: usize) -> Self {
        let theta = f64::from(rope.theta);
        let base = |i: usize| theta.powf(-2.0 * i as f64 / rotary_dim as f64);
        let plain = (0..rotary_dim / 2).map(base);
        let (radians, factor): (Vec<f64>, f32) = match &rope.scaling {
            None => (plain.collect(), 1.0),
            Some(RopeScaling::Linear { factor }) => (plain.map(|f| f / f64::from(*factor)).collect(), 1.0),
            Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context }) => {
                let numbers = [*factor, *low_freq_factor, *high_freq_factor, *original_context as f32];
                (plain.map(|f| llama3(f, numbers.map(f64::from))).collect(), 1.0)
            }
            Some(RopeScaling::LongRope { short, attention_factor, .. }) => {
                let by = short.iter().copied().chain(std::iter::repeat(1.0));
                (plain.zip(by).map(|(f, by)| f / f64::from(by)).collect(), *attention_factor)
            }
            Some(RopeScaling::Yarn { factor, beta_fast, beta_slow, original_context, truncate, attention_factor }) => {
                let pair = |turns: f32| {
                    let context = f64::from(*original_context) / (f64::from(turns) * 2.0 * std::f64::consts::PI);
                    rotary_dim as f64 * context.ln() / (2.0 * theta.ln())
                };
                let (mut low, mut high) = (pair(*beta_fast), pair(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(rotary_dim as f64 - 1.0));
                if low == high {
                    high += 0.001;
                }
                let stretched = |(i, f): (usize, f64)| {
                    let by = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    by * f / f64::from(*factor) + (1.0 - by) * f
                };
                (plain.enumerate().map(stretched).collect(), *attention_factor)
            }
        };
        Self { radians: radians.into_iter().map(|f| f as f32).collect(), factor }
    }
}

/// `[factor, low_freq_factor, high_freq_factor, original context]`
fn llama3(f: f64, [factor, low, high, original]: [f64; 4]) -> f64 {
    let wavelength = 2.0 * std::f64::consts::PI / f;
    if wavelength < original / high {
        f
    } else if wavelength > original / low {
        f / factor
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * f / factor + smooth * f
    }
}
