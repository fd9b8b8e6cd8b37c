//! A figure of several repetitions that differ by a seed.

use super::launches::t95;
use super::{Interval, median};

/// Repetitions from which on they say how they differ.
const FEWEST: usize = 3;

/// The median of repetitions, all over 0, and the 95 % interval of their geometric mean by Student's t on their logarithms, widened to
/// hold the median; `None` for fewer than three, which say too little of how they differ. `None` without any, or with one that is no
/// number over 0.
pub(crate) fn of_repeats(values: &[f64]) -> Option<(f64, Option<Interval>)> {
    if values.is_empty() || !values.iter().all(|v| v.is_finite() && *v > 0.0) {
        return None;
    }
    let value = median(values)?;
    if values.len() < FEWEST {
        return Some((value, None));
    }
    let n = values.len() as f64;
    let mean = values.iter().map(|v| v.ln()).sum::<f64>() / n;
    let variance = values.iter().map(|v| (v.ln() - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = t95(n - 1.0) * (variance / n).sqrt();
    let (low, high) = ((mean - half).exp().min(value), (mean + half).exp().max(value));
    Some((value, Some(Interval { point: value, low, high, confidence: 0.95 })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_seeds_have_an_interval_and_two_have_none() {
        assert_eq!(of_repeats(&[]), None);
        assert_eq!(of_repeats(&[1.0, 0.0, 2.0]), None);
        assert_eq!(of_repeats(&[1.0, 3.0]), Some((2.0, None)));
        let (value, interval) = of_repeats(&[100.0, 110.0, 90.0]).unwrap();
        let i = interval.unwrap();
        // t of two degrees of freedom is 4.30; the logarithms' deviation is 0.1003.
        assert_eq!(value, 100.0);
        assert!((i.high / i.low).ln() / 2.0 - 4.303 * 0.1003 / 3f64.sqrt() < 0.003, "{i:?}");
        assert!(i.low < 80.0 && i.high > 125.0, "{i:?}");
        let (_, same) = of_repeats(&[5.0; 4]).unwrap();
        assert!((same.unwrap().high - 5.0).abs() < 1e-12);
    }
}
