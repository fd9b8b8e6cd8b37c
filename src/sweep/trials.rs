//! The sweep: every planned trial becomes exactly one record, launch by launch, each on disk before anybody sees it.
//!
//! All cells are launched once a round. The first round decides of each whether it runs at all; later ones add launches of those that
//! do, while time and money last, so that a sweep that is cut short has all of its cells, if less sure of them.
//!
//! Measuring, journal, display and clock are the caller's, so that the order of things can be tested exactly.

use super::again;
use super::forecast::Forecast;
use crate::plan::{Plan, PlannedTrial};
use crate::results::ResultsError;
use crate::results::merge;
use crate::results::record::{Record, SCHEMA_VERSION};
use crate::results::run::launches;
use crate::runner::Progress;
use crate::runner::measurement::{Measurement, Status};
use crate::units::{Bytes, Seconds, UsdPerHour, significant};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

/// Who watches a sweep.
pub(crate) trait Display {
    /// A launch of a trial starts; `left` is the estimate for it and all after it.
    fn begin(&mut self, trial: &PlannedTrial, left: Seconds);
    fn progress(&mut self, progress: Progress);
    /// So many launches are to be made again, because others disturbed them.
    fn again(&mut self, launches: usize);
    /// A launch has its record, which is on disk (or belongs to an interrupted one, which has none there).
    fn finished(&mut self, record: &Record);
}

/// Measures one launch of a trial, that of this round, and tells how it goes.
pub(crate) type Measurer<'a> = dyn FnMut(&PlannedTrial, u32, &mut dyn FnMut(Progress)) -> Measurement + 'a;

/// What a sweep works with.
pub(crate) struct Stage<'a> {
    pub measure: &'a mut Measurer<'a>,
    pub append: &'a mut dyn FnMut(&Record) -> Result<(), ResultsError>,
    pub display: &'a mut dyn Display,
    /// The moment, RFC 3339.
    pub now: &'a dyn Fn() -> String,
    pub interrupted: &'a AtomicBool,
    /// How often a launch that others disturbed is made again at most.
    pub again: u32,
}

impl std::fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("interrupted", self.interrupted).finish_non_exhaustive()
    }
}

/// What came of a sweep.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    /// One a cell, in the scenario's order.
    pub records: Vec<Record>,
    pub interrupted: bool,
}

/// Runs what is not in `journal` yet. Journalled skips are considered again: their reason may be gone.
///
/// # Errors
/// The journal's; what was journalled before stays there.
pub(crate) fn sweep(
    plan: &Plan,
    price: Option<UsdPerHour>,
    journal: Vec<Record>,
    stage: &mut Stage,
) -> Result<Outcome, ResultsError> {
    let journal = launches(journal);
    let mut state = State::new(plan, price, &journal);
    let mut cells: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
    for round in 0..plan.rounds {
        for trial in plan.round(round) {
            let known = journal.get(&trial.id).and_then(|all| all.iter().find(|r| r.round == round));
            let so_far = cells.entry(trial.cell_index).or_default();
            let record = match known {
                Some(done) if done.measurement.status != Status::Skipped => {
                    Some(Record { cell_index: trial.cell_index, ..done.clone() })
                }
                known if round == 0 => Some(state.first(trial, known, stage)?),
                _ if so_far.iter().all(|r| r.measurement.status == Status::Ok) => state.again(trial, round, stage)?,
                _ => None,
            };
            record.iter().for_each(|r| state.note_memory(r, trial));
            so_far.extend(record);
        }
    }
    // A run that was finished before is shown as it is.
    if state.launched {
        state.disturbed_again(plan, &mut cells, stage)?;
    }
    let records = cells.into_values().filter_map(merge::cell).collect();
    Ok(Outcome { records, interrupted: state.interrupted })
}

/// What decides whether the next trial runs.
struct State {
    forecast: Forecast,
    /// Launches of a trial: its estimate is that of all of them.
    rounds: u32,
    limit: Option<Limit>,
    /// Seconds of all trials of this run so far, those of earlier sittings included.
    spent: f64,
    /// Trials that ran out of memory.
    too_large: Vec<PlannedTrial>,
    interrupted: bool,
    /// Something was measured in this sitting.
    launched: bool,
}

/// The cap that binds first.
struct Limit {
    seconds: f64,
    words: String,
}

