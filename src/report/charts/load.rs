//! What users wait at what throughput, and what tokens cost at what wait, over the loads of a sweep.

use super::Drawn;
use super::plot::{Axis, Join, Mark, Panel, Plot, Series, extents};
use super::scale::Scale;
use super::series::tick;
use crate::cost::metric::Metric;
use crate::cost::metrics::{E2E, OUTPUT_TOKENS_PER_SECOND, TPOT, TTFT, TTFT_P95, USD_PER_MILLION};
use crate::report::facts::Facts;

/// Fields that are load.
const LOADS: [&str; 2] = ["load.rate", "load.concurrency"];

pub(super) fn figures(facts: &Facts) -> Vec<Drawn> {
    let varied = facts.varied.iter().any(|v| LOADS.contains(&v.path.as_str()) && v.values.len() > 1);
    if !varied || !facts.any(&OUTPUT_TOKENS_PER_SECOND) {
        return vec![];
    }
    let panels: Vec<Panel> = [
        (&OUTPUT_TOKENS_PER_SECOND, &[&TTFT, &TTFT_P95][..], "time to first token, seconds"),
        (&OUTPUT_TOKENS_PER_SECOND, &[&TPOT], "time per output token, seconds"),
        (&E2E, &[&USD_PER_MILLION], USD_PER_MILLION.unit),
    ]
    .into_iter()
    .filter_map(|(x, ys, name)| panel(facts, x, ys, name))
    .collect();
    if panels.is_empty() {
        return vec![];
    }
    let title = "Latency and cost over the load".to_string();
    vec![Drawn {
        name: "load".into(),
        alt: format!("{title}: {} configurations", facts.measured().len()),
        caption: "A mark is a load; each line goes from the smallest to the largest. Where throughput no longer grows and the wait does, \
                  the server has what it can take. Dashed: the 95th percentile."
            .into(),
        plot: Plot { title, panels },
    }]
}

/// Lines of rows that differ by their load alone.
fn panel(facts: &Facts, x: &'static Metric, ys: &[&'static Metric], name: &str) -> Option<Panel> {
    let rows = facts.measured();
    let mut names: Vec<String> = Vec::new();
    for &i in &rows {
        let own = facts.name_without(i, &LOADS);
        if !names.contains(&own) {
            names.push(own);
        }
    }
    let mut series = Vec::new();
    for (look, own) in names.iter().enumerate() {
        for (nth, y) in ys.iter().enumerate() {
            let mark = |&i: &usize| {
                let known = (facts.name_without(i, &LOADS) == *own).then(|| facts.get(i, x).zip(facts.get(i, y)))??;
                Some(Mark { filled: nth == 0 && !facts.disturbed(i), ..Mark::at(known.0, known.1) })
            };
            let mut marks: Vec<(Option<f64>, Mark)> =
                rows.iter().filter_map(|i| Some((load(facts, *i), mark(i)?))).collect();
            marks.sort_by(|a, b| a.0.unwrap_or(0.0).total_cmp(&b.0.unwrap_or(0.0)));
            let label = if nth == 0 && names.len() > 1 { own.clone() } else { String::new() };
            let line = if nth == 0 { Join::Joined } else { Join::Dashed };
            series.push(Series { label, marks: marks.into_iter().map(|(_, m)| m).collect(), line, look });
        }
    }
    series.retain(|s| s.marks.len() > 1);
    if series.is_empty() {
        return None;
    }
    let axis = |metric: &'static Metric, name: String, of| Axis {
        name,
        scale: Scale::measured(&extents(&series, of), tick(metric)),
    };
    let across =
        if std::ptr::eq(x, &E2E) { "median request, seconds".into() } else { "output tokens a second".to_string() };
    let y = ys.first()?;
    let (x, y) = (axis(x, across, |m| &m.x), axis(y, name.into(), |m| &m.y));
    Some(Panel { x, y, series, reference: None, bars: vec![], height: 320 })
}

fn load(facts: &Facts, record: usize) -> Option<f64> {
    LOADS.iter().find_map(|path| facts.value(record, path)?.parse().ok())
}
