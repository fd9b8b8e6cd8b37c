//! What it costs to train each model on as many tokens as the scenario names, at the measured throughput.

use crate::cost::metric::Context;
use crate::cost::metrics::TOKENS_PER_SECOND;
use crate::cost::training::at_throughput;
use crate::report::document::{Block, Cell, Column, Row, Table};
use crate::report::facts::Facts;
use crate::report::format::ABSENT;
use crate::transformer::Phase;
use crate::transformer::shape::count;
use crate::units::{grouped, significant};

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    let price = &facts.run.environment.price;
    let Some(tokens) = price.training_tokens else { return vec![] };
    let mut table = Table::new(vec![
        Column::text("configuration"),
        Column::text("model"),
        Column::number("parameters"),
        Column::number("devices"),
        Column::number("days"),
        Column::number("USD"),
        Column::text("95 % CI"),
    ]);
    for (i, record) in facts.records().iter().enumerate() {
        let trial = &record.cell.trial;
        let Some(rate) = facts.get(i, &TOKENS_PER_SECOND).filter(|_| trial.workload.phase == Phase::Train) else {
            continue;
        };
        let hour = Context::of(facts.run, record, facts.book).hour;
        // Tokens that are made while somebody pays: idle time is paid for, too.
        let at = |r: f64| hour.and_then(|h| at_throughput(tokens, r * price.utilisation.get(), h).ok());
        let days = tokens / rate.value / price.utilisation.get() / 86_400.0;
        let usd = at(rate.value).map(|(_, usd)| usd);
        let ends = rate.interval().and_then(|(low, high)| Some((at(high)?.1, at(low)?.1)));
        let parameters = count::parameters(&trial.workload.shape).ok().filter(|_| trial.states_model());
        table.rows.push(Row::new(vec![
            Cell::text(facts.name(i)),
            Cell::text(&trial.model),
            parameters.map_or(Cell::text(ABSENT), |n| Cell::number(grouped(n), n as f64)),
            Cell::number(trial.devices.to_string(), f64::from(trial.devices)),
            Cell::number(significant(days, 3), days),
            usd.map_or(Cell::text(ABSENT), |u| Cell::number(u.to_string(), u.get())),
            Cell::text(ends.map_or(ABSENT.into(), |(low, high)| format!("{low} .. {high}"))),
        ]));
    }
    if table.rows.is_empty() {
        return vec![];
    }
    table.caption = format!(
        "Projected: {} tokens at the measured throughput, as if it held for all of them; paid by the quoted price.",
        significant(tokens, 3)
    );
    vec![Block::Table(table)]
}
