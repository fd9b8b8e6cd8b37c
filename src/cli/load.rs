//! The arguments by which commands name a scenario, and how its errors reach the user.

use super::Failure;
use super::price::PriceBook;
use crate::scenario::{LoadOptions, Scenario, load as load_scenario};
use crate::transformer::cuda::driver;
use std::path::PathBuf;

/// Which scenario, and what to change in it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Selection {
    /// Scenario file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Override a field: batch=4, model.n_layers=2, measure.max_seconds=3, sweep.matrix.batch=[1,2]. May be repeated.
    #[allow(rustdoc::broken_intra_doc_links, reason = "a list, in the text that --help shows")]
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Most cells that the sweep may have.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub max_cells: u64,
    #[command(flatten)]
    pub prices: PriceBook,
}

/// Loads the scenario.
pub(super) fn load(s: &Selection) -> Result<Scenario, Failure> {
    let options = LoadOptions {
        overrides: s.set.clone(),
        max_cells: s.max_cells,
        cuda_present: driver::usable,
        books: s.prices.files.clone(),
    };
    load_scenario(&s.file, &options).map_err(|e| Failure::yaml(&e))
}
