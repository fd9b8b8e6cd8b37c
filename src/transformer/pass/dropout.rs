//! Dropout by step, micro-batch and place in the model.

use super::super::backend::Dropout;
use super::super::random::mix;

/// Dropout of one training step: every place in the model draws its own seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepDropout {
    pub probability: f32,
    pub seed: u64,
}

/// Where in the model dropout is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transformer) enum Place {
    Embedding,
    Attention(usize),
    FeedForward(usize),
}

impl StepDropout {
    /// That of a micro-batch: the first one's masks are those of a step that has no others.
    pub(in crate::transformer) fn of_micro_batch(self, number: usize) -> Self {
        if number == 0 { self } else { Self { seed: mix(self.seed ^ mix(number as u64)), ..self } }
    }

    pub(in crate::transformer) fn at(&self, place: Place) -> Dropout {
        let place = match place {
            Place::Embedding => 0,
            Place::Attention(layer) => 2 * layer as u64 + 1,
            Place::FeedForward(layer) => 2 * layer as u64 + 2,
        };
        Dropout { probability: self.probability, seed: self.seed, place, part: 0 }
    }
}
