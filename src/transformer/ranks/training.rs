//! What a training rank keeps, and its step: forward, backward, exchange and update.
//!
//! A step's operations are the same every time, so that a backend may capture them once and replay them ([`Backend::captured`]):
//! tokens lie in buffers, and what else differs is told beforehand. Ranks that exchange with others do their steps one by one: what
//! a capture makes of several threads' collectives, and of a stream beside the device's own, has not been tried on GPUs.

use super::super::backend::{Alloc, Backend, Captured, Category, Loss, Tokens, Update, Varying};
use super::super::collective::grid::{Parallel, Sharding};
use super::super::error::SessionError;
use super::super::pass::activations::{Activations, Extent, Keep, Scratch};
use super::super::pass::backward::Targets;
use super::super::pass::forward::StepDropout;
use super::super::pass::gradients::Gradients;
use super::super::pass::model::{Index, Model};
use super::super::pass::optimizer::State;
use super::super::shape::Shape;
use super::super::{BackendKind, cuda};
use super::exchange::{Exchange, Seat};
use std::ops::Range;

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
    pub(crate) fn of_replica(on: BackendKind, replica: usize, parallel: &Parallel) -> Self {
        let sharded = parallel.sharding == Sharding::Optimizer;
        let layers = if on == BackendKind::Cuda && cuda::nccl::beside(parallel) { 2 } else { 1 };
        Self { layers, state: if sharded { (replica, parallel.data as usize) } else { (0, 1) } }
    }
}

/// What the model should have said.
#[derive(Debug)]
enum Aim<T> {
    /// Tokens, written anew for each step.
    Tokens(T),
    /// The block's vectors.
    Vectors(T),
}

/// Buffers of training.
#[derive(Debug)]
pub(in crate::transformer) struct Training<T> {
    activations: Activations<T>,
    scratch: Scratch<T>,
    gradients: Gradients<T>,
    state: State<T>,
    ids: T,
    aim: Aim<T>,
    captured: Captured,
}

impl<T> Training<T> {
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn new<A: Alloc<Buffer = T>>(
        a: &A,
        s: &Shape,
        index: &Index,
        extent: Extent,
        update: &Update,
        keeping: Keeping,
    ) -> Result<Self, SessionError> {
        let aim = if s.has_vocabulary_head() {
            Aim::Tokens(a.alloc(extent.rows(), Category::Statistics)?)
        } else {
            Aim::Vectors(a.alloc(extent.rows() * s.d_model as usize, Category::Activations)?)
        };
        Ok(Self {
            activations: Activations::new(a, s, extent, Keep::All)?,
            scratch: Scratch::new(a, s, extent)?,
            gradients: Gradients::shared_by_layers(a, index, keeping.layers)?,
            state: State::sharded(a, index, update, keeping.state)?,
            ids: a.alloc(extent.rows(), Category::Statistics)?,
            aim,
            captured: Captured::default(),
        })
    }

    /// What the last pass kept.
    pub(crate) fn activations(&self) -> &Activations<T> {
        &self.activations
    }

    /// Where the block's targets lie.
    pub(crate) fn vectors(&mut self) -> Option<&mut T> {
        match &mut self.aim {
            Aim::Vectors(vectors) => Some(vectors),
            Aim::Tokens(_) => None,
        }
    }

    /// Asks for one step over these tokens and targets. The loss is to be read when nothing more is to be asked for.
    pub(crate) fn step<B: Backend<Buffer = T> + Clone>(
        &mut self,
        model: &mut Model<B>,
        seat: &Seat<T>,
        update: &Update,
        (tokens, targets): (&[u32], &[u32]),
        dropout: Option<StepDropout>,
    ) -> Loss {
        let Self { activations, scratch, gradients, state, ids, aim, captured } = self;
        let backend = model.backend.clone();
        backend.put_tokens(tokens, ids);
        if let Aim::Tokens(to) = aim {
            backend.put_tokens(targets, to);
        }
        let (ids, targets) = match aim {
            Aim::Tokens(t) => (Tokens::Placed(&*ids), Targets::Placed(&*t)),
            Aim::Vectors(v) => (Tokens::Placed(&*ids), Targets::Vectors(&*v)),
        };
        state.begin_step();
        let varying = Varying {
            position: 0,
            position_row: model.position_row(0),
            dropout: dropout.map_or(0, |d| d.seed),
            update: Some((update, state.steps())),
        };
        let mut loss = Loss::OnDevice;
        let mut step = || {
            model.forward_of(ids, activations, dropout);
            let mut exchange = Exchange::new(&*seat.groups.data, seat.sharding, update, state);
            let finished = |model: &mut Model<B>, parameters: Range<usize>, gradients: &mut Gradients<T>| {
                exchange.finished(model, parameters, gradients);
            };
            loss = model.backward_by_layers(ids, &targets, activations, scratch, gradients, dropout, finished);
            exchange.end(model, gradients);
        };
        if seat.groups.data.size() * seat.groups.tensor.size() == 1 {
            backend.captured(&varying, captured, &mut step);
        } else {
            step();
        }
        loss
    }
}
