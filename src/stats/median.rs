//! The interval of a median, honest about steps that resemble their neighbours.
//!
//! For independent samples the interval between two order statistics covers the median whatever the distribution (Conover
//! 1999, section 3.2): the count of samples below the median is binomial. Consecutive steps are not independent, so the
//! count's variance n/4 is multiplied by the integrated autocorrelation time of the indicator "below the median", summed over
//! the initial positive pairs (Geyer 1992).

use super::{Interval, Sample};

/// Two-sided 95 % of the normal distribution.
const Z: f64 = 1.959_964;
/// With fewer samples even the extremes do not cover the median with 95 %: 2 * 0.5^5 > 0.05.
const FEWEST: usize = 6;

/// The 95 % interval of the median of positive samples in the order in which they were taken; `None` with fewer than six, or
/// when they hang together so much that the whole range does not suffice.
pub(crate) fn median_interval(samples: &[f64]) -> Option<Interval> {
    let sample = Sample::new(samples).ok()?;
    let n = samples.len();
    if n < FEWEST {
        return None;
    }
    let median = sample.median();
    let half = Z * (n as f64 * correlation_time(samples, median)).sqrt() / 2.0;
    // Ranks n/2 -+ half, outward; with half over n/2 there is no such order statistic.
    let low = (n as f64 / 2.0 - half).floor();
    let high = (n as f64 / 2.0 + half).ceil() + 1.0;
    if low < 1.0 || high > n as f64 {
        // The extremes themselves cover 1 - 2^(1-n) of independent samples: enough from six on, if the time is short.
        let range = Interval { point: median, low: sample.sorted()[0], high: sample.sorted()[n - 1], confidence: 0.95 };
        return (correlation_time(samples, median) * FEWEST as f64 <= n as f64).then_some(range);
    }
    let at = |rank: f64| sample.sorted()[rank as usize - 1];
    Some(Interval { point: median, low: at(low), high: at(high), confidence: 0.95 })
}

/// The 95 % interval of the quantile `p` of samples in the order in which they were taken, by the same count: its variance is
/// n p (1 - p) times the correlation time. `None` where no order statistic bounds it on one of the sides.
pub(crate) fn quantile_interval(samples: &[f64], p: f64) -> Option<Interval> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let point = super::quantile(&sorted, p)?;
    let n = samples.len() as f64;
    let half = Z * (n * p * (1.0 - p) * correlation_time(samples, point)).sqrt();
    let (low, high) = ((n * p - half).floor(), (n * p + half).ceil() + 1.0);
    if low < 1.0 || high > n {
        return None;
    }
    let at = |rank: f64| sorted.get(rank as usize - 1).copied();
    Some(Interval { point, low: at(low)?, high: at(high)?, confidence: 0.95 })
}

/// 1 + 2 * sum of autocorrelations of the indicator of being below a threshold, at least 1.
fn correlation_time(samples: &[f64], threshold: f64) -> f64 {
    let n = samples.len();
    let below: Vec<f64> = samples.iter().map(|x| if *x < threshold { 0.5 } else { -0.5 }).collect();
    let mean = below.iter().sum::<f64>() / n as f64;
    let covariance = |lag: usize| -> f64 {
        below[lag..].iter().zip(&below).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>() / n as f64
    };
    let variance = covariance(0);
    if variance <= 0.0 {
        return 1.0;
    }
    let mut sum = 0.0;
    // Pairs of neighbouring lags; the sum ends at the first pair that is not positive.
    for lag in (1..(n / 3).min(512)).step_by(2) {
        let pair = (covariance(lag) + covariance(lag + 1)) / variance;
        if pair <= 0.0 {
            break;
        }
        sum += pair;
    }
    (1.0 + 2.0 * sum).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Approximately normal numbers from a seed.
    fn normal(state: &mut u64) -> f64 {
        let mut sum = -6.0;
        for _ in 0..12 {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sum += (*state >> 11) as f64 / (1u64 << 53) as f64;
        }
        sum
    }

    /// Share of 1000 simulated trials whose interval holds the true median, 1.
    fn coverage(n: usize, phi: f64) -> f64 {
        let mut state = 42;
        let mut held = 0;
        for _ in 0..1000 {
            let mut x = 0.0;
            let samples: Vec<f64> = (0..n)
                .map(|_| {
                    x = phi * x + (1.0 - phi * phi).sqrt() * normal(&mut state);
                    (0.05 * x).exp()
                })
                .collect();
            held += u32::from(median_interval(&samples).is_some_and(|i| i.low <= 1.0 && 1.0 <= i.high));
        }
        f64::from(held) / 1000.0
    }

    #[test]
    fn independent_steps_are_covered() {
        for n in [10, 30, 200] {
            let share = coverage(n, 0.0);
            assert!(share >= 0.93, "{n} samples: {share}");
        }
    }

    #[test]
    fn steps_that_resemble_their_neighbours_are_covered() {
        for (n, phi, least) in [(200, 0.5, 0.92), (400, 0.8, 0.90)] {
            let share = coverage(n, phi);
            assert!(share >= least, "{n} samples, phi {phi}: {share}");
        }
    }

    #[test]
    fn other_quantiles_are_covered_as_often() {
        let (mut held, runs) = (0, 1000);
        let mut state = 5;
        for _ in 0..runs {
            let samples: Vec<f64> = (0..400).map(|_| normal(&mut state)).collect();
            // The 90th percentile of the standard normal distribution.
            held +=
                i32::from(quantile_interval(&samples, 0.9).is_some_and(|i| i.low <= 1.281_552 && 1.281_552 <= i.high));
        }
        assert!(f64::from(held) / f64::from(runs) >= 0.93, "{held}");
        assert_eq!(quantile_interval(&[1.0; 100], 0.99), None);
        assert_eq!(quantile_interval(&[], 0.5), None);
    }

    #[test]
    fn few_steps_have_no_interval_and_equal_steps_have_a_point() {
        assert_eq!(median_interval(&[1.0; 5]), None);
        let i = median_interval(&[2.0; 40]).unwrap();
        assert_eq!((i.low, i.point, i.high), (2.0, 2.0, 2.0));
    }
}
