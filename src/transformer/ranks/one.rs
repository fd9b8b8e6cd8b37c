//! One rank: a replica of the model or a part of one, its share of the batch, and what one step of the workload is.

use super::super::backend::{Alloc, Backend, Update};
use super::super::collective::grid::Sharding;
use super::super::collective::stage::Stage;
use super::super::error::SessionError;
use super::super::loads::Loads;
use super::super::memory::DeviceMemory;
use super::super::pass::activations::Extent;
use super::super::pass::forward::StepDropout;
use super::super::pass::generate::Inference;
use super::super::pass::model::{Model, Origin, Purpose};
use super::super::random::{Block, Normals, Stream, mix};
use super::super::shape::Shape;
use super::super::trace::{self, Kind};
use super::super::{BackendKind, Phase, Workload};
use super::exchange::{Seat, layers_kept};
use super::feed::Feed;
use super::training::{Keeping, Training};
use std::sync::Arc;
use std::time::Instant;

/// Streams of random numbers, apart from those of the parameters (which are numbered from 0).
const INPUTS: u64 = 1 << 40;
const TARGETS: u64 = 1 << 41;
const DROPOUT: u64 = 1 << 42;

/// Buffers of inference as a workload needs them, for a model or the part of one that `shape` is of.
///
/// # Errors
/// [`SessionError::OutOfMemory`].
pub(in crate::transformer) fn inference<T, A: Alloc<Buffer = T>>(
    a: &A,
    w: &Workload,
    shape: &Shape,
    batch: usize,
    on: BackendKind,
) -> Result<Inference<T>, SessionError> {
    let new = if w.phase == Phase::Prefill { 0 } else { w.new_tokens as usize };
    let prompt = (w.prompt_len as usize, w.stretch_of_prompt(on, batch));
    Inference::new(a, shape, batch, prompt, new, w.cache_element())
}

pub(super) enum Work<T> {
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
    pub(super) model: Model<B>,
    workload: Workload,
    pub(super) seat: Seat<B::Buffer>,
    update: Update,
    batch: usize,
    steps: u64,
    /// Tokens and targets of the next training step, where they have been made.
    next: Option<(Vec<u32>, Vec<u32>)>,
    /// What it is taught, where that is not random tokens.
    feed: Option<Feed>,
    pub(super) work: Work<B::Buffer>,
}

impl<B: Backend + Clone> Rank<B> {
    /// Builds the replica, or a part of it; for `decode` the prompts are processed here.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`]; that another rank is gone.
    pub(crate) fn new(
        backend: B,
        workload: &Workload,
        seat: Seat<B::Buffer>,
        batch: usize,
    ) -> Result<Self, SessionError> {
        trace::show();
        let purpose = if workload.phase == Phase::Train { Purpose::Training } else { Purpose::Inference };
        let numbers = seat.stored.as_deref().map(|stored| Origin::Read(stored));
        let origin = numbers.unwrap_or(Origin::Seed(seat.seed));
        let data = Arc::clone(&seat.groups.data);
        let replica = (data.rank(), data.size());
        let stages = &seat.groups.stages.all;
        let stage = Stage::new(stages.rank(), stages.size(), workload.shape.n_layers as usize);
        let (model, shares) = if purpose == Purpose::Training && seat.sharding == Sharding::Parameters {
            let (model, shares) = Model::sharded(backend, &workload.shape, origin, &seat.groups)?;
            (model, Some(shares))
        } else if stage.of > 1 {
            (Model::stage(backend, &workload.shape, origin, stage)?, None)
        } else {
            (Model::part(backend, &workload.shape, origin, purpose, &seat.groups)?, None)
        };
        let update = Update::new(workload.optimizer);
        let work = match workload.phase {
            Phase::Train => {
                let extent = Extent { batch, tokens: workload.seq_len as usize };
                let keeping = Keeping::new(layers_kept(&*data), replica, seat.sharding, workload.levers);
                let mut t = Training::new(&model.backend, &model.shape, &model.index, extent, &update, keeping)?;
                t.shares = shares;
                let len = workload.levers.of_pass(extent).rows() * model.shape.d_model as usize;
                for (number, vectors) in t.vectors().enumerate() {
                    let stream = Stream::new(seat.seed, TARGETS + seat.replica());
                    let row = Block { rows: 1, first: (number * len) as u64, stride: len as u64 };
                    model.backend.fill_normal(vectors, &Normals::new(stream, 1.0, len, vec![row]));
                }
                Work::Train(t)
            }
            _ => Work::Infer(inference(&model.backend, workload, &model.shape, batch, model.backend.kind())?),
        };
        let workload_of = workload.clone();
        let mut rank =
            Self { model, workload: workload_of, seat, update, batch, steps: 0, next: None, feed: None, work };
        if workload.phase == Phase::Decode {
            let prompts = rank.tokens(INPUTS, workload.prompt_len as usize);
            if let Work::Infer(inference) = &mut rank.work {
                rank.model.prefill(&prompts, inference);
                rank.model.argmax(inference);
            }
            rank.check()?;
        }
        Ok(rank)
    }

    /// What has gone wrong and is only told now.
    pub(super) fn check(&self) -> Result<(), SessionError> {
        self.model.check()?;
        self.seat.groups.check()
    }

    /// Whether it tells of its replica: of tensor-parallel ranks, which compute the same, the first, and of stages the last, which has
    /// the loss.
    fn tells(&self) -> bool {
        self.seat.groups.tensor.rank() == 0 && self.model.index.stage.is_last()
    }

