//! Every requested trial accounted for: how many ended how, and why those that are not `ok` are not.

use crate::report::document::{Block, Cell, Column, Row, Table, paragraph};
use crate::report::facts::Facts;
use crate::report::format::{counted, listed};
use crate::runner::measurement::Status;

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    let requested = facts.run.environment.requested_cells as usize;
    let missing = requested.saturating_sub(facts.records().len());
    let mut parts: Vec<String> = Status::ALL
        .iter()
        .map(|s| (facts.counted(*s), s.name()))
        .filter(|(n, _)| *n > 0)
        .map(|(n, name)| format!("{n} {name}"))
        .collect();
    if missing > 0 {
        parts.push(format!("{missing} not reached yet (the run was cut short; the same command goes on from there)"));
    }
    let mut blocks = vec![paragraph(format!("{} requested: {}.", counted(requested, "trial"), listed(&parts)))];
    let mut table = Table::new(vec![Column::text("trial"), Column::text("ended"), Column::text("why")]);
    for (i, r) in facts.records().iter().enumerate().filter(|(_, r)| r.measurement.status != Status::Ok) {
        let m = &r.measurement;
        table.rows.push(Row::new(vec![
            Cell::text(facts.name(i)),
            Cell::text(m.status.name()),
            Cell::text(m.reason.clone()),
        ]));
    }
    if !table.rows.is_empty() {
        blocks.push(Block::Table(table));
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn the_counts_add_up_to_what_was_requested() {
        let mut run = fixture::sweep();
        let said = |run: &crate::results::run::Run| match &blocks(&Facts::of(run, fixture::book()))[0] {
            Block::Paragraph(spans) => format!("{spans:?}"),
            other => panic!("{other:?}"),
        };
        assert!(said(&run).contains("12 trials requested: 9 ok, 1 oom, 1 crashed and 1 skipped."), "{}", said(&run));
        run.records.truncate(10);
        assert!(said(&run).contains("2 not reached yet"), "{}", said(&run));
    }
}
