//! Which part of a model a rank holds where ranks split its layers.

use super::super::BackendKind;
use super::{Mixture, Shape};

/// A rank's part. Heads and widths of the shape that it stands in are the rank's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub rank: usize,
    pub of: usize,
    /// Ranks, neighbours, that hold the same head of keys and values.
    pub copies: usize,
    /// Where ranks split the vocabulary: the first word of the rank's, of which the shape has the number.
    pub first_word: Option<u32>,
    /// Where experts are spread over ranks: which of how many equal stretches of them is the rank's.
    pub experts: (usize, usize),
}

impl Part {
    /// All of it.
    pub(crate) const WHOLE: Self = Self { rank: 0, of: 1, copies: 1, first_word: None, experts: (0, 1) };

    /// Whether a rank before this one holds the same heads of keys and values.
    pub(crate) fn copies_another(&self) -> bool {
        !self.rank.is_multiple_of(self.copies)
    }
}

impl Shape {
    /// Which part of a model it is of.
    pub(crate) fn part(&self) -> Part {
        self.part.unwrap_or(Part::WHOLE)
    }

    /// Ranks of so many that hold the same head of keys and values.
    pub(crate) fn kv_copies(&self, of: u32) -> u32 {
        (of / self.n_kv_heads).max(1)
    }

    /// A part as if it were a model of its own.
    pub(crate) fn into_whole(self) -> Self {
        Self { part: None, ..self }
    }

    /// The part of the `rank`-th of `of` ranks, among which it divides. The vocabulary need not: ranks differ by a word at the most, and
    /// the last has no fewer than any.
    pub(crate) fn part_of(&self, rank: usize, of: u32, on: BackendKind) -> Self {
        if of <= 1 {
            return self.clone();
        }
        let words_before = |rank: usize| (rank as u64 * u64::from(self.vocab_size) / u64::from(of)) as u32;
        // The kernels of GPUs have the loss of a whole vocabulary.
        let words = (on != BackendKind::Cuda).then(|| [words_before(rank), words_before(rank + 1)]);
        Self {
            n_heads: self.n_heads / of,
            n_kv_heads: (self.n_kv_heads / of).max(1),
            d_ff: self.d_ff / of,
            experts: self.experts.map(|e| Mixture { d_ff: e.d_ff.map(|f| f / of), ..e }),
            vocab_size: words.map_or(self.vocab_size, |[first, end]| end - first),
            part: Some(Part {
                rank,
                of: of as usize,
                copies: self.kv_copies(of) as usize,
                first_word: words.map(|[first, _]| first),
                experts: (0, 1),
            }),
            ..self.clone()
        }
    }

    /// The part of the `rank`-th of `of` ranks that experts, whose number they divide, are spread over.
    pub(crate) fn spread(self, rank: usize, of: usize) -> Self {
        if of <= 1 {
            return self;
        }
        Self { part: Some(Part { experts: (rank, of), ..self.part() }), ..self }
    }
}
