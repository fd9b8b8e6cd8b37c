//! Runs whose trials were to learn something, side by side: which get to their loss, what it took there, and the losses at the end.
//!
//! Launches of two runs that have the same seeds are held against each other seed by seed, since what a seed does is in both alike. What
//! tokens and losses differ by is the seeds' doing alone; seconds and USD differ from run to run as well, as far as the machine's kind is
//! known for it.

use super::ratio::{Change, change, geometric_mean, ratio};
use crate::cost::evaluate::Figured;
use crate::cost::metric::Estimate;
use crate::cost::metrics::{SECONDS_TO_LOSS, TOKENS_TO_LOSS, USD_TO_LOSS, VALIDATION_LOSS};
use crate::results::run::Run;
use crate::runner::learning::learned::Learned;
use crate::runner::measurement::{Figures, Status};
use crate::stats::launches::{Spread, paired, t95};
use crate::stats::repeats::of_repeats;
use std::collections::{HashMap, HashSet};

/// A loss at the end that is higher by more than this share is one that was learnt worse, where no interval says more.
const TOLERANCE: f64 = 0.01;

/// How learning ended in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every launch got to its loss, or was not to get to one.
    There,
    /// So many of its launches got to their loss.
    Short {
        /// Launches that did.
        reached: usize,
        /// All of them.
        of: usize,
    },
    /// It gave no figures.
    Failed(Status),
}

/// What a trial came to in one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Index of its record.
    pub record: usize,
    /// How it ended.
    pub ending: Ending,
    /// Validation loss at the end, in nats a token.
    pub loss: Option<Estimate>,
    /// Tokens to the loss; `None` where a launch did not get there.
    pub tokens: Option<Estimate>,
    /// Seconds to the loss.
    pub seconds: Option<Estimate>,
    /// USD to the loss.
    pub usd: Option<Estimate>,
}

/// A trial that was to learn something, over the runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Taught {
    pub trial_id: String,
    /// The validation loss that it is to reach, where it is to reach one.
    pub target: Option<f64>,
    /// Run and record where it is described.
    pub described_in: (usize, usize),
    /// One a run; `None` where it was not asked for.
    pub outcomes: Vec<Option<Outcome>>,
}

/// What is held against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    Loss,
    Tokens,
    Seconds,
    Usd,
}

/// One run against another, over the trials that were to learn something.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Learnt {
    /// Trials that get to their loss here and not there, and the other way round.
    pub only_here: usize,
    pub only_there: usize,
    /// Trials that get to their loss in both.
    pub both: usize,
    /// Geometric means over those: tokens, seconds and USD to the loss.
    pub tokens: Option<Estimate>,
    pub seconds: Option<Estimate>,
    pub usd: Option<Estimate>,
    /// The same of the losses at the end, over trials that are not to reach one or reach it in neither.
    pub loss: Option<Estimate>,
}

impl Learnt {
    /// What it costs to get to a loss, or the time where there is no price.
    pub(crate) fn cost(&self) -> Option<(Measure, Estimate)> {
        self.usd.map(|e| (Measure::Usd, e)).or_else(|| self.seconds.map(|e| (Measure::Seconds, e)))
    }

    /// Whether the run learns worse: fewer trials get to their loss, more tokens are needed, or the loss at the end is higher.
    pub(crate) fn worse(&self) -> bool {
        let more = |e: &Estimate| match change(e) {
            Change::Higher => true,
            Change::Unknown => e.value > 1.0 + TOLERANCE,
            Change::WithinNoise | Change::Lower => false,
        };
        self.only_there > self.only_here
            || self.tokens.as_ref().is_some_and(more)
            || self.loss.as_ref().is_some_and(more)
    }
}

/// The trials of some runs that were to learn something, in the order of the first run, then of those that only later runs have.
/// `figures`: of each run those of its records.
pub(crate) fn taught(runs: &[&Run], figures: &[Vec<Figured>]) -> Vec<Taught> {
    let places: Vec<HashMap<&str, usize>> = runs
        .iter()
        .map(|run| run.records.iter().enumerate().map(|(i, r)| (r.trial_id.as_str(), i)).collect())
        .collect();
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for (r, run) in runs.iter().enumerate() {
        for (i, record) in run.records.iter().enumerate() {
            let Some(learning) = &record.cell.trial.learning else { continue };
            if !seen.insert(record.trial_id.as_str()) {
                continue;
            }
            let target = learning.until.validation_loss;
            let outcome = |(of, places): (usize, &HashMap<&str, usize>)| {
                let record = *places.get(record.trial_id.as_str())?;
                Some(outcome(runs[of], record, target.is_some(), figures.get(of)?.get(record)?))
            };
            let outcomes = places.iter().enumerate().map(outcome).collect();
            all.push(Taught { trial_id: record.trial_id.clone(), target, described_in: (r, i), outcomes });
        }
    }
    all
}

