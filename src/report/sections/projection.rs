//! What was measured against what the projection expects of a good engine on this machine.

use crate::comparison::projected::{Compared, projected};
use crate::cost::metric::Quantity;
use crate::projection::calibration::Calibration;
use crate::report::document::{Block, Cell, Column, Row, Table, paragraph};
use crate::report::facts::Facts;
use crate::report::format::with_unit;
use crate::units::significant;

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    let Ok(calibration) = Calibration::built_in() else { return vec![] };
    let all = projected(facts.run, calibration);
    let Some(summary) = summary(facts, &all) else { return vec![] };
    let mut table = Table::new(vec![
        Column::text("configuration"),
        Column::number("step, measured"),
        Column::number("step, projected"),
        Column::number("measured / projected"),
    ]);
    for c in &all {
        let seconds = |s: f64| Cell::number(with_unit(Quantity::Seconds, s), s);
        table.rows.push(Row::new(vec![
            Cell::text(facts.name(c.record)),
            seconds(c.measured_seconds),
            seconds(c.projected_seconds),
            Cell::number(significant(c.ratio(), 3), c.ratio()),
        ]));
    }
    table.caption = format!(
        "Projected: from the shape, the limits that were probed on this machine, and constants that were fitted to published \
         measurements of other engines ({}). Over 1: slower than that.",
        calibration.fitted
    );
    let folded = Block::Folded {
        summary: "Every configuration, measured and projected".into(),
        blocks: vec![Block::Table(table)],
    };
    vec![paragraph(summary), folded]
}

fn summary(facts: &Facts, all: &[Compared]) -> Option<String> {
    let least = all.iter().min_by(|a, b| a.ratio().total_cmp(&b.ratio()))?;
    let most = all.iter().max_by(|a, b| a.ratio().total_cmp(&b.ratio()))?;
    let of = |c: &Compared| format!("{} times ({})", significant(c.ratio(), 3), facts.name(c.record));
    Some(if all.len() == 1 {
        format!("A step took {} the time that is projected for a good engine within this machine's limits.", of(least))
    } else {
        format!(
            "Steps took from {} to {} the time that is projected for a good engine within this machine's limits.",
            of(least),
            of(most)
        )
    })
}
