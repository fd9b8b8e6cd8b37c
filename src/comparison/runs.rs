//! Runs or machines side by side: trials paired by id, ratios against the first run, what is missing on either side.

use super::cheapest::{Cheapest, cheapest};
use super::learning::{Taught, taught};
use super::ratio;
use crate::cost::decomposition::{CostChange, State, cost_change};
use crate::cost::evaluate::{Figured, evaluate};
use crate::cost::metric::Estimate;
use crate::cost::metrics::{TOKENS_PER_SECOND, USD_PER_MILLION};
use crate::hardware::book::Book;
use crate::results::record::Record;
use crate::results::run::Run;
use crate::runner::measurement::Status;
use crate::units::TokensPerSecond;
use std::collections::{HashMap, HashSet};

/// One run's figures for one trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    pub throughput: Estimate,
    pub cost: Option<Estimate>,
    /// Against the first run; `None` for the first run itself.
    pub throughput_ratio: Option<Estimate>,
    pub cost_ratio: Option<Estimate>,
}

/// One trial that every run measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairing {
    pub trial_id: String,
    /// Index of the record in the first run.
    pub record: usize,
    /// One a run.
    pub entries: Vec<Entry>,
    /// Which run makes this trial's tokens cheapest, where costs are known.
    pub cheapest: Option<Cheapest>,
}

/// A trial that not every run has figures for.
#[derive(Clone, Debug, PartialEq)]
pub struct Missing {
    pub trial_id: String,
    /// Run and record where it is described.
    pub described_in: (usize, usize),
    /// For each run: `None` where it was not asked for, else how it ended.
    pub statuses: Vec<Option<Status>>,
}

/// One run against the first over all common trials.
#[derive(Clone, Debug, PartialEq)]
pub struct Total {
    pub run: usize,
    pub throughput_ratio: Option<Estimate>,
    pub cost_ratio: Option<Estimate>,
    /// The mean change of cost over the common trials, split into price, throughput and utilisation.
    pub change: Option<CostChange>,
    /// Trials of which this run is the cheapest, ties counted for each.
    pub cheapest_of: usize,
}

/// Everything that can be said of several runs together.
#[derive(Clone, Debug, PartialEq)]
pub struct RunComparison {
    /// Trials that several runs have.
    pub pairings: Vec<Pairing>,
    /// Trials that some runs lack.
    pub missing: Vec<Missing>,
    /// Trials that were to learn something, those that not every run has figures for among them.
    pub taught: Vec<Taught>,
    /// One a run; the first is compared with itself.
    pub totals: Vec<Total>,
}

/// Compares runs. The order of the trials is that of the first run, then of those that only later runs have.
pub fn compare(runs: &[Run], book: &Book) -> RunComparison {
    let figures: Vec<Vec<Figured>> = runs.iter().map(|run| evaluate(run, book)).collect();
    let mut pairings: Vec<Pairing> = Vec::new();
    let mut missing = Vec::new();
    let places: Vec<HashMap<&str, usize>> = runs.iter().map(places).collect();
    let mut seen: HashSet<&str> = HashSet::new();
    for (r, run) in runs.iter().enumerate() {
        for (i, record) in run.records.iter().enumerate() {
            if !seen.insert(&record.trial_id) {
                continue;
            }
            let found: Vec<Option<usize>> = places.iter().map(|p| p.get(record.trial_id.as_str()).copied()).collect();
            match entries(&found, &figures) {
                Some(entries) => pairings.push(pairing(record, i, entries)),
                None => missing.push(Missing {
                    trial_id: record.trial_id.clone(),
                    described_in: (r, i),
                    statuses: found
                        .iter()
                        .zip(runs)
                        .map(|(f, run)| Some(run.records.get((*f)?)?.measurement.status))
                        .collect(),
                }),
            }
        }
    }
    let totals = (0..runs.len()).map(|run| total(runs, &pairings, run)).collect();
    let taught = taught(&runs.iter().collect::<Vec<_>>(), &figures);
    RunComparison { pairings, missing, taught, totals }
}

/// Where each trial is among a run's records.
fn places(run: &Run) -> HashMap<&str, usize> {
    run.records.iter().enumerate().map(|(i, r)| (r.trial_id.as_str(), i)).collect()
}

/// The figures of every run for one trial; `None` unless all have measured it.
fn entries(found: &[Option<usize>], figures: &[Vec<Figured>]) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for (place, figured) in found.iter().zip(figures) {
        let figured = figured.get((*place)?)?;
        let (throughput, cost) = (figured.get(&TOKENS_PER_SECOND)?, figured.get(&USD_PER_MILLION));
        let first = entries.first();
        entries.push(Entry {
            throughput,
            cost,
            throughput_ratio: first.and_then(|f| ratio::ratio(&throughput, &f.throughput)),
            cost_ratio: first.and_then(|f| ratio::ratio(&cost?, &f.cost?)),
        });
    }
    Some(entries)
}

fn pairing(record: &Record, index: usize, entries: Vec<Entry>) -> Pairing {
    let costs: Vec<Option<Estimate>> = entries.iter().map(|e| e.cost).collect();
    let all_known = costs.iter().all(Option::is_some);
    let cheapest = if all_known { cheapest(&costs) } else { None };
    Pairing { trial_id: record.trial_id.clone(), record: index, entries, cheapest }
}