impl State {
    fn new(plan: &Plan, price: Option<UsdPerHour>, journal: &HashMap<String, Vec<Record>>) -> Self {
        let done = |t: &PlannedTrial| {
            let all = journal.get(&t.id).into_iter().flatten();
            all.filter(|r| r.measurement.status != Status::Skipped && r.round < plan.rounds)
        };
        let of_launch = |t: &PlannedTrial| of_launch(t, plan.rounds);
        let left = |t: &&PlannedTrial| {
            let failed = done(t).any(|r| r.measurement.status != Status::Ok);
            if failed { 0.0 } else { of_launch(t) * (f64::from(plan.rounds) - done(t).count() as f64) }
        };
        let mut forecast = Forecast::new(plan.trials.iter().filter(|t| t.skip.is_none()).map(|t| left(&t)));
        let mut spent = 0.0;
        for (trial, record) in plan.trials.iter().flat_map(|t| done(t).map(move |r| (t, r))) {
            forecast.learn(of_launch(trial), record.measurement.trial_seconds);
            spent += record.measurement.trial_seconds;
        }
        let (rounds, limit) = (plan.rounds, Limit::of(plan, price));
        Self { forecast, rounds, limit, spent, too_large: Vec::new(), interrupted: false, launched: false }
    }

    /// Estimated seconds of one launch.
    fn of_launch(&self, trial: &PlannedTrial) -> f64 {
        of_launch(trial, self.rounds)
    }

    /// Seconds of all trials of this run once this one has been launched one more time.
    fn spent_after(&self, trial: &PlannedTrial) -> f64 {
        self.spent + self.forecast.corrected(self.of_launch(trial))
    }

    /// The first launch of a trial, or why there is none.
    fn first(
        &mut self,
        trial: &PlannedTrial,
        known: Option<&Record>,
        stage: &mut Stage,
    ) -> Result<Record, ResultsError> {
        let without = |status, reason| Measurement::without_figures(status, reason, trial.memory);
        self.interrupted |= stage.interrupted.load(Ordering::Relaxed);
        if self.interrupted && trial.skip.is_none() {
            let reason = "not started: the run was interrupted";
            return Ok(record(trial, 0, without(Status::Cancelled, reason.to_string()), (stage.now)()));
        }
        if let Some(reason) = self.reason_to_skip(trial) {
            if trial.skip.is_none() {
                self.forecast.drop_out(trial.estimate.get());
            }
            if let Some(known) = known {
                return Ok(Record { cell_index: trial.cell_index, ..known.clone() });
            }
            let record = record(trial, 0, without(Status::Skipped, reason), (stage.now)());
            (stage.append)(&record)?;
            stage.display.finished(&record);
            return Ok(record);
        }
        self.run(trial, 0, stage)
    }

    /// A later launch of a trial that runs; `None` where there is no time for it, or the user has had enough.
    fn again(&mut self, trial: &PlannedTrial, round: u32, stage: &mut Stage) -> Result<Option<Record>, ResultsError> {
        self.interrupted |= stage.interrupted.load(Ordering::Relaxed);
        if self.interrupted {
            return Ok(None);
        }
        if self.over_the_limit(trial).is_some() {
            self.forecast.drop_out(self.of_launch(trial));
            return Ok(None);
        }
        let record = self.run(trial, round, stage)?;
        // The launches before stay what they are.
        Ok(Some(record).filter(|r| r.measurement.status != Status::Cancelled))
    }

    /// Makes disturbed launches again, each at most `stage.again` times, while limits and a share of what the sweep took last. Of a
    /// launch and the one made in its place the less disturbed counts.
    fn disturbed_again(
        &mut self,
        plan: &Plan,
        cells: &mut BTreeMap<u32, Vec<Record>>,
        stage: &mut Stage,
    ) -> Result<(), ResultsError> {
        let until = self.spent * (1.0 + again::SHARE);
        for times in 0..stage.again {
            let due = again::due(plan, cells, times);
            if !due.is_empty() {
                stage.display.again(due.len());
            }
            for (trial, round) in due {
                let of_cell = cells.get_mut(&trial.cell_index);
                let Some(old) = of_cell.and_then(|all| all.iter_mut().find(|r| r.round == round)) else { continue };
                if !self.may_launch(trial, until, stage) {
                    return Ok(());
                }
                let new = self.launch(trial, round, stage);
                if new.measurement.status != Status::Cancelled {
                    *old = again::better(old.clone(), new.clone());
                    (stage.append)(old)?;
                }
                stage.display.finished(&new);
            }
        }
        Ok(())
    }

