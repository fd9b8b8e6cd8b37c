//! A few more steps after the measured ones, with what every rank does in them: the profile of a trial, and its trace where one is asked
//! for. What was measured is untouched.
//!
//! What a trace costs is measured with it: beside each step that is traced another is made that is not, before it and after it in turns, so
//! that a machine that changes its speed meets both alike. The overhead is the median of the pairs' ratios, less one; `ci/trace-overhead`
//! pools them over launches.

mod chrome;
pub(crate) mod profile;

use crate::stats::{Interval, median, median_interval};
use crate::transformer::BackendKind;
use crate::transformer::session::Session;
use crate::transformer::trace::Track;
use profile::Profile;
use std::path::PathBuf;
use std::time::Instant;

/// The variable that holds the file of a trial's trace; honoured by the trial's process only.
pub(crate) const VARIABLE: &str = "CENTIME_TRACE";

/// Steps of a profile, and of a trace: so many that no single pair decides the interval of their median.
const PROFILED: usize = 3;
const TRACED: usize = 12;
/// Share of the time of measuring that a profile may take, if one step does not take more.
const SHARE: f64 = 0.05;
/// A step that takes longer is not made again for a profile, and for a trace no more often than for one.
const LONGEST_STEP: f64 = 5.0;

/// What was traced.
#[derive(Debug)]
pub(super) struct Traced {
    /// What each rank did, all steps together.
    pub tracks: Vec<Track>,
    /// Of the steps, by the clock of whoever asked for them.
    pub step_seconds: Vec<f64>,
    /// Of those that were made beside them and not traced, one each, where a trace is asked for.
    pub beside_seconds: Vec<f64>,
    /// The median of those that were measured before.
    pub measured_seconds: f64,
}

impl Traced {
    /// How much longer a step takes that is traced than the one beside it, pair by pair.
    fn ratios(&self) -> Vec<f64> {
        self.step_seconds.iter().zip(&self.beside_seconds).map(|(traced, beside)| traced / beside).collect()
    }

    /// By how much steps that are traced are slower, as a share; `None` where none were made beside them.
    fn overhead(&self) -> Option<f64> {
        Some(median(&self.ratios())? - 1.0)
    }

    /// The same with its 95 % interval; `None` of pairs too few for one.
    fn overhead_interval(&self) -> Option<Interval> {
        let i = median_interval(&self.ratios())?;
        Some(Interval { point: i.point - 1.0, low: i.low - 1.0, high: i.high - 1.0, ..i })
    }
}

/// Traces some steps of a session that has been measured, where its backend tells its operations or a trace is asked for. That is
/// written; that it could not be is said on stderr, since the figures are there.
pub(super) fn profile(session: &mut dyn Session, step_seconds: &[f64], on: BackendKind) -> Option<Profile> {
    let file = std::env::var_os(VARIABLE).map(PathBuf::from);
    let typical = median(step_seconds)?;
    let all: f64 = step_seconds.iter().sum();
    let steps = match &file {
        Some(_) if typical > LONGEST_STEP => PROFILED,
        Some(_) => TRACED,
        None if on == BackendKind::Cuda || typical > LONGEST_STEP => return None,
        None => ((SHARE * all / typical) as usize).clamp(1, PROFILED),
    };
    let traced = trace(session, steps, (typical, file.is_some()))?;
    if let Some(file) = file
        && let Err(e) = chrome::write(&file, &traced)
    {
        eprintln!("{}: the trace could not be written: {e}", file.display());
    }
    Profile::of(&traced)
}

/// So many traced steps; `paired`, as many others beside them.
fn trace(session: &mut dyn Session, steps: usize, (measured_seconds, paired): (f64, bool)) -> Option<Traced> {
    let epoch = Instant::now();
    let (step_seconds, beside_seconds) = (Vec::new(), Vec::new());
    let mut traced = Traced { tracks: Vec::new(), step_seconds, beside_seconds, measured_seconds };
    for step in 0..steps {
        let before = step % 2 == 1;
        if paired && before {
            traced.beside_seconds.push(timed(|| session.step().ok())?.1);
        }
        // A step that fails now takes nothing from what was measured.
        let (tracks, seconds) = timed(|| session.traced_step(epoch).ok().filter(|t| !t.is_empty()))?;
        traced.step_seconds.push(seconds);
        if paired && !before {
            traced.beside_seconds.push(timed(|| session.step().ok())?.1);
        }
        for track in tracks {
            match traced.tracks.iter_mut().find(|t| t.rank == track.rank) {
                Some(own) => own.events.extend(track.events),
                None => traced.tracks.push(track),
            }
        }
    }
    Some(traced)
}

/// What something comes to, if to anything, and the seconds that it took.
fn timed<T>(what: impl FnOnce() -> Option<T>) -> Option<(T, f64)> {
    let start = Instant::now();
    what().map(|outcome| (outcome, start.elapsed().as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overhead_is_that_of_pairs_whatever_the_machines_speed_does() {
        // The machine gets slower by half on the way, and one pair was disturbed.
        let beside_seconds: Vec<f64> = (0..12).map(|i| 1.0 + f64::from(i) / 16.0).collect();
        let mut step_seconds: Vec<f64> = beside_seconds.iter().map(|s| 1.25 * s).collect();
        step_seconds[4] *= 3.0;
        let traced = Traced { tracks: Vec::new(), step_seconds, beside_seconds, measured_seconds: 1.0 };
        let overhead = traced.overhead_interval().unwrap();
        assert_eq!((traced.overhead(), overhead.point, overhead.low, overhead.high), (Some(0.25), 0.25, 0.25, 0.25));
        let alone = Traced { beside_seconds: Vec::new(), ..traced };
        assert_eq!((alone.overhead(), alone.overhead_interval()), (None, None));
    }
}
