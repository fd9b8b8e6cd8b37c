//! `centime scaling`: the scaling law of some runs, and the best model for the money.

use super::Failure;
use super::output::{publish, results_failure};
use super::price::{PriceBook, Priced, apply, priced};
use super::project::devices::{devices, price as price_of};
use super::table::{Format, Printed};
use crate::cost::law;
use crate::hardware::book::Book;
use crate::projection::calibration::Calibration;
use crate::projection::law::answers::{Answers, Asked};
use crate::projection::law::curves::Curves;
use crate::projection::law::draws::Drawn;
use crate::projection::law::judged::lacking;
use crate::projection::law::spend::Rate;
use crate::projection::law::{Point, device, table};
use crate::report::pages::{self, Fitted};
use crate::results::run::{Run, load};
use anyhow::{Context, anyhow};
use std::path::{Path, PathBuf};

/// Fit a scaling law to runs of different sizes and tokens: the best model for a budget, and what each tenth of loss costs.
///
/// The runs are those of a sweep over sizes and tokens (`centime run scenarios/scaling.yaml`), or a table's.
///
/// Fits L(N, D) = E + A / N^alpha + B / D^beta to the validation losses of at least 8 runs, and says with intervals what size on how
/// many tokens has the lowest loss for a budget. It answers for at most ten times what was run, in parameters, tokens and their product.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Folder of a run, or a CSV with columns parameters, tokens, loss, and usd where that is known.
    #[arg(value_name = "DIR|CSV")]
    runs: PathBuf,
    /// What the training may cost, in USD; what the dearest run cost without it.
    #[arg(long, value_name = "USD", value_parser = budget, allow_negative_numbers = true)]
    budget: Option<f64>,
    /// Price it on a device of the catalog instead, by the projection: h100-sxm-80gb, or 8xh100-sxm-80gb for that many.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Answer however far beyond the runs, and however little they say.
    #[arg(long)]
    extrapolate: bool,
    /// Constants of the projection, as `centime project calibrate` writes them; ours without it.
    #[arg(long, value_name = "FILE", requires = "device")]
    calibration: Option<PathBuf>,
    /// What an hour costs, in place of the run's own price.
    #[arg(long, value_name = "USD_PER_HOUR|NAME", value_parser = priced, allow_negative_numbers = true)]
    price: Option<Priced>,
    #[command(flatten)]
    prices: PriceBook,
    /// Where the page and its pictures go [default: the run's folder, or reports/<the table's name>-scaling].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    printed: Printed,
}

/// How many times beyond the runs an answer may go.
const FURTHEST: f64 = 10.0;
/// Draws of the bootstrap; the ends of an interval move by 1 % of it from seed to seed.
const DRAWS: usize = 1000;
const SEED: u64 = 2022;

fn budget(text: &str) -> Result<f64, String> {
    let usd = text.trim_start_matches('$').parse().ok().filter(|usd: &f64| (1e-9..=1e15).contains(usd));
    usd.ok_or_else(|| "a budget is a positive number of USD, such as 0.5 or 10000".into())
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let book = a.prices.load()?;
    let run = run_of(a, &book)?;
    let points = match &run {
        Some(run) => law::points(run, &book),
        None => points(&a.runs)?,
    };
    if points.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "{}: no run of it ended with a loss: a scaling law takes trials with `data` and `until: {{ tokens: .. }}`, as scenarios/scaling.yaml has",
            a.runs.display()
        )));
    }
    let (rate, cost) = rate(a, &points, run.as_ref(), &book)?;
    if a.budget.is_some() && rate.is_none() {
        return Err(Failure::Usage(anyhow!(
            "--budget: {} does not say what its runs cost: give --device, or {}",
            a.runs.display(),
            if run.is_some() { "--price" } else { "a column `usd`" }
        )));
    }
    let Some(drawn) = Drawn::of(&points, DRAWS, SEED) else {
        let why = match lacking(&points, None) {
            why if why.is_empty() => "no law fits these losses: are all of them numbers above 0?".into(),
            why => why.join("; "),
        };
        return Err(Failure::Inconclusive(format!("{}: {why}", a.runs.display())));
    };
    let asked = Asked { budget: a.budget, factor: (!a.extrapolate).then_some(FURTHEST) };
    let answers = Answers::of(&points, &drawn, rate.as_ref(), asked);
    if a.printed.format == Format::Json {
        super::output::print(&json(&points, &answers, &cost)?)?;
    } else {
        let curves = rate.as_ref().map(|r| Curves::of(&points, &drawn.law, r));
        let source = format!("{} runs of {}.", points.len(), a.runs.display());
        let fitted = Fitted {
            points: &points,
            drawn: &drawn,
            answers: &answers,
            curves: curves.as_ref(),
            cost: &cost,
            source: &source,
        };
        let page = pages::law(&fitted).map_err(|e| Failure::Internal(e.into()))?;
        publish(&page, a.out.clone(), folder(&a.runs), a.printed.format)?;
    }
    let remedy = "; --extrapolate answers all the same";
    match &answers {
        Answers { refused: Some(why), .. } => Err(Failure::Inconclusive(format!("not answered: {why}{remedy}"))),
        Answers { lacking, .. } if !lacking.is_empty() && !a.extrapolate => {
            Err(Failure::Inconclusive(format!("not answered: {}{remedy}", lacking.join("; "))))
        }
        _ => Ok(()),
    }
}

