//! Batches of packed sequences. What a batch holds follows from what is asked alone, so that a run that goes on from a checkpoint, and
//! each replica by itself, sees the tokens that it would have seen.

use super::DataError;
use super::facts::Facts;
use super::tokens::Stream;
use crate::stats::random::mix;

/// The target that counts for nothing; the transformer's own.
pub const IGNORED: u32 = u32::MAX;

/// Which part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// What is trained on, shuffled anew by the seed in every epoch.
    Train,
    /// What is judged by: always the same sequences in the same order, which mixes documents, so that the first batches are a sample.
    Validation,
}

/// What batches are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Sequences of a batch, of one replica.
    pub batch: u32,
    /// Tokens of a sequence.
    pub seq_len: u32,
    /// Of the epochs' orders.
    pub seed: u64,
    /// Which replica's, from 0.
    pub replica: u32,
    /// How many replicas there are: together they see what one would with a batch so many times as large.
    pub of: u32,
}

/// A batch: [batch, seq_len], row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Tokens.
    pub ids: Vec<u32>,
    /// The token after each; [`IGNORED`] in the rows of the last batch of validation that are past the end.
    pub targets: Vec<u32>,
    /// Targets that count.
    pub counted: u64,
}

/// Data that is ready.
#[derive(Debug)]
pub struct Prepared {
    pub(super) facts: Facts,
    pub(super) train: Stream,
    pub(super) validation: Stream,
}

impl Prepared {
    /// How many different tokens there are.
    pub fn vocabulary(&self) -> u32 {
        self.facts.vocabulary
    }

    /// What there is.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Tokens that are used: of the training part the share.
    pub fn tokens(&self, split: Split) -> u64 {
        self.stream(split).length()
    }

    /// Sequences of so many tokens; those of one epoch. Each has a target more.
    pub fn sequences(&self, split: Split, seq_len: u32) -> u64 {
        self.tokens(split).saturating_sub(1) / u64::from(seq_len.max(1))
    }

    /// Whether there is a sequence of so many tokens in both parts.
    ///
    /// # Errors
    /// What is too short, and the remedy.
    pub fn check(&self, seq_len: u32) -> Result<(), DataError> {
        for (split, what) in [(Split::Train, "to train on"), (Split::Validation, "for validation")] {
            if self.sequences(split, seq_len) == 0 {
                let message = format!(
                    "expected more than seq_len = {seq_len} tokens {what}, found {}; give more text, a larger share or a shorter seq_len",
                    self.tokens(split)
                );
                return Err(DataError::at("data", message));
            }
        }
        Ok(())
    }

    /// Batches of all replicas together that the validation part makes, the last perhaps not full.
    pub fn validation_batches(&self, cut: &Cut) -> u64 {
        let step = u64::from(cut.batch.max(1)) * u64::from(cut.of.max(1));
        self.sequences(Split::Validation, cut.seq_len).div_ceil(step)
    }

    /// Batch `index` of a replica, from 0. Training goes on without end, epoch after epoch; of validation there are
    /// [`Prepared::validation_batches`], and what is asked beyond counts for nothing, as does everything where
    /// [`Prepared::check`] found too little.
    pub fn batch(&self, split: Split, cut: &Cut, index: u64) -> Batch {
        let stream = self.stream(split);
        let (rows, length) = (u64::from(cut.batch), u64::from(cut.seq_len));
        let (sequences, size) = (self.sequences(split, cut.seq_len), (rows * length) as usize);
        let (mut ids, mut targets) = (Vec::with_capacity(size), Vec::with_capacity(size));
        let mut counted = 0;
        for row in 0..rows {
            let sequence = (index * u64::from(cut.of.max(1)) + u64::from(cut.replica)) * rows + row;
            let epoch = sequence.checked_div(sequences).unwrap_or(0);
            let there = sequences > 0 && (split == Split::Train || epoch == 0);
            if !there {
                ids.extend((0..length).map(|_| 0));
                targets.extend((0..length).map(|_| IGNORED));
                continue;
            }
            let key = match split {
                Split::Train => mix(cut.seed ^ mix(epoch)),
                Split::Validation => 0,
            };
            let from = place(sequence % sequences, sequences, key) * length;
            stream.each(from, length, |t| ids.push(t));
            stream.each(from + 1, length, |t| targets.push(t));
            counted += length;
        }
        Batch { ids, targets, counted }
    }

    fn stream(&self, split: Split) -> &Stream {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
        }
    }
}

