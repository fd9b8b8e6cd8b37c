//! `centime project`: time, memory and cost on hardware that is not here.

mod calibrate;
pub(super) mod devices;
mod sweep;
mod train;
mod validate;

use super::Failure;
use super::price::PriceBook;
use super::table::Printed;
use crate::hardware::book::Book;
use crate::projection::calibration::Calibration;
use crate::yaml::Origin;
use anyhow::anyhow;
use std::path::{Path, PathBuf};

/// Project a sweep onto devices that are not here, with error bars.
///
/// `centime project SCENARIO --on h100-sxm-80gb,8xA100-80GB` answers with throughput, memory and cost; `train GOAL`
/// searches the cheapest and the fastest way to train a model; `validate` and `calibrate` show and make what the answers rest on.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
struct Form {
    /// Scenario whose cells are projected.
    #[arg(value_name = "SCENARIO", required_unless_present = "fit")]
    file: Option<PathBuf>,
    /// Devices of the catalog, each perhaps with a count: h100-sxm-80gb, 8xA100-80GB.
    #[arg(long, value_name = "DEVICES", value_delimiter = ',', required_unless_present = "fit")]
    on: Vec<String>,
    /// The earlier name of `centime project train`.
    #[arg(long, value_name = "GOAL", conflicts_with = "file", hide = true)]
    fit: Option<String>,
    /// Override a field of the scenario: batch=4. May be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    files: Files,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Train(train::Arguments),
    Validate(validate::Arguments),
    Calibrate(calibrate::Arguments),
}

/// What every form of it reads.
#[derive(Debug, clap::Args)]
struct Files {
    /// Constants of the model, as `centime project calibrate` writes them; ours without it.
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    #[command(flatten)]
    prices: PriceBook,
    #[command(flatten)]
    printed: Printed,
}

impl Files {
    fn read(&self) -> Result<(Book, Calibration), Failure> {
        Ok((self.prices.load()?, calibration(self.calibration.as_deref())?))
    }
}

pub(super) fn calibration(path: Option<&Path>) -> Result<Calibration, Failure> {
    let Some(path) = path else {
        return Calibration::built_in().cloned().map_err(Failure::yaml);
    };
    let origin = Origin::File { path: path.into(), place: None };
    let text = text(path)?;
    Calibration::parse(&text, origin).map_err(|e| Failure::yaml(&e))
}

/// A file's text.
fn text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::Io(anyhow!("{}: {e}", path.display())))
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    match (&a.command, &a.form) {
        (Some(Command::Train(a)), _) => train::run(a),
        (Some(Command::Validate(a)), _) => validate::run(a),
        (Some(Command::Calibrate(a)), _) => calibrate::run(a),
        (None, Form { fit: Some(goal), on, files, .. }) => train::search(goal, on, files),
        (None, Form { file: Some(file), on, set, files, .. }) => sweep::run(file, on, set, files),
        (None, _) => Err(Failure::Usage(anyhow!("give a scenario and --on DEVICES, or `train GOAL`"))),
    }
}
