//! `centime project calibrate`: fits the model's constants, and measures this program against them.

use super::super::Failure;
use super::super::output::{print, results_failure};
use super::super::price::PriceBook;
use super::super::table::{Format, Printed, Rows};
use super::calibration;
use super::validate::tables;
use crate::comparison::projected::projected;
use crate::projection::calibration::{Calibration, Own};
use crate::projection::constants::PRIORS;
use crate::projection::nested::calibrated;
use crate::projection::own;
use crate::projection::traits::architecture;
use crate::projection::validate::sources;
use crate::results::run::load;
use crate::units::significant;
use anyhow::anyhow;
use std::path::PathBuf;

/// Fit the constants of the model to published measurements, and its error bars to sources left out of the fit; or say how this
/// program compares with them, from runs of this machine.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Tables in the layout of training.csv or inference.csv.
    #[arg(value_name = "FILE.csv", required_unless_present = "own")]
    tables: Vec<PathBuf>,
    /// Folder of a finished run of this machine: how far the program is from the projection becomes its second answer, `this
    /// program`. May be repeated.
    #[arg(long, value_name = "DIR")]
    own: Vec<PathBuf>,
    /// Constants that --own is added to where no table is given; ours without it.
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Where to write the constants.
    #[arg(long, value_name = "FILE", default_value = "projection.yaml")]
    out: PathBuf,
    #[command(flatten)]
    prices: PriceBook,
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let mut all = if a.tables.is_empty() { calibration(a.calibration.as_deref())? } else { fitted(a)? };
    if !a.own.is_empty() {
        all.own = measured(a, &all)?;
    }
    std::fs::write(&a.out, all.to_yaml()).map_err(|e| Failure::Io(anyhow!("{}: {e}", a.out.display())))?;
    print(&format!("{}: fitted to {}", a.out.display(), all.fitted))?;
    for o in &all.own {
        print(&format!(
            "this program: {}: {:.3} times the projected time (90 % of {} trials within x/ {:.2}), on {}",
            o.quantity.name(),
            o.time_ratio,
            o.trials,
            o.spread.exp(),
            o.device
        ))?;
    }
    Ok(())
}

/// How this program compares in finished runs.
fn measured(a: &Arguments, c: &Calibration) -> Result<Vec<Own>, Failure> {
    let mut trials = Vec::new();
    let mut device = String::new();
    for folder in &a.own {
        let run = load(folder).map_err(results_failure)?;
        let found = projected(&run, c);
        if found.is_empty() {
            return Err(Failure::Usage(anyhow!(
                "--own {}: no trial of the CPU backend was measured on a probed machine; run one without --no-probe",
                folder.display()
            )));
        }
        trials.extend(found.iter().map(|t| (t.quantity, t.ratio())));
        let machine = &run.environment.machine;
        device = format!("{}, {} cores", machine.cpu_model, machine.cores);
    }
    Ok(own::compared(&trials, &device, &c.bars))
}

fn fitted(a: &Arguments) -> Result<Calibration, Failure> {
    let book = a.prices.load()?;
    let published = tables(&a.tables, &book)?;
    let cases = &published.cases;
    if cases.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "no row of these tables can be predicted; `centime project validate` says why"
        )));
    }
    let (constants, spreads, bars) = calibrated(cases);
    posterior(&constants.values(), &spreads, a.printed.format)?;
    let mut seen: Vec<String> = cases.iter().map(|c| architecture(c).to_string()).filter(|a| !a.is_empty()).collect();
    seen.sort_unstable();
    seen.dedup();
    let names: Vec<String> =
        a.tables.iter().filter_map(|t| Some(t.file_name()?.to_string_lossy().into_owned())).collect();
    let fitted = format!("{}: {} figures of {} sources", names.join(", "), cases.len(), sources(cases).len());
    Ok(Calibration { fitted, constants, bars, seen, own: Vec::new() })
}

/// Each constant as the data leave it, against its prior: `kept` is the share of the prior's spread that they leave.
fn posterior(values: &[f64], spreads: &[f64], format: Format) -> Result<(), Failure> {
    let mut table = Rows::new(&["constant", "prior", "prior_spread", "fitted", "spread", "moved", "kept"]);
    for ((p, value), spread) in PRIORS.iter().zip(values).zip(spreads) {
        let moved = (value / p.value).ln() / p.spread;
        table.push(vec![
            p.name.to_string().into(),
            (significant(p.value, 3), p.value).into(),
            (format!("x/ {:.2}", p.spread.exp()), p.spread).into(),
            (significant(*value, 3), *value).into(),
            (format!("x/ {:.2}", spread.exp()), *spread).into(),
            (format!("{moved:+.1} sd"), moved).into(),
            (format!("{:.0} %", 100.0 * spread / p.spread), spread / p.spread).into(),
        ]);
    }
    table.print(format)
}