    /// Whether there is time for one more launch until so much is spent, and the user wants it.
    fn may_launch(&mut self, trial: &PlannedTrial, until: f64, stage: &Stage) -> bool {
        self.interrupted |= stage.interrupted.load(Ordering::Relaxed);
        !self.interrupted && self.spent_after(trial) <= until && self.over_the_limit(trial).is_none()
    }

    /// Launches a trial; what came of it is on no disk yet.
    fn launch(&mut self, trial: &PlannedTrial, round: u32, stage: &mut Stage) -> Record {
        let started_at = (stage.now)();
        stage.display.begin(trial, Seconds(self.forecast.left()));
        let measurement = (stage.measure)(trial, round, &mut |p| stage.display.progress(p));
        self.forecast.ran(self.of_launch(trial), measurement.trial_seconds);
        self.spent += measurement.trial_seconds;
        self.launched = true;
        // Not in the journal: the next sitting runs it again.
        self.interrupted |= measurement.status == Status::Cancelled;
        record(trial, round, measurement, started_at)
    }

    fn run(&mut self, trial: &PlannedTrial, round: u32, stage: &mut Stage) -> Result<Record, ResultsError> {
        let record = self.launch(trial, round, stage);
        if record.measurement.status != Status::Ok {
            let launches_left = self.rounds.saturating_sub(round + 1);
            self.forecast.drop_out(f64::from(launches_left) * self.of_launch(trial));
        }
        if record.measurement.status != Status::Cancelled {
            (stage.append)(&record)?;
        }
        stage.display.finished(&record);
        Ok(record)
    }

    fn reason_to_skip(&self, trial: &PlannedTrial) -> Option<String> {
        trial.skip.clone().or_else(|| self.over_the_limit(trial)).or_else(|| self.larger_than_what_failed(trial))
    }

    fn over_the_limit(&self, trial: &PlannedTrial) -> Option<String> {
        let limit = self.limit.as_ref()?;
        let after = self.spent_after(trial);
        (after > limit.seconds).then(|| {
            let spent = Seconds(self.spent);
            format!(
                "{} would be exceeded: {spent} are spent, and this trial is estimated to end at {}",
                limit.words,
                Seconds(after)
            )
        })
    }

    /// A trial that takes at least as much as one that ran out of memory would only run out of it again.
    fn larger_than_what_failed(&self, trial: &PlannedTrial) -> Option<String> {
        let alike = |other: &&PlannedTrial| {
            let (a, b) = (&other.cell.trial, &trial.cell.trial);
            a.workload.phase == b.workload.phase && a.backend == b.backend
        };
        let needs = predicted(trial)?;
        let smaller = self.too_large.iter().filter(alike).find(|t| predicted(t).is_some_and(|p| p <= needs))?;
        let (name, took) = (smaller.cell.name(), predicted(smaller)?);
        Some(format!(
            "a smaller trial ran out of memory ({name}: predicted {}, this one {})",
            Bytes(took),
            Bytes(needs)
        ))
    }

    fn note_memory(&mut self, record: &Record, trial: &PlannedTrial) {
        if record.measurement.status == Status::Oom {
            self.too_large.push(trial.clone());
        }
    }
}

impl Limit {
    fn of(plan: &Plan, price: Option<UsdPerHour>) -> Option<Self> {
        let minutes = plan
            .limits
            .minutes
            .map(|m| Self { seconds: m * 60.0, words: format!("limits.minutes: {}", significant(m, 3)) });
        let usd = plan.limits.usd.zip(price).map(|(usd, price)| Self {
            seconds: usd / price.get() * 3600.0,
            words: format!("limits.usd: {}", significant(usd, 3)),
        });
        [minutes, usd].into_iter().flatten().min_by(|a, b| a.seconds.total_cmp(&b.seconds))
    }
}

/// Estimated seconds of one of so many launches.
fn of_launch(trial: &PlannedTrial, rounds: u32) -> f64 {
    trial.estimate.get() / f64::from(rounds.max(1))
}

fn predicted(trial: &PlannedTrial) -> Option<u64> {
    trial.memory.total().map(Bytes::get)
}

fn record(trial: &PlannedTrial, round: u32, measurement: Measurement, started_at: String) -> Record {
    Record {
        schema_version: SCHEMA_VERSION,
        trial_id: trial.id.clone(),
        cell_index: trial.cell_index,
        run_order: trial.run_order,
        round,
        again: 0,
        cell: trial.cell.clone(),
        measurement,
        started_at,
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
