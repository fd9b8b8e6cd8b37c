//! `centime report`.

use super::Failure;
use super::output::{print_run, results_failure};
use super::price::Stated;
use super::table::Printed;
use crate::results::lock::lock_folder;
use crate::results::run::{load, save_environment};
use anyhow::Context;
use std::path::PathBuf;

/// Write a run's report again, at other prices if wanted, without measuring.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Folder of a run.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    price: Stated,
    /// What is paid for; shown in the report.
    #[arg(long, value_name = "NAME", requires = "price")]
    hardware: Option<String>,
    /// Where the report goes [default: the run's folder, whose report is replaced and whose measurements stay as they are].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let mut run = load(&a.folder).map_err(results_failure)?;
    let book = a.price.book()?;
    let stated = &mut run.environment.price;
    a.price.put(stated, &book, "report")?;
    if let Some(hardware) = &a.hardware {
        stated.hardware.clone_from(hardware);
    }
    let out = a.out.as_ref().unwrap_or(&a.folder);
    std::fs::create_dir_all(out)
        .with_context(|| {
            format!("{}: cannot be made a folder for the report; choose another with --out", out.display())
        })
        .map_err(Failure::Io)?;
    let _lock = lock_folder(out).map_err(results_failure)?;
    // Beside the report stands what it was made from; the run's own environment keeps the price of the scenario.
    if a.out.as_ref().is_some_and(|o| *o != a.folder) {
        save_environment(out, &run.environment).map_err(results_failure)?;
    }
    print_run(&run, &book, out, a.printed.format)
}
