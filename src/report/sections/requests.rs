//! What requests cost, for kinds of work that read and write so many tokens.

use crate::cost::requests::{by_model, priced, use_cases};
use crate::report::document::{Block, Cell, Column, Row, Table};
use crate::report::facts::Facts;
use crate::report::format::{fixed_usd, plus_minus};
use crate::units::grouped;

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    let models = by_model(facts.run, facts.figures());
    if models.is_empty() {
        return vec![];
    }
    let mut table = Table::new(vec![
        Column::text("model"),
        Column::text("use case"),
        Column::number("input tokens"),
        Column::number("output tokens"),
        Column::number("$ a request"),
        Column::number("±"),
        Column::number("$ a thousand requests"),
        Column::number("$/M tokens, blended"),
    ]);
    for m in &models {
        for (i, case) in use_cases(&facts.run.environment.price.use_cases).iter().enumerate() {
            let Some(p) = priced(case, &m.input.1, &m.output.1) else { continue };
            let usd = |x: f64| Cell::number(fixed_usd(x), x);
            table.rows.push(Row::new(vec![
                Cell::text(if i == 0 { m.model } else { "" }),
                Cell::text(&case.name),
                Cell::number(grouped(case.input_tokens), case.input_tokens as f64),
                Cell::number(grouped(case.output_tokens), case.output_tokens as f64),
                usd(p.request.value),
                Cell::text(plus_minus(Some(p.request))),
                usd(p.request.value * 1000.0),
                usd(p.blended.value),
            ]));
        }
    }
    table.caption = "Each model by its cheapest input and its cheapest output tokens (quoted price over measured throughput). Tokens of \
                     a use case are conventions; edit them in the scenario (price.use_cases). The context of a trial may be shorter \
                     than a use case's, and longer contexts cost more."
        .into();
    vec![Block::Table(table)]
}
