//! Throughput and cost against the number of heads: what splitting a width costs.

use super::Drawn;
use super::plot::{Axis, Panel, Plot, extents};
use super::scale::Scale;
use super::series::{left_out, over, tick};
use crate::cost::metric::Metric;
use crate::cost::metrics::{TOKENS_PER_SECOND, USD_PER_MILLION};
use crate::report::facts::Facts;

pub(super) fn figures(facts: &Facts) -> Vec<Drawn> {
    let Some(heads) = facts.varied.iter().find(|v| v.path == "model.n_heads") else { return vec![] };
    let mut note = String::new();
    let mut panel = |metric: &'static Metric| {
        let g = over(facts, heads, metric)?;
        note = left_out(&g);
        let scale = Scale::measured(&extents(&g.series, |m| &m.y), tick(metric));
        let y = Axis { name: metric.unit.into(), scale };
        Some(Panel { x: g.x, y, series: g.series, reference: None, bars: vec![], height: 300 })
    };
    let panels: Vec<Panel> = [&TOKENS_PER_SECOND, &USD_PER_MILLION].into_iter().filter_map(&mut panel).collect();
    if panels.is_empty() {
        return vec![];
    }
    let title = "Throughput and cost by number of heads".to_string();
    vec![Drawn {
        name: "head-count".into(),
        alt: format!("{title}: {} head counts", heads.values.len()),
        caption: format!(
            "At one width, parameters and FLOPs stay the same as heads are added: what changes is how well the machine likes \
             the shape.{note}"
        ),
        plot: Plot { title, panels },
    }]
}
