//! What is in the run's folder already: records of this very run, of another one, or nothing.

use super::unfinished;
use crate::hardware::gpu::Gpu;
use crate::hardware::machine::Probe;
use crate::results::ResultsError;
use crate::results::journal::{Content, Journal, Opened, read};
use crate::results::record::{Record, RunKey};
use crate::results::run::{Variation, load};
use std::path::Path;

/// What a new run takes over from the folder.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub records: Vec<Record>,
    /// The probe of this machine, made when the run began.
    pub probe: Option<Probe>,
    /// Its GPUs as they were found then, with their own probes.
    pub gpus: Vec<Gpu>,
    pub started_at: Option<String>,
    /// How runs were known to differ on this machine then.
    pub variation: Option<Variation>,
}

/// Looks into the folder. A journal of another run (or any, when a fresh one is wanted) is moved aside, never deleted, and
/// what differs is said.
///
/// # Errors
/// A journal that is damaged or cannot be read or moved.
pub(crate) fn look(
    folder: &Path,
    key: &RunKey,
    fresh: bool,
    say: &mut dyn FnMut(String),
) -> Result<Found, ResultsError> {
    let Some(content) = read(folder)? else {
        // Without a journal nobody knows whose they are; where they are of this run, their own words say so.
        if fresh {
            unfinished::set_aside(folder)?;
        }
        return Ok(Found::default());
    };
    let differences = content.key.differences(key);
    if !fresh && differences.is_empty() {
        return Ok(found(folder, content));
    }
    let aside = Journal::set_aside(folder)?;
    let checkpoints = unfinished::set_aside(folder)?;
    let mut kept = aside.map_or(String::new(), |path| format!("; the old journal is kept as {}", path.display()));
    kept += &checkpoints.map_or(String::new(), |path| format!(", its checkpoints as {}", path.display()));
    if fresh {
        say(format!("starting afresh{kept}"));
    } else {
        say(format!("starting a new run, because the one in {} differs{kept}", folder.display()));
        differences.into_iter().for_each(|d| say(format!("  {d}")));
    }
    Ok(Found::default())
}

fn found(folder: &Path, content: Content) -> Found {
    // The environment says how the run began; without it (somebody took it away) the records still count.
    let environment = load(folder).ok().map(|run| run.environment);
    Found {
        records: unfinished::without(folder, content.records),
        started_at: environment.as_ref().map(|e| e.started_at.clone()),
        variation: environment.as_ref().and_then(|e| e.variation),
        gpus: environment.as_ref().map(|e| e.gpus.clone()).unwrap_or_default(),
        probe: environment.and_then(|e| e.probe),
    }
}

/// Opens the journal for appending, and says what had to be mended.
///
/// # Errors
/// The journal's.
pub(crate) fn open(folder: &Path, key: &RunKey, say: &mut dyn FnMut(String)) -> Result<Journal, ResultsError> {
    let (journal, opened) = Journal::open(folder, key)?;
    if let Opened::Resumed { warnings, .. } = opened {
        warnings.into_iter().for_each(say);
    }
    Ok(journal)
}
