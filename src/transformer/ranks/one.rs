//! One rank: a replica of the model or a part of one, its share of the batch, and what one step of the workload is.

use super::super::backend::{Alloc, Backend, Category, Update};
use super::super::collective::grid::{Groups, Parallel, Sharding};
use super::super::error::SessionError;
use super::super::memory::DeviceMemory;
use super::super::pass::activations::{Activations, Extent, Keep, Scratch};
use super::super::pass::backward::Targets;
use super::super::pass::forward::StepDropout;
use super::super::pass::generate::Inference;
use super::super::pass::gradients::Gradients;
use super::super::pass::model::{Index, Model, Purpose};
use super::super::pass::optimizer::State;
use super::super::random::{Normals, Stream, mix};
use super::super::shape::Shape;
use super::super::{BackendKind, Phase, Workload, cuda};
use super::exchange::{Exchange, layers_kept};
use std::ops::Range;
use std::time::Instant;

/// Streams of random numbers, apart from those of the parameters (which are numbered from 0).
const INPUTS: u64 = 1 << 40;
const TARGETS: u64 = 1 << 41;
const DROPOUT: u64 = 1 << 42;

/// Whom a rank talks to, and what it keeps.
#[derive(Debug)]
pub(in crate::transformer) struct Seat<T> {
    pub groups: Groups<T>,
    pub sharding: Sharding,
    pub seed: u64,
}

impl<T> Seat<T> {
    fn replica(&self) -> u64 {
        self.groups.data.rank() as u64
    }
}

/// What a training rank keeps of gradients and moments.
#[derive(Clone, Copy, Debug)]
pub(in crate::transformer) struct Keeping {
    /// Layers whose gradients have buffers of their own.
    pub layers: usize,
    /// Which share of how many of the moments.
    pub state: (usize, usize),
}

impl Keeping {
    /// What a replica will keep, before there is one.
    pub fn of_replica(on: BackendKind, replica: usize, parallel: &Parallel) -> Self {
        let sharded = parallel.sharding == Sharding::Optimizer;
        let layers = if on == BackendKind::Cuda && cuda::nccl::beside(parallel) { 2 } else { 1 };
        Self { layers, state: if sharded { (replica, parallel.data as usize) } else { (0, 1) } }
    }
}

/// Buffers of training.
#[derive(Debug)]
pub(in crate::transformer) struct Training<T> {
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
        keeping: Keeping,
    ) -> Result<Self, SessionError> {
        let vectors = if s.has_vocabulary_head() {
            None
        } else {
            Some(a.alloc(extent.rows() * s.d_model as usize, Category::Activations)?)
        };
        Ok(Self {
            activations: Activations::new(a, s, extent, Keep::All)?,
            scratch: Scratch::new(a, s, extent)?,
            gradients: Gradients::shared_by_layers(a, index, keeping.layers)?,
            state: State::sharded(a, index, update, keeping.state)?,
            vectors,
        })
    }
}

/// Buffers of inference as a workload needs them, for a model or the part of one that `shape` is of.
///
/// # Errors
/// [`SessionError::OutOfMemory`].
pub(in crate::transformer) fn inference<T, A: Alloc<Buffer = T>>(
    a: &A,
    w: &Workload,
    shape: &Shape,
    batch: usize,
) -> Result<Inference<T>, SessionError> {
    let new = if w.phase == Phase::Prefill { 0 } else { w.new_tokens as usize };
    Inference::new(a, shape, batch, w.prompt_len as usize, new, w.dtype)
}

enum Work<T> {
    Train(Training<T>),
    Infer(Inference<T>),
}

/// What a step of one rank came to.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::transformer) struct RankOutcome {
    pub loss: Option<f32>,
    pub first_token_seconds: Option<f64>,
    /// What was computed, for the checksum: the loss's bits, or tokens.
    pub trace: Vec<u32>,
}

/// A rank, ready to be stepped.
pub(in crate::transformer) struct Rank<B: Backend> {
    model: Model<B>,
    workload: Workload,
    seat: Seat<B::Buffer>,
    update: Update,
    batch: usize,
    steps: u64,
    work: Work<B::Buffer>,
}

