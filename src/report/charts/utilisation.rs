//! What tokens cost by how much of the paid time makes them, beside what APIs ask.

use super::Drawn;
use super::plot::{Axis, Join, Mark, Panel, Plot, Series, extents};
use super::scale::Scale;
use super::series::tick;
use crate::cost::metric::Estimate;
use crate::cost::metrics::USD_PER_MILLION;
use crate::units::Share;

/// Points of a curve: from 1 % to always.
const SHARES: [f64; 12] = [0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0];

/// A curve for each machine, a level line for each API's price.
pub(crate) fn utilisation(machines: &[(String, f64)], apis: &[(String, f64)]) -> Option<Drawn> {
    let at = |x: f64, y: f64| Some(Mark::at(Estimate::exact(x)?, Estimate::exact(y)?));
    let mut series = Vec::new();
    for (label, full) in machines {
        let marks = SHARES.iter().filter_map(|s| at(*s, full / s)).collect();
        series.push(Series { label: label.clone(), marks, line: Join::Joined, look: series.len() });
    }
    for (label, asked) in apis {
        let marks = [SHARES[0], SHARES[11]].into_iter().filter_map(|s| at(s, *asked)).collect();
        series.push(Series { label: label.clone(), marks, line: Join::Dashed, look: series.len() });
    }
    if machines.is_empty() || apis.is_empty() {
        return None;
    }
    let x = Axis {
        name: "utilisation: share of the paid time in which tokens are made".into(),
        scale: Scale::log(&SHARES, |x| Share(x).to_string().replace(".0 ", " ")),
    };
    let y = Axis {
        name: USD_PER_MILLION.unit.into(),
        scale: Scale::log(&extents(&series, |m| &m.y), tick(&USD_PER_MILLION)),
    };
    let title = "From which utilisation it is cheaper than an API".to_string();
    Some(Drawn {
        name: "utilisation".into(),
        alt: format!("{title}: {} machines against {} APIs", machines.len(), apis.len()),
        caption:
            "Where a machine's line crosses an API's dashed one, both cost the same; to the right of it the machine is \
                  cheaper. An API's model is another good than the one measured here: compare like with like."
                .into(),
        plot: Plot { title, panels: vec![Panel { x, y, series, reference: None, bars: vec![], height: 420 }] },
    })
}
