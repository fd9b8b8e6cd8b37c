//! Seeded numbers: weights, inputs and dropout masks. Counter-based, so that the n-th number costs the same wherever one
//! starts, and any thread can make any part.
//!
//! Not for cryptography, nor for statistics that need more than 64 bits of state.

/// SplitMix64's finaliser (Steele, Lea & Flood 2014): a bijection that scatters neighbouring counters.
#[inline(always)]
pub fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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
        // Variance of the sum of four uniforms on 0..65536 is 4 * 65536^2 / 12.
        let scale = standard_deviation / (65536.0 * (4.0f32 / 12.0).sqrt());
        for x in out {
            let bits = self.next_u64();
            let sum = (bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48);
            *x = (sum as f32 - 131_070.0) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
