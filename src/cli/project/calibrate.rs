//! `centime project calibrate`: fits the model's constants.

use super::super::Failure;
use super::super::output::print;
use super::validate::tables;
use crate::projection::calibration::Calibration;
use crate::projection::fit;
use crate::projection::validate::{Bars, sources};
use anyhow::anyhow;
use std::path::PathBuf;

/// Fit the constants of the model to published measurements, and its error bars to sources left out of the fit.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Tables in the layout of training.csv or inference.csv.
    #[arg(value_name = "FILE.csv", required = true)]
    tables: Vec<PathBuf>,
    /// Where to write the constants.
    #[arg(long, value_name = "FILE", default_value = "projection.yaml")]
    out: PathBuf,
    /// Price books and devices of your own, over ours.
    #[arg(long, value_name = "FILE")]
    prices: Vec<PathBuf>,
}

pub fn run(a: &Arguments) -> Result<(), Failure> {
    let book = super::super::price::book(&a.prices)?;
    let published = tables(&a.tables, &book)?;
    let cases = &published.cases;
    if cases.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "no row of these tables can be predicted; `centime project validate` says why"
        )));
    }
    let constants = fit::fit(cases.iter());
    let errors: Vec<_> = cases
        .iter()
        .zip(fit::left_out(cases))
        .filter_map(|(c, p)| Some((c.quantity, c.source.as_str(), (p? / c.published).ln())))
        .collect();
    let names: Vec<String> =
        a.tables.iter().filter_map(|t| Some(t.file_name()?.to_string_lossy().into_owned())).collect();
    let fitted = format!("{}: {} figures of {} sources", names.join(", "), cases.len(), sources(cases).len());
    let all = Calibration { fitted, constants, bars: Bars::of(&errors), own: Vec::new() };
    std::fs::write(&a.out, all.to_yaml()).map_err(|e| Failure::Io(anyhow!("{}: {e}", a.out.display())))?;
    print(&format!("{}: fitted to {}", a.out.display(), all.fitted))
}
