//! A whole run: the records and everything a reader needs to know about where they come from.

use super::error::ResultsError;
use super::files::replace_text;
use super::journal;
use super::merge;
use super::record::Record;
use crate::hardware::gpu::Gpu;
use crate::hardware::kind::Kind;
use crate::hardware::machine::{Machine, Probe, Rates};
use crate::scenario::{Measure, Price};
use crate::stats::launches::Spread;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// What `environment.json` holds: all of a run but its records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// [`super::record::SCHEMA_VERSION`] of the program that wrote it.
    pub schema_version: u32,
    /// The scenario's name.
    pub scenario_name: String,
    /// What the scenario says of itself.
    pub description: String,
    /// Swept paths, in the order of the scenario.
    pub axes: Vec<String>,
    /// How many cells the scenario asked for; every one of them has a record when the run is complete.
    pub requested_cells: u32,
    /// The cells' trials in the order of the scenario: which records of the journal belong to this run, and where.
    pub trial_ids: Vec<String>,
    /// How it was measured.
    pub measure: Measure,
    /// What costs were computed with.
    pub price: Price,
    /// Of this crate.
    pub program_version: String,
    /// Where it ran.
    pub machine: Machine,
    /// That machine's limits, where they were measured.
    pub probe: Option<Probe>,
    /// How launches and runs are known to differ on this machine; not in runs of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variation: Option<Variation>,
    /// The best rates that earlier runs on this machine found, where there were some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_rates: Option<Rates>,
    /// GPUs that trials on the backend `cuda` see, in their order; none where no trial asked for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// Start of the run, RFC 3339, UTC.
    pub started_at: String,
    /// The command as typed, without the program's path: see [`Environment::command_line`].
    pub command: String,
}

/// How figures differ from launch to launch and from run to run, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variation {
    pub spread: Spread,
    pub kind: Kind,
    /// Earlier runs on this machine that it rests on beside what is assumed of its kind.
    pub runs: u32,
}

impl Variation {
    /// What is assumed of a machine without a history.
    pub fn assumed(kind: Kind) -> Self {
        Self { spread: kind.spread(), kind, runs: 0 }
    }
}

impl Environment {
    /// The command as a line that can be typed; older runs left the program's name out.
    pub fn command_line(&self) -> String {
        if self.command.starts_with("centime ") { self.command.clone() } else { format!("centime {}", self.command) }
    }

    /// As was known when the run began; of older runs what is assumed of a virtual machine.
    pub fn variation(&self) -> Variation {
        self.variation.unwrap_or(Variation::assumed(Kind::VirtualMachine))
    }
}

/// A run as read back from its folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// All but the records.
    pub environment: Environment,
    /// One per finished cell, ordered by `cell_index`.
    pub records: Vec<Record>,
}

impl Run {
    /// How fast the machine was around the launches of a record, in the median.
    pub fn rates_of(record: &Record) -> Option<Rates> {
        Rates::median(&record.measurement.figures.as_ref()?.machine_rates)
    }

    /// The best rates that are known of the machine, from earlier runs and from this one.
    pub fn best_rates(&self) -> Option<Rates> {
        let own = self.records.iter().filter_map(Self::rates_of);
        own.chain(self.environment.best_rates).reduce(|a, b| a.best(&b))
    }
}

/// Name of the environment's file in a run's folder.
pub(crate) const ENVIRONMENT: &str = "environment.json";

/// Writes `environment.json`.
///
/// # Errors
/// Disk or permissions.
pub fn save_environment(folder: &Path, environment: &Environment) -> Result<(), ResultsError> {
    let path = folder.join(ENVIRONMENT);
    let json = serde_json::to_string_pretty(environment).map_err(|e| ResultsError::damaged(&path, e.to_string()))?;
    replace_text(&path, &(json + "\n"))
}

/// Reads a run back from its folder: the environment and every record of the journal, by cell.
///
/// # Errors
/// A folder that holds no run; files that are damaged or newer than this program.
pub fn load(folder: &Path) -> Result<Run, ResultsError> {
    let path = folder.join(ENVIRONMENT);
    let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => ResultsError::damaged(
            folder,
            "no run is there (no environment.json); give a folder that `centime run` wrote",
        ),
        _ => ResultsError::io(&path, "reading")(e),
    })?;
    let environment: Environment = serde_json::from_str(&text)
        .map_err(|e| ResultsError::damaged(&path, format!("not a run's environment: {e}")))?;
    let content = journal::read(folder)?
        .ok_or_else(|| ResultsError::damaged(folder, "no journal is there; run the scenario again"))?;
    let records = by_cell(&environment, content.records);
    Ok(Run { environment, records })
}

/// One record a cell, in the scenario's order. The journal only grows: a cell that the scenario no longer has is passed
/// over, and one that has moved takes its new place.
fn by_cell(environment: &Environment, journal: Vec<Record>) -> Vec<Record> {
    let mut latest = launches(journal);
    let cells = (0u32..).zip(&environment.trial_ids);
    let merged = |id| merge::cell(latest.remove(id)?);
    cells
        .zip(environment.trial_ids.iter().map(merged))
        .filter_map(|((cell_index, _), r)| Some(Record { cell_index, ..r? }))
        .collect()
}

/// The launches of each trial. Of two lines for one (skipped first, then run) the later counts.
pub(crate) fn launches(journal: Vec<Record>) -> HashMap<String, Vec<Record>> {
    let mut all: HashMap<String, Vec<Record>> = HashMap::new();
    for record in journal {
        let of_trial = all.entry(record.trial_id.clone()).or_default();
        of_trial.retain(|r| r.round != record.round);
        of_trial.push(record);
    }
    all
}
