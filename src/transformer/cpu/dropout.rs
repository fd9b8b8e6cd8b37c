//! Dropout without a stored mask: whether an element falls follows from the seed and its index.

use super::super::backend::Dropout;
use super::super::random::mix;

/// Applies dropout to elements `start..start + x.len()` of a buffer, in place.
pub(super) fn apply(x: &mut [f32], start: usize, d: &Dropout) {
    let threshold = (f64::from(d.probability) * 4_294_967_296.0) as u64;
    let keep = 1.0 / (1.0 - d.probability);
    for (i, v) in x.iter_mut().enumerate() {
        let falls = mix(d.seed.wrapping_add((start + i) as u64)) >> 32 < threshold;
        *v = if falls { 0.0 } else { *v * keep };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_falls_is_the_probability_and_the_mean_stays() {
        let d = Dropout { probability: 0.3, seed: 9 };
        let mut x = vec![1.0f32; 100_000];
        apply(&mut x, 0, &d);
        let fallen = x.iter().filter(|v| **v == 0.0).count() as f64 / 1e5;
        // Five standard errors of a share of 0.3 in 1e5 draws.
        assert!((fallen - 0.3).abs() < 5.0 * (0.21f64 / 1e5).sqrt(), "{fallen}");
        let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / 1e5;
        assert!((mean - 1.0).abs() < 0.011, "{mean}");
    }

    #[test]
    fn any_part_of_a_buffer_sees_the_same_mask() {
        let d = Dropout { probability: 0.5, seed: 3 };
        let mut whole = vec![1.0f32; 1000];
        apply(&mut whole, 0, &d);
        let mut part = vec![1.0f32; 300];
        apply(&mut part, 500, &d);
        assert_eq!(&whole[500..800], &part[..]);
    }
}