    /// The most memory that its device has given.
    pub(crate) fn device_memory(&self) -> Option<DeviceMemory> {
        self.model.backend.device_memory()
    }

    /// How the tokens of its last pass were spread over experts, where there are any.
    pub(crate) fn loads(&self) -> Option<Loads> {
        match &self.work {
            Work::Train(t) => self.model.loads(t.activations()),
            Work::Infer(i) => self.model.loads(i.token.as_ref().unwrap_or(&i.prompt)),
        }
    }

    /// Random tokens `[B, T]` of this rank and step.
    fn tokens(&self, purpose: u64, tokens: usize) -> Vec<u32> {
        self.tokens_of(self.steps, purpose, tokens)
    }

    fn tokens_of(&self, step: u64, purpose: u64, tokens: usize) -> Vec<u32> {
        let stream = purpose + ((step & 0xffff_ffff) << 8) + self.seat.replica();
        let mut s = Stream::new(self.seat.seed, stream);
        (0..self.batch * tokens).map(|_| s.below(self.workload.shape.vocab_size)).collect()
    }

    /// One step of the workload, which one rank of a replica tells of.
    ///
    /// # Errors
    /// A device that failed; another rank that is gone.
    pub(crate) fn step(&mut self) -> Result<RankOutcome, SessionError> {
        let _span = trace::plain(Kind::Whole, self.workload.phase.name());
        let mut outcome = match self.workload.phase {
            Phase::Train => self.train()?,
            Phase::Prefill => self.prefill(),
            Phase::Decode => self.decode(),
            Phase::Generate => self.generate(),
        };
        self.steps += 1;
        self.check()?;
        if !self.tells() {
            (outcome.loss, outcome.trace) = (None, Vec::new());
        }
        Ok(outcome)
    }

    /// Its next step is that after so many.
    pub(super) fn begin_at(&mut self, steps: u64) {
        (self.steps, self.next) = (steps, None);
    }

    /// From now on it is taught by `feed`, whose first batch is that of its next step.
    pub(crate) fn enrol(&mut self, feed: Feed) -> Result<RankOutcome, SessionError> {
        if !matches!(self.work, Work::Train(_)) || !self.model.shape.has_vocabulary_head() {
            return Err(SessionError::Invalid("only the training of a model with a vocabulary can be taught".into()));
        }
        self.update.weight_decay = feed.course.weight_decay.unwrap_or(self.update.weight_decay);
        self.feed = Some(feed);
        Ok(RankOutcome::nothing())
    }

    /// The next training step at this rate.
    ///
    /// # Errors
    /// Those of [`Rank::step`].
    pub(crate) fn train_at(&mut self, rate: f32) -> Result<RankOutcome, SessionError> {
        self.update.learning_rate = rate;
        self.step()
    }

    /// The mean loss over the first `batches` of the validation set, without dropout and without a gradient.
    ///
    /// # Errors
    /// A rank that is not taught; a device that failed; another rank that is gone.
    pub(crate) fn evaluate(&mut self, batches: u64) -> Result<RankOutcome, SessionError> {
        let _span = trace::plain(Kind::Whole, "evaluation");
        let (Some(feed), Work::Train(t)) = (&self.feed, &mut self.work) else {
            return Err(SessionError::Invalid("without a course there is nothing to evaluate on".into()));
        };
        let mut sum = 0.0;
        for batch in 0..batches {
            let (ids, targets) = feed.course.batches.validation(batch, feed.part);
            sum += f64::from(t.loss(&mut self.model, &self.seat, &self.update, (&ids, &targets)));
        }
        self.check()?;
        let loss = self.tells().then_some((sum / batches.max(1) as f64) as f32);
        Ok(RankOutcome { loss, first_token_seconds: None, trace: Vec::new() })
    }

    /// Seconds for which its steps have waited for their batches.
    pub(crate) fn waited(&self) -> Option<f64> {
        self.feed.as_ref().map(Feed::waited)
    }

    fn train(&mut self) -> Result<RankOutcome, SessionError> {
        let taught = self.feed.as_mut().map(|feed| {
            let _span = trace::plain(Kind::Data, "batch");
            feed.next()
        });
        let taught = taught.transpose()?;
        let (ids, targets) = taught.or_else(|| self.next.take()).unwrap_or_else(|| self.pairs(self.steps));
        let seed = mix(self.seat.seed ^ mix(DROPOUT + (self.steps << 8) + self.seat.replica()));
        let probability = self.workload.dropout;
        let dropout = (probability > 0.0).then_some(StepDropout { probability, seed });
        let Work::Train(t) = &mut self.work else { return Ok(RankOutcome::nothing()) };
        let loss = t.step(&mut self.model, &self.seat, &self.update, (&ids, &targets), dropout);
        // While a device is at work: 0.2 ms for 32,768 rows, which it would wait for before its next step.
        self.next = self.feed.is_none().then(|| self.pairs(self.steps + 1));
        let loss = self.model.backend.read_loss(loss);
        self.model.backend.synchronize();
        Ok(RankOutcome { loss: Some(loss), first_token_seconds: None, trace: vec![loss.to_bits()] })
    }

    /// Tokens and targets of a training step.
    fn pairs(&self, step: u64) -> (Vec<u32>, Vec<u32>) {
        let _span = trace::plain(Kind::Data, "batch");
        let tokens = self.workload.seq_len as usize;
        (self.tokens_of(step, INPUTS, tokens), self.tokens_of(step, TARGETS, tokens))
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
        self.model.argmax(inference);
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
    pub(crate) fn nothing() -> Self {
        Self { loss: None, first_token_seconds: None, trace: Vec::new() }
    }
}
