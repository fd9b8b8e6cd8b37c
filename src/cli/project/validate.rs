//! `centime project validate`: predicted against published.

use super::super::Failure;
use super::super::table::{Format, Rows, Value};
use super::Files;
use crate::hardware::book::Book;
use crate::projection::fit;
use crate::projection::published::{Case, Published, Quantity, read};
use crate::projection::validate::{Bars, predict_all, sources, summary};
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
        published.left.push(crate::projection::published::Left { id: c.id.clone(), source: c.source.clone(), reason });
    }
    let cases = &published.cases;
    let rows: Vec<Row> =
        cases.iter().zip(&predicted).filter_map(|(case, p)| Some(Row { case, predicted: (*p)? })).collect();
    if !a.summary {
        each(&rows, &calibration.bars, a.files.format)?;
    }
    summaries(cases, &rows, &calibration.bars, a.files.format)?;
    left(&published, a.files.format)
}

fn each(rows: &[Row], bars: &Bars, format: Format) -> Result<(), Failure> {
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
        ]);
    }
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
    let mut line = |name: &str, quantity: Quantity, of: &[&Row]| {
        let errors: Vec<f64> = of.iter().map(|r| r.log_error()).collect();
        let Some(s) = summary(&errors) else { return };
        let held: Vec<bool> = of.iter().filter_map(|r| inside(r, bars)).collect();
        let held_share = held.iter().filter(|h| **h).count() as f64 / held.len().max(1) as f64;
        table.push(vec![
            name.to_string().into(),
            quantity.name().to_string().into(),
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
            line(source, quantity, &own);
        }
        line("all", quantity, &of);
    }
    table.print(format)
}

/// Rows that cannot be predicted, by source and reason.
fn left(published: &Published, format: Format) -> Result<(), Failure> {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for l in &published.left {
        *counts.entry((&l.source, &l.reason)).or_default() += 1;
    }
    if counts.is_empty() {
        return Ok(());
    }
    let mut table = Rows::new(&["source", "not_predicted", "reason"]);
    for ((source, reason), n) in counts {
        table.push(vec![source.to_string().into(), (n.to_string(), n).into(), reason.to_string().into()]);
    }
    table.print(format)
}
