//! Memory: predicted by category, and measured.

use crate::cost::metric::{Metric, Quantity};
use crate::cost::metrics::{
    MODEL_MEMORY, PEAK_ALLOCATED, PEAK_GPU_ALLOCATED, PEAK_GPU_MEMORY, PEAK_GPU_RESERVED, PEAK_MEMORY, PREDICTED_MEMORY,
};
use crate::report::document::{Block, Cell, Column, Row, Table, paragraph};
use crate::report::facts::Facts;
use crate::report::format::{ABSENT, shown};
use crate::transformer::memory::MemoryParts;
use crate::units::{Bytes, significant};

/// The categories and how they are read.
type Part = (&'static str, fn(&MemoryParts) -> u64);
const PARTS: &[Part] = &[
    ("weights", |m| m.weights_bytes),
    ("gradients", |m| m.gradients_bytes),
    ("optimizer", |m| m.optimizer_bytes),
    ("activations", |m| m.activations_bytes),
    ("KV cache", |m| m.kv_cache_bytes),
    ("workspace", |m| m.workspace_bytes),
];

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    let holds = |part: &&Part| facts.records().iter().any(|r| part.1(&r.measurement.predicted_memory) > 0);
    let parts: Vec<&Part> = PARTS.iter().filter(holds).collect();
    // Of servers elsewhere nothing is predicted and nothing known.
    if parts.is_empty() && !facts.any(&PEAK_MEMORY) {
        return vec![];
    }
    let mut columns = vec![Column::text("configuration")];
    columns.extend(parts.iter().map(|(name, _)| Column::number(*name)));
    columns.extend(
        ["predicted", "allocated", "model, measured", "measured / predicted", "process, peak"].map(Column::number),
    );
    // Of trials on GPUs only: what their memory was asked for, taken for that, and held with all that is beside it.
    let of_gpus: Vec<&Metric> =
        [&PEAK_GPU_ALLOCATED, &PEAK_GPU_RESERVED, &PEAK_GPU_MEMORY].into_iter().filter(|m| facts.any(m)).collect();
    columns.extend(of_gpus.iter().map(|m| Column::number(m.label)));
    let mut table = Table::new(columns);
    for (i, record) in facts.records().iter().enumerate() {
        let mut cells = vec![Cell::text(facts.name(i))];
        // Of another program nothing is predicted.
        let own = record.cell.trial.engine.is_none();
        let part = |of: fn(&MemoryParts) -> u64| bytes(of(&record.measurement.predicted_memory));
        cells.extend(parts.iter().map(|(_, of)| if own { part(*of) } else { Cell::text(ABSENT) }));
        let [predicted, allocated, model, peak] =
            [&PREDICTED_MEMORY, &PEAK_ALLOCATED, &MODEL_MEMORY, &PEAK_MEMORY].map(|m| (m, facts.get(i, m)));
        let ratio = predicted.1.zip(model.1).map(|(p, m)| m.value / p.value);
        for (metric, e) in [predicted, allocated, model] {
            cells.push(Cell { text: shown(metric, e), sort: e.map(|e| e.value) });
        }
        cells.push(Cell { text: ratio.map_or(ABSENT.into(), |r| significant(r, 3)), sort: ratio });
        cells.push(Cell { text: shown(peak.0, peak.1), sort: peak.1.map(|e| e.value) });
        for metric in &of_gpus {
            let e = facts.get(i, metric);
            cells.push(Cell { text: shown(metric, e), sort: e.map(|e| e.value) });
        }
        table.rows.push(Row::new(cells));
    }
    table.caption =
        "The categories are projected: counted from the shape before anything ran. Allocated is the program's own \
                     account; model, measured is the peak of the process less what it took before the model was built, and on \
                     GPUs what their memory pools had given out at the most."
            .into();
    let folded = Block::Folded {
        summary: "Memory by category, predicted and measured".into(),
        blocks: vec![Block::Table(table)],
    };
    vec![paragraph(summary(facts)), folded]
}

fn bytes(n: u64) -> Cell {
    Cell::number(Bytes(n).to_string(), n as f64)
}

fn summary(facts: &Facts) -> String {
    let ratio = |i: usize| Some(facts.get(i, &MODEL_MEMORY)?.value / facts.get(i, &PREDICTED_MEMORY)?.value);
    let ratios: Vec<f64> = facts.measured().into_iter().filter_map(ratio).collect();
    let (least, most) = ratios.iter().fold((f64::INFINITY, 0.0f64), |(l, h), r| (l.min(*r), h.max(*r)));
    let largest = facts.measured().into_iter().filter_map(|i| Some((i, facts.get(i, &PEAK_MEMORY)?)));
    let largest = largest.max_by(|a, b| a.1.value.total_cmp(&b.1.value));
    match largest.filter(|_| !ratios.is_empty()) {
        Some((i, peak)) => format!(
            "The largest process took {} ({}). Models took {} to {} times what was predicted from their shapes.",
            crate::report::format::with_unit(Quantity::Bytes, peak.value),
            facts.name(i),
            significant(least, 3),
            significant(most, 3)
        ),
        None => "What each trial was predicted to take, by category.".into(),
    }
}
