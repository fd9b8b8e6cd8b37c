//! What a million tokens cost along each swept field; tokens a second where there is no price.

use super::Drawn;
use super::plot::{Axis, Panel, Plot, extents};
use super::scale::Scale;
use super::series::{left_out, over, tick};
use crate::cost::metrics::{TOKENS_PER_SECOND, USD_PER_MILLION};
use crate::report::facts::Facts;

pub(super) fn figures(facts: &Facts) -> Vec<Drawn> {
    let priced = facts.any(&USD_PER_MILLION);
    let metric = if priced { &USD_PER_MILLION } else { &TOKENS_PER_SECOND };
    let what = if priced { "Cost of a million tokens" } else { "Throughput" };
    let one = |along| {
        let g = over(facts, along, metric)?;
        let scale = Scale::measured(&extents(&g.series, |m| &m.y), tick(metric));
        let shape = if scale.is_log() { "logarithmic" } else { "from zero" };
        let caption = format!(
            "Bars are 95 % intervals where they are wider than the marks; the vertical axis is {shape}.{}",
            left_out(&g)
        );
        let title = format!("{what} by {}", along.label);
        let y = Axis { name: metric.unit.into(), scale };
        let panel = Panel { x: g.x, y, series: g.series, reference: None, bars: vec![], height: 380 };
        let quantity = if priced { "cost" } else { "throughput" };
        Some(Drawn {
            name: format!("{quantity}-by-{}", along.path.replace(['.', '_'], "-")),
            alt: format!("{title}: {} series over {} values", panel.series.len(), along.values.len()),
            caption,
            plot: Plot { title, panels: vec![panel] },
        })
    };
    facts.varied.iter().filter_map(one).collect()
}
