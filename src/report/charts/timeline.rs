//! A figure over commits, with its changes marked.

use super::Drawn;
use super::plot::{Axis, Join, Mark, Panel, Plot, Series, extents};
use super::scale::Scale;
use super::series::tick;
use super::style::MOST_SERIES;
use crate::comparison::timeline::{Change, Line, Point};
use crate::cost::metric::{Estimate, Metric};

/// The picture of one figure; the commits are the names of the runs.
pub(crate) fn timeline(
    name: &str,
    title: &str,
    metric: &'static Metric,
    of: fn(&Point) -> Option<Estimate>,
    lines: &[Line],
    changes: &[Change],
    commits: &[String],
) -> Option<Drawn> {
    let mut series = Vec::new();
    for (look, line) in lines.iter().take(MOST_SERIES).enumerate() {
        let marks: Vec<Mark> = line
            .points
            .iter()
            .filter_map(|p| {
                let change = changes.iter().find(|c| c.cell == line.cell && c.run == p.run);
                let note = change.map_or(String::new(), |c| format!("{:+.1} %", (c.ratio - 1.0) * 100.0));
                Some(Mark { x: Estimate::exact(p.run as f64)?, y: of(p)?, filled: change.is_some(), note })
            })
            .collect();
        if !marks.is_empty() {
            series.push(Series { label: line.cell.clone(), marks, line: Join::Joined, look });
        }
    }
    if series.is_empty() {
        return None;
    }
    // As many names as stand beside each other.
    let every = commits.len().div_ceil(8).max(1);
    let shown =
        |i: usize, c: &String| if i.is_multiple_of(every) { c.chars().take(8).collect() } else { String::new() };
    let x = Axis {
        name: "commit".into(),
        scale: Scale::names(commits.iter().enumerate().map(|(i, c)| shown(i, c)).collect()),
    };
    let scale = if metric.unit == "bytes" { Scale::measured_bytes } else { Scale::measured };
    let y = Axis { name: metric.unit.into(), scale: scale(&extents(&series, |m| &m.y), tick(metric)) };
    let more = if lines.len() > MOST_SERIES {
        format!(" The first {MOST_SERIES} of {} cells are shown.", lines.len())
    } else {
        String::new()
    };
    Some(Drawn {
        name: name.into(),
        alt: format!("{title}: {} cells over {} runs, {} changes", series.len(), commits.len(), changes.len()),
        caption: format!(
            "Each mark is a run. Filled, with a percentage: from here on the level is another one (rank-based change point, error \
             rate 1 % a line), by so much. Intervals of single runs are drawn where they are wider than the mark.{more}"
        ),
        plot: Plot {
            title: title.into(),
            panels: vec![Panel { x, y, series, reference: None, bars: vec![], height: 380 }],
        },
    })
}
