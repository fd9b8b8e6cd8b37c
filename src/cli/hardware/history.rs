//! `centime hardware history`: how prices fell over the years.

use crate::cli::Failure;
use crate::cli::output::publish;
use crate::cli::price::PriceBook;
use crate::cli::table::{Format, Printed};
use crate::comparison::decline::{decline, points};
use crate::hardware::offer::Term;
use crate::report::pages;
use anyhow::anyhow;
use std::path::PathBuf;

/// Say how prices fell over the years: an hour of a device, of a PFLOP/s, an API's tokens, and what had which part in it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    fall: Fall,
    #[command(flatten)]
    prices: PriceBook,
    /// Where the page and its pictures go [default: reports/price-history, for --format table].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    printed: Printed,
}

/// Between which models the fall of an API's tokens is counted.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Fall {
    /// The API model from which the fall is counted.
    #[arg(long, value_name = "MODEL", default_value = "GPT-3 davinci")]
    from: String,
    /// The API model to which the fall is counted.
    #[arg(long, value_name = "MODEL", default_value = "gpt-4o-mini")]
    to: String,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    print_fall(&a.fall, &a.prices, a.out.clone(), a.printed.format)
}

/// For `centime explain --history` as well, its earlier name.
pub(in crate::cli) fn print_fall(
    fall: &Fall,
    prices: &PriceBook,
    out: Option<PathBuf>,
    format: Format,
) -> Result<(), Failure> {
    let book = prices.load()?;
    let found = decline(&book, &fall.from, &fall.to).map_err(|e| Failure::Usage(anyhow!(e)))?;
    let page =
        pages::history(&points(&book, Term::OnDemand), &book.apis, &found).map_err(|e| Failure::Internal(e.into()))?;
    publish(&page, out, PathBuf::from("reports/price-history"), format)
}