impl<B: Backend> Rank<B> {
    /// Builds the replica, or a part of it; for `decode` the prompts are processed here.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`]; that another rank is gone.
    pub fn new(backend: B, workload: &Workload, seat: Seat<B::Buffer>, batch: usize) -> Result<Self, SessionError> {
        let purpose = if workload.phase == Phase::Train { Purpose::Training } else { Purpose::Inference };
        let model = Model::part(backend, &workload.shape, seat.seed, purpose, seat.groups.tensor.clone())?;
        let update = Update::new(workload.optimizer);
        let work = match workload.phase {
            Phase::Train => {
                let extent = Extent { batch, tokens: workload.seq_len as usize };
                let data = &*seat.groups.data;
                let state = if seat.sharding == Sharding::Optimizer { (data.rank(), data.size()) } else { (0, 1) };
                let keeping = Keeping { layers: layers_kept(data), state };
                let mut t = Training::new(&model.backend, &model.shape, &model.index, extent, &update, keeping)?;
                if let Some(vectors) = &mut t.vectors {
                    let stream = Stream::new(seat.seed, TARGETS + seat.replica());
                    let numbers = Normals::first(stream, 1.0, extent.rows() * model.shape.d_model as usize);
                    model.backend.fill_normal(vectors, &numbers);
                }
                Work::Train(t)
            }
            _ => Work::Infer(inference(&model.backend, workload, &model.shape, batch)?),
        };
        let mut rank = Self { model, workload: workload.clone(), seat, update, batch, steps: 0, work };
        if workload.phase == Phase::Decode {
            let prompts = rank.tokens(INPUTS, workload.prompt_len as usize);
            if let Work::Infer(inference) = &mut rank.work {
                rank.model.prefill(&prompts, inference);
                rank.model.choose(inference);
            }
            rank.check()?;
        }
        Ok(rank)
    }

    /// What has gone wrong and is only told now.
    fn check(&self) -> Result<(), SessionError> {
        self.model.backend.check()?;
        self.seat.groups.data.check()?;
        self.seat.groups.tensor.check()
    }

    /// The most memory that its device has given.
    pub fn device_memory(&self) -> Option<DeviceMemory> {
        self.model.backend.device_memory()
    }

    /// Random tokens `[B, T]` of this rank and step.
    fn tokens(&self, purpose: u64, tokens: usize) -> Vec<u32> {
        let stream = purpose + ((self.steps & 0xffff_ffff) << 8) + self.seat.replica();
        let mut s = Stream::new(self.seat.seed, stream);
        (0..self.batch * tokens).map(|_| s.below(self.workload.shape.vocab_size)).collect()
    }

    /// One step of the workload. Of the ranks of a replica, which compute the same, the first tells of it.
    ///
    /// # Errors
    /// A device that failed; another rank that is gone.
    pub fn step(&mut self) -> Result<RankOutcome, SessionError> {
        let mut outcome = match self.workload.phase {
            Phase::Train => self.train(),
            Phase::Prefill => self.prefill(),
            Phase::Decode => self.decode(),
            Phase::Generate => self.generate(),
        };
        self.steps += 1;
        self.check()?;
        if self.seat.groups.tensor.rank() > 0 {
            (outcome.loss, outcome.trace) = (None, Vec::new());
        }
        Ok(outcome)
    }

    fn train(&mut self) -> RankOutcome {
        let tokens = self.workload.seq_len as usize;
        let (ids, targets) = (self.tokens(INPUTS, tokens), self.tokens(TARGETS, tokens));
        let seed = mix(self.seat.seed ^ mix(DROPOUT + (self.steps << 8) + self.seat.replica()));
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
        let mut exchange = Exchange::new(&*seat.groups.data, seat.sharding, update, state);
        let finished = |model: &mut Model<B>, parameters: Range<usize>, gradients: &mut Gradients<B::Buffer>| {
            exchange.finished(model, parameters, gradients);
        };
        let loss = self.model.backward_by_layers(&ids, &targets, activations, scratch, gradients, dropout, finished);
        exchange.end(&mut self.model, gradients);
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
    /// A step that had nothing to do: before the first one.
    pub fn nothing() -> Self {
        Self { loss: None, first_token_seconds: None, trace: Vec::new() }
    }
}
