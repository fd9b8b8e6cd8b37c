//! Scenarios: YAML in, checked domain types out, with errors that point at line and column.
//!
//! Wire types (what may be written) are turned into [`Scenario`] (what is meant) once and fallibly. A scenario knows nothing
//! of devices, of the clock or of results.

pub(crate) mod axes;
mod base;
pub(crate) mod budget;
mod document;
mod draft;
pub(crate) mod engine;
pub(crate) mod learning;
mod merge;
mod names;
mod overrides;
mod presets;
pub(crate) mod price;
mod ranges;
pub(crate) mod schema;
mod settings;
mod sweep;
pub(crate) mod trial;
mod values;
mod variables;
mod weights;

use crate::hardware::book::Book;
use crate::units::UsdPerHour;
pub(crate) use crate::yaml::Value;
pub use crate::yaml::YamlError;
use crate::yaml::{Node, Sources, fields};
pub use price::Price;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use trial::Trial;

/// A checked scenario: everything the file said, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Names the report's folder; letters, digits, `-`, `_` and `.` only.
    pub name: String,
    /// What it says of itself.
    pub description: String,
    /// The swept paths in the order of the file, for columns and charts ("model.d_model", "batch").
    pub axes: Vec<String>,
    /// Every cell of the sweep in the order of the file, before it is shuffled, capped or skipped.
    pub cells: Vec<Cell>,
    /// How to measure.
    pub measure: Measure,
    /// What to price it with.
    pub price: Price,
    /// Where facts of devices and prices are looked up: ours, with the user's files over it.
    pub book: Book,
    /// Caps on the whole sweep.
    pub limits: Limits,
}

/// One requested cell of the sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// What is measured.
    pub trial: Trial,
    /// What the axes were set to, in the order of [`Scenario::axes`] (plus fields set by `include`): path and value as text.
    pub coordinates: Vec<(String, String)>,
}

impl Cell {
    /// "d_model 256, batch 4": what sets the cell apart, or the model's name where nothing is swept.
    pub fn name(&self) -> String {
        self.named(axes::said)
    }

    /// The same by the last parts of the fields' paths, as the scenario's file has them: "n_heads 4, optimizer adamw". Budgets may
    /// name cells so as well.
    pub fn name_by_fields(&self) -> String {
        self.named(|path, value| format!("{} {value}", path.rsplit('.').next().unwrap_or(path)))
    }

    fn named(&self, part: fn(&str, &str) -> String) -> String {
        if self.coordinates.is_empty() {
            return self.trial.model.clone();
        }
        self.coordinates.iter().map(|(path, value)| part(path, value)).collect::<Vec<_>>().join(", ")
    }
}

/// How to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Half width of the 95 % interval of the median step, relative, at which a trial stops.
    pub precision: f64,
    /// Seconds that a trial is measured at least.
    pub min_seconds: f64,
    /// Seconds that a trial is measured at most.
    pub max_seconds: f64,
    /// `None`: warm up until the step time is stationary.
    pub warmup_steps: Option<u32>,
    /// How often a cell is launched, all cells once a round; `None`: as the plan finds room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounds: Option<u32>,
    /// Of weights, inputs and the shuffled order.
    pub seed: u64,
    /// Seeds that each cell is launched with, one a round; none: `seed` in all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<u64>,
    /// The order in which cells are measured.
    pub order: Order,
    /// A trial that has not finished after this long is killed: status `timeout`.
    pub timeout_seconds: f64,
    /// Run trials although they are predicted not to fit into memory.
    pub ignore_memory: bool,
    /// Above which a trial is disturbed.
    #[serde(default, skip_serializing_if = "Tolerated::is_usual")]
    pub disturbed: Tolerated,
}

/// How much others on the machine may take before a trial's figures are not those of the machine alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tolerated {
    /// The largest share of its time that an undisturbed trial may lose.
    pub lost: f64,
    /// The largest share of the processor time used meanwhile that others may have beside it.
    pub others: f64,
}

impl Default for Tolerated {
    /// 2 % of its time, about what one launch differs from the next; a tenth of the processor time.
    fn default() -> Self {
        Self { lost: 0.02, others: 0.1 }
    }
}

impl Tolerated {
    /// Whether nobody asked for others.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl Measure {
    /// What each launch of a cell is measured by: a cell's time is shared among its launches, and what each of them need not know
    /// so precisely the others add.
    pub fn of_launch(&self, rounds: u32) -> Self {
        let rounds = f64::from(rounds.max(1));
        Self {
            precision: (self.precision * rounds.sqrt()).min(0.5),
            min_seconds: self.min_seconds / rounds,
            max_seconds: self.max_seconds / rounds,
            ..self.clone()
        }
    }

    /// The seed of the launches of a round, from 0.
    pub fn seed_of(&self, round: u32) -> u64 {
        if self.seeds.is_empty() { self.seed } else { self.seeds[round as usize % self.seeds.len()] }
    }
}

/// The order in which cells are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// By a seeded shuffle: drift of the machine does not line up with an axis.
    Shuffled,
    /// As the file lists them.
    File,
}

