//! What a shape amounts to: parameters, FLOPs and bytes, counted exactly and checked for overflow.
//!
//! Sources: model FLOPs by Chowdhery et al. 2022 (PaLM), appendix B: matrix products and full attention, nothing for
//! recomputation, training = 3 x forward. Bytes that have to move in a decode step: every weight that takes part in a
//! product once, and the whole KV cache once.

use super::super::backend::{Alloc, Category, LatentDims, Update};
use super::super::collective::grid::{Parallel, Sharding};
use super::super::collective::stage::Stage;
use super::super::cpu::{Widths, scratch_words, weight_words};
use super::super::error::SessionError;
use super::super::memory::MemoryParts;
use super::super::pass::activations::{Extent, expert_dims};
use super::super::pass::generate::latent_dims;
use super::super::pass::model::{Index, Purpose};
use super::super::pass::shares::Shares;
use super::super::ranks::one::inference;
use super::super::ranks::training::{Keeping, Training};
use super::super::{BackendKind, Dtype, Phase, WeightFormat, Workload, cuda};
use super::Shape;
pub use super::layers::CountOverflow;
use super::layers::{self, experts, norm_vectors, product, sum};
use super::parts::Positions;
use crate::units::{Bytes, Flops};
use std::cell::RefCell;

/// Every number of the model that training changes: biases, norms and positions included, tied embeddings once.
///
/// # Errors
/// [`CountOverflow`].
pub fn parameters(s: &Shape) -> Result<u64, CountOverflow> {
    parameters_with(s, experts(s)[0])
}

/// Those of them that a token goes through: of each layer as many experts as it is sent to.
///
/// # Errors
/// [`CountOverflow`].
pub fn active_parameters(s: &Shape) -> Result<u64, CountOverflow> {
    parameters_with(s, experts(s)[1])
}

fn parameters_with(s: &Shape, with: u64) -> Result<u64, CountOverflow> {
    let [c, v, p] = [s.d_model, s.vocab_size, s.context].map(u64::from);
    let parts = s.parts();
    let rows = p + u64::from(parts.position_offset);
    let positions = if parts.positions == Positions::Learned { product(&[rows, c])? } else { 0 };
    let head = if s.has_vocabulary_head() && !s.tied_embeddings { product(&[v, c])? } else { 0 };
    let norms = (1 + u64::from(parts.embedding_norm)) * norm_vectors(parts.norm) * c;
    sum(&[product(&[v, c])?, positions, head, norms, layers::matrices(s, with)?, layers::vectors(s, with)?])
}

/// Parameters that take part in a matrix product for every token; `head` says whether the vocabulary projection counts.
fn matmul_parameters(s: &Shape, head: bool) -> Result<u64, CountOverflow> {
    let projection =
        if head && s.has_vocabulary_head() { product(&[u64::from(s.vocab_size), u64::from(s.d_model)])? } else { 0 };
    sum(&[layers::matrices(s, experts(s)[1])?, projection])
}

/// Positions that a token's attention is over in all layers together, from what it is over where there is a window, and where none is.
fn over_layers(s: &Shape, positions: impl Fn(Option<u64>) -> u64) -> Result<u64, CountOverflow> {
    let windowed = (0..s.n_layers as usize).filter_map(|l| s.window_of(l)).count() as u64;
    let whole = u64::from(s.n_layers) - windowed;
    let of_window = if windowed > 0 { product(&[windowed, positions(s.window.map(u64::from))])? } else { 0 };
    sum(&[of_window, product(&[whole, positions(None)])?])
}

/// What a token's forward pass is over, beside its own weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// A whole sequence; with the vocabulary projection or without.
    Sequence {
        head: bool,
    },
    Cache,
}

/// Forward FLOPs of one token: `2 * N_matmul + 4 * d_attn * positions`, summed over the layers (and what latent attention has instead
/// of 4 d_attn).
fn forward(s: &Shape, positions: impl Fn(Option<u64>) -> u64, over: Over) -> Result<u64, CountOverflow> {
    sum(&[
        product(&[2, matmul_parameters(s, over != Over::Sequence { head: false })?])?,
        product(&[layers::attention_flops(s, over == Over::Cache), over_layers(s, positions)?])?,
    ])
}