fn total(runs: &[Run], pairings: &[Pairing], run: usize) -> Total {
    let ratios = |of: fn(&Entry) -> Option<Estimate>| -> Option<Estimate> {
        let all: Option<Vec<Estimate>> = pairings.iter().map(|p| p.entries.get(run).and_then(of)).collect();
        ratio::geometric_mean(&all?)
    };
    let wins = |p: &&Pairing| p.cheapest.as_ref().is_some_and(|c| c.best == run || c.tied.contains(&run));
    Total {
        run,
        throughput_ratio: ratios(|e| e.throughput_ratio),
        cost_ratio: ratios(|e| e.cost_ratio),
        change: mean_change(runs, pairings, run),
        cheapest_of: pairings.iter().filter(wins).count(),
    }
}

/// How many times as dear one run's tokens are as another's: the geometric mean over the common trials.
pub(crate) fn geometric(pairings: &[Pairing], run: usize, against: usize) -> Option<Estimate> {
    let ratio = |p: &Pairing| ratio::ratio(&p.entries.get(run)?.cost?, &p.entries.get(against)?.cost?);
    ratio::geometric_mean(&pairings.iter().map(ratio).collect::<Option<Vec<_>>>()?)
}

/// The parts of each trial's change add up, so their means add up to the mean change.
fn mean_change(runs: &[Run], pairings: &[Pairing], run: usize) -> Option<CostChange> {
    if run == 0 || pairings.is_empty() {
        return None;
    }
    let changes: Vec<CostChange> =
        pairings.iter().map(|p| cost_change(&state(runs, p, 0)?, &state(runs, p, run)?).ok()).collect::<Option<_>>()?;
    let n = changes.len() as f64;
    let mut mean = changes.first()?.clone();
    mean.before = changes.iter().map(|c| c.before).sum::<f64>() / n;
    mean.after = changes.iter().map(|c| c.after).sum::<f64>() / n;
    for (i, part) in mean.parts.iter_mut().enumerate() {
        part.change = changes.iter().filter_map(|c| c.parts.get(i)).map(|p| p.change).sum::<f64>() / n;
    }
    Some(mean)
}

fn state(runs: &[Run], pairing: &Pairing, run: usize) -> Option<State> {
    let price = &runs.get(run)?.environment.price;
    let throughput = TokensPerSecond(pairing.entries.get(run)?.throughput.value);
    let devices = runs.get(run)?.records.iter().find(|r| r.trial_id == pairing.trial_id)?.cell.trial.devices;
    Some(State { price: price.for_devices(devices)?, throughput, utilisation: price.utilisation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::ratio::{Change, change};
    use crate::fixture;
    use crate::units::UsdPerHour;

    #[test]
    fn a_run_against_itself_shows_ratio_one_and_no_change() {
        let run = fixture::sweep();
        let c = compare(&[run.clone(), run.clone()], fixture::book());
        assert_eq!(c.pairings.len(), run.records.iter().filter(|r| r.measurement.figures.is_some()).count());
        for entry in c.pairings.iter().map(|p| p.entries[1]) {
            let (t, usd) = (entry.throughput_ratio.unwrap(), entry.cost_ratio.unwrap());
            assert_eq!((t.value, usd.value), (1.0, 1.0));
            assert_eq!((change(&t), change(&usd)), (Change::WithinNoise, Change::WithinNoise));
        }
        let total = &c.totals[1];
        assert!((total.throughput_ratio.unwrap().value - 1.0).abs() < 1e-12);
        assert!(total.change.as_ref().unwrap().parts.iter().all(|p| p.change == 0.0));
    }

    #[test]
    fn a_price_that_doubles_shows_as_price_and_not_as_throughput() {
        let run = fixture::sweep();
        let mut dear = run.clone();
        dear.environment.price.usd_per_hour = UsdPerHour::of(2.0 * run.environment.price.usd_per_hour.unwrap().get());
        let c = compare(&[run, dear], fixture::book());
        let total = &c.totals[1];
        assert!((total.cost_ratio.unwrap().value - 2.0).abs() < 1e-9);
        let change = total.change.as_ref().unwrap();
        assert_eq!(change.parts[1].change.abs(), 0.0);
        assert!((change.parts[0].change - (change.after - change.before)).abs() < 1e-12 * change.after);
        assert_eq!(c.totals[0].cheapest_of, c.pairings.len());
    }

    #[test]
    fn trials_without_figures_on_either_side_are_missing_and_say_why() {
        let run = fixture::sweep();
        let mut less = run.clone();
        less.records.remove(0);
        let c = compare(&[run.clone(), less], fixture::book());
        assert_eq!(c.pairings.len() + c.missing.len(), run.records.len());
        let gone = c.missing.iter().find(|m| m.trial_id == run.records[0].trial_id).unwrap();
        assert_eq!(gone.statuses, [Some(Status::Ok), None]);
        assert!(c.missing.iter().any(|m| m.statuses == [Some(Status::Oom), Some(Status::Oom)]));
    }

    #[test]
    fn without_a_price_there_is_throughput_and_no_cost() {
        let mut run = fixture::sweep();
        run.environment.price.usd_per_hour = None;
        let c = compare(&[fixture::sweep(), run], fixture::book());
        assert!(
            c.pairings.iter().all(|p| p.entries[1].throughput_ratio.is_some() && p.entries[1].cost_ratio.is_none())
        );
        assert!(c.pairings.iter().all(|p| p.cheapest.is_none()));
        assert_eq!(c.totals[1].cost_ratio, None);
    }
}
