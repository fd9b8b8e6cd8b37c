//! Scenarios: YAML in, checked domain types out, with errors that point at line and column.
//!
//! Wire types (what may be written) are turned into [`Scenario`] (what is meant) once and fallibly. A scenario knows nothing
//! of devices, of the clock or of results.

pub mod axes;
mod document;
mod error;
mod fields;
mod node;
mod presets;
mod ranges;
pub mod schema;
mod settings;
mod sweep;
pub mod trial;

use crate::transformer::hf_config::shape_from_hf_config;
use crate::units::{Share, UsdPerHour};
use axes::Draft;
use document::Sources;
pub use error::{Origin, ScenarioError};
use node::{Node, Value};
use serde::{Deserialize, Serialize};
use std::path::Path;
use trial::Trial;

/// A checked scenario: everything the file said, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Names the report's folder; letters, digits, `-`, `_` and `.` only.
    pub name: String,
    pub description: String,
    /// The swept paths in the order of the file, for columns and charts ("model.d_model", "batch").
    pub axes: Vec<String>,
    /// Every cell of the sweep in the order of the file, before it is shuffled, capped or skipped.
    pub cells: Vec<Cell>,
    pub measure: Measure,
    pub price: Price,
    pub limits: Limits,
}

/// One requested cell of the sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub trial: Trial,
    /// What the axes were set to, in the order of [`Scenario::axes`] (plus fields set by `include`): path and value as text.
    pub coordinates: Vec<(String, String)>,
}

impl Cell {
    /// "d_model 256, batch 4": what sets the cell apart, or the model's name where nothing is swept.
    pub fn name(&self) -> String {
        if self.coordinates.is_empty() {
            return self.trial.model.clone();
        }
        let one = |(path, value): &(String, String)| {
            let label = axes::AXES.iter().find(|a| a.path == path).map_or(path.as_str(), |a| a.label);
            format!("{label} {value}")
        };
        self.coordinates.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// How to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Half width of the 95 % interval of the median step, relative, at which a trial stops.
    pub precision: f64,
    pub min_seconds: f64,
    pub max_seconds: f64,
    /// `None`: warm up until the step time is stationary.
    pub warmup_steps: Option<u32>,
    pub seed: u64,
    pub order: Order,
    /// A trial that has not finished after this long is killed: status `timeout`.
    pub timeout_seconds: f64,
    /// Run trials although they are predicted not to fit into memory.
    pub ignore_memory: bool,
}

/// The order in which cells are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// By a seeded shuffle: drift of the machine does not line up with an axis.
    Shuffled,
    /// As the file lists them.
    File,
}

/// What an hour of the hardware costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// A name of the price book, or `local`.
    pub hardware: String,
    /// For everything a trial occupies; `None` is shown as n/a, never as 0.
    pub usd_per_hour: Option<UsdPerHour>,
    /// What the figure stands for.
    pub source: String,
    /// Share of the paid time in which tokens are produced, in (0, 1].
    pub utilisation: Share,
}

/// Caps on the whole sweep; `None` binds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    pub minutes: Option<f64>,
    pub usd: Option<f64>,
    pub cells: Option<u64>,
}

/// What loading depends on beside the file.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// `path=value`, applied in order.
    pub overrides: Vec<String>,
    /// Most cells that a sweep may have.
    pub max_cells: u64,
    /// Whether `backend: auto` means CUDA.
    pub cuda_present: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { overrides: Vec::new(), max_cells: 10_000, cuda_present: false }
    }
}

/// Keys of a scenario.
const TOP: &[&str] =
    &["version", "name", "description", "trial", "sweep", "measure", "price", "limits", "variables", "extends"];

