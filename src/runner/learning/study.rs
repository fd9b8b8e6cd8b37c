//! The loop of a trial that is to learn something: a step at its rate, a look at the validation loss now and then, until the loss or
//! a bound is there.
//!
//! Steps are timed as in the measuring loop; evaluations, checkpoints and pauses are not time of training.

use super::super::clock::Clock;
use super::super::measure::{Measured, Onlooker};
use super::super::measurement::Stop;
use super::super::protocol::{Progress, Stage};
use super::super::{allocation, precision};
use super::checkpoints::Keeper;
use super::learned::{EndedBy, Learned, Point, Text};
use super::notes::Notes;
use crate::scenario::learning::Learning;
use crate::transformer::error::SessionError;
use crate::transformer::session::Session;
use std::time::Duration;

/// Least time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// A loss this many times the one before the first step is no spike.
const EXPLODED: f64 = 2.0;

/// Share of the time-out after which a trial ends by itself, so that what it has learnt is not lost.
const OF_TIMEOUT: f64 = 0.9;

/// What is to be done.
#[derive(Debug)]
pub(in crate::runner) struct Terms<'a> {
    pub learning: &'a Learning,
    pub text: Text,
    pub seed: u64,
    pub tokens_per_step: u64,
    /// Batches of an evaluation.
    pub batches: u64,
    /// After how many seconds the process is ended.
    pub timeout_seconds: f64,
    /// Seconds that have gone before the clock started.
    pub gone_seconds: f64,
}

/// Where it begins: anew, or where a process before was ended.
#[derive(Debug, Default)]
pub(in crate::runner) struct Start {
    pub notes: Notes,
    /// Where there are to be checkpoints.
    pub keeper: Option<Keeper>,
}

/// Why there is nothing to tell of.
#[derive(Debug)]
pub(in crate::runner) enum Broken {
    Session(SessionError),
    /// The loss is beyond all bounds, or no number; where and how.
    Diverged(String),
}

impl From<SessionError> for Broken {
    fn from(e: SessionError) -> Self {
        Self::Session(e)
    }
}

/// Has `session`, which is taught and as far as `start` says, learn.
///
/// # Errors
/// The session's, at the step where it failed; a loss that is no number or explodes.
pub(in crate::runner) fn study(
    session: &mut dyn Session,
    terms: &Terms,
    start: Start,
    clock: &dyn Clock,
    onlooker: &mut dyn Onlooker,
    report: &mut dyn FnMut(Progress),
) -> Result<(Measured, Learned), Broken> {
    let Start { notes, keeper } = start;
    let waited_before = notes.waited_seconds;
    let desk = Desk { session, terms, keeper, clock, onlooker, report, reported: None, waited_before };
    desk.learn(notes)
}

struct Desk<'a, 'b> {
    session: &'a mut dyn Session,
    terms: &'a Terms<'b>,
    keeper: Option<Keeper>,
    clock: &'a dyn Clock,
    onlooker: &'a mut dyn Onlooker,
    report: &'a mut dyn FnMut(Progress),
    reported: Option<Duration>,
    /// For which steps of processes before have waited.
    waited_before: f64,
}

impl Desk<'_, '_> {
    fn learn(mut self, mut notes: Notes) -> Result<(Measured, Learned), Broken> {
        let (until, every) = (&self.terms.learning.until, self.terms.learning.eval.every.max(1));
        let planned = self.terms.learning.steps(self.terms.tokens_per_step);
        let begun = notes.evaluations.first().map(|first| first.loss);
        let before = begun.map_or_else(|| self.evaluate(&mut notes), Ok)?;
        let reached = |loss: f64| until.validation_loss.is_some_and(|target| loss <= target);
        if let Some(target) = until.validation_loss.filter(|_| reached(before)) {
            return Err(SessionError::Invalid(format!(
                "until.validation_loss: {target} is there before the first step ({before:.4}); ask for less"
            ))
            .into());
        }
        let mut ended_by = None;
        while ended_by.is_none() {
            let done = self.step(&mut notes, before)?;
            notes.curve.add(done);
            self.keeper.iter_mut().for_each(|keeper| keeper.reached(notes.at));
            let up = |bound: Option<f64>| bound.is_some_and(|bound| notes.at.seconds >= bound);
            ended_by = if planned.is_some_and(|planned| notes.at.step >= planned) {
                Some(EndedBy::Tokens)
            } else if up(until.seconds) {
                Some(EndedBy::Seconds)
            } else if self.late() {
                Some(EndedBy::Timeout)
            } else {
                None
            };
            if ended_by.is_some() || notes.at.step.is_multiple_of(every) {
                let loss = self.evaluate(&mut notes)?;
                self.unless_exploded(&notes, loss, before, "validation loss")?;
                if reached(loss) {
                    ended_by = Some(EndedBy::Target);
                }
            }
            self.tell(&notes);
            if ended_by.is_none() {
                self.keep(&mut notes);
            }
        }
        Ok(self.summed_up(notes, ended_by.unwrap_or(EndedBy::Timeout)))
    }

