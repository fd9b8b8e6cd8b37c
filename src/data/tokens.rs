//! Tokens in memory or in a mapped file, two or four bytes each, little-endian, and what part of them is used.

use memmap2::Mmap;
use std::ops::Range;
use std::sync::Arc;

/// Bytes, wherever they are.
#[derive(Clone, Debug)]
pub(super) enum Bytes {
    Mapped(Arc<Mmap>),
    Own(Arc<Vec<u8>>),
}

impl Bytes {
    /// All of them.
    pub(super) fn all(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Own(bytes) => bytes,
        }
    }
}

/// Bytes that a token of a vocabulary takes.
pub(super) fn width(vocabulary: u32) -> usize {
    if vocabulary <= 1 << 16 { 2 } else { 4 }
}

/// Adds a token.
pub(super) fn push(into: &mut Vec<u8>, token: u32, width: usize) {
    into.extend_from_slice(&token.to_le_bytes()[..width]);
}

/// A row of tokens: stretches of what is stored, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    bytes: Bytes,
    width: usize,
    stretches: Vec<Stretch>,
    length: u64,
}

/// A stretch of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    /// Tokens of the stream before it.
    before: u64,
    /// Where it begins in the bytes.
    at: usize,
}

impl Stream {
    /// All tokens of a range of bytes.
    pub(super) fn whole(bytes: Bytes, range: Range<usize>, width: usize) -> Self {
        let length = (range.len() / width) as u64;
        Self { bytes, width, stretches: vec![Stretch { before: 0, at: range.start }], length }
    }

    /// A share of them: documents in an order that only their number decides, until there are enough tokens, the last cut; of two
    /// shares the smaller is part of the larger. `ends` says after how many tokens each document ends.
    pub(super) fn share(self, share: f64, ends: &[u64]) -> Self {
        let wanted = ((self.length as f64 * share) as u64).min(self.length);
        if wanted == self.length {
            return self;
        }
        let begin = |i: usize| i.checked_sub(1).map_or(0, |before| ends[before]);
        let mut order: Vec<usize> = (0..ends.len()).collect();
        order.sort_unstable_by_key(|i| crate::stats::random::mix(*i as u64));
        let (mut left, mut taken) = (wanted, Vec::new());
        for document in order {
            let length = (ends[document] - begin(document)).min(left);
            left -= length;
            taken.push((document, length));
            if left == 0 {
                break;
            }
        }
        // In the order in which they stand.
        taken.sort_unstable();
        let start = self.stretches.first().map_or(0, |s| s.at);
        let mut before = 0;
        let stretches = taken.into_iter().map(|(document, length)| {
            let own = Stretch { before, at: start + begin(document) as usize * self.width };
            before += length;
            own
        });
        Self { stretches: stretches.collect(), length: before, ..self }
    }

    /// How many tokens there are.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Gives tokens `from .. from + count`, which have to be there, one after the other.
    pub(super) fn each(&self, from: u64, count: u64, mut give: impl FnMut(u32)) {
        let all = self.bytes.all();
        let last = self.stretches.partition_point(|s| s.before <= from).saturating_sub(1);
        let (mut next, end) = (from, (from + count).min(self.length));
        for (i, stretch) in self.stretches.iter().enumerate().skip(last) {
            let until = self.stretches.get(i + 1).map_or(self.length, |s| s.before).min(end);
            let at = stretch.at + (next.saturating_sub(stretch.before)) as usize * self.width;
            let bytes = &all[at..at + until.saturating_sub(next) as usize * self.width];
            for token in bytes.chunks_exact(self.width) {
                give(token.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte)));
            }
            next = next.max(until);
            if next >= end {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(tokens: u32, width: usize) -> Stream {
        let mut bytes = vec![0xff; 3];
        (0..tokens).for_each(|t| push(&mut bytes, t, width));
        let range = 3..bytes.len();
        Stream::whole(Bytes::Own(Arc::new(bytes)), range, width)
    }

    fn all(s: &Stream) -> Vec<u32> {
        let mut tokens = Vec::new();
        s.each(0, s.length(), |t| tokens.push(t));
        tokens
    }

    #[test]
    fn tokens_are_read_as_they_were_written() {
        for width in [2, 4] {
            assert_eq!(all(&stream(60_000, width)), (0..60_000).collect::<Vec<_>>());
        }
        assert_eq!((width(65_536), width(65_537)), (2, 4));
    }

    #[test]
    fn shares_are_documents_to_the_token_and_the_smaller_is_part_of_the_larger() {
        let ends: Vec<u64> = (1..=40).map(|i| i * 25).collect();
        let mut smaller: Vec<u32> = Vec::new();
        for share in [0.003, 0.1, 0.33, 0.7, 1.0] {
            let part = stream(1000, 2).share(share, &ends);
            let tokens = all(&part);
            assert_eq!(tokens.len() as u64, (1000.0 * share) as u64);
            assert!(tokens.is_sorted() && smaller.iter().all(|t| tokens.contains(t)), "{share}");
            // Any window, across documents that do not stand beside one another.
            for from in [0, 1, tokens.len() / 3, tokens.len().saturating_sub(2)] {
                let mut window = Vec::new();
                part.each(from as u64, 60, |t| window.push(t));
                assert_eq!(window, tokens[from..(from + 60).min(tokens.len())]);
            }
            smaller = tokens;
        }
        let scattered = all(&stream(1000, 2).share(0.5, &ends));
        assert!(scattered.last().is_some_and(|t| *t > 800) && scattered[0] < 200, "all over the text");
    }
}
