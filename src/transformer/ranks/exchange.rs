//! From the gradients of one replica to the parameters of all: a layer's gradients are a bucket that is exchanged while the pass goes
//! on with the next layer's, where the collective can ([`Collective::overlaps`]); what comes back updates the layer, or is kept until
//! that of all layers is there. Gradients of experts that are spread over replicas go to the replicas with the same ones alone.

use super::super::backend::{Backend, Clipping, Store, Update};
use super::super::checkpoint::Checkpoint;
use super::super::collective::grid::{Groups, Sharding, Spread};
use super::super::collective::{Collective, Job, Reduce, Ticket};
use super::super::pass::backward::Turns;
use super::super::pass::gradients::Gradients;
use super::super::pass::model::Model;
use super::super::pass::optimizer::State;
use super::super::pass::shares::Shares;
use super::super::trace;
use std::ops::Range;
use std::sync::Arc;

/// Layers whose gradients have buffers of their own at one time.
pub(in crate::transformer) fn layers_kept<T>(data: &dyn Collective<T>) -> usize {
    if data.overlaps() { 2 } else { 1 }
}

/// Has a layer's parameters whole, where replicas keep shares of them.
pub(super) fn gather<B: Backend>(
    data: &dyn Collective<B::Buffer>,
    shares: Option<&mut Shares<B::Buffer>>,
    model: &mut Model<B>,
    layer: usize,
) {
    let Some(shares) = shares else { return };
    if shares.lay(&model.backend, &mut model.parameters, &model.index, layer) {
        let _span = trace::exchange(data.size(), "parameters");
        data.run(Job::AllGather, &mut model.parameters[model.index.of_layer(layer)]);
        shares.gathered(layer);
    }
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

    /// Whether there is nobody to talk to in a step.
    pub(super) fn is_alone(&self) -> bool {
        let Groups { data, tensor, stages, .. } = &self.groups;
        data.size() * tensor.size() * stages.all.size() == 1
    }
}

/// One training step's exchange among the replicas.
pub(in crate::transformer) struct Exchange<'a, T> {
    pub data: &'a dyn Collective<T>,
    pub sharding: Sharding,
    pub update: &'a Update,
    pub state: &'a mut State<T>,
    /// Whether nothing is updated before all gradients are there ([`Exchange::update_all`]).
    pub(super) together: bool,
    /// Where replicas keep shares of the parameters.
    pub(super) parameters: Option<&'a mut Shares<T>>,
    /// Where experts are spread over replicas.
    experts: Option<&'a Spread<T>>,
    /// The bucket that is on its way.
    under_way: Option<Bucket>,
    /// Parameters that are coming back.
    gathered: Vec<Ticket>,
}

/// Parameters whose gradients were sent off, as one job or as those of what stands around a layer's experts.
type Bucket = (Range<usize>, Vec<Ticket>);

/// A rank's shares of gradients that several passes add up to, or that are all wanted before the first update.
pub(super) struct Sum<'s, T> {
    pub shares: &'s mut Gradients<T>,
    /// Whether what comes replaces what is there.
    pub first: bool,
    /// What the sum is multiplied by when the step's last have come, which are then used.
    pub last: Option<f32>,
}

impl<'a, T> Exchange<'a, T> {
    /// Of a step that has been begun.
    pub(super) fn new(groups: &'a Groups<T>, sharding: Sharding, update: &'a Update, state: &'a mut State<T>) -> Self {
        let (data, experts) = (&*groups.data, groups.experts.as_ref());
        let (together, parameters, gathered) = (false, None, Vec::new());
        Self { data, sharding, update, state, together, parameters, experts, under_way: None, gathered }
    }

    /// The gradients of some parameters are there: they are sent off, and those sent before are waited for and used.
    pub(super) fn send<B: Backend<Buffer = T>>(
        &mut self,
        model: &mut Model<B>,
        parameters: Range<usize>,
        gradients: &mut Gradients<T>,
        sum: Option<&mut Sum<'_, T>>,
    ) {
        let job = match self.sharding {
            Sharding::None => Job::AllReduce(Reduce::Mean),
            Sharding::Optimizer | Sharding::Gradients | Sharding::Parameters => Job::ReduceScatter(Reduce::Mean),
        };
        let of_experts = self.mean_of_experts(model, &parameters, gradients);
        let tickets = {
            let _span = trace::exchange(self.data.size(), "gradients");
            let others = [parameters.start..of_experts.start, of_experts.end..parameters.end].into_iter();
            let others = others.filter(|some| !some.is_empty());
            others.map(|some| self.data.start(job, gradients.range(some))).collect()
        };
        let bucket = Some((parameters, tickets));
        if self.data.overlaps() {
            let before = std::mem::replace(&mut self.under_way, bucket);
            self.use_bucket(before, model, gradients, sum);
        } else {
            self.use_bucket(bucket, model, gradients, sum);
        }
    }

