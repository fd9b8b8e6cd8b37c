//! From the gradients of one replica to the parameters of all: a layer's gradients are a bucket that is exchanged while the pass goes
//! on with the next layer's, where the collective can ([`Collective::overlaps`]); what comes back updates the layer.

use super::super::backend::{Backend, Update};
use super::super::checkpoint::Checkpoint;
use super::super::collective::grid::{Groups, Sharding};
use super::super::collective::{Collective, Job, Reduce, Ticket};
use super::super::pass::gradients::Gradients;
use super::super::pass::model::Model;
use super::super::pass::optimizer::State;
use std::ops::Range;
use std::sync::Arc;

/// Layers whose gradients have buffers of their own at one time.
pub(in crate::transformer) fn layers_kept<T>(data: &dyn Collective<T>) -> usize {
    if data.overlaps() { 2 } else { 1 }
}

/// Whom a rank talks to, and what it keeps.
#[derive(Debug)]
pub(in crate::transformer) struct Seat<T> {
    pub groups: Groups<T>,
    pub sharding: Sharding,
    pub seed: u64,
    /// Where the weights are read from, if they are read.
    pub stored: Option<Arc<Checkpoint>>,
}

impl<T> Seat<T> {
    pub(crate) fn replica(&self) -> u64 {
        self.groups.data.rank() as u64
    }
}

/// One training step's exchange among the replicas.
pub(in crate::transformer) struct Exchange<'a, T> {
    pub data: &'a dyn Collective<T>,
    pub sharding: Sharding,
    pub update: &'a Update,
    pub state: &'a mut State<T>,
    /// The bucket that is on its way.
    under_way: Option<(Range<usize>, Ticket)>,
    /// Parameters that are coming back.
    gathered: Vec<Ticket>,
}

impl<'a, T> Exchange<'a, T> {
    /// Of a step that has been begun.
    pub(super) fn new(
        data: &'a dyn Collective<T>,
        sharding: Sharding,
        update: &'a Update,
        state: &'a mut State<T>,
    ) -> Self {
        Self { data, sharding, update, state, under_way: None, gathered: Vec::new() }
    }

    /// The gradients of some parameters are there: they are sent off, and those sent before are waited for and used.
    pub(super) fn finished<B: Backend<Buffer = T>>(
        &mut self,
        model: &mut Model<B>,
        parameters: Range<usize>,
        gradients: &mut Gradients<T>,
    ) {
        let job = match self.sharding {
            Sharding::None => Job::AllReduce(Reduce::Mean),
            Sharding::Optimizer => Job::ReduceScatter(Reduce::Mean),
        };
        let ticket = self.data.start(job, gradients.range(parameters.clone()));
        let before = self.under_way.replace((parameters, ticket));
        self.use_bucket(before, model, gradients);
        if !self.data.overlaps() {
            let own = self.under_way.take();
            self.use_bucket(own, model, gradients);
        }
    }

    fn use_bucket<B: Backend<Buffer = T>>(
        &mut self,
        bucket: Option<(Range<usize>, Ticket)>,
        model: &mut Model<B>,
        gradients: &mut Gradients<T>,
    ) {
        let Some((parameters, ticket)) = bucket else { return };
        self.data.finish(ticket);
        model.update_some(self.update, parameters.clone(), gradients.range(parameters.clone()), self.state);
        if self.sharding == Sharding::Optimizer {
            self.gathered.push(self.data.start(Job::AllGather, &mut model.parameters[parameters]));
        }
    }

    /// Waits for what is still on its way; afterwards every replica has the same parameters.
    pub(super) fn end<B: Backend<Buffer = T>>(mut self, model: &mut Model<B>, gradients: &mut Gradients<T>) {
        let last = self.under_way.take();
        self.use_bucket(last, model, gradients);
        self.gathered.drain(..).for_each(|ticket| self.data.finish(ticket));
    }
}
