//! The training step of a stage of a pipeline: its turns in the order of [`super::schedule`], what it hands to its neighbours, and what
//! becomes of its gradients: those of other replicas' same stage are one mean, those of a tied table one sum over the first stage and the
//! last, which therefore stay one matrix. Losses and parameters are those of one rank that goes through the same micro-batches, to the
//! bit but for a tied table, whose gradients are added up in another order.

use super::super::backend::{Backend, Loss, Update};
use super::super::collective::grid::Stages;
use super::super::collective::{Collective, Job, Reduce};
use super::super::pass::activations::Activations;
use super::super::pass::forward::StepDropout;
use super::super::pass::gradients::Gradients;
use super::super::pass::model::Model;
use super::super::trace::{self, Kind};
use super::exchange::{Exchange, Seat};
use super::schedule::{Turn, forward_alone, one_forward_one_backward};
use super::training::{Kept, Training};
use std::ops::Range;

/// The first of two neighbours hands its buffer to the second.
const ON: Job = Job::Broadcast { root: 0 };
/// The second hands its own back.
const BACK: Job = Job::Broadcast { root: 1 };

/// Hands a buffer to a neighbour, or has it from there: the same job on both sides.
fn hand<T>(link: &dyn Collective<T>, job: Job, buffer: &mut T, what: &'static str) {
    let _span = trace::exchange(link.size(), what);
    link.run(job, std::slice::from_mut(buffer));
}

/// What a stage's micro-batches keep, each in the place of one that has gone back.
struct InFlight<'a, T> {
    places: &'a mut [Activations<T>],
    /// The place that has what layers share.
    at_work: usize,
}

impl<'a, T> InFlight<'a, T> {
    fn new(places: &'a mut [Activations<T>]) -> Self {
        Self { places, at_work: 0 }
    }

    fn of(&mut self, number: usize) -> &mut Activations<T> {
        let place = number % self.places.len();
        &mut self.places[place]
    }

    /// The same, to go through layers with.
    fn at_work(&mut self, number: usize) -> &mut Activations<T> {
        let place = number % self.places.len();
        Activations::lend(self.places, self.at_work, place);
        self.at_work = place;
        &mut self.places[place]
    }

    /// What layers share is where it was.
    fn end(self) {
        Activations::lend(self.places, self.at_work, 0);
    }
}

impl<T> Training<T> {
    /// The mean loss of the passes that have been put, in the last stage; without a way back.
    pub(super) fn loss_of_stage<B: Backend<Buffer = T> + Clone>(
        &mut self,
        model: &mut Model<B>,
        seat: &Seat<T>,
    ) -> f32 {
        let Stages { before, after, .. } = &seat.groups.stages;
        let mut in_flight = InFlight::new(&mut self.activations);
        let mut sum = 0.0;
        for turn in forward_alone(model.index.stage, self.passes.len()) {
            match turn {
                Turn::TakeStream(k) => hand(&**before, ON, in_flight.of(k).entrance(), "activations"),
                Turn::GiveStream(k) => hand(&**after, ON, in_flight.of(k).exit(), "activations"),
                Turn::Forward(k) => {
                    let (ids, targets) = self.passes[k].operands();
                    let activations = in_flight.at_work(k);
                    model.forward_by_layers(ids, activations, None, |_, _| ());
                    if model.index.stage.is_last() {
                        sum += f64::from(model.loss(activations, &targets));
                    }
                }
                Turn::TakeGradient(_) | Turn::Backward(_) | Turn::GiveGradient(_) => {}
            }
        }
        in_flight.end();
        (sum / self.passes.len() as f64) as f32
    }

