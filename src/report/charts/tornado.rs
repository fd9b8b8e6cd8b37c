//! Sensitivity: how far the cost moves when one thing is different.

use super::Drawn;
use super::plot::{Axis, Bar, Panel, Plot, Reference};
use super::scale::Scale;
use super::series::tick;
use crate::comparison::sensitivity;
use crate::cost::metrics::USD_PER_MILLION;

/// The widest bar stands on top.
pub(crate) fn tornado(title: String, cost: f64, bars: &[sensitivity::Bar]) -> Drawn {
    let mut drawn = Vec::new();
    let mut ends = vec![cost];
    for (i, b) in bars.iter().enumerate() {
        let row = (bars.len() - 1 - i) as f64;
        for (end, look) in [(&b.low, 2), (&b.high, 1)] {
            let Some(e) = end else { continue };
            let look = if e.cost < cost { 2 } else { look };
            drawn.push(Bar { row, from: cost, to: e.cost, look, note: e.value.clone() });
            ends.push(e.cost);
        }
    }
    let (least, most) = ends.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(*x), h.max(*x)));
    let room = (most - least) * 0.22;
    let x = Axis {
        name: USD_PER_MILLION.unit.into(),
        scale: Scale::near(&[least - room, most + room], tick(&USD_PER_MILLION)),
    };
    let names = bars.iter().rev().map(|b| b.name.to_string()).collect();
    let y = Axis { name: String::new(), scale: Scale::names(names) };
    let line = vec![(cost, -0.5), (cost, bars.len() as f64 - 0.5)];
    let alt =
        format!("{title}: {} things varied, the widest is {}", bars.len(), bars.first().map_or("none", |b| b.name));
    Drawn {
        name: "tornado".into(),
        caption: "Each bar varies one thing and leaves the rest: price and utilisation by a fifth either way, throughput over \
                  its 95 % interval, the batch to its neighbours in the sweep (measured). The dashed line is the cost as it is; \
                  the words say what the thing would be."
            .into(),
        alt,
        plot: Plot {
            title,
            panels: vec![Panel {
                x,
                y,
                series: vec![],
                reference: Some(Reference { points: line, label: String::new() }),
                bars: drawn,
                height: 86 + 40 * bars.len() as u32,
            }],
        },
    }
}
