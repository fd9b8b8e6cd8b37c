//! `centime compare`.

use super::Failure;
use super::output::{print, report_failure, results_failure, stdout_style};
use super::price::{PriceBook, Priced, apply, priced, utilisation, warn_if_stale};
use super::sizes::{bytes, seconds, usd};
use super::table::{Format, Printed};
use crate::comparison::limits::Bounds;
use crate::hardware::api::Api;
use crate::hardware::book::Book;
use crate::report::Comparison;
use crate::report::pages::{Asked, comparison};
use crate::results::run::{Run, load};
use crate::results::write::{csv_text, json_text};
use crate::units::Share;
use anyhow::anyhow;
use std::path::{Path, PathBuf};

/// Set runs or machines side by side, and say what to decide from it.
///
/// Every trial that all of them measured, with throughput, cost and ratios; which is cheapest; of trials that are to learn
/// something, which gets to its loss for less; cost against latency; the price at which each would match the cheapest; the
/// utilisation from which it beats an API; how sensitive the cost is; the cheapest under limits. As text, and as a page with
/// pictures.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Folders of runs, the first being what the others are held against.
    #[arg(value_name = "DIR", num_args = 2.., required = true)]
    folders: Vec<PathBuf>,
    /// What an hour of a run's hardware costs: once for each folder, in their order; `-` keeps the run's own price. USD, or an
    /// instance or device of the price book, on a date if wanted (p5.48xlarge, h100-sxm-80gb@2024-05).
    #[arg(long, value_name = "USD_PER_HOUR|NAME", value_parser = priced, allow_negative_numbers = true)]
    price: Vec<Priced>,
    /// Share of the paid time in which tokens are produced, on all of them.
    #[arg(long, value_name = "SHARE", value_parser = utilisation, allow_negative_numbers = true)]
    utilisation: Option<Share>,
    #[command(flatten)]
    prices: PriceBook,
    /// An API to hold the costs against, by its model's name. May be repeated.
    #[arg(long = "api", value_name = "MODEL", default_values = ["gpt-4o-mini", "gpt-4o"])]
    apis: Vec<String>,
    /// Longest time to first token, for the cheapest under limits: 0.2 or 200ms.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    max_ttft: Option<f64>,
    /// Longest time per output token.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    max_tpot: Option<f64>,
    /// Largest peak memory: 24GiB, 800MiB or bytes.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    max_memory: Option<f64>,
    /// Highest price of an hour of everything that a trial occupies.
    #[arg(long, alias = "budget", value_name = "USD", value_parser = usd)]
    max_usd_per_hour: Option<f64>,
    /// Where the page and its pictures go [default: reports/A-against-B, for --format table].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let mut runs: Vec<Run> = a.folders.iter().map(|f| load(f)).collect::<Result<_, _>>().map_err(results_failure)?;
    let book = a.prices.load()?;
    reprice(&mut runs, &a.price, a.utilisation, &book)?;
    let labels = labels(&a.folders);
    let asked = Asked {
        apis: a.apis.iter().map(|m| api(&book, m)).collect::<Result<_, _>>()?,
        bounds: Bounds {
            ttft_seconds: a.max_ttft,
            tpot_seconds: a.max_tpot,
            memory_bytes: a.max_memory,
            usd_per_hour: a.max_usd_per_hour,
        },
    };
    let compared = Comparison::of(&labels, &runs, &book);
    if compared.common() == 0 && !compared.learns() {
        return Err(Failure::Usage(anyhow!(
            "{}: no trial was measured by all of them; give runs of one scenario",
            labels.join(", ")
        )));
    }
    let page = comparison(&compared, &asked).map_err(|e| Failure::Internal(e.into()))?;
    let out = a.out.clone().or_else(|| (a.printed.format == Format::Table).then(|| folder(&labels)));
    let written = out.map(|out| page.publish(&out).map_err(report_failure)).transpose()?;
    match a.printed.format {
        Format::Table => {
            print(&page.terminal(stdout_style()))?;
            written.map_or(Ok(()), |page| print(&format!("\nreport: {}", page.display())))
        }
        Format::Markdown => print(&page.markdown()),
        Format::Csv => print(&csv_text(&compared.data()).map_err(results_failure)?),
        Format::Json => print(&json_text(&compared.data())),
    }
}

/// Puts prices that were typed in the place of the runs' own: one for each, or one for all.
pub(super) fn reprice(
    runs: &mut [Run],
    typed: &[Priced],
    utilisation: Option<Share>,
    book: &Book,
) -> Result<(), Failure> {
    if !typed.is_empty() && typed.len() != runs.len() {
        return Err(Failure::Usage(anyhow!(
            "--price: {} are given for {} runs; give one for each, in their order (`-` keeps a run's own)",
            typed.len(),
            runs.len()
        )));
    }
    for (i, run) in runs.iter_mut().enumerate() {
        let price = &mut run.environment.price;
        if let Some(typed) = typed.get(i) {
            apply(price, typed, book, "given on the command line (--price)")?;
        }
        if let Some(share) = utilisation {
            price.utilisation = share;
        }
        warn_if_stale(price);
    }
    Ok(())
}

/// What runs are called: the last names of their folders, or the whole paths where those are the same.
pub(super) fn labels(folders: &[PathBuf]) -> Vec<String> {
    let last = |f: &PathBuf| f.file_name().map_or(f.display().to_string(), |n| n.to_string_lossy().into_owned());
    let short: Vec<String> = folders.iter().map(last).collect();
    let unique = (0..short.len()).all(|i| !short[..i].contains(&short[i]));
    if unique { short } else { folders.iter().map(|f| f.display().to_string()).collect() }
}

/// Where the page of some runs goes.
pub(super) fn folder(labels: &[String]) -> PathBuf {
    let clean = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = labels.join("-against-").chars().map(clean).take(120).collect();
    Path::new("reports").join(name.trim_matches(['.', '-']))
}

pub(super) fn api(book: &Book, model: &str) -> Result<Api, Failure> {
    // The last one is the user's.
    let found = book.apis.iter().rev().find(|a| a.model.eq_ignore_ascii_case(model));
    found.cloned().ok_or_else(|| {
        let names = book.apis.iter().map(|a| a.model.as_str());
        let hint = crate::yaml::did_you_mean(model, names, std::iter::empty());
        Failure::Usage(anyhow!("--api: no API of the price book is called `{model}`; {hint}"))
    })
}
