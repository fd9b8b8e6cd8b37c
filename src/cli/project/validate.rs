//! `centime project validate`: predicted against published.

use super::super::Failure;
use super::super::output::{print, print_wrapped, report_failure};
use super::super::table::{Format, Rows, Value};
use super::Files;
use crate::hardware::book::Book;
use crate::projection::baseline::{self, baseline};
use crate::projection::calibration::Calibration;
use crate::projection::nested::{Held, LEVELS, nested};
use crate::projection::pooled::gains;
use crate::projection::published::{Case, Group, Left, Published, Quantity, read};
use crate::projection::traits::{architecture, of_case};
use crate::projection::validate::{predict_all, sources, summary};
use crate::report::pages::{Predicted, validation};
use crate::units::significant;
use anyhow::anyhow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Predict published measurements and say how far off each is; a summary for each source.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Tables in the layout of training.csv or inference.csv.
    #[arg(value_name = "FILE.csv", required = true)]
    tables: Vec<PathBuf>,
    /// Nested: constants, variances and bars of each source are made from all the others alone.
    #[arg(long)]
    cross_validate: bool,
    /// How errors shrink and bars narrow when 1, 3 and 10 rows of a source are taken as one's own measurements.
    #[arg(long, conflicts_with = "out")]
    pooled: bool,
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

/// A predicted row with its error and its bar.
struct Row<'a> {
    case: &'a Case,
    predicted: f64,
    half: Option<f64>,
    levels: Option<[f64; LEVELS.len()]>,
}

impl Row<'_> {
    fn log_error(&self) -> f64 {
        (self.predicted / self.case.published).ln()
    }

    fn inside(&self) -> Option<bool> {
        Some(self.log_error().abs() <= self.half?)
    }
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let (book, calibration) = a.files.read()?;
    let mut published = tables(&a.tables, &book)?;
    let held = if a.cross_validate { nested(&published.cases) } else { as_calibrated(&published.cases, &calibration) };
    let (_, unpredicted) = predict_all(&published.cases, &calibration.constants);
    for (i, reason) in unpredicted {
        let c = &published.cases[i];
        published.left.push(Left { id: c.id.clone(), source: c.source.clone(), reason });
    }
    let cases = &published.cases;
    if a.pooled {
        return pooled(cases, &held, &calibration, a.files.printed.format);
    }
    let rows: Vec<Row> = held
        .iter()
        .filter_map(|h| {
            let levels = Some(h.levels).filter(|_| a.cross_validate);
            Some(Row { case: cases.get(h.case)?, predicted: h.predicted, half: h.half, levels })
        })
        .collect();
    let page = a.out.as_ref().map(|out| publish(a, out, &rows, &published.left)).transpose()?;
    // For machines one table, for people all.
    let people = matches!(a.files.printed.format, Format::Table | Format::Markdown);
    if !a.summary {
        each(&rows, &published.left, a.files.printed.format)?;
    }
    if a.summary || people {
        summaries(cases, &rows, a.files.printed.format)?;
    }
    if people {
        left(&published.left, a.files.printed.format)?;
    }
    page.filter(|_| people).map_or(Ok(()), |page| print(&format!("report: {}", page.display())))
}

/// Every row with the constants and the bars of the calibration, as for a source that is new to it.
fn as_calibrated(cases: &[Case], c: &Calibration) -> Vec<Held> {
    let (outcomes, _) = predict_all(cases, &c.constants);
    let one = |o: &crate::projection::validate::Outcome| {
        let case = cases.get(o.case)?;
        let seen = c.seen.is_empty() || c.seen.iter().any(|a| a == architecture(case));
        let half = c.bars.half(case.quantity, &of_case(case, seen));
        Some(Held { case: o.case, predicted: o.predicted, half, levels: [f64::NAN; LEVELS.len()] })
    };
    outcomes.iter().filter_map(one).collect()
}

/// Errors before and after one's own measurements, by holding out rows inside sources.
fn pooled(cases: &[Case], held: &[Held], c: &Calibration, format: Format) -> Result<(), Failure> {
    let columns = ["quantity", "own_measurements", "sources", "rows", "median", "p90", "inside", "bar"];
    let mut table = Rows::new(&columns);
    for group in Group::ALL {
        for measured in [1, 3, 10] {
            let Some(g) = gains(cases, held, &c.bars, measured).into_iter().find(|g| g.group == group) else {
                continue;
            };
            let sides = [(0, &g.before, g.inside.0, g.half.0), (measured, &g.after, g.inside.1, g.half.1)];
            for (n, s, inside, half) in sides {
                table.push(vec![
                    group.name().to_string().into(),
                    (n.to_string(), n as u64).into(),
                    (g.sources.to_string(), g.sources as u64).into(),
                    (s.rows.to_string(), s.rows as u64).into(),
                    share(s.median),
                    share(s.p90),
                    share(inside),
                    (format!("x/ {:.2}", half.exp()), half).into(),
                ]);
            }
        }
    }
    table.print(format)
}

