//! Clipping: where the norm of all gradients together is beyond a bound, all are scaled down to it. The sum of squares stays where the
//! backend has it, and gradients are scaled where the optimizer's step reads them ([`Clipping`]): no pass over them more than the one
//! that adds up their squares, and a device that works later is not waited for.

use super::super::backend::{Alloc, Backend, Category, Clipping};
use super::super::collective::{Job, Reduce, share};
use super::super::error::SessionError;
use super::super::pass::gradients::Gradients;
use super::super::pass::model::Model;
use super::exchange::Seat;
use std::ops::Range;

/// The bound, and room for the sum of squares, which ranks add up.
#[derive(Debug)]
pub(super) struct Clip<T> {
    pub largest: f32,
    /// One number.
    squares: T,
}

impl<T> Clip<T> {
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(super) fn new<A: Alloc<Buffer = T>>(a: &A, largest: f32) -> Result<Self, SessionError> {
        Ok(Self { largest, squares: a.alloc(1, Category::Statistics)? })
    }

    /// How gradients count that are those of the whole batch by now; `place` says which share of them is this rank's.
    pub(super) fn measure<B: Backend<Buffer = T>>(
        &mut self,
        model: &Model<B>,
        seat: &Seat<T>,
        gradients: &Gradients<T>,
        place: (usize, usize),
    ) -> Clipping<'_, T> {
        let (tensor, stages) = (&*seat.groups.tensor, &*seat.groups.stages.all);
        model.backend.squares(&own(model, seat, gradients, place), &mut self.squares);
        let squares = std::slice::from_mut(&mut self.squares);
        if place.1 > 1 {
            seat.groups.data.run(Job::AllReduce(Reduce::Sum), squares);
        }
        tensor.run(Job::AllReduce(Reduce::Sum), squares);
        stages.run(Job::AllReduce(Reduce::Sum), squares);
        if let Some(spread) = &seat.groups.experts {
            spread.ranks.run(Job::AllReduce(Reduce::Sum), squares);
        }
        Clipping { squares: &self.squares, largest: self.largest }
    }
}

/// The gradients that are this rank's to count, of all parts and shares.
fn own<'g, T, B: Backend<Buffer = T>>(
    model: &Model<B>,
    seat: &Seat<T>,
    gradients: &'g Gradients<T>,
    place: (usize, usize),
) -> Vec<(&'g T, Range<usize>)> {
    let (tensor, stages) = (&*seat.groups.tensor, &*seat.groups.stages.all);
    let spread = seat.groups.experts.as_ref().map(|spread| &*spread.ranks);
    let of_experts: Vec<Range<usize>> = model.index.stage.layers().map(|layer| model.index.of_experts(layer)).collect();
    let mut all = Vec::new();
    for (i, spec) in model.index.specs.iter().enumerate() {
        // The table of two stages counts once, as does what replicas with other experts have alike, and what no gradient changes has none.
        let at_both_ends = model.index.shares_table() && i == model.index.table && stages.rank() > 0;
        let alike = spread.is_some_and(|s| s.rank() > 0) && !of_experts.iter().any(|some| some.contains(&i));
        if spec.fixed || at_both_ends || alike {
            continue;
        }
        // What several ranks of a replica have counts once.
        let share = share(spec.len(), place.0, place.1);
        let here = gradients.at(&model.index, i, place).start;
        for own in spec.own(tensor.rank() == 0) {
            let (from, to) = (own.start.max(share.start), own.end.min(share.end));
            if from < to {
                all.push((gradients.read(i), here + from - share.start..here + to - share.start));
            }
        }
    }
    all
}
