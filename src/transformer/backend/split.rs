//! What an operation is told whose sums go over several ranks: the rank's place among them, room, and how they are told.

/// Rows that ranks go through between two exchanges: enough for an efficient product, few enough that a block of logits stays small
/// beside the weights.
pub(crate) const ROWS_AT_A_TIME: usize = 512;

/// A rank's rows of the vocabulary.
pub struct OwnWords<'a, T> {
    /// The word of the first of them.
    pub first: u32,
    /// `[R]`, R of [`ROWS_AT_A_TIME`] or as many as there are: of each row the largest logit.
    pub largest: &'a mut T,
    /// `[R, 2]`: the sum of e^(l - largest), and the target's logit.
    pub sums: &'a mut T,
    /// Replaces each number by the largest of all ranks.
    pub over_largest: &'a dyn Fn(&mut T),
    /// The same by their sum.
    pub over_sums: &'a dyn Fn(&mut T),
}

/// A rank's heads, where queries and keys are normed by the mean square of all heads together.
pub struct OwnHeads<'a, T> {
    /// How many ranks there are. Of keys that several hold each has all of the square, and a part of the gradient: of the mean over
    /// `ranks` times a rank's own elements either is the right share.
    pub ranks: usize,
    /// `[N, 2]`: of each row a sum over queries and one over keys.
    pub sums: &'a mut T,
    /// Replaces each number by the sum of all ranks'.
    pub over_sums: &'a dyn Fn(&mut T),
}

impl<T> OwnWords<'_, T> {
    /// Where a word stands among `words` own ones, if it is one of them.
    pub(in crate::transformer) fn place(first: u32, words: usize, word: u32) -> Option<usize> {
        word.checked_sub(first).map(|w| w as usize).filter(|w| *w < words)
    }
}

impl<T> std::fmt::Debug for OwnHeads<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnHeads").field("ranks", &self.ranks).finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for OwnWords<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnWords").field("first", &self.first).finish_non_exhaustive()
    }
}