    /// Makes a checkpoint, where it is time for one.
    fn keep(&mut self, notes: &mut Notes) {
        let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.is_due()) else { return };
        let start = self.clock.now();
        notes.waited_seconds = self.waited_before + self.session.waited().unwrap_or_default();
        keeper.make(self.session, notes);
        keeper.took(self.clock.now().saturating_sub(start).as_secs_f64());
    }

    /// Whether the process would be ended soon.
    fn late(&self) -> bool {
        self.clock.now().as_secs_f64() + self.terms.gone_seconds >= OF_TIMEOUT * self.terms.timeout_seconds
    }

    /// One step: its loss, and where it was.
    fn step(&mut self, notes: &mut Notes, before: f64) -> Result<Point, Broken> {
        let rate = self.terms.learning.rate(notes.at, self.terms.tokens_per_step);
        let start = self.clock.now();
        let outcome = self.session.train(rate)?;
        let end = self.clock.now();
        let seconds = self.session.last_seconds().unwrap_or_else(|| end.saturating_sub(start).as_secs_f64());
        notes.step_seconds.push(seconds);
        notes.step_starts.push(start.as_secs_f64());
        notes.at.seconds += seconds;
        notes.at.step += 1;
        notes.loss = outcome.loss.map_or(f64::NAN, f64::from);
        if notes.at.step == 2 {
            notes.allocated = Some(allocation::peak_bytes());
        }
        if notes.checksum.is_none() {
            notes.checksum = Some(self.session.checksum());
        }
        self.unless_exploded(notes, notes.loss, before, "training loss")?;
        if self.onlooker.look(end) {
            // Until the machine is quieter. The time does not count.
            while self.onlooker.pause(self.clock) {}
        }
        Ok(self.point(notes, notes.loss))
    }

    fn point(&self, notes: &Notes, loss: f64) -> Point {
        let step = notes.at.step;
        Point { step, tokens: step * self.terms.tokens_per_step, seconds: notes.at.seconds, loss }
    }

    fn evaluate(&mut self, notes: &mut Notes) -> Result<f64, Broken> {
        let start = self.clock.now();
        let loss = self.session.evaluate(self.terms.batches)?;
        notes.evaluation_seconds += self.clock.now().saturating_sub(start).as_secs_f64();
        notes.evaluations.push(self.point(notes, loss));
        if loss.is_finite() { Ok(loss) } else { Err(self.diverged(notes, "validation loss", loss)) }
    }

    fn unless_exploded(&self, notes: &Notes, loss: f64, before: f64, which: &str) -> Result<(), Broken> {
        let sound = loss.is_finite() && loss <= EXPLODED * before;
        if sound { Ok(()) } else { Err(self.diverged(notes, which, loss)) }
    }

    fn diverged(&self, notes: &Notes, which: &str, loss: f64) -> Broken {
        let how = match loss {
            loss if loss.is_nan() => "is no number (NaN)".to_string(),
            loss if loss.is_infinite() => "is infinite".to_string(),
            loss => format!("is {loss:.3}, over twice what it began with"),
        };
        let p = self.point(notes, loss);
        let last = notes.evaluations.iter().rev().find(|e| e.loss.is_finite() && e.step < p.step);
        let last = last.map_or(String::new(), |e| format!("; validation loss {:.4} at step {}", e.loss, e.step));
        Broken::Diverged(format!("the {which} {how} at step {} ({} tokens){last}", p.step, p.tokens))
    }

    fn tell(&mut self, notes: &Notes) {
        let now = self.clock.now();
        if self.reported.is_some_and(|last| now.saturating_sub(last) < REPORT_EVERY) {
            return;
        }
        self.reported = Some(now);
        let tokens = (notes.at.step * self.terms.tokens_per_step) as f64;
        (self.report)(Progress {
            stage: Stage::Learning,
            steps: notes.at.step,
            seconds: notes.at.seconds,
            tokens_per_second: (notes.at.seconds > 0.0).then(|| tokens / notes.at.seconds),
            precision: None,
        });
    }

    fn summed_up(self, notes: Notes, ended_by: EndedBy) -> (Measured, Learned) {
        let first = self.point(&notes, notes.loss);
        let end = notes.evaluations.last().copied().unwrap_or(first);
        let waited_seconds = self.waited_before + self.session.waited().unwrap_or_default();
        let Notes { mut step_seconds, mut step_starts, curve, evaluations, evaluation_seconds, .. } = notes;
        // The first step finds memory and compiles kernels: time of training, but not what a step takes.
        let warmup_steps = usize::from(step_seconds.len() > 1);
        step_seconds.drain(..warmup_steps);
        // Of a training that went on, it was another process's.
        step_starts.drain(..step_starts.len().saturating_sub(step_seconds.len()));
        let measured = Measured {
            precision_reached: precision::reached(&step_seconds),
            step_seconds,
            step_starts,
            first_token_seconds: Vec::new(),
            warmup_steps: warmup_steps as u32,
            stopped_by: Stop::Goal,
            loss: Some(notes.loss),
            checksum: notes.checksum.unwrap_or_default(),
            first_allocated_bytes: notes.allocated.unwrap_or_else(allocation::peak_bytes),
            device_memory: self.session.device_memory(),
            expert_loads: self.session.loads(),
        };
        let target = (ended_by == EndedBy::Target).then_some(end);
        let learned = Learned {
            seed: self.terms.seed,
            ended_by,
            text: self.terms.text,
            end,
            target,
            curve: curve.finish(),
            evaluations,
            evaluation_seconds,
            waited_seconds,
            checkpoints: self.keeper.map(Keeper::finish),
        };
        (measured, learned)
    }
}

#[cfg(test)]
#[path = "study_tests.rs"]
mod tests;
