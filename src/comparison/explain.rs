//! Why one run's tokens cost what they do beside another's: the change split into its factors.

use crate::cost::decomposition::{Part, Role};
use crate::cost::evaluate::evaluate;
use crate::cost::factors::{Factors, between, change};
use crate::cost::metric::Context;
use crate::cost::metrics::USD_PER_MILLION;
use crate::hardware::book::Book;
use crate::results::run::Run;
use std::collections::HashMap;

/// A factor of the cost on both sides: the geometric means over the trials.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Side {
    pub name: &'static str,
    pub role: Role,
    pub before: f64,
    pub after: f64,
    /// USD per million tokens that it had in the change.
    pub change: f64,
}

/// Which trials were set against each other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Basis {
    /// So many that both runs measured; the costs are means.
    Common(usize),
    /// They have none in common: the cheapest of each, by record.
    Cheapest(usize, usize),
}

/// A change of cost and its parts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Explanation {
    /// USD per million tokens.
    pub before: f64,
    pub after: f64,
    pub sides: Vec<Side>,
    pub basis: Basis,
}

/// Why nothing can be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unexplained {
    #[error("run {0} has no trial with a cost: it has no price, or nothing was measured; give one with --price")]
    NoCost(usize),
    #[error("a factor of the cost is no number over 0: {0}")]
    Factor(String),
}

/// Explains the change from one run to another. Trials that both measured are set against each other one by one; their parts
/// add up trial by trial, and so do the means. Without common trials, the cheapest of each run stand for it.
///
/// # Errors
/// [`Unexplained`].
pub(crate) fn explain(a: &Run, b: &Run, book: &Book) -> Result<Explanation, Unexplained> {
    let (first, second) = (factors(a, book), factors(b, book));
    if first.is_empty() || second.is_empty() {
        return Err(Unexplained::NoCost(if first.is_empty() { 1 } else { 2 }));
    }
    let by_id: HashMap<&str, &Factors> = second.iter().map(|(i, f)| (b.records[*i].trial_id.as_str(), f)).collect();
    let common: Vec<(Factors, Factors)> =
        first.iter().filter_map(|(i, f)| Some((*f, **by_id.get(a.records[*i].trial_id.as_str())?))).collect();
    if !common.is_empty() {
        let n = common.len();
        return mean(&common, Basis::Common(n));
    }
    let (i, j) = (cheapest(a, book).ok_or(Unexplained::NoCost(1))?, cheapest(b, book).ok_or(Unexplained::NoCost(2))?);
    let of = |all: &[(usize, Factors)], at: usize| all.iter().find(|(k, _)| *k == at).map(|(_, f)| *f);
    let pair = of(&first, i).zip(of(&second, j)).ok_or(Unexplained::NoCost(1))?;
    mean(&[pair], Basis::Cheapest(i, j))
}

/// The factors of every trial that has a cost.
fn factors(run: &Run, book: &Book) -> Vec<(usize, Factors)> {
    let all = run.records.iter().enumerate();
    all.filter_map(|(i, r)| Some((i, Factors::of(&Context::of(run, r, book))?))).collect()
}

fn cheapest(run: &Run, book: &Book) -> Option<usize> {
    let costs = evaluate(run, book);
    let known = costs.iter().enumerate().filter_map(|(i, f)| Some((i, f.get(&USD_PER_MILLION)?.value)));
    known.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
}

fn mean(pairs: &[(Factors, Factors)], basis: Basis) -> Result<Explanation, Unexplained> {
    let n = pairs.len() as f64;
    let mut sides: Vec<Side> = Vec::new();
    // Where one trial's peak is not known, all are split without it.
    let whole = pairs.iter().all(|(a, b)| between(a, b).len() == 6);
    for (a, b) in pairs {
        let (a, b) = if whole { (*a, *b) } else { (reached(a), reached(b)) };
        let parts: Vec<Part> = change(&a, &b).map_err(|e| Unexplained::Factor(e.to_string()))?;
        for (k, (factor, part)) in between(&a, &b).iter().zip(&parts).enumerate() {
            if sides.len() <= k {
                sides.push(Side { name: factor.name, role: factor.role, before: 0.0, after: 0.0, change: 0.0 });
            }
            let side = &mut sides[k];
            side.before += factor.before.ln() / n;
            side.after += factor.after.ln() / n;
            side.change += part.change / n;
        }
    }
    for side in &mut sides {
        (side.before, side.after) = (side.before.exp(), side.after.exp());
    }
    let cost = |of: fn(&(Factors, Factors)) -> f64| pairs.iter().map(of).sum::<f64>() / n;
    Ok(Explanation { before: cost(|p| p.0.cost()), after: cost(|p| p.1.cost()), sides, basis })
}

fn reached(f: &Factors) -> Factors {
    Factors { speed: crate::cost::factors::Speed::Reached(f.reached()), ..*f }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::units::{Share, UsdPerHour};

    fn sum(e: &Explanation) -> f64 {
        e.sides.iter().map(|s| s.change).sum()
    }

    #[test]
    fn a_faster_machine_at_a_higher_price_is_price_against_speed() {
        let run = fixture::sweep();
        let mut other = run.clone();
        for f in other.records.iter_mut().filter_map(|r| r.measurement.figures.as_mut()) {
            f.step_seconds.iter_mut().for_each(|s| *s /= 3.0);
        }
        other.environment.price.usd_per_hour = UsdPerHour::of(0.0856 * 2.0);
        other.environment.price.utilisation = Share(0.8);
        other.environment.probe.as_mut().unwrap().f32_flops_per_second *= 2.0;
        other.environment.probe.as_mut().unwrap().f32_flops_per_second_one_core *= 2.0;
        let e = explain(&run, &other, fixture::book()).unwrap();
        assert_eq!(e.basis, Basis::Common(9));
        assert!((sum(&e) - (e.after - e.before)).abs() <= 1e-12 * e.before);
        let side = |name: &str| e.sides.iter().find(|s| s.name == name).unwrap();
        assert!((side("price").after / side("price").before - 2.0).abs() < 1e-9 && side("price").change > 0.0);
        assert!((side("peak rate").after / side("peak rate").before - 2.0).abs() < 1e-9);
        assert!((side("MFU").after / side("MFU").before - 1.5).abs() < 1e-9 && side("MFU").change < 0.0);
        assert!(side("utilisation").change > 0.0);
        assert_eq!(side("FLOPs per token").change, 0.0);
    }

    #[test]
    fn runs_without_common_trials_are_compared_by_their_cheapest() {
        let (a, b) = (fixture::sweep(), fixture::heads());
        let e = explain(&a, &b, fixture::book()).unwrap();
        assert!(matches!(e.basis, Basis::Cheapest(..)), "{e:?}");
        assert!((sum(&e) - (e.after - e.before)).abs() <= 1e-12 * e.before.max(e.after));
    }

    #[test]
    fn without_a_probe_the_rate_is_not_split() {
        let a = fixture::sweep();
        let mut b = a.clone();
        b.environment.probe = None;
        let e = explain(&a, &b, fixture::book()).unwrap();
        assert!(e.sides.iter().any(|s| s.name == "FLOP/s reached") && !e.sides.iter().any(|s| s.name == "MFU"));
        let mut unpriced = a.clone();
        unpriced.environment.price.usd_per_hour = None;
        assert_eq!(explain(&a, &unpriced, fixture::book()), Err(Unexplained::NoCost(2)));
    }
}
