//! The one place that asks `stats` about samples: medians with their interval, and quantiles.
//!
//! The interval is that of one launch of one process. What differs from launch to launch (memory layout, neighbours) is not in
//! it; reports say so.

use super::metric::Estimate;
use crate::stats::{Sample, median_interval};

/// The median of samples over 0, in the order in which they were taken, with the 95 % interval where there are enough of
/// them. `None` without samples.
pub fn median(samples: &[f64]) -> Option<Estimate> {
    let value = Sample::new(samples).ok()?.median();
    match median_interval(samples) {
        Some(i) => Estimate::with_interval(value, i.low, i.high),
        None => Estimate::exact(value),
    }
}

/// The quantile `p` in 0..=1, type 7 of Hyndman & Fan 1996. `None` without samples.
pub fn quantile(samples: &[f64], p: f64) -> Option<Estimate> {
    Estimate::exact(Sample::new(samples).ok()?.quantile(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_its_interval_and_few_samples_have_none() {
        let samples: Vec<f64> = (0..101).map(|i| f64::from(i * 37 % 101 + 1)).collect();
        let m = median(&samples).unwrap();
        assert_eq!(m.value, 51.0);
        let (low, high) = m.interval().unwrap();
        assert!((30.0..51.0).contains(&low) && high > 51.0 && high <= 72.0, "{low} {high}");
        assert_eq!(median(&[1.0, 2.0, 3.0]).unwrap().interval(), None);
    }

    #[test]
    fn samples_that_are_no_durations_have_no_median() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[1.0, f64::NAN]), None);
        assert_eq!(median(&[1.0, 0.0]), None);
    }

    #[test]
    fn quantiles_interpolate_between_neighbours() {
        assert_eq!(quantile(&[4.0, 1.0, 3.0, 2.0], 0.5).unwrap().value, 2.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.9).unwrap().value, 4.6);
    }
}
