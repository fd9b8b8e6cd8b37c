//! Seeded numbers: weights, inputs and dropout masks. Counter-based, so that the n-th number costs the same wherever one
//! starts, and any thread can make any part.
//!
//! Not for cryptography, nor for statistics that need more than 64 bits of state.

pub(crate) use crate::stats::random::mix;

/// Counters that [`philox`] takes at a time: two of the widest vectors.
const COUNTERS: usize = 16;
/// Words that it makes of them.
pub(super) const WORDS: usize = 4 * COUNTERS;

/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") of the counters from `first` on: four
/// words each, one after another. Widening products of 32 bits, which any vector unit and any GPU has; `mix` needs products
/// of 64 bits, which a GPU puts together from several.
#[inline(always)]
pub(super) fn philox(first: u64, key: u64, words: &mut [u32; WORDS]) {
    let [mut a, mut b, mut c, mut d] = [[0u32; COUNTERS]; 4];
    for lane in 0..COUNTERS {
        let counter = first.wrapping_add(lane as u64);
        (a[lane], b[lane]) = (counter as u32, (counter >> 32) as u32);
    }
    let (mut low, mut high) = (key as u32, (key >> 32) as u32);
    for _ in 0..10 {
        for lane in 0..COUNTERS {
            let p = u64::from(a[lane]) * 0xd251_1f53;
            let q = u64::from(c[lane]) * 0xcd9e_8d57;
            a[lane] = (q >> 32) as u32 ^ b[lane] ^ low;
            c[lane] = (p >> 32) as u32 ^ d[lane] ^ high;
            (b[lane], d[lane]) = (q as u32, p as u32);
        }
        (low, high) = (low.wrapping_add(0x9e37_79b9), high.wrapping_add(0xbb67_ae85));
    }
    for (lane, words) in words.chunks_exact_mut(4).enumerate() {
        (words[0], words[1], words[2], words[3]) = (a[lane], b[lane], c[lane], d[lane]);
    }
}

/// Below which of 2^32 words an event of this probability happens.
pub(super) fn threshold(probability: f32) -> u32 {
    (f64::from(probability) * 4_294_967_296.0) as u32
}

/// A sequence of numbers named by a seed and a stream.
#[derive(Clone, Debug)]
pub struct Stream {
    key: u64,
    counter: u64,
}

impl Stream {
    /// Streams of one seed do not overlap in practice: their keys are scattered over 64 bits.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { key: mix(seed ^ mix(stream)), counter: 0 }
    }

    /// Goes to the n-th draw, from 0.
    pub fn go_to(&mut self, draw: u64) {
        self.counter = draw;
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.counter += 1;
        mix(self.key.wrapping_add(self.counter))
    }

    /// A number below `bound` (> 0), by the high half of a product; the bias is below 2^-32 for the bounds used here.
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(bound) * (self.next_u64() >> 32)) >> 32) as u32
    }

    /// Approximately normal: the sum of four uniform 16-bit numbers, scaled (Irwin-Hall, n = 4). Enough for weights, whose
    /// tails do not matter here, and many times faster than an exact transform.
    pub fn fill_normal(&mut self, out: &mut [f32], standard_deviation: f32) {
        let scale = normal_scale(standard_deviation);
        for x in out {
            let bits = self.next_u64();
            let sum = (bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48);
            *x = (sum as f32 - 131_070.0) * scale;
        }
    }
}

/// What [`Stream::fill_normal`] multiplies by: the variance of the sum of four uniforms on 0..65536 is 4 * 65536^2 / 12.
pub(super) fn normal_scale(standard_deviation: f32) -> f32 {
    standard_deviation / (65536.0 * (4.0f32 / 12.0).sqrt())
}

/// Neighbouring rows of a matrix, and where their numbers stand in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub rows: usize,
    /// Draw of the first number of the first row; the numbers of a row follow one another.
    pub first: u64,
    /// Draws from the start of a row to the start of the next.
    pub stride: u64,
}

