//! Why one run's tokens cost what they do beside another's: the change split into its factors.

use super::learning::{Learnt, Taught, learnt, taught};
use super::ratio::{geometric_mean, ratio};
use crate::cost::decomposition::{Factor, Part, Role, decompose};
use crate::cost::evaluate::{Figured, evaluate};
use crate::cost::factors::{self, Factors, Speed};
use crate::cost::metric::{Context, Estimate};
use crate::cost::metrics::{TOKENS_PER_SECOND, USD_PER_MILLION};
use crate::cost::to_loss::{self, ToLoss};
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
    /// What it had in the change of the cost, in that cost's unit: USD per million tokens, or USD.
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
    /// Of runs whose trials were to learn something.
    pub learning: Option<Learning>,
}

/// A change of what it costs to get to a loss.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Learning {
    /// Trials that get to their loss in one run and not in the other, or diverged in one.
    pub apart: Vec<Taught>,
    /// The second run against the first, over the trials that both were asked for.
    pub learnt: Learnt,
    /// USD to the loss and its factors, where trials of both get there.
    pub to_loss: Option<Paid>,
}

/// USD to a loss on both sides, and their parts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Paid {
    /// The loss, where it is the same for all.
    pub loss: Option<f64>,
    /// USD.
    pub before: f64,
    pub after: f64,
    /// Their changes are in USD.
    pub sides: Vec<Side>,
    pub basis: Basis,
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
    let (first, second) = (of_all(a, book, Factors::of), of_all(b, book, Factors::of));
    if first.is_empty() || second.is_empty() {
        return Err(Unexplained::NoCost(if first.is_empty() { 1 } else { 2 }));
    }
    let figures = [evaluate(a, book), evaluate(b, book)];
    let disturbed = [a, b].map(judged);
    let learning = learning([a, b], &figures, book)?;
    let common = common([a, b], &first, &second);
    if !common.is_empty() {
        let (before, after, sides) = mean(&common)?;
        let throughput = throughput(a, b, &figures);
        let basis = Basis::Common(common.len());
        return Ok(Explanation { before, after, sides, basis, disturbed, throughput, learning });
    }
    let cheapest = |of: usize, all: &[(usize, Factors)]| {
        let i = cheapest(&figures[of]).ok_or(Unexplained::NoCost(of + 1))?;
        let found = all.iter().find(|(k, _)| *k == i).map(|(_, f)| *f);
        found.map(|f| (i, f)).ok_or(Unexplained::NoCost(1))
    };
    let ((i, from), (j, to)) = (cheapest(0, &first)?, cheapest(1, &second)?);
    let (before, after, sides) = mean(&[(from, to)])?;
    let basis = Basis::Cheapest(i, j);
    Ok(Explanation { before, after, sides, basis, disturbed, throughput: None, learning })
}

/// What two runs say of getting to a loss; `None` where no trial was to learn anything.
fn learning(runs: [&Run; 2], figures: &[Vec<Figured>], book: &Book) -> Result<Option<Learning>, Unexplained> {
    let all = taught(&runs, figures);
    if all.is_empty() {
        return Ok(None);
    }
    let [first, second] = runs.map(|run| of_all(run, book, ToLoss::of));
    let pairs = common(runs, &first, &second);
    let paid = |pairs: &[(ToLoss, ToLoss)], loss: Option<f64>, basis: Basis| {
        let (before, after, sides) = mean(pairs)?;
        Ok(Paid { loss, before, after, sides, basis })
    };
    let to_loss = if pairs.is_empty() {
        // Of other trials the one that gets to the same loss for least stands for its run.
        let least = |run: &Run, all: &[(usize, ToLoss)]| {
            let found = all.iter().min_by(|x, y| x.1.cost().total_cmp(&y.1.cost()))?;
            Some((found.0, target(run, found.0)?, found.1))
        };
        match (least(runs[0], &first), least(runs[1], &second)) {
            (Some((i, loss, from)), Some((j, other, to))) if loss == other => {
                Some(paid(&[(from, to)], Some(loss), Basis::Cheapest(i, j))?)
            }
            _ => None,
        }
    } else {
        let targets: Vec<Option<f64>> = first.iter().map(|(i, _)| target(runs[0], *i)).collect();
        let loss = targets.first().copied().flatten().filter(|t| targets.iter().all(|u| *u == Some(*t)));
        Some(paid(&pairs, loss, Basis::Common(pairs.len()))?)
    };
    let learnt = learnt(&runs, &all, 1, 0);
    Ok(Some(Learning { apart: all.into_iter().filter(Taught::is_apart).collect(), learnt, to_loss }))
}

/// The loss that a trial is to reach.
fn target(run: &Run, record: usize) -> Option<f64> {
    run.records.get(record)?.cell.trial.learning.as_ref()?.until.validation_loss
}

fn judged(run: &Run) -> Judged {
    let figures = run.records.iter().filter_map(|r| r.measurement.figures.as_ref());
    Judged::of(figures.filter_map(|f| f.disturbance.as_ref()))
}

/// The geometric mean of the second run's throughput over the first's.
fn throughput(a: &Run, b: &Run, [first, second]: &[Vec<Figured>; 2]) -> Option<Estimate> {
    let by_id: HashMap<&str, usize> = b.records.iter().enumerate().map(|(j, r)| (r.trial_id.as_str(), j)).collect();
    let pairs = a.records.iter().enumerate().filter_map(|(i, r)| {
        let then = first[i].get(&TOKENS_PER_SECOND)?;
        ratio(&second[*by_id.get(r.trial_id.as_str())?].get(&TOKENS_PER_SECOND)?, &then)
    });
    geometric_mean(&pairs.collect::<Vec<_>>())
}