fn outcome(run: &Run, record: usize, to_loss: bool, figured: &Figured) -> Outcome {
    let m = &run.records[record].measurement;
    let ending = match &m.figures {
        None => Ending::Failed(m.status),
        Some(f) => match f.learned.iter().filter(|l| l.target.is_some()).count() {
            reached if to_loss && (reached < f.learned.len() || reached == 0) => {
                Ending::Short { reached, of: f.learned.len() }
            }
            _ => Ending::There,
        },
    };
    let [loss, tokens, seconds, usd] =
        [&VALIDATION_LOSS, &TOKENS_TO_LOSS, &SECONDS_TO_LOSS, &USD_TO_LOSS].map(|m| figured.get(m));
    Outcome { record, ending, loss, tokens, seconds, usd }
}

impl Taught {
    /// What one run came to.
    pub(crate) fn outcome(&self, run: usize) -> Option<&Outcome> {
        self.outcomes.get(run)?.as_ref()
    }

    /// Whether it gets where it is to get in a run; `None` where it was not asked for.
    pub(crate) fn is_there(&self, run: usize) -> Option<bool> {
        Some(self.outcome(run)?.ending == Ending::There)
    }

    /// Whether it gets there in some of the runs that it was asked for in, and not in others.
    pub(crate) fn is_apart(&self) -> bool {
        let ends: Vec<bool> = (0..self.outcomes.len()).filter_map(|run| self.is_there(run)).collect();
        ends.contains(&true) && ends.contains(&false)
    }

    /// How many times as much of something `run` has as `against`. `None` where one of the two does not have it.
    pub(crate) fn against(&self, runs: &[&Run], measure: Measure, run: usize, against: usize) -> Option<Estimate> {
        let (a, b) = (self.outcome(run)?, self.outcome(against)?);
        let [first, second] = [(run, a), (against, b)].map(|(run, o)| learned(runs.get(run)?, o.record));
        let known = [&runs[run].environment, &runs[against].environment].map(|e| e.variation().spread);
        let seeds = by_seed(first?, second?);
        let of = |o: &Outcome| match measure {
            Measure::Loss => o.loss,
            Measure::Tokens => o.tokens,
            Measure::Seconds => o.seconds,
            Measure::Usd => o.usd,
        };
        let (mine, other) = (of(a)?, of(b)?);
        let Some(pairs) = seeds else {
            // Other seeds: medians against medians.
            let found = ratio(&mine, &other)?;
            return if measure.is_timed() { of_two_runs(&found, &known) } else { Some(found) };
        };
        let figures = |of: &dyn Fn(&Learned) -> Option<f64>| {
            pairs.iter().map(|(a, b)| Some((of(a)?, of(b)?))).collect::<Option<Vec<(f64, f64)>>>()
        };
        match measure {
            Measure::Loss => of_pairs(&figures(&|l| Some(l.end.loss))?),
            Measure::Tokens => of_pairs(&figures(&|l| Some(l.target?.tokens as f64))?),
            Measure::Seconds | Measure::Usd => {
                let tokens = figures(&|l| Some(l.target?.tokens as f64))?;
                let seconds = figures(&|l| Some(l.target?.seconds))?;
                let found = if tokens.iter().all(|(a, b)| a == b) {
                    of_like_launches(&seconds, &known)?
                } else {
                    of_pairs(&seconds)?
                };
                let found = of_two_runs(&found, &known)?;
                if measure == Measure::Seconds {
                    return Some(found);
                }
                let price = |run: usize, o: &Outcome| {
                    let price = &runs[run].environment.price;
                    let devices = runs[run].records[o.record].cell.trial.devices;
                    Some(price.for_devices(devices)?.get() / price.utilisation.get())
                };
                let dearer = price(run, a)? / price(against, b)?;
                found.increasing(|r| r * dearer)
            }
        }
    }
}

