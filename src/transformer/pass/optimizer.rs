//! Optimizers: constants, moments, and the step over all parameters. The arithmetic is the backend's.

use super::super::backend::{Alloc, Backend, Category, Clipping, Update, Updated};
use super::super::collective::share;
use super::super::error::SessionError;
use super::super::trace;
use super::super::{BackendKind, OptimizerKind};
use super::model::{Index, Model, Spec};
use std::ops::Range;

impl OptimizerKind {
    /// Moments kept for every parameter.
    pub fn moments(self, momentum: f32) -> usize {
        match self {
            Self::Sgd => usize::from(momentum != 0.0),
            Self::Adam | Self::Adamax | Self::Adamw => 2,
        }
    }
}

impl Update {
    /// PyTorch's defaults for each kind (AdamW: weight decay 0.01 and betas 0.9, 0.999), learning rate 1e-4 (sgd 1e-2).
    pub fn new(kind: OptimizerKind) -> Self {
        Self {
            kind,
            learning_rate: if kind == OptimizerKind::Sgd { 1e-2 } else { 1e-4 },
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: if kind == OptimizerKind::Adamw { 0.01 } else { 0.0 },
            momentum: 0.0,
            eps_before_correction: false,
        }
    }
}

/// Moments of every parameter, in the order of the index, and the count of steps.
#[derive(Debug)]
pub(crate) struct State<T> {
    first: Vec<T>,
    second: Vec<T>,
    step: u32,
    /// Which rank of how many keeps these; see [`share`].
    place: (usize, usize),
}

impl<T> State<T> {
    /// Zeroed moments, as many as the update needs.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn new<A: Alloc<Buffer = T>>(a: &A, index: &Index, update: &Update) -> Result<Self, SessionError> {
        Self::sharded(a, index, update, (0, 1))
    }

    /// The same for the `rank`-th share of every parameter of `of` ranks.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn sharded<A: Alloc<Buffer = T>>(
        a: &A,
        index: &Index,
        update: &Update,
        (rank, of): (usize, usize),
    ) -> Result<Self, SessionError> {
        let moments = update.kind.moments(update.momentum);
        let list = |wanted: bool| -> Result<Vec<T>, SessionError> {
            let specs = index.specs.iter().filter(|_| wanted);
            specs.map(|s| a.alloc(share(s.len(), rank, of).len(), Category::Optimizer)).collect()
        };
        Ok(Self { first: list(moments > 0)?, second: list(moments > 1)?, step: 0, place: (rank, of) })
    }

    /// Counts a step; its updates follow.
    pub(in crate::transformer) fn begin_step(&mut self) {
        self.step += 1;
    }

    /// Steps that have been begun.
    pub(in crate::transformer) fn steps(&self) -> u32 {
        self.step
    }

    /// As if so many had been.
    pub(in crate::transformer) fn set_steps(&mut self, steps: u32) {
        self.step = steps;
    }

    /// First and second moments by parameter; empty where the kind has none.
    pub(in crate::transformer) fn moments(&self) -> [&[T]; 2] {
        [&self.first, &self.second]
    }

    /// The first, or else the second ones, to be written.
    pub(in crate::transformer) fn moments_mut(&mut self, which: usize) -> &mut [T] {
        if which == 0 { &mut self.first } else { &mut self.second }
    }

    /// Which rank of how many keeps its share of the moments here.
    pub(in crate::transformer) fn place(&self) -> (usize, usize) {
        self.place
    }

    /// The second moment of a parameter, where the kind has one.
    pub(in crate::transformer) fn second_mut(&mut self, parameter: usize) -> Option<&mut T> {
        self.second.get_mut(parameter)
    }
}

impl<B: Backend> Model<B> {
    /// One optimizer step over every parameter.
    pub(crate) fn update(&mut self, update: &Update, gradients: &[B::Buffer], state: &mut State<B::Buffer>) {
        state.begin_step();
        self.update_some(update, 0..gradients.len(), (gradients, None), state);
    }

    /// The step that was begun, over neighbouring parameters; their gradients count as they are, or clipped.
    pub(in crate::transformer) fn update_some(
        &mut self,
        update: &Update,
        parameters: Range<usize>,
        (gradients, clip): (&[B::Buffer], Option<Clipping<'_, B::Buffer>>),
        state: &mut State<B::Buffer>,
    ) {
        // The CPU tells of its own.
        let _span = (self.backend.kind() == BackendKind::Cuda).then(|| trace::part(false, "update"));
        let mut first = state.first.iter_mut().skip(parameters.start);
        let mut second = state.second.iter_mut().skip(parameters.start);
        let (rank, of) = state.place;
        let specs = &self.index.specs[parameters.clone()];
        let pairs = self.parameters[parameters.clone()].iter_mut().zip(gradients).zip(specs);
        let one = |((parameter, gradient), spec): ((_, _), &Spec)| {
            let (first, second) = (first.next(), second.next());
            let part = share(spec.len(), rank, of);
            (!spec.fixed).then_some(Updated { part, parameter, gradient, first, second })
        };
        self.backend.update_many(update, state.step, clip, pairs.filter_map(one).collect());
    }
}
