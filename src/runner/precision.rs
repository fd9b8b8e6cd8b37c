//! When a trial has been measured enough: the relative half width of the median step's interval.

use crate::stats;

/// The precision that `samples` have reached: half the width of the median's 95 % interval, relative to the median. `None`
/// with too few of them for an interval.
pub(super) fn reached(samples: &[f64]) -> Option<f64> {
    let interval = stats::median_interval(samples)?;
    Some((interval.high - interval.low) / 2.0 / interval.point).filter(|p| p.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_is_half_the_interval_over_the_median() {
        let samples: Vec<f64> = (0..1000).map(|i| 1.0 + f64::from(i * 619 % 1000) / 1000.0).collect();
        let interval = stats::median_interval(&samples).unwrap();
        let expected = (interval.high - interval.low) / (2.0 * interval.point);
        assert!((reached(&samples).unwrap() - expected).abs() < 1e-12 && expected > 0.01);
        assert_eq!(reached(&samples[..5]), None);
    }
}
