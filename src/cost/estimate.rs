//! Estimates: a value with its interval, and its image under monotonic functions.

use super::metric::Estimate;

impl Estimate {
    /// A figure without an interval; `None` unless it is a finite number.
    pub fn exact(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self { value, low: None, high: None })
    }

    /// A figure and its interval. `None` unless the value is finite; the interval is left out unless both of its ends are
    /// finite and hold the value between them.
    pub fn with_interval(value: f64, low: f64, high: f64) -> Option<Self> {
        let sound = low.is_finite() && high.is_finite() && low <= value && value <= high;
        Self::exact(value).map(|e| if sound { Self { low: Some(low), high: Some(high), ..e } } else { e })
    }

    /// The estimate of `f(x)` for a strictly increasing `f`.
    pub fn increasing(self, f: impl Fn(f64) -> f64) -> Option<Self> {
        match self.interval() {
            Some((low, high)) => Self::with_interval(f(self.value), f(low), f(high)),
            None => Self::exact(f(self.value)),
        }
    }

    /// The estimate of `f(x)` for a strictly decreasing `f`: the ends of the interval change places.
    pub fn decreasing(self, f: impl Fn(f64) -> f64) -> Option<Self> {
        match self.interval() {
            Some((low, high)) => Self::with_interval(f(self.value), f(high), f(low)),
            None => Self::exact(f(self.value)),
        }
    }

    /// Both ends of the interval, where there is one.
    pub fn interval(&self) -> Option<(f64, f64)> {
        self.low.zip(self.high)
    }

    /// Half the width of the interval, relative to the value: the "plus or minus" of a table.
    pub fn relative_half_width(&self) -> Option<f64> {
        let (low, high) = self.interval()?;
        let width = (high - low) / 2.0 / self.value.abs();
        width.is_finite().then_some(width)
    }

    /// Whether the two intervals have a point in common. A figure without an interval is a point of its own.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = self.interval().unwrap_or((self.value, self.value));
        let (c, d) = other.interval().unwrap_or((other.value, other.value));
        a <= d && c <= b
    }

    /// The estimate itself if it is over zero: rates and prices are, and one that is not is a fault of its inputs.
    pub fn positive(self) -> Option<Self> {
        (self.value > 0.0 && self.low.is_none_or(|l| l > 0.0)).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decreasing_image_swaps_the_ends() {
        let step = Estimate::with_interval(2.0, 1.0, 4.0).unwrap();
        let rate = step.decreasing(|s| 8.0 / s).unwrap();
        assert_eq!((rate.value, rate.low, rate.high), (4.0, Some(2.0), Some(8.0)));
        let back = rate.increasing(|r| 2.0 * r).unwrap();
        assert_eq!((back.value, back.low, back.high), (8.0, Some(4.0), Some(16.0)));
    }

    #[test]
    fn what_is_not_a_number_is_no_estimate() {
        assert_eq!(Estimate::exact(f64::NAN), None);
        assert_eq!(Estimate::exact(f64::INFINITY), None);
        let wide = Estimate::with_interval(1.0, 0.0, f64::INFINITY).unwrap();
        assert_eq!((wide.value, wide.low, wide.high), (1.0, None, None));
        assert_eq!(Estimate::exact(0.0).and_then(Estimate::positive), None);
    }

    #[test]
    fn intervals_that_touch_overlap_and_others_do_not() {
        let e = |v: f64, l: f64, h: f64| Estimate::with_interval(v, l, h).unwrap();
        assert!(e(1.0, 0.9, 1.1).overlaps(&e(1.2, 1.1, 1.3)));
        assert!(!e(1.0, 0.9, 1.1).overlaps(&e(1.3, 1.2, 1.4)));
        assert!(Estimate::exact(1.0).unwrap().overlaps(&e(1.05, 1.0, 1.1)));
    }
}
