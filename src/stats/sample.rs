//! A sample of positive measurements, checked once.

/// Why numbers are no sample.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub(crate) enum SampleError {
    #[error("no measurements")]
    Empty,
    #[error("measurement {index} is {value}, which is not a positive finite number")]
    NotPositive { index: usize, value: f64 },
}

/// Positive, finite measurements in ascending order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    sorted: Vec<f64>,
}

impl Sample {
    /// Checks and sorts.
    ///
    /// # Errors
    /// Nothing in it, or something that is no positive finite number.
    pub(crate) fn new(values: &[f64]) -> Result<Self, SampleError> {
        if values.is_empty() {
            return Err(SampleError::Empty);
        }
        if let Some((index, value)) = values.iter().enumerate().find(|(_, v)| !(v.is_finite() && **v > 0.0)) {
            return Err(SampleError::NotPositive { index, value: *value });
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Ok(Self { sorted })
    }

    /// Ascending.
    pub(crate) fn sorted(&self) -> &[f64] {
        &self.sorted
    }

    /// The quantile at `p` in 0..=1.
    pub(crate) fn quantile(&self, p: f64) -> f64 {
        interpolated(&self.sorted, p)
    }

    /// The middle.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// The middle of what is there, in any order.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// Linear interpolation between order statistics: type 7 of Hyndman & Fan 1996.
fn interpolated(sorted: &[f64], p: f64) -> f64 {
    let at = (sorted.len() - 1) as f64 * p.clamp(0.0, 1.0);
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

/// The quantile of numbers in ascending order; `None` of none.
pub(crate) fn quantile(sorted: &[f64], p: f64) -> Option<f64> {
    (!sorted.is_empty()).then(|| interpolated(sorted, p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_as_type_seven() {
        let s = Sample::new(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((s.quantile(0.0), s.median(), s.quantile(0.9), s.quantile(1.0)), (1.0, 2.5, 3.7, 4.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn what_is_no_measurement_is_refused() {
        assert_eq!(Sample::new(&[]), Err(SampleError::Empty));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(Sample::new(&[1.0, bad]), Err(SampleError::NotPositive { index: 1, .. })));
        }
    }

    #[test]
    fn the_median_does_not_mind_the_order() {
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[]), None);
    }
}