    /// Where experts are spread over replicas, their gradients among some parameters are by now sums over what all ranks sent them, each
    /// rank's being that of its own mean loss: they become those of the mean of all. Which parameters these are; of none, none at the
    /// end.
    fn mean_of_experts<B: Backend<Buffer = T>>(
        &self,
        model: &Model<B>,
        parameters: &Range<usize>,
        gradients: &mut Gradients<T>,
    ) -> Range<usize> {
        let none = parameters.end..parameters.end;
        let Some(Spread { ranks, holders }) = self.experts else { return none };
        let of_experts = model.index.layer_of(parameters).map(|layer| model.index.of_experts(layer));
        let Some(of_experts) = of_experts.filter(|some| !some.is_empty()) else { return none };
        gradients.scale(&model.backend, &model.index, of_experts.clone(), 1.0 / ranks.size() as f32);
        let _span = trace::exchange(holders.size(), "gradients");
        holders.run(Job::AllReduce(Reduce::Mean), gradients.range(of_experts.clone()));
        of_experts
    }

    fn use_bucket<B: Backend<Buffer = T>>(
        &mut self,
        bucket: Option<Bucket>,
        model: &mut Model<B>,
        gradients: &mut Gradients<T>,
        sum: Option<&mut Sum<'_, T>>,
    ) {
        let Some((parameters, tickets)) = bucket else { return };
        {
            let _span = trace::exchange(self.data.size(), "gradients");
            tickets.into_iter().for_each(|ticket| self.data.finish(ticket));
        }
        let mut shares = None;
        if let Some(sum) = sum {
            let into = if sum.first { Store::Overwrite } else { Store::Accumulate };
            sum.shares.take(&model.backend, &model.index, parameters.clone(), (gradients, into));
            let Some(factor) = sum.last else { return };
            sum.shares.scale(&model.backend, &model.index, parameters.clone(), factor);
            shares = Some(&*sum.shares);
        }
        if !self.together {
            self.updated(model, parameters, gradients, (shares, None));
        }
    }

    /// Updates some parameters; where shares of their gradients are kept, `gradients` is room for them.
    fn updated<B: Backend<Buffer = T>>(
        &mut self,
        model: &mut Model<B>,
        parameters: Range<usize>,
        gradients: &mut Gradients<T>,
        (shares, clip): (Option<&Gradients<T>>, Option<Clipping<'_, T>>),
    ) {
        if let Some(shares) = shares {
            shares.give(&model.backend, &model.index, parameters.clone(), gradients);
        }
        let layer = model.index.layer_of(&parameters);
        if let Some((shares, layer)) = self.parameters.as_deref_mut().zip(layer) {
            shares.lay(&model.backend, &mut model.parameters, &model.index, layer);
            let bucket = &*gradients.range(parameters.clone());
            model.update_some(self.update, parameters, (bucket, clip), self.state);
            shares.take(&model.backend, &model.parameters, &model.index, layer);
            return;
        }
        let bucket = &*gradients.range(parameters.clone());
        model.update_some(self.update, parameters.clone(), (bucket, clip), self.state);
        if self.sharding != Sharding::None {
            let _span = trace::exchange(self.data.size(), "parameters");
            self.gathered.push(self.data.start(Job::AllGather, &mut model.parameters[parameters]));
        }
    }

    /// Has a layer's parameters whole, where replicas keep shares of them.
    pub(super) fn whole<B: Backend<Buffer = T>>(&mut self, model: &mut Model<B>, layer: usize) {
        gather(self.data, self.parameters.as_deref_mut(), model, layer);
    }

    /// Waits for the last gradients of a pass.
    pub(super) fn wait<B: Backend<Buffer = T>>(
        &mut self,
        model: &mut Model<B>,
        gradients: &mut Gradients<T>,
        sum: Option<&mut Sum<'_, T>>,
    ) {
        let last = self.under_way.take();
        self.use_bucket(last, model, gradients, sum);
    }

    /// Updates all parameters at once, with gradients that count as `clip` says.
    pub(super) fn update_all<B: Backend<Buffer = T>>(
        &mut self,
        model: &mut Model<B>,
        gradients: &mut Gradients<T>,
        shares: Option<&Gradients<T>>,
        clip: Clipping<'_, T>,
    ) {
        for parameters in model.index.buckets().collect::<Vec<_>>() {
            self.updated(model, parameters, gradients, (shares, Some(clip)));
        }
    }

    /// Waits for what is still on its way; afterwards every replica has the same parameters.
    pub(super) fn end<B: Backend<Buffer = T>>(mut self, model: &mut Model<B>, gradients: &mut Gradients<T>) {
        self.wait(model, gradients, None);
        let _span = trace::exchange(self.data.size(), "parameters");
        self.gathered.drain(..).for_each(|ticket| self.data.finish(ticket));
    }
}

impl<T, B: Backend<Buffer = T>> Turns<B> for &mut Exchange<'_, T> {
    fn before(&mut self, model: &mut Model<B>, layer: usize) {
        self.whole(model, layer);
    }
    fn finished(&mut self, model: &mut Model<B>, parameters: Range<usize>, gradients: &mut Gradients<T>) {
        self.send(model, parameters, gradients, None);
    }
}

/// The same of a pass whose gradients are added to others.
pub(super) struct Summing<'s, 'a, T> {
    pub exchange: &'s mut Exchange<'a, T>,
    pub sum: Sum<'s, T>,
}

impl<T, B: Backend<Buffer = T>> Turns<B> for &mut Summing<'_, '_, T> {
    fn before(&mut self, model: &mut Model<B>, layer: usize) {
        self.exchange.whole(model, layer);
    }
    fn finished(&mut self, model: &mut Model<B>, parameters: Range<usize>, gradients: &mut Gradients<T>) {
        self.exchange.send(model, parameters, gradients, Some(&mut self.sum));
    }
}
