//! A few more steps after the measured ones, with what every rank does in them: the profile of a trial, and its trace where one is asked
//! for. What was measured is untouched.

mod chrome;
pub(crate) mod profile;

use crate::stats::median;
use crate::transformer::BackendKind;
use crate::transformer::session::Session;
use crate::transformer::trace::Track;
use profile::Profile;
use std::path::PathBuf;
use std::time::Instant;

/// The variable that holds the file of a trial's trace; honoured by the trial's process only.
pub(crate) const VARIABLE: &str = "CENTIME_TRACE";

/// Steps of a profile, and of a trace.
const PROFILED: usize = 3;
const TRACED: usize = 10;
/// Share of the time of measuring that a profile may take, if one step does not take more.
const SHARE: f64 = 0.05;
/// A step that takes longer is not made again for a profile.
const LONGEST_STEP: f64 = 5.0;

/// What was traced.
#[derive(Debug)]
pub(super) struct Traced {
    /// What each rank did, all steps together.
    pub tracks: Vec<Track>,
    /// Of the steps, by the clock of whoever asked for them.
    pub step_seconds: Vec<f64>,
    /// The median of those that were measured before.
    pub measured_seconds: f64,
}

impl Traced {
    /// By how much steps that are traced are slower, as a share.
    fn overhead(&self) -> Option<f64> {
        Some(median(&self.step_seconds)? / self.measured_seconds - 1.0)
    }
}

/// Traces some steps of a session that has been measured, where its backend tells its operations or a trace is asked for. That is
/// written; that it could not be is said on stderr, since the figures are there.
pub(super) fn profile(session: &mut dyn Session, step_seconds: &[f64], on: BackendKind) -> Option<Profile> {
    let file = std::env::var_os(VARIABLE).map(PathBuf::from);
    let typical = median(step_seconds)?;
    let all: f64 = step_seconds.iter().sum();
    let steps = match &file {
        Some(_) => TRACED,
        None if on == BackendKind::Cuda || typical > LONGEST_STEP => return None,
        None => ((SHARE * all / typical) as usize).clamp(1, PROFILED),
    };
    let traced = trace(session, steps, typical)?;
    if let Some(file) = file
        && let Err(e) = chrome::write(&file, &traced)
    {
        eprintln!("{}: the trace could not be written: {e}", file.display());
    }
    Profile::of(&traced)
}

fn trace(session: &mut dyn Session, steps: usize, measured_seconds: f64) -> Option<Traced> {
    let epoch = Instant::now();
    let mut traced = Traced { tracks: Vec::new(), step_seconds: Vec::new(), measured_seconds };
    for _ in 0..steps {
        let start = Instant::now();
        // A step that fails now takes nothing from what was measured.
        let tracks = session.traced_step(epoch).ok().filter(|t| !t.is_empty())?;
        traced.step_seconds.push(start.elapsed().as_secs_f64());
        for track in tracks {
            match traced.tracks.iter_mut().find(|t| t.rank == track.rank) {
                Some(own) => own.events.extend(track.events),
                None => traced.tracks.push(track),
            }
        }
    }
    Some(traced)
}