    /// This stage's part of a step over the passes that have been put; the loss is the last stage's to tell.
    pub(super) fn stage_of_step<B: Backend<Buffer = T> + Clone>(
        &mut self,
        model: &mut Model<B>,
        seat: &Seat<T>,
        update: &Update,
        dropout: Option<StepDropout>,
    ) -> Loss {
        let Self { activations, scratch, kept, state, passes, .. } = self;
        let (stage, count, share) = (model.index.stage, passes.len(), 1.0 / passes.len() as f32);
        let Stages { before, after, .. } = &seat.groups.stages;
        let mut exchange = Exchange::new(&seat.groups, seat.sharding, update, state);
        exchange.together = matches!(kept, Kept::All { clip: Some(_), .. });
        let mut in_flight = InFlight::new(activations);
        let mut losses = 0.0;
        for turn in one_forward_one_backward(stage, count) {
            match turn {
                Turn::TakeStream(k) => hand(&**before, ON, in_flight.of(k).entrance(), "activations"),
                Turn::GiveStream(k) => hand(&**after, ON, in_flight.of(k).exit(), "activations"),
                Turn::TakeGradient(_) => hand(&**after, BACK, &mut scratch.stream, "gradients of activations"),
                Turn::GiveGradient(_) => hand(&**before, BACK, &mut scratch.stream, "gradients of activations"),
                Turn::Forward(k) => {
                    let _span = trace::plain(Kind::Whole, "forward");
                    let dropout = dropout.map(|d| d.of_micro_batch(k));
                    model.forward_by_layers(passes[k].operands().0, in_flight.at_work(k), dropout, |_, _| ());
                }
                Turn::Backward(k) => {
                    let _span = trace::plain(Kind::Whole, "backward");
                    let ((ids, targets), dropout) = (passes[k].operands(), dropout.map(|d| d.of_micro_batch(k)));
                    let (to, mut sum) = match &mut *kept {
                        Kept::All { sum, one: Some(one), .. } if k > 0 => (one, Some(sum)),
                        Kept::All { sum: all, .. } | Kept::Layer(all) => (all, None),
                    };
                    let finished = |model: &mut Model<B>, parameters: Range<usize>, to: &mut Gradients<T>| {
                        let all = match &mut sum {
                            Some(sum) => {
                                sum.add(&model.backend, &model.index, parameters.clone(), to);
                                &mut **sum
                            }
                            None => to,
                        };
                        if k + 1 < count {
                            return;
                        }
                        if count > 1 {
                            all.scale(&model.backend, &model.index, parameters.clone(), share);
                        }
                        // The other stage that has the table may be waiting for what this one is still to hand on.
                        if !(model.index.shares_table() && parameters.contains(&model.index.table)) {
                            exchange.send(model, parameters, all, None);
                        }
                    };
                    let a = in_flight.at_work(k);
                    let loss = model.backward_by_layers(ids, &targets, a, scratch, to, dropout, finished);
                    if stage.is_last() {
                        losses += f64::from(model.backend.read_loss(loss));
                    }
                }
            }
        }
        in_flight.end();
        settle(model, seat, kept, exchange);
        Loss::Known((losses / count as f64) as f32)
    }
}

/// What is left when nothing is to be handed on any more: a table of both ends, and what waits for the norm of all gradients.
fn settle<T, B: Backend<Buffer = T>>(
    model: &mut Model<B>,
    seat: &Seat<T>,
    kept: &mut Kept<T>,
    mut exchange: Exchange<'_, T>,
) {
    let (gradients, clip) = match kept {
        Kept::Layer(gradients) => (gradients, None),
        Kept::All { sum, clip, .. } => (sum, clip.as_mut()),
    };
    if model.index.shares_table() {
        let (table, [bucket, _]) = (model.index.table, model.index.around_layers());
        let ends = &seat.groups.stages.ends;
        let span = trace::exchange(ends.size(), "gradients");
        ends.run(Job::AllReduce(Reduce::Sum), gradients.range(table..table + 1));
        drop(span);
        exchange.send(model, bucket, gradients, None);
    }
    if let Some(clip) = clip {
        exchange.wait(model, gradients, None);
        let place = exchange.state.place();
        let clip = clip.measure(model, seat, gradients, place);
        exchange.update_all(model, gradients, None, clip);
    }
    exchange.end(model, gradients);
}
