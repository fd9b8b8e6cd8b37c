//! `centime completions` and `centime man`: what shells and manuals want, generated from the arguments.

use super::Failure;
use clap::CommandFactory;
use std::io;

/// Print shell completions.
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    shell: clap_complete::Shell,
}

/// Print the manual page (roff).
#[derive(Debug, clap::Args)]
pub(super) struct Man {}

pub(super) fn completions(a: &Completions) -> Result<(), Failure> {
    clap_complete::generate(a.shell, &mut super::Arguments::command(), "centime", &mut io::stdout());
    Ok(())
}

pub(super) fn man(_: &Man) -> Result<(), Failure> {
    let page = clap_mangen::Man::new(super::Arguments::command());
    page.render(&mut io::stdout())
        .map_err(|e| Failure::Io(anyhow::Error::new(e).context("writing the manual page to stdout")))
}
