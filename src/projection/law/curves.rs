//! Where in the plane of sizes and tokens the same money gets, and the way of the lowest losses through it.

use super::spend::{Rate, Training};
use super::{Law, Point};

/// Sizes and tokens of the same cost.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Curve {
    pub usd: f64,
    /// Parameters and tokens.
    pub at: Vec<(f64, f64)>,
}

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Curves {
    pub costs: Vec<Curve>,
    /// The lowest loss of each of these costs.
    pub best: Vec<Training>,
}

/// Most curves of one picture.
const MOST: usize = 6;
/// Places of a curve.
const PLACES: usize = 60;
/// How far beyond the runs the picture reaches.
const MARGIN: f64 = 3.0;

impl Curves {
    /// Round costs from the cheapest run to `MARGIN` times the dearest, within the runs' sizes and tokens and a margin.
    pub(crate) fn of(points: &[Point], law: &Law, rate: &Rate) -> Self {
        let ends = |of: &dyn Fn(&Point) -> f64| {
            points.iter().map(of).fold((f64::INFINITY, 0.0f64), |(l, h), x| (l.min(x), h.max(x)))
        };
        let sizes = ends(&|p| p.parameters);
        let tokens = ends(&|p| p.tokens);
        let usd = ends(&|p| p.tokens * rate.usd_per_token(p.parameters));
        let (low, high) = (sizes.0 / MARGIN, sizes.1 * MARGIN);
        let curve = |usd: f64| {
            let size = |i: usize| low * (high / low).powf(i as f64 / (PLACES - 1) as f64);
            let at = (0..PLACES).map(|i| (size(i), usd / rate.usd_per_token(size(i))));
            let seen = (tokens.0 / MARGIN)..=(tokens.1 * MARGIN);
            Curve { usd, at: at.filter(|(_, d)| seen.contains(d)).collect() }
        };
        let costs: Vec<Curve> =
            round(usd.0, usd.1 * MARGIN).into_iter().map(curve).filter(|c| c.at.len() > 1).collect();
        let inside = |t: &Training| (low..=high).contains(&t.parameters);
        let best = costs.iter().map(|c| rate.best(law, c.usd)).filter(inside).collect();
        Self { costs, best }
    }
}

/// Some round numbers within.
fn round(low: f64, high: f64) -> Vec<f64> {
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let of = |factors: &'static [f64], every: usize| -> Vec<f64> {
        let all = decades.clone().step_by(every).flat_map(|d| factors.iter().map(move |f| f * 10f64.powi(d)));
        all.filter(|x| (low..=high).contains(x)).collect()
    };
    let choices = [of(&[1.0, 2.0, 5.0], 1), of(&[1.0, 3.0], 1), of(&[1.0], 1), of(&[1.0], 2), of(&[1.0], 4)];
    choices.into_iter().find(|c| c.len() <= MOST).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_costs_are_few_and_within() {
        assert_eq!(round(0.15, 6.0), [0.2, 0.5, 1.0, 2.0, 5.0]);
        assert_eq!(round(1.0, 4e5), [1.0, 10.0, 100.0, 1e3, 1e4, 1e5]);
        assert!(round(1e-6, 1e9).len() <= MOST);
    }

    #[test]
    fn a_curve_costs_the_same_everywhere_and_the_best_lies_on_it() {
        let law = Law::of(1.69, (406.4, 0.34), (410.7, 0.28));
        let rate = Rate::of([(1e8, 1e-9), (1e10, 1e-7)].into_iter(), 0.0).unwrap();
        let points: Vec<Point> = [(1e8, 1e10), (1e9, 1e11), (1e10, 1e12)]
            .map(|(n, d)| Point { parameters: n, tokens: d, loss: law.loss(n, d), usd: None })
            .into();
        let curves = Curves::of(&points, &law, &rate);
        assert!(!curves.best.is_empty());
        for c in &curves.costs {
            assert!(c.at.iter().all(|(n, d)| (d * rate.usd_per_token(*n) / c.usd - 1.0).abs() < 1e-9));
        }
        for b in &curves.best {
            let on = curves.costs.iter().find(|c| c.usd == b.usd).unwrap();
            assert!(on.at.iter().all(|(n, d)| law.loss(*n, *d) >= b.loss - 1e-9));
        }
    }
}
