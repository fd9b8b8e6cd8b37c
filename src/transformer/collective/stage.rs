//! The stages of a pipeline (Huang et al. 2019, GPipe, section 2.2): which layers each has, and how much of a batch is under way in it.

use std::ops::Range;

/// One of the stages that a model's layers are divided into. The first has the embedding too, the last the last norm, the head and the
/// loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    /// From 0.
    pub number: usize,
    pub of: usize,
    n_layers: usize,
}

impl Stage {
    pub(crate) fn new(number: usize, of: usize, n_layers: usize) -> Self {
        Self { number, of: of.max(1), n_layers }
    }

    /// All layers, and what stands around them.
    pub(crate) fn whole(n_layers: usize) -> Self {
        Self::new(0, 1, n_layers)
    }

    /// Its layers: as many as another's, or one more in the first stages where they do not divide. (The last has the head beside them.)
    pub(crate) fn layers(&self) -> Range<usize> {
        let (each, more) = (self.n_layers / self.of, self.n_layers % self.of);
        let first = |number: usize| number * each + number.min(more);
        first(self.number)..first(self.number + 1)
    }

    pub(crate) fn is_first(&self) -> bool {
        self.number == 0
    }

    pub(crate) fn is_last(&self) -> bool {
        self.number + 1 == self.of
    }

    /// Micro-batches that have gone forward through it and not yet back, at the most: one for each stage from it on (Narayanan et al.
    /// 2019, PipeDream, section 3.2).
    pub(crate) fn in_flight(&self, micro_batches: usize) -> usize {
        micro_batches.min(self.of - self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_every_layer_once_and_as_many_as_the_others() {
        for n_layers in 1..=13 {
            for of in 1..=n_layers {
                let all: Vec<Range<usize>> = (0..of).map(|s| Stage::new(s, of, n_layers).layers()).collect();
                assert_eq!((all[0].start, all[of - 1].end), (0, n_layers));
                assert!(all.windows(2).all(|w| w[0].end == w[1].start && w[0].len() >= w[1].len()), "{all:?}");
                assert!(all[0].len() - all[of - 1].len() <= 1 && !all[of - 1].is_empty(), "{all:?}");
            }
        }
        assert_eq!(Stage::whole(5).layers(), 0..5);
    }

    #[test]
    fn the_first_stage_keeps_a_micro_batch_for_every_stage() {
        let of = |number, m| Stage::new(number, 4, 8).in_flight(m);
        assert_eq!([0, 1, 2, 3].map(|s| of(s, 8)), [4, 3, 2, 1]);
        assert_eq!([0, 1, 2, 3].map(|s| of(s, 2)), [2, 2, 2, 1]);
    }
}
