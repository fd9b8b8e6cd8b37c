//! Energy: what a token takes, measured where the processors tell, else at the power that is stated or rated.

use crate::cost::metric::Context;
use crate::cost::metrics::{
    ENERGY_USD_PER_MILLION, GPU_WATTS, JOULES_PER_TOKEN, JOULES_PER_TOKEN_AT_TDP, USD_PER_MILLION, WATTS,
};
use crate::report::document::{Block, Cell, Column, Row, Table};
use crate::report::facts::Facts;
use crate::report::format::{ABSENT, shown};
use crate::units::Share;

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    if !facts.any(&JOULES_PER_TOKEN) && !facts.any(&JOULES_PER_TOKEN_AT_TDP) {
        return vec![];
    }
    let mut table = Table::new(vec![
        Column::text("configuration"),
        Column::number("power"),
        Column::number("J a token"),
        Column::text("is"),
        Column::number("energy, $/M tokens"),
        Column::number("of the cost"),
    ]);
    for i in facts.measured() {
        let measured = facts.get(i, &JOULES_PER_TOKEN);
        let context = Context::of(facts.run, &facts.records()[i], facts.book);
        let Some(joules) = measured.or_else(|| facts.get(i, &JOULES_PER_TOKEN_AT_TDP)) else { continue };
        let (watts, is) =
            match (facts.get(i, &GPU_WATTS), facts.get(i, &WATTS).filter(|_| measured.is_some()), context.watts) {
                (Some(w), ..) => (shown(&GPU_WATTS, Some(w)), "measured (NVML)".to_string()),
                (None, Some(w), _) => (shown(&WATTS, Some(w)), "measured (RAPL)".to_string()),
                (None, None, Some(w)) if w.source == "stated" => {
                    (format!("{} W", w.watts), "projected: at the stated power".into())
                }
                (None, None, Some(w)) => (format!("{} W", w.watts), format!("projected: at the TDP of {}", w.source)),
                (None, None, None) => (ABSENT.into(), String::new()),
            };
        let usd = facts.get(i, &ENERGY_USD_PER_MILLION);
        let share = usd.zip(facts.get(i, &USD_PER_MILLION)).map(|(e, all)| e.value / all.value);
        table.rows.push(Row::new(vec![
            Cell::text(facts.name(i)),
            Cell::text(watts),
            Cell::number(shown(&JOULES_PER_TOKEN, Some(joules)), joules.value),
            Cell::text(is),
            Cell { text: shown(&ENERGY_USD_PER_MILLION, usd), sort: usd.map(|e| e.value) },
            Cell { text: share.map_or(ABSENT.into(), |s| Share(s).to_string()), sort: share },
        ]));
    }
    table.caption = "Energy is a part of the cost of owned hardware and of the rent elsewhere: it is not added to the cost. Counters of \
                     the processors (RAPL) hold everything that ran on the machine, and leave out memory, network and power supplies; \
                     those of GPUs (NVML) hold the cards, memory included, and leave out the host."
        .into();
    vec![Block::Table(table)]
}
