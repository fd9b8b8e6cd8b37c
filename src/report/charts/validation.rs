//! Predicted against published, by source.

use super::Drawn;
use super::plot::{Axis, Join, Mark, Panel, Plot, Reference, Series, extents};
use super::scale::Scale;
use super::style::MOST_SERIES;
use crate::cost::metric::Estimate;
use crate::projection::published::Quantity;
use crate::units::significant;

/// One published figure with its prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point<'a> {
    pub source: &'a str,
    pub published: f64,
    pub predicted: f64,
}

/// The sources that have a look of their own, the largest first, and whether others are left that share the last one.
fn told_apart<'a>(points: &[Point<'a>]) -> (Vec<&'a str>, bool) {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for p in points {
        match counts.iter_mut().find(|(s, _)| *s == p.source) {
            Some((_, n)) => *n += 1,
            None => counts.push((p.source, 1)),
        }
    }
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let all = counts.len() <= MOST_SERIES;
    let own = if all { counts.len() } else { MOST_SERIES - 1 };
    (counts.into_iter().take(own).map(|(s, _)| s).collect(), !all)
}

fn tick(x: f64) -> String {
    match x {
        x if x >= 1e6 => format!("{}M", significant(x / 1e6, 1)),
        x if x >= 1e3 => format!("{}k", significant(x / 1e3, 1)),
        x => significant(x, 1),
    }
}

/// The picture of one quantity.
pub(crate) fn validation(quantity: Quantity, points: &[Point]) -> Option<Drawn> {
    let (own, others) = told_apart(points);
    let mut names: Vec<&str> = points.iter().map(|p| p.source).collect();
    names.sort_unstable();
    names.dedup();
    let sources = names.len();
    let mark = |p: &&Point| {
        let (x, y) = (Estimate::exact(p.published)?, Estimate::exact(p.predicted)?);
        Some(Mark { filled: false, ..Mark::at(x, y) })
    };
    let mut series: Vec<Series> = own
        .iter()
        .enumerate()
        .map(|(look, source)| {
            let marks: Vec<Mark> = points.iter().filter(|p| p.source == *source).filter_map(|p| mark(&p)).collect();
            Series { label: format!("{source} ({})", marks.len()), marks, line: Join::None, look }
        })
        .collect();
    if others {
        let rest: Vec<Mark> = points.iter().filter(|p| !own.contains(&p.source)).filter_map(|p| mark(&p)).collect();
        let label = format!("other sources ({})", rest.len());
        series.push(Series { label, marks: rest, line: Join::None, look: MOST_SERIES - 1 });
    }
    let mut extent = extents(&series, |m| &m.x);
    extent.extend(extents(&series, |m| &m.y));
    let (least, most) = extent.iter().fold((f64::INFINITY, 0.0f64), |(l, h), v| (l.min(*v), h.max(*v)));
    if series.is_empty() || !(least > 0.0 && most.is_finite()) {
        return None;
    }
    // From below the least to above the most, so that the line crosses the whole panel.
    let (from, to) = (least / 1.15, most * 1.15);
    let name = if quantity.is_memory() { "GB a device" } else { "tokens/s" };
    let axis = |which: &str| Axis { name: format!("{which}, {name}"), scale: Scale::log(&extent, tick) };
    let title = format!("{}: predicted against published", quantity.title());
    Some(Drawn {
        name: format!("validation-{}", quantity.anchor()),
        alt: format!("{title}: {} rows of {sources} sources", points.len()),
        caption: "Each mark is a published measurement; on the dashed line the prediction is exact.".into(),
        plot: Plot {
            title,
            panels: vec![Panel {
                x: axis("published"),
                y: axis("predicted"),
                series,
                reference: Some(Reference {
                    points: vec![(from, from), (to, to)],
                    label: "dashed: predicted = published".into(),
                }),
                bars: vec![],
                height: 460,
            }],
        },
    })
}
