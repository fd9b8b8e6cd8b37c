//! `centime explain`.

use super::Failure;
use super::compare::{folder, labels, reprice};
use super::hardware::history::{self, Fall};
use super::output::{publish, results_failure};
use super::price::{PriceBook, Priced, priced};
use super::table::{Format, Printed, Rows};
use crate::comparison::explain::{Explanation, explain};
use crate::report::pages::explanation;
use crate::results::run::{Run, load};
use anyhow::anyhow;
use std::path::PathBuf;

/// Say why the cost per token changed between two runs, machines or dates.
///
/// The change is split, without a remainder, into price, utilisation, devices, FLOPs per token, peak rate and MFU; of trials that
/// get to a loss, also into the tokens that it takes. Two dates: give one run twice, with its price on each: centime explain RUN
/// RUN --price p5.48xlarge@2024 --price p5.48xlarge@2026.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Folders of two runs: from, and to.
    #[arg(value_name = "DIR", num_args = 2, required_unless_present = "history", conflicts_with = "history")]
    folders: Vec<PathBuf>,
    /// The earlier name of `centime hardware history`, with --from and --to.
    #[arg(long, hide = true)]
    history: bool,
    #[command(flatten)]
    fall: Fall,
    /// What an hour of each run's hardware costs, twice, in their order; `-` keeps a run's own price.
    #[arg(long, value_name = "USD_PER_HOUR|NAME", value_parser = priced, allow_negative_numbers = true)]
    price: Vec<Priced>,
    #[command(flatten)]
    prices: PriceBook,
    /// Where the page and its pictures go [default: reports/A-against-B, or reports/price-history].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    if a.history {
        return history::print_fall(&a.fall, &a.prices, a.out.clone(), a.printed.format);
    }
    let mut runs: Vec<Run> = a.folders.iter().map(|f| load(f)).collect::<Result<_, _>>().map_err(results_failure)?;
    let book = a.prices.load()?;
    reprice(&mut runs, &a.price, None, &book)?;
    let mut names = labels(&a.folders);
    if let ([from, to], [first, second]) = (names.as_mut_slice(), runs.as_slice())
        && from == to
    {
        // One run at two prices: the price tells them apart.
        *from =
            format!("{from} at {}", first.environment.price.seen.clone().unwrap_or_else(|| "the first price".into()));
        *to = format!("{to} at {}", second.environment.price.seen.clone().unwrap_or_else(|| "the second price".into()));
    }
    let [first, second] = runs.as_slice() else {
        return Err(Failure::Usage(anyhow!("expected two runs: from, and to")));
    };
    let found = explain(first, second, &book).map_err(|e| Failure::Usage(anyhow!("{}: {e}", names.join(", "))))?;
    if matches!(a.printed.format, Format::Json | Format::Csv) {
        return factors(&found).print(a.printed.format);
    }
    let page =
        explanation([&names[0], &names[1]], [first, second], &book, &found).map_err(|e| Failure::Internal(e.into()))?;
    publish(&page, a.out.clone(), folder(&names), a.printed.format)
}

/// The factors as numbers: of a token's cost, then of what it costs to get to a loss, where trials of both runs get there.
fn factors(found: &Explanation) -> Rows {
    let [token, loss] = ["change_usd_per_million_tokens", "change_usd_to_loss"];
    let mut rows = Rows::new(&["factor", "before", "after", token, loss]);
    let number = |x: f64| (x.to_string(), x).into();
    let none = || String::new().into();
    for s in &found.sides {
        rows.push(vec![s.name.to_string().into(), number(s.before), number(s.after), number(s.change), none()]);
    }
    let (before, after) = (found.before, found.after);
    let total = "usd_per_million_tokens".to_string();
    rows.push(vec![total.into(), number(before), number(after), number(after - before), none()]);
    let Some(paid) = found.learning.as_ref().and_then(|l| l.to_loss.as_ref()) else { return rows };
    for s in &paid.sides {
        rows.push(vec![s.name.to_string().into(), number(s.before), number(s.after), none(), number(s.change)]);
    }
    let (before, after) = (paid.before, paid.after);
    rows.push(vec!["usd_to_loss".to_string().into(), number(before), number(after), none(), number(after - before)]);
    rows
}
