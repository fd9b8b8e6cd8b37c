//! The one place that asks `stats` about samples: medians with their interval, and quantiles.
//!
//! The interval is that of one launch of one process. What differs from launch to launch (memory layout, neighbours) is not in
//! it; reports say so.

use super::metric::Estimate;

/// The median of samples over 0, with the 95 % interval where there are enough of them. `None` without samples.
pub fn median(samples: &[f64], seed: u64) -> Option<Estimate> {
    let _ = seed;
    let sorted = sorted(samples)?;
    let value = quantile_of(&sorted, 0.5);
    let Some((low, high)) = order_statistics(sorted.len()) else { return Estimate::exact(value) };
    Estimate::with_interval(value, sorted[low], sorted[high])
}

/// The quantile `p` in 0..=1, type 7 of Hyndman & Fan 1996. `None` without samples.
pub fn quantile(samples: &[f64], p: f64) -> Option<Estimate> {
    sorted(samples).and_then(|s| Estimate::exact(quantile_of(&s, p)))
}

fn sorted(samples: &[f64]) -> Option<Vec<f64>> {
    let sound = !samples.is_empty() && samples.iter().all(|s| s.is_finite() && *s > 0.0);
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sound.then_some(sorted)
}

fn quantile_of(sorted: &[f64], p: f64) -> f64 {
    let at = p.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

/// Ranks that hold the median with at least 95 %, by the normal approximation of the binomial (Conover 1999, 3.2).
fn order_statistics(n: usize) -> Option<(usize, usize)> {
    let half = 1.96 * (n as f64).sqrt() / 2.0;
    let low = (n as f64 / 2.0 - half).floor() - 1.0;
    let high = (n as f64 / 2.0 + half).ceil();
    (n >= 6).then(|| (low.max(0.0) as usize, (high as usize).min(n - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_its_interval_and_few_samples_have_none() {
        let samples: Vec<f64> = (1..=101).map(f64::from).collect();
        let m = median(&samples, 0).unwrap();
        assert_eq!(m.value, 51.0);
        let (low, high) = m.interval().unwrap();
        assert!((35.0..51.0).contains(&low) && high > 51.0 && high <= 67.0, "{low} {high}");
        assert_eq!(median(&[1.0, 2.0, 3.0], 0).unwrap().interval(), None);
    }

    #[test]
    fn samples_that_are_no_durations_have_no_median() {
        assert_eq!(median(&[], 0), None);
        assert_eq!(median(&[1.0, f64::NAN], 0), None);
        assert_eq!(median(&[1.0, 0.0], 0), None);
    }

    #[test]
    fn quantiles_interpolate_between_neighbours() {
        assert_eq!(quantile(&[4.0, 1.0, 3.0, 2.0], 0.5).unwrap().value, 2.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.9).unwrap().value, 4.6);
    }
}
