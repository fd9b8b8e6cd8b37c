//! Why one run's tokens cost what they do beside another's: the change split into its factors.

use super::ratio::{geometric_mean, ratio};
use crate::cost::decomposition::{Part, Role};
use crate::cost::evaluate::evaluate;
use crate::cost::factors::{Factors, between, change};
use crate::cost::metric::{Context, Estimate};
use crate::cost::metrics::{TOKENS_PER_SECOND, USD_PER_MILLION};
use crate::hardware::book::Book;
use crate::results::run::Run;
use crate::runner::watch::judged::Judged;
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
    /// How far others on the machine disturbed the trials of each run.
    pub disturbed: [Judged; 2],
    /// How many times as many tokens a second; with the interval of two other runs. `None` without common trials.
    pub throughput: Option<Estimate>,
}

impl Explanation {
    /// The run whose tokens got slower because others disturbed it, as far as the kernel's accounts say: more of its trials were
    /// disturbed, and it is the slower one.
    pub(crate) fn slowed_by_others(&self) -> Option<usize> {
        let share = |judged: &Judged| judged.disturbed as f64 / judged.watched.max(1) as f64;
        let [first, second] = self.disturbed.each_ref().map(share);
        let slower = self.throughput?.value < 1.0;
        match (first < second, second < first) {
            (true, _) if slower => Some(1),
            (_, true) if !slower => Some(0),
            _ => None,
        }
    }
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
        let found = mean(&common, Basis::Common(n))?;
        return Ok(Explanation { throughput: throughput(a, b, book), disturbed: [a, b].map(judged), ..found });
    }
    let (i, j) = (cheapest(a, book).ok_or(Unexplained::NoCost(1))?, cheapest(b, book).ok_or(Unexplained::NoCost(2))?);
    let of = |all: &[(usize, Factors)], at: usize| all.iter().find(|(k, _)| *k == at).map(|(_, f)| *f);
    let pair = of(&first, i).zip(of(&second, j)).ok_or(Unexplained::NoCost(1))?;
    Ok(Explanation { disturbed: [a, b].map(judged), ..mean(&[pair], Basis::Cheapest(i, j))? })
}

fn judged(run: &Run) -> Judged {
    let figures = run.records.iter().filter_map(|r| r.measurement.figures.as_ref());
    Judged::of(figures.filter_map(|f| f.disturbance.as_ref()))
}

/// The geometric mean of the second run's throughput over the first's.
fn throughput(a: &Run, b: &Run, book: &Book) -> Option<Estimate> {
    let (first, second) = (evaluate(a, book), evaluate(b, book));
    let by_id: HashMap<&str, usize> = b.records.iter().enumerate().map(|(j, r)| (r.trial_id.as_str(), j)).collect();
    let pairs = a.records.iter().enumerate().filter_map(|(i, r)| {
        let then = first[i].get(&TOKENS_PER_SECOND)?;
        ratio(&second[*by_id.get(r.trial_id.as_str())?].get(&TOKENS_PER_SECOND)?, &then)
    });
    geometric_mean(&pairs.collect::<Vec<_>>())
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
    // Where one trial's peak is not known, all are split without it; the same goes for the work in a token.
    let fewest = pairs.iter().map(|(a, b)| between(a, b).len()).min();
    let alike = |f: &Factors| match fewest {
        Some(6) => *f,
        Some(5) => reached(f),
        _ => f.in_tokens(),
    };
    for (a, b) in pairs {
        let (a, b) = (alike(a), alike(b));
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
    let (before, after) = (cost(|p| p.0.cost()), cost(|p| p.1.cost()));
    Ok(Explanation { before, after, sides, basis, disturbed: Default::default(), throughput: None })
}

fn reached(f: &Factors) -> Factors {
    Factors { speed: crate::cost::factors::Speed::Reached(f.reached()), ..*f }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::runner::watch::Disturbance;
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
    fn a_run_that_others_slowed_down_is_named_and_one_that_was_disturbed_and_is_faster_is_not() {
        let quiet = fixture::sweep();
        let changed = |factor: f64| {
            let mut run = quiet.clone();
            for f in run.records.iter_mut().filter_map(|r| r.measurement.figures.as_mut()) {
                f.step_seconds.iter_mut().for_each(|s| *s *= factor);
                f.disturbance = Some(Disturbance { seconds: 1.0, waited: Some(0.3), ..Disturbance::default() });
            }
            run
        };
        let of = |a: &Run, b: &Run| explain(a, b, fixture::book()).unwrap().slowed_by_others();
        assert_eq!((of(&quiet, &changed(1.3)), of(&changed(1.3), &quiet)), (Some(1), Some(0)));
        assert_eq!((of(&quiet, &changed(0.7)), of(&quiet, &quiet)), (None, None));
        assert_eq!(of(&changed(1.0), &changed(1.5)), None, "both were");
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
