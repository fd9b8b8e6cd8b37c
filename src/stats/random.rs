//! Seeded draws that can be had again: shuffles, coins, resampling.
//!
//! Not for cryptography, nor for statistics that need more than 64 bits of state.

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finaliser (Steele, Lea & Flood 2014): a bijection that scatters neighbouring counters.
#[inline(always)]
pub(crate) fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The generator of Steele, Lea & Flood 2014.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        let drawn = mix(self.0);
        self.0 = self.0.wrapping_add(GAMMA);
        drawn
    }

    /// Heads as often as tails.
    pub fn coin(&mut self) -> bool {
        self.draw() >> 63 == 1
    }

    /// True in a share of the cases.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        ((self.draw() >> 11) as f64 / (1u64 << 53) as f64) < share
    }

    /// A number below `n`; 0 where `n` is 0. Multiply and shift instead of a remainder; the bias is below 2^-64 times `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.draw()) * n as u128) >> 64) as usize
    }

    /// Fisher and Yates's shuffle (Durstenfeld 1964).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The reference implementation's first outputs for the seed 1234567.
        let mut random = SplitMix64::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.draw()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn every_place_is_reached_by_every_item_about_equally_often() {
        let mut seen = [[0u32; 4]; 4];
        for seed in 0..4000 {
            let mut items = [0usize, 1, 2, 3];
            SplitMix64::new(seed).shuffle(&mut items);
            for (place, item) in items.into_iter().enumerate() {
                seen[item][place] += 1;
            }
        }
        // 1000 expected; 27 is the standard deviation, and 16 places are looked at.
        assert!(seen.iter().flatten().all(|n| n.abs_diff(1000) < 110), "{seen:?}");
        assert_eq!(SplitMix64::new(1).below(0), 0);
    }
}
