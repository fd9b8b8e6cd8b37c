//! What the law might as well have been: bootstrap over the runs.
//!
//! Of many runs each draw takes as many of them, some twice and others not (Efron 1979), as Besiroglu et al. 2024 do: errors may then
//! differ from run to run. Of few, that would leave less than the law's five constants take (of eight runs five): each draw gives
//! every run the error of some other one. Errors are then taken as large as those of runs that took no part in the fit (their number
//! is smaller by the law's constants), and by how far their size itself is uncertain, which few runs make larger (Student 1908).

use super::fit::{CONSTANTS, Logs};
use super::{Law, Point};
use crate::stats::quantile;
use crate::stats::random::SplitMix64;

/// So many runs, for each constant of the law, are many.
const MANY: usize = 10;

/// A law with what it might as well have been.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub law: Law,
    /// Root mean square error of ln L of a run that takes no part in the fit.
    pub noise: f64,
    pub draws: Vec<Draw>,
}

/// One of the laws that might as well have been.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Draw {
    pub law: Law,
    /// How far a further run would be from it, in ln L.
    pub error: f64,
    /// A standard normal number, for what else is uncertain of an answer.
    pub normal: f64,
}

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Bounded {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Drawn {
    /// Fits, and draws so often. `None` where there are not more runs than the law has constants.
    pub(crate) fn of(points: &[Point], draws: usize, seed: u64) -> Option<Self> {
        let free = points.len().checked_sub(CONSTANTS).filter(|f| *f > 0)?;
        let logs = Logs::of(points);
        let law = logs.law()?;
        let (fitted, errors) = logs.fitted(&law);
        let square = errors.iter().map(|e| e * e).sum::<f64>();
        let larger = (points.len() as f64 / free as f64).sqrt();
        let mut random = SplitMix64::new(seed);
        let mut one = || {
            let size = larger * size_drawn(&mut random, free);
            let mut error = || {
                let of = errors[random.below(errors.len())];
                size * if random.coin() { of } else { -of }
            };
            let moved: Vec<f64> = fitted.iter().map(|f| f + error()).collect();
            let error = error();
            let other = if points.len() >= MANY * CONSTANTS {
                logs.drawn(|| random.below(points.len()))
            } else {
                logs.with(moved.into_iter())
            };
            let law = other.law_near(Some(&law))?;
            Some(Draw { law, error, normal: normal(&mut random) })
        };
        let draws = (0..draws).filter_map(|_| one()).collect();
        Some(Self { law, noise: (square / free as f64).sqrt(), draws })
    }

    /// A figure of the law. Draws that have none count as beyond every number, above.
    pub(crate) fn bounded(&self, value: f64, of: impl Fn(&Draw) -> Option<f64>) -> Bounded {
        let mut all: Vec<f64> = self.draws.iter().map(|d| of(d).unwrap_or(f64::INFINITY)).collect();
        all.sort_by(f64::total_cmp);
        // Of neighbours that are infinite there is no mean.
        let at = |p: f64| match all.get(((all.len().max(1) - 1) as f64 * p).ceil() as usize) {
            Some(x) if x.is_infinite() => Some(*x),
            _ => quantile(&all, p),
        };
        let (low, high) = (at(0.025).unwrap_or(value), at(0.975).unwrap_or(value));
        Bounded { value, low: low.min(value), high: high.max(value) }
    }

    #[cfg(test)]
    /// The loss of a further run of this size on so many tokens.
    pub(crate) fn loss(&self, parameters: f64, tokens: f64) -> Bounded {
        let value = self.law.loss(parameters, tokens);
        self.bounded(value, |d| Some(d.law.loss(parameters, tokens) * d.error.exp()))
    }
}

/// How large errors may be beside how large they were found: the root of `free` over chi squared of as many degrees.
fn size_drawn(random: &mut SplitMix64, free: usize) -> f64 {
    let chi: f64 = (0..free).map(|_| normal(random).powi(2)).sum();
    (free as f64 / chi.max(f64::MIN_POSITIVE)).sqrt()
}

/// Box and Muller 1958.
pub(super) fn normal(random: &mut SplitMix64) -> f64 {
    let mut share = || ((random.draw() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let (radius, angle) = ((-2.0 * share().ln()).sqrt(), std::f64::consts::TAU * share());
    radius * angle.cos()
}
