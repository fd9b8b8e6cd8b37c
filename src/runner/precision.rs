//! When a trial has been measured enough: the relative half width of the median step's interval.

/// The precision that `samples` have reached: half the width of the median's 95 % interval, relative to the median. `None`
/// with too few of them for an interval.
pub(super) fn reached(samples: &[f64], _seed: u64) -> Option<f64> {
    // Order statistics around the median (Conover 1999, 3.2), by the normal approximation of the binomial.
    let n = samples.len();
    if n < 6 {
        return None;
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = n as f64 / 2.0;
    let low = ((half - 0.98 * (n as f64).sqrt()).floor().max(1.0) as usize).min(n) - 1;
    let (low, median, high) = (sorted[low], sorted[n / 2], sorted[n - 1 - low]);
    Some((high - low) / 2.0 / median).filter(|p| p.is_finite())
}

/// The index from which on the series is stationary, as far as the two halves of its last two thirds tell.
pub(super) fn stationary_from(samples: &[f64]) -> Option<usize> {
    let n = samples.len();
    if n < 9 {
        return None;
    }
    let median = |part: &[f64]| {
        let mut sorted = part.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let from = n / 3;
    let middle = from + (n - from) / 2;
    let (a, b) = (median(&samples[from..middle]), median(&samples[middle..]));
    ((a - b).abs() <= 0.02 * a.min(b)).then_some(from)
}
