//! One device against several: throughput of each, speed-up and efficiency beside it.

use super::Drawn;
use super::plot::{Axis, Join, Mark, Panel, Plot, Series, extents};
use super::scale::Scale;
use super::series::{HOLLOW, tick};
use crate::comparison::scaling::{self, scaling};
use crate::cost::metric::Estimate;
use crate::cost::metrics::TOKENS_PER_SECOND;
use crate::report::facts::Facts;
use crate::units::{Share, significant};

/// Lines that fit into one picture.
const MOST: usize = 16;

pub(super) fn figures(facts: &Facts) -> Vec<Drawn> {
    let all = scaling(facts.run, facts.figures());
    if all.is_empty() {
        return vec![];
    }
    let shown: Vec<&scaling::Series> = all.iter().take(MOST).collect();
    let names: Vec<String> = shown.iter().rev().map(|s| facts.name_of_series(s)).collect();
    let mut counts: Vec<u32> = shown.iter().flat_map(|s| s.points.iter().map(|p| p.devices)).collect();
    counts.sort_unstable();
    counts.dedup();
    let series: Vec<Series> = counts.iter().enumerate().map(|(look, n)| of_count(facts, &shown, *n, look)).collect();
    // Room at the right for the words beside the marks.
    let mut extent = extents(&series, |m| &m.x);
    extent.push(extent.iter().copied().fold(0.0, f64::max) * 1.3);
    let x = Axis {
        name: "tokens/s, all devices together".into(),
        scale: Scale::measured(&extent, tick(&TOKENS_PER_SECOND)),
    };
    let y = Axis { name: String::new(), scale: Scale::names(names) };
    let height = 90 + 30 * shown.len() as u32;
    let title = "One device against several".to_string();
    let more = if all.len() > MOST { format!(" The first {MOST} of {} are shown.", all.len()) } else { String::new() };
    let hollow = if series.iter().flat_map(|s| &s.marks).any(|m| !m.filled) { HOLLOW } else { "" };
    vec![Drawn {
        name: "devices".into(),
        alt: format!("{title}: throughput of {} configurations by number of devices", shown.len()),
        caption: format!(
            "Beside each mark: the speed-up over one device, and the efficiency (speed-up over number of devices; 100 % is \
             perfect). The work is the same, so this is strong scaling.{more}{hollow}"
        ),
        plot: Plot {
            title,
            panels: vec![Panel { x, y, series, reference: None, bars: vec![], height: height.max(170) }],
        },
    }]
}

/// The marks of one number of devices, over all configurations.
fn of_count(facts: &Facts, shown: &[&scaling::Series], devices: u32, look: usize) -> Series {
    let marks = shown.iter().rev().enumerate().filter_map(|(row, s)| {
        let p = s.points.iter().find(|p| p.devices == devices)?;
        let note = if devices == 1 {
            String::new()
        } else {
            format!("{}x, {}", significant(p.speedup.value, 3), Share(p.efficiency.value))
        };
        let filled = !facts.disturbed(p.record);
        Some(Mark { note, filled, ..Mark::at(p.throughput, Estimate::exact(row as f64)?) })
    });
    let label = if devices == 1 { "1 device".into() } else { format!("{devices} devices") };
    Series { label, marks: marks.collect(), line: Join::None, look }
}
