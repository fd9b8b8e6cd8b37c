//! One rank: a replica of the model, its share of the batch, and what one step of the workload is.

use super::activations::{Activations, Extent, Keep, Scratch};
use super::backend::{Alloc, Backend, Category, Update};
use super::backward::Targets;
use super::collective::threads::Exchange;
use super::forward::StepDropout;
use super::generate::Inference;
use super::gradients::Gradients;
use super::model::{Index, Model, Purpose};
use super::optimizer::State;
use super::random::{Stream, mix};
use super::session::SessionError;
use super::shape::Shape;
use super::{Phase, Workload};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Streams of random numbers, apart from those of the parameters (which are numbered from 0).
const INPUTS: u64 = 1 << 40;
const TARGETS: u64 = 1 << 41;
const DROPOUT: u64 = 1 << 42;

/// Which rank of how many, and where they meet.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub rank: usize,
    pub exchange: Arc<Exchange>,
    pub seed: u64,
}

/// Buffers of training.
#[derive(Debug)]
pub(super) struct Training<T> {
    activations: Activations<T>,
    scratch: Scratch<T>,
    gradients: Gradients<T>,
    state: State<T>,
    /// The block's targets; the other families' are tokens.
    vectors: Option<T>,
}

impl<T> Training<T> {
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub fn new<A: Alloc<Buffer = T>>(
        a: &A,
        s: &Shape,
        index: &Index,
        extent: Extent,
        update: &Update,
    ) -> Result<Self, SessionError> {
        let vectors = if s.has_vocabulary_head() {
            None
        } else {
            Some(a.alloc(extent.rows() * s.d_model as usize, Category::Activations)?)
        };
        Ok(Self {
            activations: Activations::new(a, s, extent, Keep::All)?,
            scratch: Scratch::new(a, s, extent)?,
            gradients: Gradients::shared_by_layers(a, index)?,
            state: State::new(a, index, update)?,
            vectors,
        })
    }
}

/// Buffers of inference as a workload needs them.
///
/// # Errors
/// [`SessionError::OutOfMemory`].
pub(super) fn inference<T, A: Alloc<Buffer = T>>(
    a: &A,
    w: &Workload,
    batch: usize,
) -> Result<Inference<T>, SessionError> {
    let new = if w.phase == Phase::Prefill { 0 } else { w.new_tokens as usize };
    Inference::new(a, &w.shape, batch, w.prompt_len as usize, new, w.dtype)
}

enum Work<T> {
    Train(Training<T>),
    Infer(Inference<T>),
}

/// What a step of one rank came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RankOutcome {
    pub loss: Option<f32>,
    pub first_token_seconds: Option<f64>,
    /// What was computed, for the checksum: the loss's bits, or tokens.
    pub trace: Vec<u32>,
}

/// A rank, ready to be stepped.
pub(super) struct Rank<B: Backend> {
    model: Model<B>,
    workload: Workload,
    seat: Seat,
    update: Update,
    batch: usize,
    steps: u64,
    work: Work<B::Buffer>,
}

