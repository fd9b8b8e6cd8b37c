//! Memory measured against memory predicted.

use super::Drawn;
use super::plot::{Axis, Join, Mark, Panel, Plot, Reference, Series, extents};
use super::scale::Scale;
use super::series::tick;
use crate::cost::metrics::{MODEL_MEMORY, PREDICTED_MEMORY};
use crate::report::facts::Facts;
use crate::units::significant;

pub(super) fn figures(facts: &Facts) -> Vec<Drawn> {
    let marks: Vec<Mark> = facts
        .measured()
        .into_iter()
        .filter_map(|i| {
            let (predicted, measured) = (facts.get(i, &PREDICTED_MEMORY)?, facts.get(i, &MODEL_MEMORY)?);
            let ratio = measured.value / predicted.value;
            // Only what is off is worth words.
            let note = if (0.9..=1.1).contains(&ratio) {
                String::new()
            } else {
                format!("{}x: {}", significant(ratio, 3), facts.name(i))
            };
            Some(Mark { note, ..Mark::at(predicted, measured) })
        })
        .collect();
    if marks.is_empty() {
        return vec![];
    }
    let series = vec![Series { label: String::new(), marks, line: Join::None, look: 0 }];
    let mut extent = extents(&series, |m| &m.x);
    extent.extend(extents(&series, |m| &m.y));
    let (least, most) = extent.iter().fold((f64::INFINITY, 0.0f64), |(l, h), v| (l.min(*v), h.max(*v)));
    let axis = |name: &str, metric| Axis { name: name.into(), scale: Scale::bytes(&extent, tick(metric)) };
    let panel = Panel {
        x: axis("predicted from the shape", &PREDICTED_MEMORY),
        y: axis("measured: what the model added to the process", &MODEL_MEMORY),
        series,
        reference: Some(Reference {
            points: vec![(least / 1.2, least / 1.2), (most * 1.2, most * 1.2)],
            label: "dashed: measured = predicted".into(),
        }),
        bars: vec![],
        height: 400,
    };
    let title = "Memory measured against predicted".to_string();
    vec![Drawn {
        name: "memory".into(),
        alt: format!("{title}: {} configurations", panel.series[0].marks.len()),
        caption: "On the dashed line the prediction is exact; marks that are more than 10 % off it carry their factor."
            .into(),
        plot: Plot { title, panels: vec![panel] },
    }]
}