impl Scenario {
    /// For an hour of everything that the sweep occupies: a machine is there for its largest trial throughout.
    pub fn usd_per_hour(&self) -> Option<UsdPerHour> {
        self.price.for_devices(self.cells.iter().map(|c| c.trial.devices).max().unwrap_or(1))
    }
}

/// Caps on the whole sweep; `None` binds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Minutes that it may take.
    pub minutes: Option<f64>,
    /// USD that it may cost.
    pub usd: Option<f64>,
    /// Cells that are measured at most.
    pub cells: Option<u64>,
}

/// What loading depends on beside the file.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// `path=value`, applied in order.
    pub overrides: Vec<String>,
    /// Most cells that a sweep may have.
    pub max_cells: u64,
    /// Whether `backend: auto` means CUDA; asked only where a trial says so, since asking loads NVIDIA's libraries.
    pub cuda_present: fn() -> bool,
    /// Price books over ours, beside the scenario's own.
    pub books: Vec<PathBuf>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { overrides: Vec::new(), max_cells: 10_000, cuda_present: || false, books: Vec::new() }
    }
}

/// Keys of a scenario.
const TOP: &[&str] = &[
    "version",
    "name",
    "description",
    "trial",
    "sweep",
    "measure",
    "price",
    "limits",
    "search",
    "variables",
    "extends",
];

/// Reads and checks a scenario file.
///
/// # Errors
/// [`YamlError`]: what is wrong, where, and what to do about it.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Scenario, YamlError> {
    let (root, s) = document::read(path, &options.overrides)?;
    fields::entries("a scenario", Some(&root), TOP, &[], &s)?;
    version(&root, &s)?;
    let section = |key: &str| root.get(key).map(|e| &e.node);
    let name = name(&root, path, &s)?;
    let description = root.get("description").map(|e| fields::text(e, "", &s)).transpose()?.unwrap_or_default();
    let mut base = base::read(&root, &s)?;
    base.draft.engine.server.search = settings::search(section("search"), &s)?;
    let sweep = sweep::expand(section("sweep"), &base, options.max_cells, options.cuda_present, &s)?;
    let mut measure = settings::measure(section("measure"), &s)?;
    let rounds = section("measure").and_then(|m| m.get("rounds"));
    if let Some(e) =
        rounds.filter(|_| measure.rounds.is_some_and(|n| !sweep.seeds.is_empty() && n as usize != sweep.seeds.len()))
    {
        let n = sweep.seeds.len();
        let message =
            format!("measure.rounds: every cell is launched once with each of {n} seeds (sweep.repeat); leave it out");
        return Err(s.fault(e.node.place, message));
    }
    measure.seeds = sweep.seeds;
    let (price, book) = price::read(section("price"), &options.books, &s)?;
    let limits = settings::limits(section("limits"), price.usd_per_hour, &s)?;
    Ok(Scenario {
        name,
        description: description.trim().to_string(),
        axes: sweep.axes,
        cells: sweep.cells,
        measure,
        price,
        book,
        limits,
    })
}

fn version(root: &Node, s: &Sources) -> Result<(), YamlError> {
    match root.get("version") {
        Some(e) if e.node.value == Value::Integer(1) => Ok(()),
        Some(e) => {
            let message = format!("version: expected 1, found {}; write 1", e.node.value);
            Err(s.fault(e.node.place, message))
        }
        None => Err(s.fault(root.place, "version: missing; begin the file with `version: 1`")),
    }
}

/// What the scenario says, or else what its file is called.
fn name(root: &Node, path: &Path, s: &Sources) -> Result<String, YamlError> {
    if let Some(e) = root.get("name") {
        let name = fields::text(e, "", s)?;
        return if is_folder_name(&name) {
            Ok(name)
        } else {
            Err(s.fault(
                e.node.place,
                format!(
                    "name: `{name}` names the report's folder; use 1 to 80 letters, digits, - _ . and no dot at the ends"
                ),
            ))
        };
    }
    let stem = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if is_folder_name(&stem) {
        return Ok(stem);
    }
    Err(s.fault(root.place, "name: missing, and the file's name cannot serve as a folder's; add `name: ...`"))
}

/// Whether a name is safe as a folder's on every system.
fn is_folder_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // Windows keeps these for devices, with any extension.
    let stem = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let device = match stem.as_str() {
        "con" | "prn" | "aux" | "nul" => true,
        other => {
            other.len() == 4
                && (other.starts_with("com") || other.starts_with("lpt"))
                && other.ends_with(|c: char| c.is_ascii_digit())
        }
    };
    let length = (1..=80).contains(&name.len());
    length && !name.starts_with('.') && !name.ends_with('.') && !device && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folders_on_every_system() {
        for good in ["quickstart", "a", "v1.2_x-y", "console", "com10"] {
            assert!(is_folder_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".git", "a.", "a/b", "a\\b", "a b", "nul", "NUL.txt", "com1", "ä", &"x".repeat(81)]
        {
            assert!(!is_folder_name(bad), "{bad}");
        }
    }
}