/// Positions that a token of a sequence is counted with: all, or as many as a window holds; `causal`: those before it and itself, on
/// average over the sequence, rounded up.
fn in_sequence(t: u64, causal: bool) -> impl Fn(Option<u64>) -> u64 {
    move |window| {
        let window = window.unwrap_or(t).min(t);
        if causal { (window * (window + 1) / 2 + (t - window) * window).div_ceil(t.max(1)) } else { window }
    }
}

/// Model FLOPs of one step by the PaLM convention. In prefill the vocabulary projection counts once a sequence, because only
/// the last position's logits are wanted.
///
/// # Errors
/// [`CountOverflow`].
pub fn flops_per_step(w: &Workload) -> Result<Flops, CountOverflow> {
    step_flops(w, false).map(Flops)
}

/// The same with the causal average of the context, (T + 1) / 2, where the family masks: what a kernel that skips the masked
/// half has to do. Reported beside the convention.
///
/// # Errors
/// [`CountOverflow`].
pub fn causal_flops_per_step(w: &Workload) -> Result<Flops, CountOverflow> {
    step_flops(w, w.shape.causal()).map(Flops)
}

fn step_flops(w: &Workload, causal: bool) -> Result<u64, CountOverflow> {
    let s = &w.shape;
    let b = u64::from(w.batch);
    let decoded = |window: Option<u64>| window.unwrap_or(u64::MAX).min(mean_decode_context(w));
    let head = product(&[2, u64::from(s.vocab_size), u64::from(s.d_model)])?;
    let head = if s.has_vocabulary_head() { head } else { 0 };
    let prompt = || {
        let t = u64::from(w.prompt_len);
        sum(&[product(&[t, forward(s, in_sequence(t, causal), Over::Sequence { head: false })?])?, head])
    };
    match w.phase {
        Phase::Train => {
            let t = u64::from(w.seq_len);
            product(&[3, b, t, forward(s, in_sequence(t, causal), Over::Sequence { head: true })?])
        }
        Phase::Prefill => product(&[b, prompt()?]),
        Phase::Decode => product(&[b, forward(s, decoded, Over::Cache)?]),
        Phase::Generate => {
            let steps = u64::from(w.new_tokens.saturating_sub(1));
            let decode = product(&[steps, forward(s, decoded, Over::Cache)?])?;
            product(&[b, sum(&[prompt()?, decode])?])
        }
    }
}

/// Positions that an average decode step attends to: the prompt, the tokens made so far, and itself.
fn mean_decode_context(w: &Workload) -> u64 {
    u64::from(w.prompt_len) + u64::from(w.new_tokens).div_ceil(2)
}

/// Bytes of keys and values of one token: `2 * n_layers * n_kv_heads * head_dim * size`, or of their latent and the rotated key,
/// `n_layers * (kv_lora_rank + qk_rope_head_dim) * size`; in few bits with 4 for the scale of each of these vectors. Past a window its
/// layers hold no more.
///
/// # Errors
/// [`CountOverflow`].
pub fn kv_bytes_per_token(w: &Workload) -> Result<Bytes, CountOverflow> {
    let s = &w.shape;
    product(&[u64::from(s.n_layers), layers::cached_bytes(s, w.cache_element())]).map(Bytes)
}

/// Experts of a layer that so many tokens go to, expected where each goes to its K of E as likely as to any other:
/// `E (1 - (1 - K/E)^B)`. A dense layer is one.
pub fn distinct_experts(s: &Shape, tokens: u32) -> f64 {
    let [count, per_token] = experts(s).map(|x| x as f64);
    count * (1.0 - (1.0 - per_token / count).powi(i32::try_from(tokens).unwrap_or(i32::MAX)))
}