fn points(file: &Path) -> Result<Vec<Point>, Failure> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string()).map_err(Failure::Io)?;
    table::read(&text).map_err(|e| Failure::Usage(anyhow!("{}: {e}", file.display())))
}

/// The run of a folder, at the price that was typed; `None` where a table is given.
fn run_of(a: &Arguments, book: &Book) -> Result<Option<Run>, Failure> {
    if !a.runs.is_dir() {
        return match &a.price {
            Some(_) => Err(Failure::Usage(anyhow!(
                "--price: is of a run's folder; a table says by a column `usd` what its runs cost"
            ))),
            None => Ok(None),
        };
    }
    let mut run = load(&a.runs).map_err(results_failure)?;
    if let Some(typed) = &a.price {
        apply(&mut run.environment.price, typed, book, "given on the command line (centime scaling --price)")?;
    }
    Ok(Some(run))
}

/// What a token costs by size, and whose cost that is.
fn rate(a: &Arguments, points: &[Point], run: Option<&Run>, book: &Book) -> Result<(Option<Rate>, String), Failure> {
    let Some(name) = &a.device else {
        let seen = points.iter().filter_map(|p| Some((p.parameters, p.usd? / p.tokens)));
        return Ok((Rate::of(seen, 0.0), "at what the runs cost".into()));
    };
    let usage = |m: String| Failure::Usage(anyhow!("--device: {m}"));
    let on = devices("--device", std::slice::from_ref(name), book)?
        .pop()
        .ok_or_else(|| usage("no device is named".into()))?;
    let hour = price_of(book, &on.name)
        .ok_or_else(|| usage(format!("`{}` has no price; state one in a file of your own (--price-book)", on.name)))?;
    let own = a.calibration.as_deref().map(|f| super::project::calibration(Some(f))).transpose()?;
    let calibration = match &own {
        Some(own) => own,
        None => Calibration::built_in().map_err(Failure::yaml)?,
    };
    let rate = match run {
        Some(run) => {
            let count = on.count.unwrap_or(1);
            device::rate_of_workloads(law::workloads(run), &on.unit, count, hour.get(), calibration)
        }
        None => device::rate(points, &on.unit, on.count, hour.get(), calibration),
    };
    let rate = rate.ok_or_else(|| usage(format!("no model of these sizes fits into `{}`", on.name)))?;
    Ok((Some(rate), format!("on {} at ${} an hour each, projected", on.name, crate::units::significant(hour.get(), 3))))
}

fn json(points: &[Point], answers: &Answers, cost: &str) -> Result<String, Failure> {
    let value = serde_json::json!({ "runs": points.len(), "cost": cost, "law": answers });
    serde_json::to_string_pretty(&value).map_err(|e| Failure::Internal(e.into()))
}

fn folder(runs: &Path) -> PathBuf {
    if runs.is_dir() {
        return runs.into();
    }
    let stem = runs.file_stem().map_or_else(|| "runs".into(), |s| s.to_string_lossy().into_owned());
    super::compare::folder(&[format!("{stem}-scaling")])
}
