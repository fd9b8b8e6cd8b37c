//! Tokens a second against batch, by model size: where a larger batch stops paying.

use super::Drawn;
use super::plot::{Axis, Panel, Plot, extents};
use super::scale::Scale;
use super::series::{left_out, over, tick};
use crate::cost::metrics::TOKENS_PER_SECOND;
use crate::report::facts::Facts;

pub(super) fn figures(facts: &Facts) -> Vec<Drawn> {
    let Some(batch) = facts.varied.iter().find(|v| v.path == "batch") else { return vec![] };
    // Without prices the charts along each field show the same.
    let priced = facts.any(&crate::cost::metrics::USD_PER_MILLION);
    let Some(g) = over(facts, batch, &TOKENS_PER_SECOND).filter(|_| priced) else { return vec![] };
    let scale = Scale::measured(&extents(&g.series, |m| &m.y), tick(&TOKENS_PER_SECOND));
    let caption = format!(
        "A line that flattens has reached what the machine gives; from there a larger batch costs latency and memory and saves \
         nothing.{}",
        left_out(&g)
    );
    let title = "Throughput by batch".to_string();
    let y = Axis { name: "tokens/s, all devices together".into(), scale };
    let panel = Panel { x: g.x, y, series: g.series, reference: None, bars: vec![], height: 380 };
    vec![Drawn {
        name: "throughput-by-batch".into(),
        alt: format!("{title}: {} series over {} batches", panel.series.len(), batch.values.len()),
        caption,
        plot: Plot { title, panels: vec![panel] },
    }]
}
