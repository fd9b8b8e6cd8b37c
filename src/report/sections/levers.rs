//! What each way to need less memory in training costs.

use crate::comparison::levers::{Lever, levers};
use crate::cost::metric::Metric;
use crate::cost::metrics::{LARGEST_BATCH, MODEL_MEMORY, PIPELINE_BUBBLE, PREDICTED_MEMORY, STEP_P50, USD_PER_MILLION};
use crate::report::document::{Block, Cell, Column, Row, Table};
use crate::report::facts::Facts;
use crate::report::format::{ABSENT, shown};
use crate::units::significant;

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    let all = levers(facts.records());
    if all.is_empty() {
        return vec![];
    }
    let staged = all.iter().any(|l| facts.get(l.record, &PIPELINE_BUBBLE).is_some());
    let mut columns = vec![
        Column::text("configuration"),
        Column::number("memory, predicted"),
        Column::number("memory, measured"),
        Column::number("of the usual"),
        Column::number("step"),
        Column::number("of the usual"),
        Column::number("$/M tokens"),
        Column::number("largest batch"),
    ];
    columns.extend(staged.then(|| Column::number("bubble")));
    let mut table = Table::new(columns);
    for Lever { record, usual } in all {
        let cell = |metric: &Metric| {
            let e = facts.get(record, metric);
            Cell { text: shown(metric, e), sort: e.map(|e| e.value) }
        };
        let of_usual = |metric: &Metric| {
            let ratio =
                facts.get(record, metric).zip(facts.get(usual?, metric)).map(|(own, usual)| own.value / usual.value);
            ratio.filter(|r| r.is_finite())
        };
        let ratio = |metric: &Metric| match of_usual(metric) {
            Some(r) => Cell::number(format!("{}x", significant(r, 3)), r),
            None => Cell::text(ABSENT),
        };
        let mut cells = vec![
            Cell::text(facts.name(record)),
            cell(&PREDICTED_MEMORY),
            cell(&MODEL_MEMORY),
            ratio(&MODEL_MEMORY),
            cell(&STEP_P50),
            ratio(&STEP_P50),
            cell(&USD_PER_MILLION),
            cell(&LARGEST_BATCH),
        ];
        cells.extend(staged.then(|| cell(&PIPELINE_BUBBLE)));
        table.rows.push(Row { cells, highlighted: usual == Some(record) });
    }
    table.caption = "Beside each trial that is carried out the usual way (highlighted: the whole batch at once, everything kept, nothing \
                     shared out, no stages, but for what all trials have alike) those that differ from it in that alone. The largest batch \
                     is projected: what would fit into this machine's memory, all else being as it is."
        .into();
    if staged {
        table.caption += " The bubble is projected as well: the share of a step for which a stage waits for others, if all take as long.";
    }
    vec![Block::Table(table)]
}
