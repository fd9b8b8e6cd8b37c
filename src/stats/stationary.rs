//! Where warm-up ends: the marginal standard error rule (MSER-5, White 1997).
//!
//! Samples are averaged in fives; dropping the first d averages leaves a mean with a standard error; the d with the smallest
//! one ends the warm-up. A d in the second half means that the steps still drift.

/// The rule looks at averages of this many.
const BATCH: usize = 5;
/// Fewer averages say nothing.
const FEWEST: usize = 3;

/// The index of the first stationary sample, or `None` while the samples still drift or are too few.
pub(crate) fn stationary_from(samples: &[f64]) -> Option<usize> {
    let averages: Vec<f64> = samples.chunks_exact(BATCH).map(|c| c.iter().sum::<f64>() / BATCH as f64).collect();
    let n = averages.len();
    if n < FEWEST {
        return None;
    }
    let error = |d: usize| {
        let rest = &averages[d..];
        let mean = rest.iter().sum::<f64>() / rest.len() as f64;
        rest.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / (rest.len() as f64).powi(2)
    };
    let best = (0..=n - 2).min_by(|a, b| error(*a).total_cmp(&error(*b)))?;
    (2 * best <= n).then_some(best * BATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wobble(i: usize) -> f64 {
        1.0 + 0.01 * ((i * 7919) % 13) as f64 / 13.0
    }

    #[test]
    fn a_slow_start_is_cut_off() {
        let samples: Vec<f64> = (0..100).map(|i| wobble(i) + if i < 12 { 1.0 } else { 0.0 }).collect();
        let from = stationary_from(&samples).unwrap();
        assert!((10..=20).contains(&from), "{from}");
    }

    #[test]
    fn steady_steps_are_stationary_almost_from_the_start() {
        let samples: Vec<f64> = (0..60).map(wobble).collect();
        assert!(stationary_from(&samples).unwrap() <= 30);
    }

    #[test]
    fn steps_that_keep_getting_faster_are_not_stationary() {
        let samples: Vec<f64> = (0..50).map(|i| 2.0 - 0.03 * i as f64).collect();
        assert_eq!(stationary_from(&samples), None);
        assert_eq!(stationary_from(&[1.0; 14]), None);
    }
}