/// The factors of every trial that has them.
fn of_all<F>(run: &Run, book: &Book, of: fn(&Context) -> Option<F>) -> Vec<(usize, F)> {
    let all = run.records.iter().enumerate();
    all.filter_map(|(i, r)| Some((i, of(&Context::of(run, r, book))?))).collect()
}

/// What both runs have, trial by trial.
fn common<F: Copy>([a, b]: [&Run; 2], first: &[(usize, F)], second: &[(usize, F)]) -> Vec<(F, F)> {
    let by_id: HashMap<&str, F> = second.iter().map(|(i, f)| (b.records[*i].trial_id.as_str(), *f)).collect();
    first.iter().filter_map(|(i, f)| Some((*f, *by_id.get(a.records[*i].trial_id.as_str())?))).collect()
}

fn cheapest(figures: &[Figured]) -> Option<usize> {
    let known = figures.iter().enumerate().filter_map(|(i, f)| Some((i, f.get(&USD_PER_MILLION)?.value)));
    known.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
}

/// A cost that is a product of factors.
trait Product: Copy {
    /// Of which the cost is a multiple.
    const SCALE: f64;
    fn cost(&self) -> f64;
    /// The factors of a change, in an order of their own.
    fn between(a: &Self, b: &Self) -> Vec<Factor>;
    /// The factors of a token's cost.
    fn of_token(&mut self) -> &mut Factors;
}

impl Product for Factors {
    const SCALE: f64 = factors::SCALE;

    fn cost(&self) -> f64 {
        Factors::cost(self)
    }

    fn between(a: &Self, b: &Self) -> Vec<Factor> {
        factors::between(a, b)
    }

    fn of_token(&mut self) -> &mut Factors {
        self
    }
}

impl Product for ToLoss {
    const SCALE: f64 = to_loss::SCALE;

    fn cost(&self) -> f64 {
        ToLoss::cost(self)
    }

    fn between(a: &Self, b: &Self) -> Vec<Factor> {
        to_loss::between(a, b)
    }

    fn of_token(&mut self) -> &mut Factors {
        &mut self.factors
    }
}

/// Mean costs before and after, and the factors with their parts.
fn mean<P: Product>(pairs: &[(P, P)]) -> Result<(f64, f64, Vec<Side>), Unexplained> {
    let n = pairs.len() as f64;
    let mut sides: Vec<Side> = Vec::new();
    // Where one trial's peak is not known, all are split without it; the same goes for the work in a token.
    let of_token = |(mut a, mut b): (P, P)| factors::between(a.of_token(), b.of_token()).len();
    let fewest = pairs.iter().map(|pair| of_token(*pair)).min();
    let alike = |mut p: P| {
        let f = p.of_token();
        *f = match fewest {
            Some(6) => *f,
            Some(5) => Factors { speed: Speed::Reached(f.reached()), ..*f },
            _ => f.in_tokens(),
        };
        p
    };
    for (a, b) in pairs {
        let factors = P::between(&alike(*a), &alike(*b));
        let parts: Vec<Part> = decompose(P::SCALE, &factors).map_err(|e| Unexplained::Factor(e.to_string()))?;
        for (k, (factor, part)) in factors.iter().zip(&parts).enumerate() {
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
    let cost = |of: fn(&(P, P)) -> f64| pairs.iter().map(of).sum::<f64>() / n;
    Ok((cost(|p| p.0.cost()), cost(|p| p.1.cost()), sides))
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
    #[test]
    fn usd_to_a_loss_are_a_tokens_cost_and_the_tokens_without_a_remainder() {
        use crate::comparison::learning::learning_tests::{run, seeds};
        let (a, b) = (run(true, &[&seeds(1.0, 1.0), &[]]), run(true, &[&seeds(1.5, 1.2), &seeds(1.0, 1.0)]));
        let learning = explain(&a, &b, fixture::book()).unwrap().learning.unwrap();
        assert_eq!((learning.apart.len(), learning.learnt.only_here), (1, 1));
        let paid = learning.to_loss.unwrap();
        assert_eq!((paid.loss, &paid.basis), (Some(3.0), &Basis::Common(1)));
        // 20 s and 24 s at 0.0856 USD an hour.
        assert!((paid.before / (20.0 * 0.0856 / 3600.0) - 1.0).abs() < 1e-9, "{paid:?}");
        assert!((paid.after / paid.before - 1.2).abs() < 1e-9);
        let sum: f64 = paid.sides.iter().map(|s| s.change).sum();
        assert!((sum - (paid.after - paid.before)).abs() < 1e-12 * paid.after);
        let tokens = paid.sides.iter().find(|s| s.name == "tokens to the loss").unwrap();
        assert!((tokens.after / tokens.before - 1.5).abs() < 1e-9 && tokens.change > 0.0);
        // Other trials to the same loss: the one that gets there for least stands for its run.
        let mut other = b.clone();
        other.records.iter_mut().for_each(|r| r.trial_id.push('x'));
        let paid = explain(&a, &other, fixture::book()).unwrap().learning.unwrap().to_loss.unwrap();
        assert_eq!(paid.basis, Basis::Cheapest(0, 1));
        assert!(explain(&fixture::sweep(), &fixture::sweep(), fixture::book()).unwrap().learning.is_none());
    }
}