/// Where item `i` of `n` goes in the order of a key: a permutation that needs no memory. Four rounds of Feistel's network over the next
/// power of four; what falls outside goes round again (Black & Rogaway 2002).
fn place(i: u64, n: u64, key: u64) -> u64 {
    let half = (64 - n.saturating_sub(1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut at = i;
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        for round in 0..4u64 {
            (left, right) = (right, left ^ (mix(right ^ mix(key ^ round)) & mask));
        }
        at = left << half | right;
        if at < n {
            return at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::Part;
    use super::super::tokens::{Bytes, push};
    use super::*;
    use std::sync::Arc;

    fn prepared(train: u32, validation: u32) -> Prepared {
        let stream = |tokens: u32, first: u32| {
            let mut bytes = Vec::new();
            (0..tokens).for_each(|t| push(&mut bytes, first + t, 4));
            let range = 0..bytes.len();
            Stream::whole(Bytes::Own(Arc::new(bytes)), range, 4)
        };
        let facts = Facts { vocabulary: 1 << 20, train: Part::default(), ..Facts::default() };
        Prepared { facts, train: stream(train, 0), validation: stream(validation, 500_000) }
    }

    fn cut(batch: u32, replica: u32, of: u32) -> Cut {
        Cut { batch, seq_len: 8, seed: 3, replica, of }
    }

    #[test]
    fn a_place_is_taken_once_and_another_key_is_another_order() {
        for n in (1..200).chain([255, 256, 257, 1000, 4097]) {
            let mut places: Vec<u64> = (0..n).map(|i| place(i, n, 5)).collect();
            let other: Vec<u64> = (0..n).map(|i| place(i, n, 6)).collect();
            assert!(n < 20 || (places != other && !places.is_sorted()), "{n}");
            places.sort_unstable();
            assert_eq!(places, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_epoch_has_every_sequence_once_and_the_next_another_order() {
        let p = prepared(8 * 12 + 3, 100);
        assert_eq!(p.sequences(Split::Train, 8), 12);
        // Batches of 5 do not divide 12: an epoch ends within a batch.
        let rows: Vec<Vec<u32>> = (0..12)
            .map(|i| p.batch(Split::Train, &cut(5, 0, 1), i))
            .flat_map(|b| {
                let after: Vec<u32> = b.ids.iter().map(|t| t + 1).collect();
                assert_eq!((b.targets, b.counted), (after, 40));
                b.ids.chunks(8).map(<[u32]>::to_vec).collect::<Vec<_>>()
            })
            .collect();
        let epochs: Vec<Vec<u32>> = rows.chunks(12).map(|e| e.iter().map(|r| r[0] / 8).collect()).collect();
        assert_ne!(epochs[0], epochs[1]);
        for mut epoch in epochs {
            epoch.sort_unstable();
            assert_eq!(epoch, (0..12).collect::<Vec<_>>());
        }
        assert_ne!(p.batch(Split::Train, &Cut { seed: 4, ..cut(5, 0, 1) }, 0), p.batch(Split::Train, &cut(5, 0, 1), 0));
    }

    #[test]
    fn replicas_see_together_what_one_sees_alone() {
        let p = prepared(1000, 300);
        for split in [Split::Train, Split::Validation] {
            for index in [0, 3, 40] {
                let alone = p.batch(split, &cut(6, 0, 1), index);
                let parts: Vec<Batch> = (0..3).map(|r| p.batch(split, &cut(2, r, 3), index)).collect();
                assert_eq!(parts.iter().flat_map(|b| b.ids.clone()).collect::<Vec<_>>(), alone.ids);
                assert_eq!(parts.iter().map(|b| b.counted).sum::<u64>(), alone.counted);
            }
        }
    }

    #[test]
    fn validation_is_every_sequence_once_and_what_is_past_it_counts_for_nothing() {
        let p = prepared(100, 8 * 10 + 1);
        let cut = cut(4, 0, 1);
        assert_eq!(p.validation_batches(&cut), 3);
        let batches: Vec<Batch> = (0..4).map(|i| p.batch(Split::Validation, &cut, i)).collect();
        assert_eq!(batches.iter().map(|b| b.counted).collect::<Vec<_>>(), [32, 32, 16, 0]);
        let mut seen: Vec<u32> = batches.iter().flat_map(|b| b.targets.clone()).filter(|t| *t != IGNORED).collect();
        seen.sort_unstable();
        assert_eq!(seen, (500_001..=500_080).collect::<Vec<_>>());
        // Another seed changes nothing.
        assert_eq!(p.batch(Split::Validation, &Cut { seed: 9, ..cut }, 0), batches[0]);
    }

    #[test]
    fn what_is_shorter_than_a_sequence_says_so() {
        let said = |train, validation, length| prepared(train, validation).check(length).unwrap_err().to_string();
        assert!(prepared(9, 9).check(8).is_ok());
        assert!(said(8, 100, 8).contains("expected more than seq_len = 8 tokens to train on, found 8"));
        assert!(said(100, 5, 8).contains("for validation, found 5"));
        let nothing = prepared(8, 8).batch(Split::Train, &cut(2, 0, 1), 7);
        assert_eq!((nothing.ids.len(), nothing.counted), (16, 0));
    }
}
