//! Cost, throughput and memory over commits.

use super::Page;
use crate::comparison::timeline::{Change, Point, changes, lines, runs};
use crate::cost::metric::{Estimate, Metric};
use crate::cost::metrics::{PEAK_MEMORY, TOKENS_PER_SECOND, USD_PER_MILLION};
use crate::report::charts::{self, DrawError, timeline::timeline as draw};
use crate::report::document::{Block, Cell, Column, Document, Row, Section, Span, Table};
use crate::report::format::counted;
use crate::results::history::Entry;

type Of = fn(&Point) -> Option<Estimate>;

const FIGURES: [(&str, &str, &Metric, Of); 3] = [
    ("timeline-cost", "Cost of a million tokens over commits", &USD_PER_MILLION, |p| match p.interval {
        Some((low, high)) => Estimate::with_interval(p.usd_per_million_tokens?, low, high),
        None => Estimate::exact(p.usd_per_million_tokens?),
    }),
    ("timeline-throughput", "Throughput over commits", &TOKENS_PER_SECOND, |p| Estimate::exact(p.tokens_per_second?)),
    ("timeline-memory", "Peak memory over commits", &PEAK_MEMORY, |p| Estimate::exact(p.peak_memory_bytes?)),
];

/// The page of a history.
///
/// # Errors
/// A chart that cannot be drawn.
pub(crate) fn timeline(entries: &[Entry]) -> Result<Page, DrawError> {
    let (lines, runs) = (lines(entries), runs(entries));
    let commits: Vec<String> = runs.iter().map(|r| r.0.clone()).collect();
    let (mut pictures, mut found): (Vec<Block>, Vec<(&Metric, Change)>) = (Vec::new(), Vec::new());
    for (name, title, metric, of) in FIGURES {
        let all: Vec<Change> = lines.iter().flat_map(|l| changes(l, metric.name, |p| of(p).map(|e| e.value))).collect();
        if let Some(drawn) = draw(name, title, metric, of, &lines, &all, &commits) {
            pictures.push(Block::Chart(charts::chart(drawn)?));
        }
        found.extend(all.into_iter().map(|c| (metric, c)));
    }
    let answer = match found.len() {
        0 => "No figure changed its level for good.".to_string(),
        n => format!("{} of level, the latest at {}.", counted(n, "change"), latest(&found, &commits)),
    };
    let mut blocks = vec![Block::Answer(vec![
        Span::strong(format!("{}, {}: ", counted(runs.len(), "run"), counted(lines.len(), "cell"))),
        Span::plain(answer),
    ])];
    if !found.is_empty() {
        let mut table = Table::new(vec![
            Column::text("from commit"),
            Column::text("started at"),
            Column::text("cell"),
            Column::text("figure"),
            Column::number("change"),
        ]);
        found.sort_by_key(|(_, c)| std::cmp::Reverse(c.run));
        for (metric, c) in &found {
            let (commit, started) = runs.get(c.run).cloned().unwrap_or_default();
            table.rows.push(Row::new(vec![
                Cell::text(commit),
                Cell::text(started),
                Cell::text(&c.cell),
                Cell::text(metric.label),
                Cell::number(format!("{:+.1} %", (c.ratio - 1.0) * 100.0), c.ratio),
            ]));
        }
        blocks.push(Block::Table(table));
    }
    blocks.extend(pictures);
    Ok(Page {
        name: "timeline",
        document: Document {
            title: "Tokens over commits".into(),
            description: String::new(),
            sections: vec![Section { id: "answer", title: "The answer", blocks }],
            foot: "Runs of different times: what is seen here points to a commit, and `centime check` proves it."
                .into(),
        },
    })
}

fn latest(found: &[(&Metric, Change)], commits: &[String]) -> String {
    let last = found.iter().max_by_key(|(_, c)| c.run);
    last.and_then(|(_, c)| commits.get(c.run)).cloned().unwrap_or_default()
}
