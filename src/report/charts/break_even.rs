//! Prices of an hour as they are, and as they would have to be.

use super::Drawn;
use super::plot::{Axis, Join, Mark, Panel, Plot, Series, extents};
use super::scale::Scale;
use crate::comparison::break_even::BreakEven;
use crate::cost::metric::Estimate;
use crate::units::significant;

/// A row for each pair: the price now, and the price at which both cost the same.
pub(crate) fn break_even(labels: &[String], all: &[BreakEven]) -> Option<Drawn> {
    if all.is_empty() {
        return None;
    }
    let name = |run: usize| labels.get(run).cloned().unwrap_or_default();
    let mark = |i: usize, x: Estimate, note: String| {
        Some(Mark { x, y: Estimate::exact((all.len() - 1 - i) as f64)?, filled: true, note })
    };
    let now = all.iter().enumerate().filter_map(|(i, b)| mark(i, Estimate::exact(b.price)?, String::new())).collect();
    let even = all.iter().enumerate().filter_map(|(i, b)| {
        let note = format!(
            "${}/h ({:+.0} %)",
            significant(b.break_even.value, 3),
            (b.break_even.value / b.price - 1.0) * 100.0
        );
        mark(i, b.break_even, note)
    });
    let series = vec![
        Series { label: "price now".into(), marks: now, line: Join::None, look: 0 },
        Series { label: "break-even".into(), marks: even.collect(), line: Join::None, look: 1 },
    ];
    let mut extent = extents(&series, |m| &m.x);
    let most = extent.iter().copied().fold(0.0, f64::max);
    extent.push(most * 1.3);
    let x = Axis { name: "USD an hour".into(), scale: Scale::measured(&extent, |x| format!("${}", significant(x, 2))) };
    let names = all.iter().rev().map(|b| format!("{} to match {}", name(b.run), name(b.against))).collect();
    let y = Axis { name: String::new(), scale: Scale::names(names) };
    let title = "At which price it would match".to_string();
    Some(Drawn {
        name: "break-even".into(),
        alt: format!("{title}: {} pairs", all.len()),
        caption: "The price of an hour now, and the price at which tokens would cost what the other's do (geometric mean over \
                  the common trials, with its 95 % interval). The cheapest has room to rise; the others would have to fall."
            .into(),
        plot: Plot {
            title,
            panels: vec![Panel { x, y, series, reference: None, bars: vec![], height: 96 + 42 * all.len() as u32 }],
        },
    })
}
