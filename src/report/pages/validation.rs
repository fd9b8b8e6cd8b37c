//! How far the projection is from what was published.

use super::Page;
use crate::projection::nested::LEVELS;
use crate::projection::published::{Group, Quantity};
use crate::projection::validate::{Summary, sources_of, summary};
use crate::report::charts::coverage::{Covered, coverage};
use crate::report::charts::validation::{Point, validation as draw};
use crate::report::charts::{self, DrawError};
use crate::report::document::{Block, Cell, Column, Document, Row, Section, Span, Table, paragraph};
use crate::units::{Share, significant};

/// A published figure, its source and its prediction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Predicted {
    pub source: String,
    pub quantity: Quantity,
    pub published: f64,
    pub predicted: f64,
    /// Half width in ln of its 90 % bar, and of the bars of [`LEVELS`].
    pub half: Option<f64>,
    pub levels: Option<[f64; LEVELS.len()]>,
    /// What one would say without a model.
    pub baseline: Option<f64>,
}

impl Predicted {
    fn inside(&self) -> Option<bool> {
        Some(self.log_error().abs() <= self.half?)
    }

    fn log_error(&self) -> f64 {
        (self.predicted / self.published).ln()
    }
}

/// The page of a validation. `how`: with which constants the rows were predicted; `left`: source, number and reason of rows
/// without a prediction.
///
/// # Errors
/// A chart that cannot be drawn.
pub(crate) fn validation(rows: &[Predicted], how: &str, left: &[(String, u64, String)]) -> Result<Page, DrawError> {
    let (mut answer, mut sections) = (Vec::new(), Vec::new());
    for quantity in Quantity::ALL {
        let of: Vec<&Predicted> = rows.iter().filter(|r| r.quantity == quantity).collect();
        let errors: Vec<f64> = of.iter().map(|r| r.log_error()).collect();
        let Some(all) = summary(&errors) else { continue };
        answer.push(Span::plain(format!("{}{}: median ", if answer.is_empty() { "" } else { "; " }, quantity.name())));
        answer.push(Span::strong(percent(all.median)));
        let held = inside(&of).map_or(String::new(), |i| format!(", {} of them in the 90 % bar", percent(i)));
        let sources = sources_of(of.iter().map(|r| r.source.as_str())).len();
        answer.push(Span::plain(format!(
            ", 90th percentile {} of {} rows of {sources} sources{held}",
            percent(all.p90),
            all.rows
        )));
        let points: Vec<Point> =
            of.iter().map(|r| Point { source: &r.source, published: r.published, predicted: r.predicted }).collect();
        let mut blocks = Vec::new();
        if let Some(drawn) = draw(quantity, &points) {
            blocks.push(Block::Chart(charts::chart(drawn)?));
        }
        blocks.push(Block::Table(by_source(&of, &all)));
        sections.push(Section { id: quantity.anchor(), title: quantity.title(), blocks });
    }
    answer.push(Span::plain(format!(" (|predicted / published - 1|; {how}).")));
    let mut first = vec![Block::Answer(answer)];
    if !left.is_empty() {
        let mut table = Table::new(vec![Column::text("source"), Column::number("rows"), Column::text("why")]);
        for (source, n, reason) in left {
            let cells = vec![Cell::text(source), Cell::number(n.to_string(), *n as f64), Cell::text(reason)];
            table.rows.push(Row::new(cells));
        }
        let rows: u64 = left.iter().map(|(_, n, _)| n).sum();
        first.push(paragraph(format!("{rows} rows have no prediction.")));
        first.push(Block::Folded { summary: "Which, and why".into(), blocks: vec![Block::Table(table)] });
    }
    if let Some(drawn) = coverage(&covered(rows)) {
        first.insert(1, Block::Chart(charts::chart(drawn)?));
    }
    sections.insert(0, Section { id: "answer", title: "The answer", blocks: first });
    Ok(Page {
        name: "validation",
        document: Document {
            title: "Projection: predicted against published".into(),
            description: String::new(),
            sections,
            foot: "Published figures are quoted from their sources; predictions are projected.".into(),
        },
    })
}

