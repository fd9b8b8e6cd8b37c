//! The backend of NVIDIA GPUs: the model's operations as kernels of our own and cuBLASLt's products.
//!
//! Compiled into every build; libraries are found at run time. `device` is the seam between what the backend asks for and what
//! does it: [`driver`] on a GPU, and in tests the host. Everything is asked for in order, and nothing is waited for but what is
//! read: a loss, tokens.
//!
//! The format of an element follows from what holds it (see `buffer`). With dtype f32, products have exact f32 factors; with tf32
//! they may round them to TF32; with bf16, activations and what is read of the parameters are bf16. All sums are in f32.

mod activation;
mod attention;
pub(crate) mod attention_rates;
mod backend;
mod buffer;
mod cache;
mod columns;
#[cfg(test)]
mod conformance;
mod decode;
pub(crate) mod device;
pub(crate) mod driver;
mod dropout;
mod elementwise;
mod embedding;
mod experts;
mod few_rows;
mod grouped;
mod head;
#[cfg(test)]
mod host;
#[cfg(test)]
mod kv_cache_tests;
mod latent;
#[cfg(test)]
mod latent_tests;
mod launch;
pub(crate) mod limits;
mod linear;
mod loss;
mod matvec;
#[cfg(test)]
mod matvec_tests;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod model_tests;
pub(crate) mod nccl;
mod norm;
#[cfg(test)]
mod operations_tests;
mod optimizer;
pub(crate) mod parts;
mod qk_norm;
mod random;
#[cfg(test)]
mod range_tests;
#[cfg(test)]
mod ranks_tests;
mod rehearsal;
mod rope;
mod route;
mod rows;
mod sight;
mod sinks;
mod squares;
mod state;
#[cfg(test)]
mod training_tests;
mod weights_f8;
#[cfg(test)]
mod weights_f8_tests;

use super::backend::{AttentionDims, Captured, LatentDims, Scores, Varying};
use super::error::SessionError;
use super::pass::activations::expert_dims;
use super::pass::generate::latent_dims;
use super::shape::Shape;
use super::{BackendKind, Dtype, Phase, WeightFormat, Workload};
pub(crate) use attention::LARGEST_HEAD_DIM;
use buffer::Buffer;
pub(super) use buffer::{bytes, coded_bytes};
use device::{Address, Device, DeviceFacts, KernelName};
use few_rows::Decode;
use head::Head;
use linear::Linear;
use rehearsal::Rehearsal;
use state::{Slot, State};
use std::sync::Arc;
pub(super) use weights_f8::room as expanded_bytes;

/// Bytes of scratch that the largest operation of a step over so many rows takes, the head's among them where the rank has it, and what
/// cuBLASLt is given: what is counted as workspace. Gradients of norms, whose partial sums depend on the device, are the least of it and left out.
pub(super) fn workspace_bytes(w: &Workload, shape: &Shape, rows: usize, head: bool) -> u64 {
    let (real, training) = (buffer::real(w.dtype), w.phase == Phase::Train);
    let head = if head && training && shape.has_vocabulary_head() {
        head::scratch_bytes(rows, shape.d_model as usize, shape.vocab_size as usize, real)
    } else {
        0
    };
    let attention = if training { 4 * rows * shape.n_heads as usize } else { context_bytes(w, shape, rows) };
    let experts = expert_dims(shape, rows).map_or(0, |d| experts::scratch_bytes(d, real, training));
    (head.max(attention).max(experts) + (32 << 20)) as u64
}

/// Bytes of keys and values of a layer that a stretch of a prompt looks at, gathered or made of latents; `rows` are those of the
/// whole prompts.
fn context_bytes(w: &Workload, shape: &Shape, rows: usize) -> usize {
    let whole = w.prompt_len as usize;
    let batch = rows / whole.max(1);
    let (stretch, real) = (w.stretch_of_prompt(BackendKind::Cuda, batch), buffer::real(w.dtype));
    if let Some(d) = latent_dims(shape, batch, w.longest_sequence() as usize, w.cache_element()) {
        // A token, a stretch, and the last of these, which may be shorter.
        let passes = [1, stretch, whole.checked_rem(stretch).unwrap_or(0)].into_iter();
        let passes = passes.filter(|tokens| *tokens == 1 || (1..whole).contains(tokens));
        let of_pass = |tokens| latent::scratch_bytes(real, whole, LatentDims { tokens, ..d });
        return passes.map(of_pass).max().unwrap_or(0);
    }
    if stretch >= whole {
        return 0;
    }
    let (kv_heads, head_dim) = (shape.n_kv_heads as usize, shape.head_dim as usize);
    let (heads, scores) = (shape.n_heads as usize, Scores::PLAIN);
    let d = AttentionDims { batch, tokens: whole, heads, kv_heads, head_dim, causal: true, scores };
    cache::context_bytes(real, whole, &d)
}

/// A rank on one device.
#[derive(Clone, Debug)]
pub(crate) struct Cuda {
    device: Arc<dyn Device>,
    state: Arc<State>,
    dtype: Dtype,
    weights: WeightFormat,
    decode: Decode,
}

impl Cuda {
    /// A rank on the GPU of this number.
    ///
    /// # Errors
    /// [`SessionError::NoCuda`], with what is missing; memory.
    pub(crate) fn open(ordinal: usize, dtype: Dtype) -> Result<Self, SessionError> {
        Self::on_device(Arc::new(driver::CudaGpu::open(ordinal)?), dtype)
    }

