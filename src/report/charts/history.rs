//! How prices fell over the years.

use super::Drawn;
use super::plot::{Axis, Join, Mark, Panel, Plot, Series, extents};
use super::scale::Scale;
use crate::comparison::decline::{Point, longest_seen};
use crate::cost::metric::Estimate;
use crate::hardware::api::Api;
use crate::units::significant;

fn dollars(x: f64) -> String {
    format!("${}", significant(x, 2))
}

/// Devices in order of their first offer, as many as can be told apart, those with the most offers first.
fn devices<'a>(points: &[Point<'a>]) -> Vec<(&'a str, usize)> {
    let mut all: Vec<(&str, usize)> = Vec::new();
    for p in points {
        let name = p.device.name.as_str();
        match all.iter_mut().find(|(n, _)| *n == name) {
            Some((_, count)) => *count += 1,
            None => all.push((name, 1)),
        }
    }
    let mut most = all.clone();
    most.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    most.truncate(super::style::MOST_SERIES);
    all.retain(|(n, _)| most.iter().any(|(m, _)| m == n));
    all
}

/// The price of a device's hour, offer by offer; and of an hour of a PFLOP/s of its peak.
pub(crate) fn hardware(points: &[Point]) -> Vec<Drawn> {
    type Of = fn(&Point) -> Option<f64>;
    let pictures: [(&str, &str, &str, Of); 2] = [
        ("history-device-hour", "What an hour of a device costs", "USD an hour of one device, on demand", |p| {
            Some(p.usd_per_device_hour)
        }),
        (
            "history-pflops-hour",
            "What an hour of a PFLOP/s costs",
            "USD an hour of 1 PFLOP/s at the datasheet's peak (bf16, else f16, else f32)",
            |p| p.usd_per_pflops_hour,
        ),
    ];
    pictures.into_iter().filter_map(|(name, title, unit, of)| scatter(name, title, unit, points, of)).collect()
}

fn scatter(name: &str, title: &str, unit: &str, points: &[Point], of: fn(&Point) -> Option<f64>) -> Option<Drawn> {
    let shown: Vec<Point> = points.iter().filter(|p| of(p).is_some()).copied().collect();
    let mut series: Vec<Series> = Vec::new();
    for (look, (device, _)) in devices(&shown).into_iter().enumerate() {
        let of_device: Vec<Point> = shown.iter().filter(|p| p.device.name == device).copied().collect();
        let ends = |p: &Point| -> Vec<Mark> {
            let Some(price) = of(p).and_then(Estimate::exact) else { return vec![] };
            let dates = std::iter::once(p.offer.from).chain(p.offer.until);
            dates.filter_map(|d| Some(Mark::at(Estimate::exact(d.years())?, price))).collect()
        };
        let (line, others) = longest_seen(&of_device);
        let hollow = others.iter().flat_map(ends).map(|m| Mark { filled: false, ..m }).collect();
        series.push(Series { label: String::new(), marks: hollow, line: Join::None, look });
        let mut marks: Vec<Mark> = line.iter().flat_map(ends).collect();
        // On the day of a change the old price comes first.
        marks.sort_by(|a, b| a.x.value.total_cmp(&b.x.value).then(b.y.value.total_cmp(&a.y.value)));
        series.push(Series { label: device.to_string(), marks, line: Join::Joined, look });
    }
    if series.is_empty() {
        return None;
    }
    let x = Axis { name: "when it was seen".into(), scale: Scale::years(&extents(&series, |m| &m.x)) };
    let y = Axis { name: unit.into(), scale: Scale::log(&extents(&series, |m| &m.y), dollars) };
    Some(Drawn {
        name: name.into(),
        alt: format!("{title}: {} offers of {} devices over the years", shown.len(), series.len()),
        caption: "Joined: the instance that was seen over the longest time, from its first sighting to its last. Hollow: what \
                  others asked for the same device. Every offer with its source is in the table."
            .into(),
        plot: Plot {
            title: title.into(),
            panels: vec![Panel { x, y, series, reference: None, bars: vec![], height: 440 }],
        },
    })
}

/// What APIs ask for a million tokens, by provider.
pub(crate) fn apis(apis: &[Api]) -> Option<Drawn> {
    let mut series: Vec<Series> = Vec::new();
    for (label, look, of) in
        [("input", 0, (|a: &Api| a.input.get()) as fn(&Api) -> f64), ("output", 1, |a: &Api| a.output.get())]
    {
        let marks = apis.iter().filter_map(|a| {
            let note = if look == 0 { a.model.clone() } else { String::new() };
            let (x, y) = (Estimate::exact(a.date.years())?, Estimate::exact(of(a))?);
            Some(Mark { x, y, filled: !a.unverified && !a.approximate, note })
        });
        let mut marks: Vec<Mark> = marks.collect();
        marks.sort_by(|a, b| a.x.value.total_cmp(&b.x.value));
        series.push(Series { label: label.into(), marks, line: Join::None, look });
    }
    if apis.is_empty() {
        return None;
    }
    let x = Axis { name: "when it was seen".into(), scale: Scale::years(&extents(&series, |m| &m.x)) };
    let y = Axis { name: "USD per million tokens".into(), scale: Scale::log(&extents(&series, |m| &m.y), dollars) };
    let title = "What APIs ask for a million tokens".to_string();
    Some(Drawn {
        name: "history-apis".into(),
        alt: format!("{title}: {} prices of models over the years", apis.len()),
        caption: "Input and output prices of a model stand above each other. Hollow: the price or its date is not confirmed by a \
                  source at hand. These are different models: the newer cheap ones are not the older dear ones."
            .into(),
        plot: Plot { title, panels: vec![Panel { x, y, series, reference: None, bars: vec![], height: 480 }] },
    })
}