/// Bytes that a decode step has to read: the weights of its products once, and the KV cache at its mean length. `None` in
/// the other phases, which are not bound by it.
///
/// # Errors
/// [`CountOverflow`].
pub fn bytes_per_decode_step(w: &Workload) -> Result<Option<Bytes>, CountOverflow> {
    if w.phase != Phase::Decode {
        return Ok(None);
    }
    let s = &w.shape;
    let distinct = distinct_experts(s, w.batch).ceil() as u64;
    let vectors = layers::vectors(s, distinct)?;
    let head = if s.has_vocabulary_head() { product(&[u64::from(s.vocab_size), u64::from(s.d_model)])? } else { 0 };
    let matrices = sum(&[layers::matrices(s, distinct)?, head])?;
    let weights = match w.weights {
        WeightFormat::Dtype => product(&[sum(&[matrices, vectors])?, w.dtype.size()])?,
        in_few_bits => {
            let of_matrices = match in_few_bits {
                // Besides half a byte a number, 16 bits for every 32, or 32 for every 128.
                WeightFormat::Int4 => matrices / 2 + matrices / 16,
                WeightFormat::Int4Group128 | WeightFormat::Int4Group128ZeroPoints => matrices / 2 + matrices / 32,
                // Besides a byte a number, an f32 for every output.
                WeightFormat::F8 => {
                    let head = if s.has_vocabulary_head() { u64::from(s.vocab_size) } else { 0 };
                    sum(&[matrices, product(&[4, sum(&[layers::outputs(s, distinct)?, head])?])?])?
                }
                // Besides a byte a number, an f32 for every 64.
                WeightFormat::Int8 | WeightFormat::Dtype => sum(&[matrices, matrices / 16])?,
            };
            sum(&[of_matrices, product(&[vectors, w.dtype.size()])?])?
        }
    };
    let positions = over_layers(s, |window| window.unwrap_or(u64::MAX).min(mean_decode_context(w)))?;
    let cache = product(&[u64::from(w.batch), positions, layers::cached_bytes(s, w.cache_element())])?;
    sum(&[weights, cache]).map(|b| Some(Bytes(b)))
}

/// Memory that a backend will hold for a workload on all ranks together, by category: the very code that allocates, run with
/// buffers that only count. Beside it stands, on a CPU, the program itself (a few MiB), and on a GPU what its driver and libraries
/// take (some hundred MiB).
///
/// # Errors
/// [`CountOverflow`].
pub fn memory(on: BackendKind, w: &Workload, parallel: &Parallel) -> Result<MemoryParts, CountOverflow> {
    let (data, tensor) = (u64::from(parallel.data.max(1)), u64::from(parallel.tensor.max(1)));
    // Sizes are computed in usize by that code: a model that cannot be counted must not get there.
    let rows = product(&[u64::from(w.batch), u64::from(w.longest_sequence())])?;
    let Shape { d_ff, d_model, n_heads, head_dim, .. } = w.shape;
    let widest = [d_ff, d_model, w.shape.d_ff_expert()].into_iter().max().map_or(0, u64::from);
    let widest =
        [widest, u64::from(n_heads) * u64::from(head_dim), layers::cached(&w.shape)].into_iter().max().unwrap_or(0);
    product(&[parameters(&w.shape)?, 16])?;
    product(&[rows, widest, experts(&w.shape)[1], u64::from(w.shape.n_layers), 256])?;
    product(&[rows, u64::from(w.shape.vocab_size), 16])?;
    let batch = (u64::from(w.batch) / data).max(1) as usize;
    // Replicas hold the same, unless each keeps another share.
    let sharded = parallel.sharding != Sharding::None && w.phase == Phase::Train;
    let (counted, each) = if sharded { (data, 1) } else { (1, data) };
    // Of the ranks of a replica the last ones may have a word more than the first.
    let more = if on == BackendKind::Cuda { 0 } else { u64::from(w.shape.vocab_size) % tensor };
    let mut all = MemoryParts::default();
    for (place, ranks) in [(0, tensor - more), (tensor - 1, more)].into_iter().filter(|(_, ranks)| *ranks > 0) {
        let account = Account { parts: RefCell::default(), cuda: (on == BackendKind::Cuda).then_some(w.dtype) };
        let part = parallel.part_of(&w.shape, place as usize, on);
        for replica in 0..counted {
            let keeping = Keeping::of_replica(on, replica as usize, parallel, w.levers);
            for stage in parallel.stages(w.shape.n_layers as usize) {
                account.one_rank(w, (&part, stage), batch, keeping).map_err(|_| CountOverflow)?;
            }
        }
        let one = account.parts.into_inner();
        let grown = |all: u64, bytes: u64| sum(&[all, product(&[bytes, each, ranks])?]);
        all = MemoryParts {
            weights_bytes: grown(all.weights_bytes, one.weights_bytes)?,
            gradients_bytes: grown(all.gradients_bytes, one.gradients_bytes)?,
            optimizer_bytes: grown(all.optimizer_bytes, one.optimizer_bytes)?,
            activations_bytes: grown(all.activations_bytes, one.activations_bytes)?,
            kv_cache_bytes: grown(all.kv_cache_bytes, one.kv_cache_bytes)?,
            workspace_bytes: grown(all.workspace_bytes, one.workspace_bytes)?,
        };
    }
    Ok(all)
}