    /// Whether this device can do what a workload asks for.
    ///
    /// # Errors
    /// [`SessionError::Invalid`], with the remedy.
    pub(crate) fn fits(&self, w: &Workload) -> Result<(), SessionError> {
        let (facts, head_dim) = (self.on().facts(), w.shape.head_dim as usize);
        let attention = attention::fits(facts, buffer::real(w.dtype), head_dim);
        let of_latents = || w.shape.latent.map_or(Ok(()), |l| latent::fits(facts, l.kv_rank as usize, l.rope as usize));
        attention.and_then(|()| of_latents()).map_err(SessionError::Invalid)
    }

    /// Gets the kernels that `what` asks for ready on these ranks' devices, all at once: it is gone through beforehand with a rank on a
    /// device that does nothing. What it gives, or fails with, there means nothing.
    pub(crate) fn rehearse<T>(ranks: &[Self], what: impl FnOnce(Self) -> T) {
        let Some(first) = ranks.first() else { return };
        let kernels = Self::asked_for(first.on().facts(), (first.dtype, first.weights), what);
        ranks.iter().for_each(|rank| rank.on().prepare(&kernels));
    }

    /// The kernels that `what` asks for on a device like this one.
    pub(crate) fn asked_for<T>(
        facts: &DeviceFacts,
        (dtype, weights): (Dtype, WeightFormat),
        what: impl FnOnce(Self) -> T,
    ) -> Vec<KernelName> {
        let rehearsal = Arc::new(Rehearsal::of(facts.clone()));
        if let Ok(rank) = Self::on_device(Arc::clone(&rehearsal) as Arc<dyn Device>, dtype) {
            what(rank.with_weights(weights));
        }
        rehearsal.asked()
    }

    fn on_device(device: Arc<dyn Device>, dtype: Dtype) -> Result<Self, SessionError> {
        let state = Arc::new(State::new(&device)?);
        Ok(Self { device, state, dtype, weights: WeightFormat::Dtype, decode: Decode::from_environment()? })
    }

    /// The same rank; weight matrices for inference are stored in this format.
    pub(crate) fn with_weights(self, weights: WeightFormat) -> Self {
        Self { weights, ..self }
    }

    fn on(&self) -> &dyn Device {
        &*self.device
    }

    fn linears(&self) -> Linear<'_> {
        Linear { on: self.on(), state: &self.state, tf32: self.dtype == Dtype::Tf32 }
    }

    fn head(&self) -> Head<'_> {
        Head { on: self.on(), state: &self.state, tf32: self.dtype == Dtype::Tf32 }
    }

    /// Words of the device, read.
    fn words(&self, at: Address, n: usize) -> Vec<u32> {
        let mut bytes = vec![0; 4 * n];
        self.on().read(at, &mut bytes);
        bytes.as_chunks::<4>().0.iter().map(|b| u32::from_ne_bytes(*b)).collect()
    }

    fn embed_at(
        &self,
        ids: Address,
        first: usize,
        table: &Buffer,
        positions: Option<&Buffer>,
        out: &Buffer,
        d: embedding::Rows,
    ) {
        let first = self.state.position_row(first);
        let positions = positions.map(Buffer::at);
        if let Some(table) = table.codes() {
            let o = weights_f8::Lookup { ids, first, table, positions, out: out.at() };
            return weights_f8::embed(self.on(), out.format(), o, d);
        }
        let o = embedding::Lookup { ids, first, table: table.at(), positions, out: out.at() };
        embedding::embed(self.on(), table.format(), o, d);
    }

    fn embed_backward_at(
        &self,
        ids: Address,
        (first, padding): (usize, Option<u32>),
        dout: &Buffer,
        dtable: &Buffer,
        dpositions: Option<&mut Buffer>,
        d: embedding::Rows,
    ) {
        let real = dout.format();
        if let Some(workspace) = self.state.scratch(embedding::backward_workspace_bytes(d.n)) {
            let (vocabulary, dtable) = (dtable.len / d.c.max(1), dtable.wide());
            let o = embedding::LookupGradient { ids, vocabulary, padding, dout: dout.at(), dtable, workspace };
            embedding::embed_backward(self.on(), real, o, d);
        }
        if let Some(dpositions) = dpositions {
            let table = embedding::Positions { at: dpositions.wide(), rows: dpositions.len / d.c.max(1), first };
            embedding::positions_backward(self.on(), real, dout.at(), table, d);
        }
    }

    /// Puts what differs from step to step where a captured step finds it.
    fn tell(&self, varying: &Varying<'_>) {
        self.state.position(varying.position);
        self.state.position_row(varying.position_row);
        self.state.dropout(varying.dropout);
        if let Some((update, step)) = varying.update {
            self.state.tell(Slot::Update, &optimizer::constants(update, step));
        }
    }

    /// Runs a step: plainly the first time, when kernels are compiled and memory is found; written down the second; played back
    /// from then on.
    fn repeat(&self, varying: &Varying<'_>, captured: &mut Captured, step: &mut dyn FnMut()) {
        match captured {
            Captured::NotYet => {
                step();
                *captured = Captured::HaveRun;
            }
            Captured::HaveRun => {
                self.tell(varying);
                if !self.on().begin_capture() {
                    *captured = Captured::Never;
                    return step();
                }
                self.state.set_capturing(true);
                step();
                self.state.set_capturing(false);
                match self.on().end_capture() {
                    Some(graph) => {
                        *captured = Captured::As(graph);
                        self.on().replay(graph);
                    }
                    None => {
                        *captured = Captured::Never;
                        step();
                    }
                }
            }
            Captured::As(graph) => {
                self.tell(varying);
                self.on().replay(*graph);
            }
            Captured::Never => step(),
        }
    }
}
