//! `centime compare`.

use super::Failure;
use super::output::{print, results_failure, stdout_style};
use super::table::Format;
use crate::report::Comparison;
use crate::results::run::{Run, load};
use crate::results::write::{csv_text, json_text};
use anyhow::anyhow;
use std::path::PathBuf;

/// Set runs or machines side by side.
///
/// Every trial that all of them measured: throughput and cost of each, ratios against the first with intervals, the cheapest.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folders of runs, the first being what the others are held against.
    #[arg(value_name = "DIR", num_args = 2.., required = true)]
    folders: Vec<PathBuf>,
    /// How to print the comparison.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let runs: Vec<Run> = a.folders.iter().map(|f| load(f)).collect::<Result<_, _>>().map_err(results_failure)?;
    let labels: Vec<String> = a.folders.iter().map(|f| f.display().to_string()).collect();
    let comparison = Comparison::of(&labels, &runs);
    if comparison.common() == 0 {
        return Err(Failure::Usage(anyhow!(
            "{}: no trial was measured by all of them; give runs of one scenario",
            labels.join(", ")
        )));
    }
    let text = match a.format {
        Format::Table => comparison.terminal(stdout_style()),
        Format::Markdown => comparison.markdown(),
        Format::Csv => csv_text(&comparison.data()).map_err(results_failure)?,
        Format::Json => json_text(&comparison.data()),
    };
    print(&text)
}
