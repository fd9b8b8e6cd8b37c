//! What a check is: which trials, by which programs, by which rule.

use crate::comparison::check::Method;
use crate::comparison::judge::Rule;
use crate::hardware::machine;
use crate::plan::PlannedTrial;
use crate::scenario::Scenario;
use std::path::{Path, PathBuf};

/// What all forms of a check have in common.
#[derive(Clone, Debug)]
pub(crate) struct Design {
    pub scenario: Scenario,
    /// Those that are not skipped.
    pub trials: Vec<PlannedTrial>,
    pub rule: Rule,
    /// The program that is checked, and whether it is this one.
    pub head: PathBuf,
    pub own_head: bool,
    /// Seconds that each launch measures.
    pub launch_seconds: f64,
    /// Of the coin and of the order.
    pub seed: u64,
    /// The scenario's file and what was changed in it, for the baseline's own counts.
    pub file: PathBuf,
    pub set: Vec<String>,
    /// What the report calls the baseline, where its file's name says little.
    pub baseline_name: Option<String>,
    /// What the report calls the head, where it is not a program but a form of the scenario.
    pub head_name: Option<String>,
    /// What a reader types to reproduce it.
    pub command: String,
}

/// What launches are paired with.
#[derive(Clone, Debug)]
pub(crate) enum Baseline {
    /// Another build of this program, for the same trials.
    Build(PathBuf),
    /// This program, for trials that were changed: one for each of the design's, in its order; and what they are called.
    Trials { trials: Vec<PlannedTrial>, name: String },
}

impl Design {
    pub(super) fn method(&self, base: String, control_pairs: usize, steal_share: Option<f64>) -> Method {
        let price = &self.scenario.price;
        let seen = price.seen.as_ref().map_or(String::new(), |s| format!(", seen {s}"));
        Method {
            tolerance: self.rule.tolerance,
            detect: self.rule.detect,
            pairs_at_most: self.rule.most_pairs(),
            launch_seconds: self.launch_seconds,
            control_pairs,
            machine: machine::inspect().fingerprint(),
            price: price.usd_per_hour.map_or("n/a".into(), |p| format!("{p} ({}{seen})", price.hardware)),
            base: self.baseline_name.clone().unwrap_or(base),
            head: if let Some(name) = &self.head_name {
                name.clone()
            } else if self.own_head {
                concat!("this build, centime ", env!("CARGO_PKG_VERSION")).into()
            } else {
                shown(&self.head)
            },
            steal_share,
            seed: self.seed,
            command: self.command.clone(),
        }
    }
}

/// The name of a program's file.
pub(super) fn shown(program: &Path) -> String {
    program.file_name().map_or(program.display().to_string(), |n| n.to_string_lossy().into_owned())
}
