//! One device against several, in figures.

use crate::comparison::scaling::scaling;
use crate::cost::metric::Quantity;
use crate::report::document::{Block, Cell, Column, Row, Table};
use crate::report::facts::Facts;
use crate::report::format::{ABSENT, bare, times};
use crate::units::Share;

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    let all = scaling(facts.run, facts.figures());
    if all.is_empty() {
        return vec![];
    }
    let mut table = Table::new(vec![
        Column::text("configuration"),
        Column::number("devices"),
        Column::number("tokens/s"),
        Column::number("speed-up (95 % CI)"),
        Column::number("efficiency"),
        Column::number("$/M tokens"),
    ]);
    for series in &all {
        for p in &series.points {
            let cost = p.cost.map_or(ABSENT.into(), |c| bare(Quantity::UsdPerMillionTokens, c.value));
            table.rows.push(Row::new(vec![
                Cell::text(facts.name_of_series(series)),
                Cell::number(p.devices.to_string(), f64::from(p.devices)),
                Cell::number(bare(Quantity::TokensPerSecond, p.throughput.value), p.throughput.value),
                Cell::number(if p.devices == 1 { "1".into() } else { times(&p.speedup) }, p.speedup.value),
                Cell::number(Share(p.efficiency.value).to_string(), p.efficiency.value),
                Cell { text: cost, sort: p.cost.map(|c| c.value) },
            ]));
        }
    }
    table.caption =
        "Speed-up and efficiency are against one device with the same total batch (strong scaling). The price is \
                     for everything a trial occupies, stated once; a second device that is idle is paid for as well."
            .into();
    vec![Block::Table(table)]
}
