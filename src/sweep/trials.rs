//! The sweep: every planned trial becomes exactly one record, in the order of the plan, on disk before anybody sees it.
//!
//! Measuring, journal, display and clock are the caller's, so that the order of things can be tested exactly.

use super::forecast::Forecast;
use crate::plan::{Plan, PlannedTrial};
use crate::results::ResultsError;
use crate::results::record::{Record, SCHEMA_VERSION};
use crate::runner::Progress;
use crate::runner::measurement::{Measurement, Status};
use crate::units::{Bytes, Seconds, UsdPerHour, significant};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who watches a sweep.
pub trait Display {
    /// A trial starts; `left` is the estimate for it and all after it.
    fn begin(&mut self, trial: &PlannedTrial, left: Seconds);
    fn progress(&mut self, progress: Progress);
    /// A trial has its record, which is on disk (or belongs to an interrupted trial, which has none there).
    fn finished(&mut self, record: &Record);
}

/// Measures a trial and tells how it goes.
pub type Measurer<'a> = dyn FnMut(&PlannedTrial, &mut dyn FnMut(Progress)) -> Measurement + 'a;

/// What a sweep works with.
pub struct Stage<'a> {
    pub measure: &'a mut Measurer<'a>,
    pub append: &'a mut dyn FnMut(&Record) -> Result<(), ResultsError>,
    pub display: &'a mut dyn Display,
    /// The moment, RFC 3339.
    pub now: &'a dyn Fn() -> String,
    pub interrupted: &'a AtomicBool,
}

impl std::fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("interrupted", self.interrupted).finish_non_exhaustive()
    }
}

/// What came of a sweep.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// One a cell, in the scenario's order.
    pub records: Vec<Record>,
    pub interrupted: bool,
}

/// Runs what is not in `journal` yet. Journalled skips are considered again: their reason may be gone.
///
/// # Errors
/// The journal's; what was journalled before stays there.
pub fn sweep(
    plan: &Plan,
    price: Option<UsdPerHour>,
    journal: Vec<Record>,
    stage: &mut Stage,
) -> Result<Outcome, ResultsError> {
    let journal: HashMap<String, Record> = journal.into_iter().map(|r| (r.trial_id.clone(), r)).collect();
    let mut state = State::new(plan, price, &journal);
    let mut records = Vec::with_capacity(plan.trials.len());
    for trial in &plan.trials {
        let known = journal.get(&trial.id);
        let record = match known {
            Some(done) if done.measurement.status != Status::Skipped => {
                Record { cell_index: trial.cell_index, ..done.clone() }
            }
            known => state.next(trial, known, stage)?,
        };
        state.note_memory(&record, trial);
        records.push(record);
    }
    records.sort_by_key(|r| r.cell_index);
    Ok(Outcome { records, interrupted: state.interrupted })
}

/// What decides whether the next trial runs.
struct State {
    forecast: Forecast,
    limit: Option<Limit>,
    /// Seconds of all trials of this run so far, those of earlier sittings included.
    spent: f64,
    /// Trials that ran out of memory.
    too_large: Vec<PlannedTrial>,
    interrupted: bool,
}

/// The cap that binds first.
struct Limit {
    seconds: f64,
    words: String,
}

impl State {
    fn new(plan: &Plan, price: Option<UsdPerHour>, journal: &HashMap<String, Record>) -> Self {
        let done = |t: &PlannedTrial| journal.get(&t.id).filter(|r| r.measurement.status != Status::Skipped);
        let left = plan.trials.iter().filter(|t| t.skip.is_none() && done(t).is_none());
        let mut forecast = Forecast::new(left.map(|t| t.estimate.get()));
        let mut spent = 0.0;
        for (trial, record) in plan.trials.iter().filter_map(|t| Some((t, done(t)?))) {
            forecast.learn(trial.estimate.get(), record.measurement.trial_seconds);
            spent += record.measurement.trial_seconds;
        }
        Self { forecast, limit: Limit::of(plan, price), spent, too_large: Vec::new(), interrupted: false }
    }

    fn next(
        &mut self,
        trial: &PlannedTrial,
        known: Option<&Record>,
        stage: &mut Stage,
    ) -> Result<Record, ResultsError> {
        let without = |status, reason| Measurement::without_figures(status, reason, trial.memory);
        self.interrupted |= stage.interrupted.load(Ordering::Relaxed);
        if self.interrupted && trial.skip.is_none() {
            let reason = "not started: the run was interrupted";
            return Ok(record(trial, without(Status::Cancelled, reason.to_string()), (stage.now)()));
        }
        if let Some(reason) = self.reason_to_skip(trial) {
            if trial.skip.is_none() {
                self.forecast.drop_out(trial.estimate.get());
            }
            if let Some(known) = known {
                return Ok(Record { cell_index: trial.cell_index, ..known.clone() });
            }
            let record = record(trial, without(Status::Skipped, reason), (stage.now)());
            (stage.append)(&record)?;
            stage.display.finished(&record);
            return Ok(record);
        }
        self.run(trial, stage)
    }

    fn run(&mut self, trial: &PlannedTrial, stage: &mut Stage) -> Result<Record, ResultsError> {
        let started_at = (stage.now)();
        stage.display.begin(trial, Seconds(self.forecast.left()));
        let measurement = (stage.measure)(trial, &mut |p| stage.display.progress(p));
        self.forecast.ran(trial.estimate.get(), measurement.trial_seconds);
        self.spent += measurement.trial_seconds;
        let record = record(trial, measurement, started_at);
        if record.measurement.status == Status::Cancelled {
            // Not in the journal: the next sitting runs it again.
            self.interrupted = true;
        } else {
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
        let after = self.spent + self.forecast.corrected(trial.estimate.get());
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

fn predicted(trial: &PlannedTrial) -> Option<u64> {
    trial.memory.total().map(Bytes::get)
}

fn record(trial: &PlannedTrial, measurement: Measurement, started_at: String) -> Record {
    Record {
        schema_version: SCHEMA_VERSION,
        trial_id: trial.id.clone(),
        cell_index: trial.cell_index,
        run_order: trial.run_order,
        cell: trial.cell.clone(),
        measurement,
        started_at,
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
