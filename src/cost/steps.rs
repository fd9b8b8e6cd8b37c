//! The one place that asks `stats` about samples: medians with their interval, and quantiles.
//!
//! The interval is that of another run on the same machine: what steps leave open, how launches differ, and how runs differ
//! ([`crate::stats::launches`]).

use super::metric::{Context, Estimate};
use crate::runner::measurement::Figures;
use crate::stats::Sample;
use crate::stats::launches::{Spread, of_launches};

/// The median of a trial's samples over 0, one a step, over its launches, with the 95 % interval of another run where there are enough
/// of them. `None` without samples.
pub(crate) fn median(c: &Context, samples: &[f64]) -> Option<Estimate> {
    estimate(c.figures()?, samples, &c.spread)
}

fn estimate(figures: &Figures, samples: &[f64], spread: &Spread) -> Option<Estimate> {
    let found = of_launches(&figures.by_launch(samples), spread)?;
    match found.within_run {
        Some(_) => Estimate::with_interval(found.value, found.another_run.low, found.another_run.high),
        // Of one launch of too few steps nothing is known.
        None => Estimate::exact(found.value),
    }
}

/// The quantile `p` in 0..=1, type 7 of Hyndman & Fan 1996. `None` without samples.
pub(crate) fn quantile(samples: &[f64], p: f64) -> Option<Estimate> {
    Estimate::exact(Sample::new(samples).ok()?.quantile(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: &[f64], launches: &[u32]) -> Option<Estimate> {
        let run = crate::fixture::heads();
        let figures = run.records[0].measurement.figures.clone().unwrap();
        let figures = Figures { step_seconds: samples.to_vec(), launches: launches.to_vec(), ..figures };
        estimate(&figures, samples, &run.environment.variation().spread)
    }

    #[test]
    fn the_median_lies_in_its_interval_and_few_samples_of_one_launch_have_none() {
        let samples: Vec<f64> = (0..101).map(|i| f64::from(i * 37 % 101 + 1)).collect();
        let m = of(&samples, &[]).unwrap();
        assert_eq!(m.value, 51.0);
        let (low, high) = m.interval().unwrap();
        assert!((25.0..51.0).contains(&low) && high > 51.0 && high <= 90.0, "{low} {high}");
        assert_eq!(of(&[1.0, 2.0, 3.0], &[]).unwrap().interval(), None);
        let three = of(&[1.0, 1.01, 0.99], &[1, 1, 1]).unwrap();
        assert!(three.value == 1.0 && three.interval().is_some(), "launches say how they differ: {three:?}");
    }

    #[test]
    fn samples_that_are_no_durations_have_no_median() {
        assert_eq!(of(&[], &[]), None);
        assert_eq!(of(&[1.0, f64::NAN], &[]), None);
        assert_eq!(of(&[1.0, 0.0], &[]), None);
    }

    #[test]
    fn quantiles_interpolate_between_neighbours() {
        assert_eq!(quantile(&[4.0, 1.0, 3.0, 2.0], 0.5).unwrap().value, 2.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.9).unwrap().value, 4.6);
    }
}
