//! Ratios of two estimates, with an interval.

use crate::cost::metric::Estimate;
use crate::stats::launches::{Spread, paired, t95};

/// What can be said of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The interval holds 1.
    WithinNoise,
    Higher,
    Lower,
    /// One of the figures has no interval.
    Unknown,
}

/// `a / b`. The interval is recovered from those of both on the logarithmic scale, `ln r -/+ sqrt(d_a^2 + d_b^2)` with the
/// distances to the ends that pull the same way (MOVER: Zou & Donner 2008, Statistics in Medicine 27, equations 8-9); it takes
/// `a` and `b` to be independent. `None` unless both are over 0.
pub(crate) fn ratio(a: &Estimate, b: &Estimate) -> Option<Estimate> {
    let (a, b) = (a.positive()?, b.positive()?);
    let value = a.value / b.value;
    let (Some((a_low, a_high)), Some((b_low, b_high))) = (a.interval(), b.interval()) else {
        return Estimate::exact(value)?.positive();
    };
    let down = f64::hypot((a.value / a_low).ln(), (b_high / b.value).ln());
    let up = f64::hypot((a_high / a.value).ln(), (b.value / b_low).ln());
    Estimate::with_interval(value, value * (-down).exp(), value * up.exp())?.positive()
}

/// `a / b` of two cells of one run, from the launches of the same rounds: what the run differs by from others is in both alike.
/// `rounds`: medians of their launches in the order of rounds.
pub(crate) fn ratio_of_run(a: &Estimate, b: &Estimate, rounds: [&[f64]; 2], spread: &Spread) -> Option<Estimate> {
    let value = a.positive()?.value / b.positive()?.value;
    let n = rounds[0].len().min(rounds[1].len());
    let Some((_, error, freedom)) = paired(&rounds[0][..n], &rounds[1][..n], spread) else {
        return ratio(a, b);
    };
    let half = t95(freedom) * error;
    Estimate::with_interval(value, value * (-half).exp(), value * half.exp())?.positive()
}

/// Reads a ratio against 1.
pub(crate) fn change(ratio: &Estimate) -> Change {
    match ratio.interval() {
        None => Change::Unknown,
        Some((low, _)) if low > 1.0 => Change::Higher,
        Some((_, high)) if high < 1.0 => Change::Lower,
        Some(_) => Change::WithinNoise,
    }
}

/// The geometric mean of ratios of two runs. What the runs differ by as a whole is in each of them alike, so that the interval is not
/// taken to shrink with their number: its ends are the means of theirs. `None` without ratios.
pub(crate) fn geometric_mean(ratios: &[Estimate]) -> Option<Estimate> {
    let n = ratios.len() as f64;
    if ratios.is_empty() || ratios.iter().any(|r| r.positive().is_none()) {
        return None;
    }
    let value = (ratios.iter().map(|r| r.value.ln()).sum::<f64>() / n).exp();
    let Some(ends) = ratios.iter().map(Estimate::interval).collect::<Option<Vec<_>>>() else {
        return Estimate::exact(value);
    };
    let width = |f: fn(f64, (f64, f64)) -> f64| ratios.iter().zip(&ends).map(|(r, &e)| f(r.value, e)).sum::<f64>() / n;
    let (down, up) = (width(|v, (low, _)| (v / low).ln()), width(|v, (_, high)| (high / v).ln()));
    Estimate::with_interval(value, value * (-down).exp(), value * up.exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn e(value: f64, low: f64, high: f64) -> Estimate {
        Estimate::with_interval(value, low, high).unwrap()
    }

    #[test]
    fn the_widths_add_up_in_quadrature_on_the_logarithmic_scale() {
        // Both 10 % wide: ln 1.1 * sqrt 2 = 0.13479.
        let r = ratio(&e(2.0, 2.0 / 1.1, 2.2), &e(1.0, 1.0 / 1.1, 1.1)).unwrap();
        let width = 1.1f64.ln() * 2f64.sqrt();
        assert!((r.low.unwrap() - 2.0 * (-width).exp()).abs() < 1e-12);
        assert!((r.high.unwrap() - 2.0 * width.exp()).abs() < 1e-12);
        assert_eq!(change(&r), Change::Higher);
        assert_eq!(change(&ratio(&e(1.0, 0.9, 1.1), &e(2.0, 1.9, 2.1)).unwrap()), Change::Lower);
        assert_eq!(change(&ratio(&e(1.0, 0.9, 1.1), &Estimate::exact(2.0).unwrap()).unwrap()), Change::Unknown);
    }

    #[test]
    fn many_ratios_of_two_runs_are_known_no_better_than_each() {
        let r = e(1.1, 1.1 / 1.2, 1.1 * 1.2);
        let mean = geometric_mean(&[r; 4]).unwrap();
        assert!((mean.value - 1.1).abs() < 1e-12);
        assert!((mean.high.unwrap() - 1.1 * 1.2).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), None);
    }

    proptest! {
        #[test]
        fn a_figure_against_itself_is_one_and_no_change(v in 1e-6..1e9f64, down in 0.0..0.9f64, up in 0.0..9.0f64) {
            let x = e(v, v * (1.0 - down), v * (1.0 + up));
            let r = ratio(&x, &x).unwrap();
            prop_assert_eq!(r.value, 1.0);
            prop_assert_eq!(change(&r), Change::WithinNoise);
        }

        #[test]
        fn turned_round_a_ratio_is_its_reciprocal(a in 1e-3..1e3f64, b in 1e-3..1e3f64, w in 0.01..0.5f64) {
            let (x, y) = (e(a, a * (1.0 - w), a * (1.0 + w)), e(b, b * (1.0 - w), b * (1.0 + w)));
            let (r, s) = (ratio(&x, &y).unwrap(), ratio(&y, &x).unwrap());
            prop_assert!((r.low.unwrap() * s.high.unwrap() - 1.0).abs() < 1e-12);
        }
    }
}
