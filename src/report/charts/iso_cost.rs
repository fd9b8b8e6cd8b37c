//! The same money over sizes and tokens, with the way of the lowest losses.

use super::Drawn;
use super::plot::{Axis, Join, Mark, Panel, Plot, Series, extents};
use super::scale::Scale;
use crate::cost::metric::Estimate;
use crate::projection::law::Point;
use crate::projection::law::answers::money;
use crate::projection::law::curves::Curves;
use crate::projection::law::judged::counted;
use crate::units::significant;

/// A tick without the zeros of its digits: 200k, 1.5M.
fn tick(x: f64) -> String {
    let text = counted(x);
    let (digits, unit) = text.split_at(text.find(char::is_alphabetic).unwrap_or(text.len()));
    let short = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    format!("{short}{unit}")
}

fn at(x: f64, y: f64) -> Option<Mark> {
    Some(Mark::at(Estimate::exact(x)?, Estimate::exact(y)?))
}

/// The picture; `None` where nothing costs anything.
pub(crate) fn iso_cost(points: &[Point], curves: &Curves) -> Option<Drawn> {
    let runs = points.iter().filter_map(|p| Some(Mark { filled: false, ..at(p.parameters, p.tokens)? })).collect();
    let best = curves
        .best
        .iter()
        .filter_map(|b| Some(Mark { note: format!("loss {}", significant(b.loss, 3)), ..at(b.parameters, b.tokens)? }));
    let mut series: Vec<Series> = curves
        .costs
        .iter()
        .enumerate()
        .map(|(i, c)| Series {
            label: money(c.usd),
            marks: c.at.iter().filter_map(|(n, d)| at(*n, *d)).collect(),
            line: Join::Curve,
            look: i + 2,
        })
        .collect();
    if series.is_empty() {
        return None;
    }
    series.push(Series { label: "runs".into(), marks: runs, line: Join::None, look: 0 });
    series.push(Series { label: "lowest loss of a cost".into(), marks: best.collect(), line: Join::Dashed, look: 1 });
    let x = Axis { name: "parameters".into(), scale: Scale::log(&extents(&series, |m| &m.x), tick) };
    let y = Axis { name: "tokens".into(), scale: Scale::log(&extents(&series, |m| &m.y), tick) };
    let title = "What the same money trains: sizes and tokens".to_string();
    Some(Drawn {
        name: "iso-cost".into(),
        alt: format!("{title}: {} costs and {} runs", curves.costs.len(), points.len()),
        caption: "Along a curve every training costs the same. Filled: where on it the law's loss is lowest. Hollow: what was run; the law \
                  is fitted to these, and beyond them it is a projection."
            .into(),
        plot: Plot { title, panels: vec![Panel { x, y, series, reference: None, bars: vec![], height: 460 }] },
    })
}
