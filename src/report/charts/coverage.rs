//! What bars hold against what they are to hold.

use super::Drawn;
use super::plot::{Axis, Join, Mark, Panel, Plot, Reference, Series};
use super::scale::Scale;
use crate::cost::metric::Estimate;
use crate::units::significant;

/// One group of quantities: nominal share, share of rows inside, and the mean of the sources' shares.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Covered {
    pub name: &'static str,
    pub sources: usize,
    pub points: Vec<(f64, f64, f64)>,
}

fn tick(x: f64) -> String {
    format!("{} %", significant(x, 2))
}

/// Two panels: rows, and sources that count as one each.
pub(crate) fn coverage(all: &[Covered]) -> Option<Drawn> {
    if all.is_empty() {
        return None;
    }
    let panel = |name: &str, of: fn(&(f64, f64, f64)) -> f64| {
        let series = all.iter().enumerate().map(|(look, c)| {
            let mark =
                |p: &(f64, f64, f64)| Some(Mark::at(Estimate::exact(100.0 * p.0)?, Estimate::exact(100.0 * of(p))?));
            let marks = c.points.iter().filter_map(mark).collect();
            Series { label: format!("{} ({} sources)", c.name, c.sources), marks, line: Join::Joined, look }
        });
        let axis = |name: String| Axis { name, scale: Scale::linear(&[0.0, 100.0], tick) };
        Panel {
            x: axis("the bar is to hold".into()),
            y: axis(format!("{name} that it holds")),
            series: series.collect(),
            reference: Some(Reference { points: vec![(0.0, 0.0), (100.0, 100.0)], label: "dashed: as said".into() }),
            bars: vec![],
            height: 320,
        }
    };
    Some(Drawn {
        name: "validation-coverage".into(),
        alt: "Share of rows and of sources inside bars, against the share that the bars are to hold".into(),
        caption: "Above the dashed line bars hold more than they say, below it less; each made without the source whose rows it holds."
            .into(),
        plot: Plot {
            title: "Coverage: nominal against actual".into(),
            panels: vec![panel("rows", |p| p.1), panel("share of a source's rows, mean over sources,", |p| p.2)],
        },
    })
}