impl Measure {
    /// Whether the machine's speed is in it.
    fn is_timed(self) -> bool {
        matches!(self, Self::Seconds | Self::Usd)
    }
}

fn learned(run: &Run, record: usize) -> Option<&[Learned]> {
    let figures: &Figures = run.records.get(record)?.measurement.figures.as_ref()?;
    Some(&figures.learned).filter(|l| !l.is_empty()).map(Vec::as_slice)
}

/// Launches with the same seed, where both have the same seeds.
fn by_seed<'a>(a: &'a [Learned], b: &'a [Learned]) -> Option<Vec<(&'a Learned, &'a Learned)>> {
    let sorted = |all: &'a [Learned]| {
        let mut all: Vec<&Learned> = all.iter().collect();
        all.sort_by_key(|l| l.seed);
        all
    };
    let (a, b) = (sorted(a), sorted(b));
    let same = a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.seed == b.seed);
    same.then(|| a.into_iter().zip(b).collect())
}

/// The median ratio, with its interval over seeds from three on. What is the same seed by seed is known to be.
fn of_pairs(pairs: &[(f64, f64)]) -> Option<Estimate> {
    if pairs.iter().all(|(a, b)| a == b) {
        return Estimate::with_interval(1.0, 1.0, 1.0);
    }
    match of_repeats(&pairs.iter().map(|(a, b)| a / b).collect::<Vec<_>>())? {
        (value, Some(i)) => Estimate::with_interval(value, i.low, i.high),
        (value, None) => Estimate::exact(value),
    }
}

/// The ratio of the seconds of launches that read the same tokens, seed by seed: they differ as launches do, whatever the seeds.
fn of_like_launches(seconds: &[(f64, f64)], known: &[Spread; 2]) -> Option<Estimate> {
    let (a, b): (Vec<f64>, Vec<f64>) = seconds.iter().copied().unzip();
    let wider = if known[0].launch > known[1].launch { known[0] } else { known[1] };
    let (mean, error, freedom) = paired(&a, &b, &wider)?;
    let (value, half) = (mean.exp(), t95(freedom) * error);
    Estimate::with_interval(value, value * (-half).exp(), value * half.exp())
}

/// The same with what two runs differ by as a whole.
fn of_two_runs(found: &Estimate, known: &[Spread; 2]) -> Option<Estimate> {
    let Some((low, high)) = found.interval() else { return Some(*found) };
    let [a, b] = known;
    let of_runs = f64::hypot(t95(a.run_freedom) * a.run, t95(b.run_freedom) * b.run);
    let down = f64::hypot((found.value / low).ln(), of_runs);
    let up = f64::hypot((high / found.value).ln(), of_runs);
    Estimate::with_interval(found.value, found.value * (-down).exp(), found.value * up.exp())
}

/// One run against another over all trials that both were asked for.
pub(crate) fn learnt(runs: &[&Run], all: &[Taught], run: usize, against: usize) -> Learnt {
    let asked: Vec<(&Taught, bool, bool)> =
        all.iter().filter_map(|t| Some((t, t.is_there(run)?, t.is_there(against)?))).collect();
    let to_loss = |t: &Taught| t.target.is_some();
    let counted = |here: bool, there: bool| asked.iter().filter(|(_, h, t)| (*h, *t) == (here, there)).count();
    let both: Vec<&Taught> = asked.iter().filter(|(t, h, a)| to_loss(t) && *h && *a).map(|(t, ..)| *t).collect();
    let mean = |of: &[&Taught], measure: Measure| {
        let ratios: Option<Vec<Estimate>> = of.iter().map(|t| t.against(runs, measure, run, against)).collect();
        geometric_mean(&ratios?)
    };
    let losses: Vec<&Taught> = asked
        .iter()
        .filter(|(t, h, a)| if to_loss(t) { !h && !a } else { *h && *a })
        .map(|(t, ..)| *t)
        .filter(|t| [run, against].iter().all(|r| t.outcome(*r).is_some_and(|o| o.loss.is_some())))
        .collect();
    Learnt {
        only_here: counted(true, false),
        only_there: counted(false, true),
        both: both.len(),
        tokens: mean(&both, Measure::Tokens),
        seconds: mean(&both, Measure::Seconds),
        usd: mean(&both, Measure::Usd),
        loss: mean(&losses, Measure::Loss),
    }
}

#[cfg(test)]
pub(crate) mod learning_tests;