/// Buffers that only count.
#[derive(Debug)]
struct Account {
    parts: RefCell<MemoryParts>,
    /// The dtype, where numbers take as much as the CUDA backend gives them; otherwise each takes 4 bytes.
    cuda: Option<Dtype>,
}

impl Alloc for Account {
    type Buffer = ();

    fn alloc(&self, len: usize, category: Category) -> Result<(), SessionError> {
        let mut parts = self.parts.borrow_mut();
        let part = match category {
            Category::Weights | Category::ExactWeights | Category::FixedWeights => &mut parts.weights_bytes,
            Category::Gradients => &mut parts.gradients_bytes,
            Category::Optimizer => &mut parts.optimizer_bytes,
            Category::Activations | Category::Statistics => &mut parts.activations_bytes,
            Category::KvCache => &mut parts.kv_cache_bytes,
            Category::Workspace => &mut parts.workspace_bytes,
        };
        *part += self.cuda.map_or(4 * len as u64, |dtype| cuda::bytes(len, category, dtype));
        Ok(())
    }
}

impl Account {
    /// What a rank holds whose part of the model, or of the layers of a stage, has the given shape.
    fn one_rank(
        &self,
        w: &Workload,
        (shape, stage): (&Shape, Stage),
        batch: usize,
        keeping: Keeping,
    ) -> Result<(), SessionError> {
        let index = Index::of_stage(shape, stage);
        let training = w.phase == Phase::Train;
        let purpose = if training { Purpose::Training } else { Purpose::Inference };
        let shares = training && keeping.sharding == Sharding::Parameters;
        if shares {
            Shares::allocate(self, &index, keeping.state)?;
        }
        // Of the largest weight that is expanded for products.
        let mut expanded = 0;
        for (i, spec) in index.specs.iter().enumerate().filter(|_| !shares) {
            let matrices = index.matrices(i).filter(|_| !training);
            if self.cuda.is_some() && w.weights == WeightFormat::F8 && matrices == Some(1) {
                let mut parts = self.parts.borrow_mut();
                parts.weights_bytes += cuda::coded_bytes(spec.rows, spec.columns);
                expanded = expanded.max(cuda::expanded_bytes(spec.rows, spec.columns, w.dtype));
                continue;
            }
            let words = match matrices.filter(|_| self.cuda.is_none()) {
                Some(matrices) => matrices * weight_words(spec.rows / matrices, spec.columns, w.dtype, w.weights),
                None => spec.len(),
            };
            self.alloc(words, purpose.category(spec))?;
        }
        let tokens = if training { w.seq_len } else { w.prompt_len } as usize;
        let on = if self.cuda.is_some() { BackendKind::Cuda } else { BackendKind::Cpu };
        let stretch = if training { tokens } else { w.stretch_of_prompt(on, batch) };
        if training {
            Training::new(self, shape, &index, Extent { batch, tokens }, &Update::new(w.optimizer), keeping)?;
        } else {
            inference(self, w, shape, batch, on)?;
        }
        let batch = if training { w.levers.of_pass(Extent { batch, tokens }).batch } else { batch };
        if self.cuda.is_some() {
            let mut parts = self.parts.borrow_mut();
            let workspace = cuda::workspace_bytes(w, shape, batch * tokens, stage.is_last());
            parts.workspace_bytes += workspace + expanded;
            return Ok(());
        }
        let vocabulary = if shape.has_vocabulary_head() && stage.is_last() { shape.vocab_size as usize } else { 0 };
        let attention = Extent { batch, tokens }.attention(shape, 0);
        let latent = latent_dims(shape, batch, w.longest_sequence() as usize, w.cache_element()).filter(|_| !training);
        // A prompt in stretches goes through the cache, a stretch at a time; else a token does.
        let latent = latent.map(|d| LatentDims { tokens: if stretch < tokens { stretch } else { 1 }, ..d });
        let inner = shape.d_ff.max(shape.d_ff_shared()) as usize;
        let widths = Widths {
            model: shape.d_model as usize,
            inner,
            wide: shape.activation.inner(inner),
            attended: shape
                .latent
                .map_or(attention.qkv_width(), |l| attention.heads * l.head_dim().max(l.kv_head()) as usize),
            vocabulary,
            experts: expert_dims(shape, batch * stretch),
            latent,
            gathered: if stretch < tokens && latent.is_none() { 2 * tokens * shape.head_dim as usize } else { 0 },
        };
        self.alloc(scratch_words(1, batch * stretch, attention, widths, training), Category::Workspace)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Family, ShapeSpec};
    use super::*;

