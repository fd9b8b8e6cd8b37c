//! `centime project`: time, memory and cost on hardware that is not here.

mod calibrate;
mod validate;

use super::Failure;
use super::price::{book, yaml_failure};
use super::table::Format;
use crate::hardware::book::Book;
use crate::projection::calibration::Calibration;
use crate::yaml::Origin;
use anyhow::anyhow;
use std::path::{Path, PathBuf};

/// Project a sweep onto devices that are not here, with error bars; validate and calibrate the model that does it.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Validate(validate::Arguments),
    Calibrate(calibrate::Arguments),
}

/// What every form of it reads.
#[derive(Debug, clap::Args)]
struct Files {
    /// Constants of the model, as `centime project calibrate` writes them; ours without it.
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Price books and devices of your own, over ours.
    #[arg(long, value_name = "FILE")]
    prices: Vec<PathBuf>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Files {
    fn read(&self) -> Result<(Book, Calibration), Failure> {
        Ok((book(&self.prices)?, calibration(self.calibration.as_deref())?))
    }
}

fn calibration(path: Option<&Path>) -> Result<Calibration, Failure> {
    let Some(path) = path else {
        return Calibration::built_in().cloned().map_err(yaml_failure);
    };
    let origin = Origin::File { path: path.into(), place: None };
    let text = text(path)?;
    Calibration::parse(&text, origin).map_err(|e| yaml_failure(&e))
}

/// A file's text.
fn text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::Io(anyhow!("{}: {e}", path.display())))
}

pub fn run(a: &Arguments) -> Result<(), Failure> {
    match &a.command {
        Command::Validate(a) => validate::run(a),
        Command::Calibrate(a) => calibrate::run(a),
    }
}
