//! Every chart: the only room with plotters. A figure is a file and a line in [`FIGURES`]; each says what it shows as a
//! [`plot::Plot`], and `draw` alone knows pixels.

pub(super) mod across;
pub(super) mod break_even;
mod cost_by_axis;
pub(super) mod coverage;
mod devices;
mod draw;
mod head_count;
pub(super) mod history;
pub(super) mod iso_cost;
mod latency;
mod learning;
mod legend;
mod load;
mod memory;
mod plot;
mod scale;
mod series;
mod style;
mod throughput_by_batch;
pub(super) mod timeline;
pub(super) mod tornado;
pub(super) mod utilisation;
pub(super) mod validation;
pub(super) mod waterfall;

use super::document::Chart;
use super::facts::Facts;
pub(super) use draw::DrawError;
use plot::Plot;
pub(crate) use series::tick;

/// A plot with its name and the words around it.
pub(super) struct Drawn {
    /// File name without its ending.
    pub name: String,
    /// How to read it.
    pub caption: String,
    /// What it shows, for who cannot see it.
    pub alt: String,
    pub plot: Plot,
}

/// In the order of the report. A figure for which the run has no data is empty.
const FIGURES: &[fn(&Facts) -> Vec<Drawn>] = &[
    learning::figures,
    cost_by_axis::figures,
    throughput_by_batch::figures,
    head_count::figures,
    devices::figures,
    latency::figures,
    load::figures,
    memory::figures,
];

/// How the names of our charts begin: other pictures in the folder are somebody else's.
const NAMES: &[&str] = &[
    "cost-by-",
    "throughput-by-",
    "head-count",
    "load",
    "loss-curves",
    "devices",
    "cost-against-latency-",
    "memory",
    "break-even",
    "utilisation",
    "tornado",
    "waterfall",
    "history-",
    "timeline-",
    "validation-",
    "iso-cost",
];

/// Whether a file of this name (without its ending) is one that a report may have written.
pub(super) fn is_ours(name: &str) -> bool {
    NAMES.iter().any(|n| name.starts_with(n))
}

/// Every chart that the run has data for.
///
/// # Errors
/// The drawing library's.
pub(super) fn charts(facts: &Facts) -> Result<Vec<Chart>, DrawError> {
    FIGURES.iter().flat_map(|figure| figure(facts)).map(chart).collect()
}

/// Draws a chart.
///
/// # Errors
/// The drawing library's.
pub(super) fn chart(d: Drawn) -> Result<Chart, DrawError> {
    let svg = draw::draw(&d.plot, &d.alt)?;
    Ok(Chart { name: d.name, title: d.plot.title, caption: d.caption, alt: d.alt, svg })
}
