//! A check as people and machines read it: a comment, JSON, JUnit XML, Bencher's and github-action-benchmark's forms.

mod comment;
mod junit;
mod metrics;

use super::ReportError;
use super::document::{Block, Cell, Column, Row, Section, Span, Table};
use super::terminal::{self, Style};
use crate::comparison::check::{Check, CheckedCell};
use crate::comparison::judge::Verdict;
use crate::results::ResultsError;
use crate::results::files::replace_text;
pub use comment::{MARKER, comment as markdown};
pub use junit::junit;
pub use metrics::{benchmark, bmf, csv};
use std::path::Path;

/// Every form into a folder: check.md, check.json, junit.xml, bmf.json, benchmark.json.
///
/// # Errors
/// Disk or permissions; each file is whole or the old one stays.
pub(crate) fn publish(check: &Check, folder: &Path) -> Result<(), ReportError> {
    std::fs::create_dir_all(folder).map_err(ResultsError::io(folder, "making the folder"))?;
    let files = [
        ("check.md", markdown(check)),
        ("check.json", json(check)),
        ("junit.xml", junit(check)),
        ("bmf.json", bmf(check)),
        ("benchmark.json", benchmark(check)),
    ];
    for (name, text) in files {
        replace_text(&folder.join(name), &text)?;
    }
    Ok(())
}

/// All of it, as data.
pub fn json(check: &Check) -> String {
    serde_json::to_string_pretty(check).unwrap_or_else(|e| format!("{{\"error\": \"{e}\"}}")) + "\n"
}

/// For people at a terminal.
pub(crate) fn terminal(check: &Check, style: Style) -> String {
    let mut blocks = vec![Block::Paragraph(vec![Span::plain(comment::headline(check))])];
    blocks.push(Block::Paragraph(vec![Span::plain(comment::counts(check))]));
    blocks.push(Block::Table(table(&check.cells.iter().collect::<Vec<_>>(), " ")));
    let mut items: Vec<String> = check.guards.iter().map(|g| format!("not trusted: {g}")).collect();
    items.extend(check.remarks.clone());
    items.extend(comment::findings(check));
    items.extend(check.budgets.iter().map(comment::budget));
    if !items.is_empty() {
        blocks.push(Block::List(items.into_iter().map(|i| vec![Span::plain(i)]).collect()));
    }
    terminal::sections(&[Section { id: "check", title: "Check", blocks }], style)
}

/// The cells in a table; the same for every reader, but for the space inside a figure (a comment's columns must not break there).
fn table(cells: &[&CheckedCell], space: &str) -> Table {
    let mut table = Table::new(vec![
        Column::text("cell"),
        Column::number("base, $/M"),
        Column::number("head, $/M"),
        Column::number("change (95 % CI)"),
        Column::number("tokens/s"),
        Column::number("peak memory"),
        Column::number("pairs"),
        Column::text("verdict"),
    ]);
    for c in cells {
        let change = match (c.judged.ratio, c.judged.low.zip(c.judged.high)) {
            (Some(r), Some((l, h))) => format!("{} ({} .. {})", percent(r), bare_percent(l), bare_percent(h)),
            (Some(r), None) => percent(r),
            _ => "n/a".into(),
        };
        let number = |x: Option<f64>, shown: fn(f64) -> String| x.map_or("n/a".to_string(), shown);
        let memory = number(c.head.peak_memory_bytes, |b| crate::units::Bytes(b as u64).to_string());
        let cells = [
            if c.name.trim().is_empty() { "(no name)".into() } else { c.name.clone() },
            number(c.base.usd_per_million_tokens, |x| crate::units::significant(x, 3)),
            number(c.head.usd_per_million_tokens, |x| crate::units::significant(x, 3)),
            change.replace(' ', space),
            number(c.head.tokens_per_second, |x| crate::units::significant(x, 4)),
            memory.replace(' ', space),
            c.judged.pairs.to_string(),
            said(c).replace(' ', space),
        ];
        table.rows.push(Row::new(cells.map(Cell::text).to_vec()));
    }
    table
}

/// A cell's verdict in words, with its symbol.
fn said(c: &CheckedCell) -> String {
    match &c.failure {
        Some(_) => "❌ FAILED".into(),
        None if c.judged.pairs == 0 && c.base.tokens_per_second.is_none() => "⚠️ no baseline".into(),
        None => symbol(c.judged.verdict),
    }
}

fn symbol(v: Verdict) -> String {
    let sign = match v {
        Verdict::Pass => "✅",
        Verdict::Regression => "❌",
        Verdict::Inconclusive => "⚠️",
    };
    format!("{sign} {}", v.name())
}

/// "-3.4 %", and 0 without a sign.
fn percent(ratio: f64) -> String {
    format!("{} %", bare_percent(ratio))
}

fn bare_percent(ratio: f64) -> String {
    let p = (ratio - 1.0) * 100.0;
    if p.abs() < 0.05 { "0.0".into() } else { format!("{p:+.1}") }
}