fn percent(x: f64) -> String {
    format!("{} %", significant(100.0 * x, 2))
}

/// Share of the rows that have a bar and are inside.
fn inside(rows: &[&Predicted]) -> Option<f64> {
    let all: Vec<bool> = rows.iter().filter_map(|r| r.inside()).collect();
    (!all.is_empty()).then(|| all.iter().filter(|i| **i).count() as f64 / all.len() as f64)
}

/// For each group, what bars hold at each nominal level: of rows, and of sources, each counting as one.
fn covered(rows: &[Predicted]) -> Vec<Covered> {
    let mut all = Vec::new();
    for group in Group::ALL {
        let of: Vec<(&Predicted, [f64; LEVELS.len()])> =
            rows.iter().filter(|r| r.quantity.group() == group).filter_map(|r| Some((r, r.levels?))).collect();
        if of.is_empty() {
            continue;
        }
        let share = |rows: &[&(&Predicted, [f64; LEVELS.len()])], level: usize| {
            rows.iter().filter(|(r, l)| r.log_error().abs() <= l[level]).count() as f64 / rows.len() as f64
        };
        let sources = sources_of(of.iter().map(|(r, _)| r.source.as_str()));
        let points = LEVELS.iter().enumerate().map(|(i, nominal)| {
            let every: Vec<_> = of.iter().collect();
            let by: Vec<f64> = sources
                .iter()
                .map(|s| share(&of.iter().filter(|(r, _)| r.source == *s).collect::<Vec<_>>(), i))
                .collect();
            (*nominal, share(&every, i), by.iter().sum::<f64>() / by.len() as f64)
        });
        all.push(Covered { name: group.name(), sources: sources.len(), points: points.collect() });
    }
    all
}

/// Sources, those first whose rows lie outside most.
fn by_source(rows: &[&Predicted], all: &Summary) -> Table {
    let mut columns = vec![Column::text("source")];
    let numbers =
        ["rows", "median", "mean", "90th percentile", "bias", "inside the 90 % bar", "bar", "baseline, median"];
    columns.extend(numbers.map(Column::number));
    let mut table = Table::new(columns);
    let mut line = |name: &str, s: &Summary, of: &[&Predicted]| {
        let held = inside(of);
        let share = |x: f64| Cell::number(percent(x), x);
        let mut halves: Vec<f64> = of.iter().filter_map(|r| r.half).collect();
        halves.sort_by(f64::total_cmp);
        let half = halves.get(halves.len() / 2).copied();
        let base: Vec<f64> = of.iter().filter_map(|r| Some((r.baseline? / r.published).ln())).collect();
        let none = || Cell { text: "n/a".into(), sort: None };
        table.rows.push(Row::new(vec![
            Cell::text(name),
            Cell::number(s.rows.to_string(), s.rows as f64),
            share(s.median),
            share(s.mean),
            share(s.p90),
            Cell::number(format!("{:+.1} %", 100.0 * s.bias), s.bias),
            Cell { text: held.map_or("n/a".into(), |i| Share(i).to_string()), sort: held },
            half.map_or_else(none, |h| Cell::number(format!("x/ {}", significant(h.exp(), 3)), h)),
            summary(&base).map_or_else(none, |b| share(b.median)),
        ]));
    };
    let mut found: Vec<(&str, Vec<&Predicted>)> = sources_of(rows.iter().map(|r| r.source.as_str()))
        .into_iter()
        .map(|s| (s, rows.iter().copied().filter(|r| r.source == s).collect()))
        .collect();
    let held = |of: &[&Predicted]| inside(of).unwrap_or(1.0);
    let size =
        |of: &[&Predicted]| summary(&of.iter().map(|r| r.log_error()).collect::<Vec<_>>()).map_or(0.0, |s| s.median);
    found.sort_by(|a, b| held(&a.1).total_cmp(&held(&b.1)).then(size(&b.1).total_cmp(&size(&a.1))));
    for (source, own) in found {
        let errors: Vec<f64> = own.iter().map(|r| r.log_error()).collect();
        if let Some(s) = summary(&errors) {
            line(source, &s, &own);
        }
    }
    line("all", all, rows);
    table
}
