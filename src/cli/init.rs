//! `centime init`: a commented scenario to start from.

use super::Failure;
use anyhow::{Context, anyhow};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// Write a commented scenario to start from.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to; never overwritten.
    #[arg(value_name = "FILE", default_value = "scenario.yaml")]
    file: PathBuf,
}

const TEMPLATE: &str = include_str!("init.yaml");

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let path = a.file.display();
    let mut file = OpenOptions::new().write(true).create_new(true).open(&a.file).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::Usage(anyhow!("{path} is there already; name another file")),
        _ => Failure::Io(anyhow::Error::new(e).context(format!("writing {path}"))),
    })?;
    file.write_all(TEMPLATE.as_bytes()).with_context(|| format!("writing {path}")).map_err(Failure::Io)?;
    writeln!(std::io::stdout(), "wrote {path}; see its trials with: centime plan {path}")
        .context("writing to stdout")
        .map_err(Failure::Io)
}