    #[test]
    fn known_models_have_their_published_parameter_counts() {
        let gpt2 = Shape::new(Family::Gpt2, &ShapeSpec::default()).unwrap();
        assert_eq!(parameters(&gpt2), Ok(124_439_808));
        let gpt3 = ShapeSpec {
            n_layers: Some(96),
            d_model: Some(12288),
            n_heads: Some(96),
            context: Some(2048),
            ..ShapeSpec::default()
        };
        assert_eq!(parameters(&Shape::new(Family::Gpt2, &gpt3).unwrap()), Ok(174_604_259_328));
        let llama2 = ShapeSpec {
            n_layers: Some(32),
            d_model: Some(4096),
            n_heads: Some(32),
            d_ff: Some(11008),
            ..ShapeSpec::default()
        };
        assert_eq!(parameters(&Shape::new(Family::Llama, &llama2).unwrap()), Ok(6_738_415_616));
        let llama3 = ShapeSpec { n_kv_heads: Some(8), d_ff: Some(14336), vocab_size: Some(128_256), ..llama2 };
        assert_eq!(parameters(&Shape::new(Family::Llama, &llama3).unwrap()), Ok(8_030_261_248));
    }

    #[test]
    fn the_article_block_counts_as_keras_counts_it() {
        let block = Shape::new(Family::Block, &ShapeSpec::default()).unwrap();
        // Embedding 10000 x 1024, four attention products and two dense layers of 1024 x 1024 with biases.
        assert_eq!(parameters(&block), Ok(10_240_000 + 6 * (1024 * 1024 + 1024)));
    }

    #[test]
    fn a_model_beyond_64_bits_is_an_error_and_not_a_wrapped_number() {
        let huge = ShapeSpec {
            n_layers: Some(1 << 20),
            d_model: Some(1 << 20),
            n_heads: Some(1),
            head_dim: None,
            ..ShapeSpec::default()
        };
        let huge = Shape { d_ff: 1 << 20, ..Shape::new(Family::Block, &huge).unwrap() };
        assert_eq!(parameters(&huge).and_then(|_| forward(&huge, |_| u64::MAX, Over::Cache)), Err(CountOverflow));
    }
}