/// A matrix of normal numbers out of a stream ([`Stream::fill_normal`]), described rather than made: a device can make them itself,
/// and a rank its part of a whole.
#[derive(Clone, Debug)]
pub struct Normals {
    stream: Stream,
    pub standard_deviation: f32,
    pub columns: usize,
    /// From the top down.
    pub blocks: Vec<Block>,
}

impl Normals {
    /// The numbers of these blocks, each row of `columns`, in a stream that has not been drawn from.
    pub fn new(stream: Stream, standard_deviation: f32, columns: usize, blocks: Vec<Block>) -> Self {
        Self { stream, standard_deviation, columns, blocks }
    }

    /// The first `len` numbers of a stream, as one row.
    pub fn first(stream: Stream, standard_deviation: f32, len: usize) -> Self {
        Self::new(stream, standard_deviation, len, vec![Block { rows: 1, first: 0, stride: len as u64 }])
    }

    /// Numbers in all of it.
    pub fn len(&self) -> usize {
        self.blocks.iter().map(|b| b.rows).sum::<usize>() * self.columns
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the generator's counter starts from: draw `n` is `mix(key + n + 1)`.
    pub fn key(&self) -> u64 {
        self.stream.key
    }

    /// Some whole rows, from `row` on.
    pub fn fill(&self, mut row: usize, out: &mut [f32]) {
        let mut stream = self.stream.clone();
        let mut rows = out.chunks_mut(self.columns.max(1));
        for block in &self.blocks {
            for r in row.min(block.rows)..block.rows {
                let Some(out) = rows.next() else { return };
                stream.go_to(block.first + r as u64 * block.stride);
                stream.fill_normal(out, self.standard_deviation);
            }
            row = row.saturating_sub(block.rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_blocks_are_those_of_the_stream() {
        let mut whole = vec![0.0; 60];
        Stream::new(3, 9).fill_normal(&mut whole, 0.5);
        let blocks = vec![Block { rows: 2, first: 6, stride: 12 }, Block { rows: 0, first: 0, stride: 6 }];
        let blocks = [blocks, vec![Block { rows: 3, first: 40, stride: 7 }]].concat();
        let normals = Normals::new(Stream::new(3, 9), 0.5, 6, blocks);
        let want: Vec<f32> = [6, 18, 40, 47, 54].iter().flat_map(|&first| whole[first..first + 6].to_vec()).collect();
        assert_eq!(normals.len(), want.len());
        for first in 0..5 {
            for rows in 1..=5 - first {
                let mut got = vec![0.0; rows * 6];
                normals.fill(first, &mut got);
                assert_eq!(got, want[first * 6..(first + rows) * 6], "{rows} rows from {first}");
            }
        }
    }

    /// The known answer of the authors' Random123 (kat_vectors, philox4x32 10) whose counter has no third and fourth word.
    #[test]
    fn philox_gives_its_known_answers() {
        let mut words = [0; WORDS];
        philox(0, 0, &mut words);
        assert_eq!(words[..4], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        // Counters follow one another.
        let mut later = [0; WORDS];
        philox(3, 0, &mut later);
        assert_eq!(words[12..], later[..WORDS - 12]);
    }

    #[test]
    fn weights_have_the_asked_spread_and_no_offset() {
        let mut x = vec![0.0; 100_000];
        Stream::new(7, 1).fill_normal(&mut x, 0.02);
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / x.len() as f32;
        // Standard error of the mean is 0.02 / sqrt(1e5) = 6e-5: five of them.
        assert!(mean.abs() < 3.2e-4, "mean {mean}");
        assert!((variance.sqrt() - 0.02).abs() < 2e-4, "deviation {}", variance.sqrt());
    }

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let a: Vec<u64> = (0..4)
            .map({
                let mut s = Stream::new(1, 0);
                move |_| s.next_u64()
            })
            .collect();
        let b: Vec<u64> = (0..4)
            .map({
                let mut s = Stream::new(1, 1);
                move |_| s.next_u64()
            })
            .collect();
        let again: Vec<u64> = (0..4)
            .map({
                let mut s = Stream::new(1, 0);
                move |_| s.next_u64()
            })
            .collect();
        assert_ne!(a, b);
        assert_eq!(a, again);
    }
}
