//! `centime project validate`: predicted against published.

use super::super::Failure;
use super::super::output::{print, report_failure};
use super::super::table::{Format, Rows, Value};
use super::Files;
use crate::hardware::book::Book;
use crate::projection::fit;
use crate::projection::published::{Case, Left, Published, Quantity, read};
use crate::projection::validate::{Bars, predict_all, sources, summary};
use crate::report::pages::{Predicted, validation};
use crate::units::significant;
use anyhow::anyhow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Predict published measurements and say how far off each is; a summary for each source.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Tables in the layout of training.csv or inference.csv.
    #[arg(value_name = "FILE.csv", required = true)]
    tables: Vec<PathBuf>,
    /// Predict each source with constants that are fitted to all the others.
    #[arg(long)]
    cross_validate: bool,
    /// The summary alone, without the rows.
    #[arg(long)]
    summary: bool,
    /// Folder for a page with charts: validation.html, validation.md, charts/*.svg.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    files: Files,
}

/// Reads tables of either layout into one list.
pub(super) fn tables(paths: &[PathBuf], book: &Book) -> Result<Published, Failure> {
    let mut all = Published::default();
    for path in paths {
        let one = table(path, book)?;
        all.cases.extend(one.cases);
        all.left.extend(one.left);
    }
    Ok(all)
}

fn table(path: &Path, book: &Book) -> Result<Published, Failure> {
    read(&super::text(path)?, book).map_err(|e| Failure::Usage(anyhow!("{}: {e}", path.display())))
}

/// A predicted row with its error.
pub(super) struct Row<'a> {
    pub case: &'a Case,
    pub predicted: f64,
}

impl Row<'_> {
    pub fn log_error(&self) -> f64 {
        (self.predicted / self.case.published).ln()
    }
}

pub fn run(a: &Arguments) -> Result<(), Failure> {
    let (book, calibration) = a.files.read()?;
    let mut published = tables(&a.tables, &book)?;
    let predicted: Vec<Option<f64>> = if a.cross_validate {
        fit::left_out(&published.cases)
    } else {
        let (outcomes, _) = predict_all(&published.cases, &calibration.constants);
        let mut all = vec![None; published.cases.len()];
        outcomes.iter().for_each(|o| all[o.case] = Some(o.predicted));
        all
    };
    let (_, unpredicted) = predict_all(&published.cases, &calibration.constants);
    for (i, reason) in unpredicted {
        let c = &published.cases[i];
        published.left.push(Left { id: c.id.clone(), source: c.source.clone(), reason });
    }
    let cases = &published.cases;
    let rows: Vec<Row> =
        cases.iter().zip(&predicted).filter_map(|(case, p)| Some(Row { case, predicted: (*p)? })).collect();
    let bars = &calibration.bars;
    let page = a.out.as_ref().map(|out| publish(a, out, &rows, bars, &published.left)).transpose()?;
    // For machines one table, for people all.
    let people = matches!(a.files.format, Format::Table | Format::Markdown);
    if !a.summary {
        each(&rows, &published.left, bars, a.files.format)?;
    }
    if a.summary || people {
        summaries(cases, &rows, bars, a.files.format)?;
    }
    if people {
        left(&published.left, a.files.format)?;
    }
    page.filter(|_| people).map_or(Ok(()), |page| print(&format!("report: {}", page.display())))
}

fn publish(a: &Arguments, out: &Path, rows: &[Row], bars: &Bars, unpredicted: &[Left]) -> Result<PathBuf, Failure> {
    let all: Vec<Predicted> = rows
        .iter()
        .map(|r| Predicted {
            source: r.case.source.clone(),
            quantity: r.case.quantity,
            published: r.case.published,
            predicted: r.predicted,
        })
        .collect();
    let how = if a.cross_validate {
        "each source predicted with constants that were fitted to the others"
    } else {
        "with the constants of the calibration, as they are"
    };
    let left: Vec<(String, u64, String)> =
        counted(unpredicted).into_iter().map(|((source, reason), n)| (source.into(), n, reason.into())).collect();
    let page = validation(&all, bars, how, &left).map_err(|e| Failure::Internal(e.into()))?;
    page.publish(out).map_err(report_failure)
}

