//! Sensitivity: how far the cost of the cheapest trial moves with each of its factors.

use crate::comparison::sensitivity::{End, tornado};
use crate::cost::metric::Quantity;
use crate::report::charts::{self, DrawError};
use crate::report::document::{Block, Cell, Column, Row, Table, paragraph};
use crate::report::facts::Facts;
use crate::report::format::{ABSENT, bare};

pub(crate) fn blocks(facts: &Facts) -> Result<Vec<Block>, DrawError> {
    match facts.cheapest() {
        Some(c) => blocks_of(facts, c.best, &facts.name(c.best)),
        None => Ok(vec![]),
    }
}

/// How far a trial's cost moves: picture and table.
///
/// # Errors
/// The drawing library's.
pub(crate) fn blocks_of(facts: &Facts, record: usize, name: &str) -> Result<Vec<Block>, DrawError> {
    let Some((cost, bars)) = tornado(facts.run, facts.book, facts.figures(), record) else { return Ok(vec![]) };
    let mut table = Table::new(vec![
        Column::text("what is varied"),
        Column::text("to"),
        Column::number("$/M tokens"),
        Column::text("or to"),
        Column::number("$/M tokens"),
        Column::text("is"),
    ]);
    for b in &bars {
        let shown = |e: &Option<End>| match e {
            Some(e) => (Cell::text(e.value.clone()), Cell::number(bare(Quantity::UsdPerMillionTokens, e.cost), e.cost)),
            None => (Cell::text("-"), Cell::text(ABSENT)),
        };
        let ((low, low_cost), (high, high_cost)) = (shown(&b.low), shown(&b.high));
        let measured = [&b.low, &b.high].into_iter().flatten().all(|e| e.measured);
        let is = Cell::text(if measured { "measured" } else { "computed" });
        table.rows.push(Row::new(vec![Cell::text(b.name), low, low_cost, high, high_cost, is]));
    }
    let title = format!("Sensitivity of the cost of {name}");
    Ok(vec![
        paragraph(format!(
            "The cheapest trial, {name}: ${} per million tokens as it is.",
            bare(Quantity::UsdPerMillionTokens, cost)
        )),
        Block::Chart(charts::chart(charts::tornado::tornado(title, cost, &bars))?),
        Block::Table(table),
    ])
}
