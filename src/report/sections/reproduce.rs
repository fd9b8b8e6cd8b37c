//! The command that does it again, and what lies in the folder.

use crate::report::document::{Block, Span, paragraph};
use crate::report::facts::Facts;

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    let file = |name: &str, what: &str| vec![Span::code(name), Span::plain(format!(": {what}"))];
    vec![
        Block::Command(facts.run.environment.command_line()),
        paragraph("In this folder:"),
        Block::List(vec![
            file(
                "results.parquet, results.json",
                "every metric with its interval, every field, and the raw step times",
            ),
            file("results.csv", "the same without the raw step times, one header row"),
            file("environment.json", "scenario, machine, probe, price and settings"),
            file(
                "journal.jsonl",
                "one line for each finished trial, written as it finished; everything else is made from it",
            ),
            file("charts/", "the charts as SVG"),
        ]),
    ]
}
