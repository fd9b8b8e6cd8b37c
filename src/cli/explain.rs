//! `centime explain`.

use super::Failure;
use super::compare::{folder, labels, reprice};
use super::output::{print, report_failure, results_failure, stdout_style};
use super::price::{PriceBook, Priced, priced};
use super::table::Format;
use crate::comparison::decline::{decline, points};
use crate::comparison::explain::explain;
use crate::hardware::offer::Term;
use crate::report::pages::{Page, explanation, history};
use crate::results::run::{Run, load};
use anyhow::anyhow;
use std::path::PathBuf;

/// Say why the cost per token changed between two runs, machines or dates; or, with --history, how prices fell over the years.
///
/// The change is split, without a remainder, into price, utilisation, devices, FLOPs per token, peak rate and MFU. Two dates:
/// give one run twice, with its price on each: centime explain RUN RUN --price p5.48xlarge@2024 --price p5.48xlarge@2026.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folders of two runs: from, and to.
    #[arg(value_name = "DIR", num_args = 2, required_unless_present = "history", conflicts_with = "history")]
    folders: Vec<PathBuf>,
    /// The price book's history: an hour of a device, of a PFLOP/s, an API's tokens, and what had which part in their fall.
    #[arg(long)]
    history: bool,
    /// With --history: the API model from which the fall is counted.
    #[arg(long, value_name = "MODEL", default_value = "GPT-3 davinci", requires = "history")]
    from: String,
    /// With --history: the API model to which the fall is counted.
    #[arg(long, value_name = "MODEL", default_value = "gpt-4o-mini", requires = "history")]
    to: String,
    /// What an hour of each run's hardware costs, twice, in their order; `-` keeps a run's own price.
    #[arg(long, value_name = "USD_PER_HOUR|NAME", value_parser = priced, allow_negative_numbers = true)]
    price: Vec<Priced>,
    #[command(flatten)]
    prices: PriceBook,
    /// Where the page and its pictures go [default: reports/A-against-B, or reports/price-history].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How to print it; as JSON, the factors.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    if a.history {
        return fall(a);
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
        return Err(Failure::Usage(anyhow!("two runs are wanted: from, and to")));
    };
    let found = explain(first, second, &book).map_err(|e| Failure::Usage(anyhow!("{}: {e}", names.join(", "))))?;
    if matches!(a.format, Format::Json | Format::Csv) {
        let mut rows = super::table::Rows::new(&["factor", "before", "after", "change_usd_per_million_tokens"]);
        let number = |x: f64| (x.to_string(), x).into();
        for s in &found.sides {
            rows.push(vec![s.name.to_string().into(), number(s.before), number(s.after), number(s.change)]);
        }
        let total = found.after - found.before;
        rows.push(vec![
            "usd_per_million_tokens".to_string().into(),
            number(found.before),
            number(found.after),
            number(total),
        ]);
        return rows.print(a.format);
    }
    let page =
        explanation([&names[0], &names[1]], [first, second], &book, &found).map_err(|e| Failure::Internal(e.into()))?;
    show(a, &page, folder(&names))
}

fn fall(a: &Arguments) -> Result<(), Failure> {
    let book = a.prices.load()?;
    let found = decline(&book, &a.from, &a.to).map_err(|e| Failure::Usage(anyhow!(e)))?;
    let page = history(&points(&book, Term::OnDemand), &book.apis, &found).map_err(|e| Failure::Internal(e.into()))?;
    show(a, &page, PathBuf::from("reports/price-history"))
}

fn show(a: &Arguments, page: &Page, default: PathBuf) -> Result<(), Failure> {
    let out = a.out.clone().or_else(|| (a.format == Format::Table).then_some(default));
    let written = out.map(|out| page.publish(&out).map_err(report_failure)).transpose()?;
    if a.format != Format::Table {
        return print(&page.markdown());
    }
    print(&page.terminal(stdout_style()))?;
    written.map_or(Ok(()), |page| print(&format!("\nreport: {}", page.display())))
}