fn publish(a: &Arguments, out: &Path, rows: &[Row], unpredicted: &[Left]) -> Result<PathBuf, Failure> {
    let all: Vec<Predicted> = rows
        .iter()
        .map(|r| Predicted {
            source: r.case.source.clone(),
            quantity: r.case.quantity,
            published: r.case.published,
            predicted: r.predicted,
            half: r.half,
            levels: r.levels,
            baseline: baseline(r.case),
        })
        .collect();
    let how = if a.cross_validate {
        "nested: constants, variances and bars of each source made from the others alone"
    } else {
        "with the constants and bars of the calibration, as they are"
    };
    let left: Vec<(String, u64, String)> =
        counted(unpredicted).into_iter().map(|((source, reason), n)| (source.into(), n, reason.into())).collect();
    let page = validation(&all, how, &left).map_err(|e| Failure::Internal(e.into()))?;
    page.publish(out).map_err(report_failure)
}

fn each(rows: &[Row], unpredicted: &[Left], format: Format) -> Result<(), Failure> {
    let mut table = Rows::new(&[
        "id",
        "source",
        "what",
        "quantity",
        "published",
        "predicted",
        "unit",
        "error",
        "bar",
        "in_bar",
        "assumed",
        "not_predicted",
    ])
    .least(&["assumed", "what", "unit", "source", "quantity"]);
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
            r.half.map_or_else(|| String::new().into(), |h| Value::from((format!("x/ {:.2}", h.exp()), h))),
            match r.inside() {
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
            row.extend((0..9).map(|_| String::new().into()));
            row.push(l.reason.clone().into());
            table.push(row);
        }
        return table.print(format);
    }
    table.take_constant(&["not_predicted"]);
    table.print(format)
}

fn percent(x: f64) -> Value {
    (format!("{:+.1} %", 100.0 * x), x).into()
}

fn share(x: f64) -> Value {
    (format!("{:.1} %", 100.0 * x), x).into()
}

/// A line for each source and quantity, and one for all of a quantity.
fn summaries(cases: &[Case], rows: &[Row], format: Format) -> Result<(), Failure> {
    let columns = [
        "source",
        "quantity",
        "sources",
        "rows",
        "median",
        "mean",
        "p90",
        "bias",
        "inside_rows",
        "inside_sources",
        "bar",
        "baseline_median",
        "baseline_p90",
    ];
    let mut table =
        Rows::new(&columns).least(&["mean", "baseline_p90", "baseline_median", "sources", "inside_rows", "bias"]);
    for quantity in Quantity::ALL {
        let of: Vec<&Row> = rows.iter().filter(|r| r.case.quantity == quantity).collect();
        for source in sources(cases) {
            let own: Vec<&Row> = of.iter().copied().filter(|r| r.case.source == source).collect();
            line(&mut table, source, quantity.name(), &own);
        }
        line(&mut table, "all", quantity.name(), &of);
    }
    for group in Group::ALL.into_iter().filter(|g| *g != Group::Training) {
        let own: Vec<&Row> = rows.iter().filter(|r| r.case.quantity.group() == group).collect();
        line(&mut table, "all", group.name(), &own);
    }
    table.print(format)?;
    if matches!(format, Format::Table | Format::Markdown) {
        let names: Vec<String> =
            Quantity::ALL.into_iter().filter_map(|q| Some(format!("{}: {}", q.name(), baseline::name(q)?))).collect();
        print_wrapped(&format!("baseline, on the same rows: {}", names.join("; ")))?;
    }
    Ok(())
}

fn line(table: &mut Rows, name: &str, quantity: &str, of: &[&Row]) {
    let errors: Vec<f64> = of.iter().map(|r| r.log_error()).collect();
    let Some(s) = summary(&errors) else { return };
    let held = |rows: &[&Row]| -> Option<f64> {
        let all: Vec<bool> = rows.iter().filter_map(|r| r.inside()).collect();
        (!all.is_empty()).then(|| all.iter().filter(|h| **h).count() as f64 / all.len() as f64)
    };
    let by: Vec<&str> = sources(of.iter().map(|r| r.case));
    let shares: Vec<f64> = by
        .iter()
        .filter_map(|s| held(&of.iter().copied().filter(|r| r.case.source == *s).collect::<Vec<_>>()))
        .collect();
    let by_source = (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64);
    let mut halves: Vec<f64> = of.iter().filter_map(|r| r.half).collect();
    halves.sort_by(f64::total_cmp);
    let half = halves.get(halves.len() / 2).copied();
    let base: Vec<f64> = of.iter().filter_map(|r| Some((baseline(r.case)? / r.case.published).ln())).collect();
    let base = summary(&base);
    let blank = || Value::from(String::new());
    table.push(vec![
        name.to_string().into(),
        quantity.to_string().into(),
        (by.len().to_string(), by.len() as u64).into(),
        (s.rows.to_string(), s.rows as u64).into(),
        share(s.median),
        share(s.mean),
        share(s.p90),
        percent(s.bias),
        held(of).map_or_else(blank, share),
        by_source.map_or_else(blank, share),
        half.map_or_else(blank, |h| Value::from((format!("x/ {:.2}", h.exp()), h))),
        base.as_ref().map_or_else(blank, |b| share(b.median)),
        base.as_ref().map_or_else(blank, |b| share(b.p90)),
    ]);
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
