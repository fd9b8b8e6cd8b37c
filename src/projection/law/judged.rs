//! Whether runs say enough for an answer, and how far it may go.

use super::Point;
use super::draws::{Bounded, Drawn};
use crate::units::significant;

/// Fewer runs than this tell nothing of how far off their own fit is.
pub(crate) const LEAST_RUNS: usize = 8;
/// Sizes, and numbers of tokens, that a curve with a floor takes.
const LEAST_PLACES: usize = 3;
/// An exponent whose interval reaches from one value to more than so many times it is not known.
const WIDEST: f64 = 4.0;

/// How far runs reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extent {
    parameters: (f64, f64),
    tokens: (f64, f64),
    /// Of N D, which compute goes with.
    size: (f64, f64),
}

impl Extent {
    pub(crate) fn of(points: &[Point]) -> Self {
        let ends = |of: fn(&Point) -> f64| {
            let all = points.iter().map(of);
            all.fold((f64::INFINITY, 0.0f64), |(l, h), x| (l.min(x), h.max(x)))
        };
        Self { parameters: ends(|p| p.parameters), tokens: ends(|p| p.tokens), size: ends(Point::size) }
    }

    /// What of a training is further than `factor` times beyond every run: a sentence.
    pub(crate) fn beyond(&self, parameters: f64, tokens: f64, factor: f64) -> Option<String> {
        let asked = [
            ("parameters", parameters, self.parameters),
            ("tokens", tokens, self.tokens),
            ("parameters x tokens", parameters * tokens, self.size),
        ];
        let further = |(what, x, (low, high)): &(&str, f64, (f64, f64))| {
            let (times, end, way) = if x > high { (x / high, *high, "most") } else { (low / x, *low, "least") };
            (times > factor).then(|| {
                format!(
                    "{} {what}, {} times beyond the {way} that was run ({})",
                    counted(*x),
                    significant(times, 2),
                    counted(end)
                )
            })
        };
        asked.iter().find_map(further)
    }
}

/// What keeps runs from an answer, with what to add: sentences, none where nothing does.
pub(crate) fn lacking(points: &[Point], drawn: Option<&Drawn>) -> Vec<String> {
    let mut all = Vec::new();
    if points.len() < LEAST_RUNS {
        let message =
            "runs are there, and it takes at least 8 that ended with different losses: add sizes and numbers of tokens";
        all.push(format!("{} {message}", points.len()));
    }
    let different = |of: fn(&Point) -> f64| {
        let mut values: Vec<f64> = points.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.dedup_by(|a, b| *a < *b * 1.01);
        values.len()
    };
    let extent = Extent::of(points);
    let few = |n: usize, what: &str, (low, high): (f64, f64)| {
        (n < LEAST_PLACES).then(|| {
            format!(
                "the runs have {n} different {what}, and a curve with a floor takes at least {LEAST_PLACES}: add {what} from {} to {}",
                counted(low / 2.0),
                counted(high * 2.0)
            )
        })
    };
    all.extend(few(different(|p| p.parameters), "sizes", extent.parameters));
    all.extend(few(different(|p| p.tokens), "numbers of tokens", extent.tokens));
    let Some(drawn) = drawn.filter(|_| all.is_empty()) else { return all };
    let noise = significant(100.0 * drawn.noise, 2);
    let wide = |name: &str, b: Bounded, what: &str, (low, high): (f64, f64)| {
        (b.high > WIDEST * b.low).then(|| {
            format!(
                "the exponent of the {what}, {name}, may be anything from {} to {}: add runs of {} and of {} {what} (at the largest of \
                 the other), or more seeds (runs are {noise} % off the law)",
                significant(b.low, 2),
                significant(b.high, 2),
                counted(low / 4.0),
                counted(high * 4.0)
            )
        })
    };
    all.extend(wide("alpha", drawn.bounded(drawn.law.alpha, |d| Some(d.law.alpha)), "parameters", extent.parameters));
    all.extend(wide("beta", drawn.bounded(drawn.law.beta, |d| Some(d.law.beta)), "tokens", extent.tokens));
    all
}

/// 1.2M, 3.4B, 1.5T; 6.0e23 of what has no word.
pub(crate) fn counted(x: f64) -> String {
    if x >= 1e16 {
        return format!("{x:.1e}");
    }
    let (unit, name) =
        [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")].into_iter().find(|(u, _)| x >= *u).unwrap_or((1.0, ""));
    format!("{}{name}", significant(x / unit, 3))
}

#[cfg(test)]
mod tests {
    use super::super::Law;
    use super::*;

    fn points(sizes: &[f64], tokens: &[f64], noise: f64) -> Vec<Point> {
        let law = Law::of(1.69, (406.4, 0.34), (410.7, 0.28));
        let mut sign = 1.0;
        let mut at = |n: f64, d: f64| {
            sign = -sign;
            Point { parameters: n, tokens: d, loss: law.loss(n, d) * (sign * noise).exp(), usd: None }
        };
        sizes.iter().flat_map(|n| tokens.iter().map(|d| (*n, *d)).collect::<Vec<_>>()).map(|(n, d)| at(n, d)).collect()
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_add() {
        let of = |p: &[Point]| lacking(p, Drawn::of(p, 100, 1).as_ref());
        assert!(of(&points(&[1e6, 1e7, 1e8], &[1e8, 1e9, 1e10], 1e-4)).is_empty());
        let few = of(&points(&[1e6, 1e7], &[1e8, 1e9, 1e10], 1e-4));
        assert!(few[0].starts_with("6 runs are there") && few[1].contains("2 different sizes"), "{few:?}");
        // Sizes within a factor of two, and as much noise as they differ by.
        let narrow = of(&points(&[1.0e6, 1.4e6, 2e6], &[1e8, 1e9, 1e10], 0.02));
        assert!(narrow.iter().any(|s| s.contains("alpha") && s.contains("250k") && s.contains("8.00M")), "{narrow:?}");
    }

    #[test]
    fn what_is_further_than_allowed_is_named() {
        let extent = Extent::of(&points(&[1e6, 1e7], &[1e8, 1e9], 0.0));
        assert_eq!(extent.beyond(5e7, 1e9, 10.0), None);
        assert_eq!(
            extent.beyond(2e8, 1e9, 10.0).unwrap(),
            "200M parameters, 20 times beyond the most that was run (10.0M)"
        );
        assert_eq!(
            extent.beyond(1e6, 1e6, 10.0).unwrap(),
            "1.00M tokens, 100 times beyond the least that was run (100M)"
        );
        assert!(
            extent.beyond(9e7, 9e9, 10.0).unwrap().starts_with("8.1e17 parameters x tokens"),
            "compute counts as well"
        );
    }
}
