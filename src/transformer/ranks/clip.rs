//! Clipping: where the norm of all gradients together is beyond a bound, all are scaled down to it (Pascanu et al. 2013, algorithm 1; as
//! PyTorch's `clip_grad_norm_`, whose 1e-6 is added to the norm).

use super::super::backend::{Alloc, Backend, Category};
use super::super::collective::{Job, Reduce, share};
use super::super::error::SessionError;
use super::super::pass::gradients::Gradients;
use super::super::pass::model::Model;
use super::exchange::Seat;
use std::ops::Range;

/// What PyTorch adds to the norm.
const LEAST: f32 = 1e-6;

/// The bound, and room for what ranks say to one another of it.
#[derive(Debug)]
pub(super) struct Clip<T> {
    pub largest: f32,
    /// One number.
    room: T,
}

impl<T> Clip<T> {
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(super) fn new<A: Alloc<Buffer = T>>(a: &A, largest: f32) -> Result<Self, SessionError> {
        Ok(Self { largest, room: a.alloc(1, Category::Statistics)? })
    }

    /// Scales gradients that are those of the whole batch by now; `place` says which share of them is this rank's.
    pub(super) fn apply<B: Backend<Buffer = T>>(
        &mut self,
        model: &Model<B>,
        seat: &Seat<T>,
        gradients: &mut Gradients<T>,
        place: (usize, usize),
    ) {
        let norm = self.norm(model, seat, gradients, place);
        let factor = self.largest / (norm + LEAST);
        if factor < 1.0 {
            gradients.scale(&model.backend, &model.index, 0..model.index.specs.len(), factor);
        }
    }

    /// The norm of all gradients, of all parts and shares.
    fn norm<B: Backend<Buffer = T>>(
        &mut self,
        model: &Model<B>,
        seat: &Seat<T>,
        gradients: &Gradients<T>,
        place: (usize, usize),
    ) -> f32 {
        let of = place.1;
        let (tensor, stages) = (&*seat.groups.tensor, &*seat.groups.stages.all);
        let spread = seat.groups.experts.as_ref().map(|spread| &*spread.ranks);
        let of_experts: Vec<Range<usize>> =
            model.index.stage.layers().map(|layer| model.index.of_experts(layer)).collect();
        let mut squares = 0.0;
        for (i, spec) in model.index.specs.iter().enumerate() {
            // The table of two stages counts once, as does what replicas with other experts have alike, and what no gradient changes has none.
            let at_both_ends = model.index.shares_table() && i == model.index.table && stages.rank() > 0;
            let alike = spread.is_some_and(|s| s.rank() > 0) && !of_experts.iter().any(|some| some.contains(&i));
            let elsewhere = at_both_ends || alike;
            if spec.fixed || elsewhere {
                continue;
            }
            // What several ranks of a replica have counts once.
            let share = share(spec.len(), place.0, place.1);
            let here = gradients.at(&model.index, i, place).start;
            for own in spec.own(tensor.rank() == 0) {
                let (from, to) = (own.start.max(share.start), own.end.min(share.end));
                if from < to {
                    let part = here + from - share.start..here + to - share.start;
                    squares += model.backend.squares(gradients.read(i), part);
                }
            }
        }
        if of == 1 && tensor.size() * stages.size() == 1 && spread.is_none() {
            return squares.sqrt() as f32;
        }
        let mut sum = [squares as f32];
        model.backend.upload(&sum, &mut self.room);
        let room = std::slice::from_mut(&mut self.room);
        if of > 1 {
            seat.groups.data.run(Job::AllReduce(Reduce::Sum), room);
        }
        tensor.run(Job::AllReduce(Reduce::Sum), room);
        stages.run(Job::AllReduce(Reduce::Sum), room);
        spread.into_iter().for_each(|spread| spread.run(Job::AllReduce(Reduce::Sum), room));
        model.backend.download(&self.room, 0, &mut sum);
        f64::from(sum[0]).sqrt() as f32
    }
}