fn each(rows: &[Row], unpredicted: &[Left], bars: &Bars, format: Format) -> Result<(), Failure> {
    let mut table = Rows::new(&[
        "id",
        "source",
        "what",
        "quantity",
        "published",
        "predicted",
        "unit",
        "error",
        "in_bar",
        "assumed",
        "not_predicted",
    ]);
    for r in rows {
        let error = r.log_error().exp_m1();
        table.push(vec![
            r.case.id.clone().into(),
            r.case.source.clone().into(),
            r.case.what.clone().into(),
            r.case.quantity.name().to_string().into(),
            (significant(r.case.published, 4), r.case.published).into(),
            (significant(r.predicted, 4), r.predicted).into(),
            r.case.quantity.unit().to_string().into(),
            percent(error),
            match inside(r, bars) {
                Some(true) => "yes".to_string().into(),
                Some(false) => "no".to_string().into(),
                None => String::new().into(),
            },
            r.case.assumed.join(", ").into(),
            String::new().into(),
        ]);
    }
    if !matches!(format, Format::Table | Format::Markdown) {
        // People see them counted, below.
        for l in unpredicted {
            let mut row: Vec<Value> = vec![l.id.clone().into(), l.source.clone().into()];
            row.extend((0..8).map(|_| String::new().into()));
            row.push(l.reason.clone().into());
            table.push(row);
        }
        return table.print(format);
    }
    table.take_constant(&["not_predicted"]);
    table.print(format)
}

fn inside(r: &Row, bars: &Bars) -> Option<bool> {
    let (low, high) = bars.factors(r.case.quantity)?;
    let ratio = r.predicted / r.case.published;
    Some(ratio >= low && ratio <= high)
}

fn percent(x: f64) -> Value {
    (format!("{:+.1} %", 100.0 * x), x).into()
}

fn share(x: f64) -> Value {
    (format!("{:.1} %", 100.0 * x), x).into()
}

/// A line for each source and quantity, and one for all of a quantity.
fn summaries(cases: &[Case], rows: &[Row], bars: &Bars, format: Format) -> Result<(), Failure> {
    let mut table = Rows::new(&["source", "quantity", "rows", "median", "mean", "p90", "bias", "inside_90_%_bar"]);
    let mut line = |name: &str, quantity: &str, of: &[&Row]| {
        let errors: Vec<f64> = of.iter().map(|r| r.log_error()).collect();
        let Some(s) = summary(&errors) else { return };
        let held: Vec<bool> = of.iter().filter_map(|r| inside(r, bars)).collect();
        let held_share = held.iter().filter(|h| **h).count() as f64 / held.len().max(1) as f64;
        table.push(vec![
            name.to_string().into(),
            quantity.to_string().into(),
            (s.rows.to_string(), s.rows as u64).into(),
            share(s.median),
            share(s.mean),
            share(s.p90),
            percent(s.bias),
            if held.is_empty() { String::new().into() } else { share(held_share) },
        ]);
    };
    for quantity in Quantity::ALL {
        let of: Vec<&Row> = rows.iter().filter(|r| r.case.quantity == quantity).collect();
        for source in sources(cases) {
            let own: Vec<&Row> = of.iter().copied().filter(|r| r.case.source == source).collect();
            line(source, quantity.name(), &own);
        }
        line("all", quantity.name(), &of);
    }
    let inference = |q: Quantity| !q.is_memory() && q != Quantity::TrainingTokens;
    let together: [(&str, &dyn Fn(Quantity) -> bool); 2] = [("inference", &inference), ("memory", &|q| q.is_memory())];
    for (name, of) in together {
        let own: Vec<&Row> = rows.iter().filter(|r| of(r.case.quantity)).collect();
        line("all", name, &own);
    }
    table.print(format)
}

/// Rows without a prediction, by source and reason.
fn counted(left: &[Left]) -> BTreeMap<(&str, &str), u64> {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for l in left {
        *counts.entry((&l.source, &l.reason)).or_default() += 1;
    }
    counts
}

/// Rows that cannot be predicted, by source and reason.
fn left(left: &[Left], format: Format) -> Result<(), Failure> {
    let counts = counted(left);
    if counts.is_empty() {
        return Ok(());
    }
    let mut table = Rows::new(&["source", "not_predicted", "reason"]);
    for ((source, reason), n) in counts {
        table.push(vec![source.to_string().into(), (n.to_string(), n).into(), reason.to_string().into()]);
    }
    table.print(format)
}