/// Reads and checks a scenario file.
///
/// # Errors
/// [`ScenarioError`]: what is wrong, where, and what to do about it.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Scenario, ScenarioError> {
    let (root, s) = document::read(path, &options.overrides)?;
    fields::entries("a scenario", Some(&root), TOP, &s)?;
    let section = |key: &str| root.get(key).map(|e| &e.node);
    match root.get("version") {
        Some(e) if e.node.value == Value::Integer(1) => {}
        Some(e) => {
            return Err(
                s.fault(e.node.place, format!("version: this program reads version 1, and this is {}", e.node.value))
            );
        }
        None => return Err(s.fault(root.place, "version: missing; begin the file with `version: 1`")),
    }
    let name = match root.get("name") {
        Some(e) => folder_name(&fields::text(e, "", &s)?).map_err(|m| s.fault(e.node.place, m))?,
        None => {
            let stem = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            folder_name(&stem)
                .map_err(|_| s.fault(root.place, "name: missing, and the file's name cannot serve; add `name: ...`"))?
        }
    };
    let description = root.get("description").map(|e| fields::text(e, "", &s)).transpose()?.unwrap_or_default();
    let base = base(section("trial"), &s)?;
    let sweep = sweep::expand(section("sweep"), &base, options.max_cells, options.cuda_present, &s)?;
    Ok(Scenario {
        name,
        description: description.trim().to_string(),
        axes: sweep.axes,
        cells: sweep.cells,
        measure: settings::measure(section("measure"), &s)?,
        price: settings::price(section("price"), &s)?,
        limits: settings::limits(section("limits"), &s)?,
    })
}

/// A name that is safe as a folder's on every system.
fn folder_name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 80 || name.starts_with('.') || !name.chars().all(allowed) {
        return Err(format!(
            "name: `{name}` names the report's folder; use 1 to 80 letters, digits, - _ . and no leading dot"
        ));
    }
    Ok(name.to_string())
}

/// The trial that the sweep varies.
fn base(node: Option<&Node>, s: &Sources) -> Result<Draft, ScenarioError> {
    let mut draft = Draft::default();
    let paths = axes::AXES.iter();
    let outer: Vec<&str> = paths
        .clone()
        .filter(|a| !a.path.contains('.'))
        .flat_map(|a| a.aliases.iter().copied().chain([a.path]))
        .chain(["model"])
        .collect();
    let inner: Vec<&str> = paths
        .filter_map(|a| a.path.strip_prefix("model.").map(|p| (a, p)))
        .flat_map(|(a, p)| a.aliases.iter().copied().chain([p]))
        .chain(["hf_config"])
        .collect();
    for e in fields::entries("trial", node, &outer, s)? {
        if e.key != "model" {
            set(&mut draft, &e.key, &e.node, s)?;
            continue;
        }
        for m in fields::entries("trial.model", Some(&e.node), &inner, s)? {
            match m.key.as_str() {
                "hf_config" => draft.config = Some(hf_config(&fields::text(m, "model.", s)?, m.node.place, s)?),
                key => set(&mut draft, &format!("model.{key}"), &m.node, s)?,
            }
        }
    }
    Ok(draft)
}

fn set(draft: &mut Draft, path: &str, node: &Node, s: &Sources) -> Result<(), ScenarioError> {
    let Some(axis) = axes::find(path) else { return Err(s.fault(node.place, format!("no field `{path}`"))) };
    (axis.set)(draft, &node.value).map_err(|m| s.fault(node.place, format!("{}: {m}", axis.path)))
}

/// A Hugging Face config, its path relative to the scenario's folder.
fn hf_config(
    name: &str,
    place: Option<node::Place>,
    s: &Sources,
) -> Result<(String, crate::transformer::shape::Shape), ScenarioError> {
    let path = s.folder().join(name);
    let fault = |m: String| s.fault(place, format!("model.hf_config: {}: {m}", path.display()));
    let size = std::fs::metadata(&path).map_err(|e| fault(e.to_string()))?.len();
    if size > node::MAX_BYTES {
        return Err(fault(format!("{size} bytes are more than a config may have, {}", node::MAX_BYTES)));
    }
    let json = std::fs::read_to_string(&path).map_err(|e| fault(e.to_string()))?;
    let shape = shape_from_hf_config(&json).map_err(|e| fault(e.to_string()))?;
    let stem = Path::new(name).file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((stem, shape))
}