impl<B: Backend> Rank<B> {
    /// Builds the replica; for `decode` the prompts are processed here.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub fn new(backend: B, workload: &Workload, seat: Seat, batch: usize) -> Result<Self, SessionError> {
        let purpose = if workload.phase == Phase::Train { Purpose::Training } else { Purpose::Inference };
        let model = Model::new(backend, &workload.shape, seat.seed, purpose)?;
        let update = Update::new(workload.optimizer);
        let work = match workload.phase {
            Phase::Train => {
                let extent = Extent { batch, tokens: workload.seq_len as usize };
                let mut t = Training::new(&model.backend, &model.shape, &model.index, extent, &update)?;
                if let Some(vectors) = &mut t.vectors {
                    let mut host = vec![0.0; extent.rows() * model.shape.d_model as usize];
                    Stream::new(seat.seed, TARGETS + seat.rank as u64).fill_normal(&mut host, 1.0);
                    model.backend.upload(&host, vectors);
                }
                Work::Train(t)
            }
            _ => Work::Infer(inference(&model.backend, workload, batch)?),
        };
        let mut rank = Self { model, workload: workload.clone(), seat, update, batch, steps: 0, work };
        if workload.phase == Phase::Decode {
            let prompts = rank.tokens(INPUTS, workload.prompt_len as usize);
            if let Work::Infer(inference) = &mut rank.work {
                rank.model.prefill(&prompts, inference);
                rank.model.choose(inference);
            }
        }
        Ok(rank)
    }

    /// Random tokens `[B, T]` of this rank and step.
    fn tokens(&self, purpose: u64, tokens: usize) -> Vec<u32> {
        let stream = purpose + ((self.steps & 0xffff_ffff) << 8) + self.seat.rank as u64;
        let mut s = Stream::new(self.seat.seed, stream);
        (0..self.batch * tokens).map(|_| s.below(self.workload.shape.vocab_size)).collect()
    }

    /// One step of the workload.
    pub fn step(&mut self) -> RankOutcome {
        let outcome = match self.workload.phase {
            Phase::Train => self.train(),
            Phase::Prefill => self.prefill(),
            Phase::Decode => self.decode(),
            Phase::Generate => self.generate(),
        };
        self.steps += 1;
        outcome
    }

    fn train(&mut self) -> RankOutcome {
        let tokens = self.workload.seq_len as usize;
        let (ids, targets) = (self.tokens(INPUTS, tokens), self.tokens(TARGETS, tokens));
        let seed = mix(self.seat.seed ^ mix(DROPOUT + (self.steps << 8) + self.seat.rank as u64));
        let probability = self.workload.dropout;
        let dropout = (probability > 0.0).then_some(StepDropout { probability, seed });
        let Work::Train(t) = &mut self.work else { return RankOutcome::nothing() };
        self.model.forward(&ids, &mut t.activations, dropout, None);
        let targets = match &t.vectors {
            Some(v) => Targets::Vectors(v),
            None => Targets::Tokens(&targets),
        };
        let Training { activations, scratch, gradients, state, .. } = t;
        let (seat, update) = (&self.seat, &self.update);
        state.begin_step();
        let finished = |model: &mut Model<B>, parameters: Range<usize>, gradients: &mut [B::Buffer]| {
            model.backend.all_reduce_mean(&seat.exchange, seat.rank, gradients);
            model.update_some(update, parameters, gradients, state);
        };
        let loss = self.model.backward_by_layers(&ids, &targets, activations, scratch, gradients, dropout, finished);
        self.model.backend.synchronize();
        RankOutcome { loss: Some(loss), first_token_seconds: None, trace: vec![loss.to_bits()] }
    }

    fn prefill(&mut self) -> RankOutcome {
        let ids = self.tokens(INPUTS, self.workload.prompt_len as usize);
        let Work::Infer(inference) = &mut self.work else { return RankOutcome::nothing() };
        self.model.prefill(&ids, inference);
        self.model.backend.synchronize();
        let trace = if self.model.index.head.is_some() { self.model.greedy(inference) } else { Vec::new() };
        RankOutcome { loss: None, first_token_seconds: None, trace }
    }

    fn decode(&mut self) -> RankOutcome {
        let prompt = self.workload.prompt_len as usize;
        let Work::Infer(inference) = &mut self.work else { return RankOutcome::nothing() };
        if !self.model.decode_chosen(inference) {
            // The cache is full: what was made after the prompt is forgotten, and decoding starts over from there.
            if let Some(cache) = &mut inference.cache {
                cache.length = prompt;
            }
            self.model.decode_chosen(inference);
        }
        RankOutcome { loss: None, first_token_seconds: None, trace: self.model.chosen(inference) }
    }

    fn generate(&mut self) -> RankOutcome {
        let ids = self.tokens(INPUTS, self.workload.prompt_len as usize);
        let start = Instant::now();
        let Work::Infer(inference) = &mut self.work else { return RankOutcome::nothing() };
        self.model.prefill(&ids, inference);
        self.model.choose(inference);
        let mut trace = self.model.chosen(inference);
        let first = start.elapsed().as_secs_f64();
        for _ in 1..self.workload.new_tokens {
            self.model.decode_chosen(inference);
        }
        // Every token depends on all before it: the last ones tell of the whole.
        trace.extend_from_slice(&self.model.chosen(inference));
        RankOutcome { loss: None, first_token_seconds: Some(first), trace }
    }
}

impl RankOutcome {
    /// A step that had nothing to do: only a rank whose work does not fit its phase, which `Rank::new` never builds.
    fn nothing() -> Self {
        Self { loss: None, first_token_seconds: None, trace: Vec::new() }
    }
}
