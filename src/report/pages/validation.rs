//! How far the projection is from what was published.

use super::Page;
use crate::projection::published::Quantity;
use crate::projection::validate::{Bars, Summary, summary};
use crate::report::charts::validation::{Point, validation as draw};
use crate::report::charts::{self, DrawError};
use crate::report::document::{Block, Cell, Column, Document, Row, Section, Span, Table, paragraph};
use crate::units::{Share, significant};

/// A published figure, its source and its prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicted {
    pub source: String,
    pub quantity: Quantity,
    pub published: f64,
    pub predicted: f64,
}

impl Predicted {
    fn log_error(&self) -> f64 {
        (self.predicted / self.published).ln()
    }
}

/// The page of a validation. `how`: with which constants the rows were predicted; `left`: source, number and reason of rows
/// without a prediction.
///
/// # Errors
/// A chart that cannot be drawn.
pub fn validation(
    rows: &[Predicted],
    bars: &Bars,
    how: &str,
    left: &[(String, u64, String)],
) -> Result<Page, DrawError> {
    let (mut answer, mut sections) = (Vec::new(), Vec::new());
    for quantity in Quantity::ALL {
        let of: Vec<&Predicted> = rows.iter().filter(|r| r.quantity == quantity).collect();
        let errors: Vec<f64> = of.iter().map(|r| r.log_error()).collect();
        let Some(all) = summary(&errors) else { continue };
        answer.push(Span::plain(format!("{}{}: median ", if answer.is_empty() { "" } else { "; " }, quantity.name())));
        answer.push(Span::strong(percent(all.median)));
        answer.push(Span::plain(format!(", 90th percentile {} of {} rows", percent(all.p90), all.rows)));
        let half = bars.half(quantity);
        let points: Vec<Point> =
            of.iter().map(|r| Point { source: &r.source, published: r.published, predicted: r.predicted }).collect();
        let mut blocks = Vec::new();
        if let Some(drawn) = draw(quantity, &points, half) {
            blocks.push(Block::Chart(charts::chart(drawn)?));
        }
        blocks.push(Block::Table(by_source(&of, &all, half)));
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

fn by_source(rows: &[&Predicted], all: &Summary, half: Option<f64>) -> Table {
    let mut columns = vec![Column::text("source")];
    columns.extend(["rows", "median", "mean", "90th percentile", "bias", "inside the 90 % bar"].map(Column::number));
    let mut table = Table::new(columns);
    let mut line = |name: &str, s: &Summary, of: &[&Predicted]| {
        let inside = half.map(|h| of.iter().filter(|r| r.log_error().abs() <= h).count() as f64 / of.len() as f64);
        let share = |x: f64| Cell::number(percent(x), x);
        table.rows.push(Row::new(vec![
            Cell::text(name),
            Cell::number(s.rows.to_string(), s.rows as f64),
            share(s.median),
            share(s.mean),
            share(s.p90),
            Cell::number(format!("{:+.1} %", 100.0 * s.bias), s.bias),
            Cell { text: inside.map_or("n/a".into(), |i| Share(i).to_string()), sort: inside },
        ]));
    };
    let mut sources: Vec<&str> = Vec::new();
    for r in rows {
        if !sources.contains(&r.source.as_str()) {
            sources.push(&r.source);
        }
    }
    for source in sources {
        let own: Vec<&Predicted> = rows.iter().copied().filter(|r| r.source == source).collect();
        let errors: Vec<f64> = own.iter().map(|r| r.log_error()).collect();
        if let Some(s) = summary(&errors) {
            line(source, &s, &own);
        }
    }
    line("all", all, rows);
    table
}
