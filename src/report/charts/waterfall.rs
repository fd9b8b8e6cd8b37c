//! From one total to another, part by part.

use super::Drawn;
use super::plot::{Axis, Bar, Panel, Plot};
use super::scale::Scale;

/// One step from a total to the next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    /// What did it: "price: $98.32/h -> $55.04/h".
    pub label: String,
    pub change: f64,
    /// Said beside its bar: "-$0.21".
    pub note: String,
}

/// A total at either end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Total {
    pub label: String,
    pub value: f64,
    pub note: String,
}

/// Colours: totals blue, what makes it less green, what makes it more orange.
const TOTAL: usize = 0;
const LESS: usize = 2;
const MORE: usize = 1;

/// The picture; the steps lead from the first total to the last.
pub(crate) fn waterfall(
    title: String,
    unit: &str,
    tick: fn(f64) -> String,
    ends: [&Total; 2],
    steps: &[Step],
) -> Drawn {
    let rows = steps.len() + 2;
    let row = |i: usize| (rows - 1 - i) as f64;
    let mut bars = vec![Bar { row: row(0), from: 0.0, to: ends[0].value, look: TOTAL, note: ends[0].note.clone() }];
    let mut at = ends[0].value;
    for (i, s) in steps.iter().enumerate() {
        let look = if s.change > 0.0 { MORE } else { LESS };
        bars.push(Bar { row: row(i + 1), from: at, to: at + s.change, look, note: s.note.clone() });
        at += s.change;
    }
    // What rounding leaves between the last step and the total is not a gap.
    bars.push(Bar { row: row(rows - 1), from: 0.0, to: ends[1].value, look: TOTAL, note: ends[1].note.clone() });
    let mut names: Vec<String> = vec![ends[0].label.clone()];
    names.extend(steps.iter().map(|s| s.label.clone()));
    names.push(ends[1].label.clone());
    let alt = format!("{title}: {} steps from {} to {}", steps.len(), ends[0].note, ends[1].note);
    let mut extent: Vec<f64> = bars.iter().flat_map(|b| [b.from, b.to]).collect();
    let (least, most) = extent.iter().fold((0.0f64, 0.0f64), |(l, h), x| (l.min(*x), h.max(*x)));
    // Room for words at both ends.
    extent.push(most + (most - least) * 0.12);
    extent.push(if least < 0.0 { least - (most - least) * 0.12 } else { 0.0 });
    names.reverse();
    let x = Axis { name: unit.into(), scale: Scale::linear(&extent, tick) };
    let y = Axis { name: String::new(), scale: Scale::names(names) };
    let height = 86 + 32 * rows as u32;
    Drawn {
        name: "waterfall".into(),
        caption:
            "Read from top to bottom: each bar begins where the one above it ends. Green makes tokens cheaper, orange \
                  dearer; the parts add up to the change exactly (logarithmic mean Divisia)."
                .into(),
        alt,
        plot: Plot { title, panels: vec![Panel { x, y, series: vec![], reference: None, bars, height }] },
    }
}
