//! How the loss fell, over tokens, seconds and USD.

use super::Drawn;
use super::plot::{Axis, Join, Mark, Panel, Plot, Reference, Series, extents};
use super::scale::Scale;
use super::series::{in_common, names, short};
use super::style::MOST_SERIES;
use crate::cost::learning::curve;
use crate::cost::metric::{Context, Estimate};
use crate::cost::metrics::{USD_TO_LOSS, VALIDATION_LOSS};
use crate::report::facts::Facts;
use crate::runner::learning::learned::Point;

/// Seconds and tokens of a point, and what an hour costs: where it stands on an axis.
type Place = fn(&Point, Option<f64>) -> Option<f64>;

/// An axis: its name, how its numbers are written, and where a point stands on it.
type Along = (&'static str, fn(f64) -> String, Place);

const PANELS: [Along; 3] = [
    ("tokens trained on", count, |p, _| Some(p.tokens as f64)),
    ("seconds of training", short, |p, _| Some(p.seconds)),
    ("USD", dollars, |p, hour| Some(p.seconds * hour? / 3600.0)),
];

pub(super) fn figures(facts: &Facts) -> Vec<Drawn> {
    let (cells, all) = cells(facts);
    let (labels, common) = names(facts, &cells, &[]);
    let shown: Vec<(usize, String)> = cells.iter().copied().zip(labels).collect();
    let target = target(facts);
    let panels: Vec<Panel> = PANELS.iter().filter_map(|p| panel(facts, &shown, target, p)).collect();
    if panels.is_empty() {
        return vec![];
    }
    let title = "How the loss fell".to_string();
    let more = if all > cells.len() {
        format!(" Of {all} cells the {} that got furthest for the least are shown; the table has all.", cells.len())
    } else {
        String::new()
    };
    let seeds = "Of several launches, which have a seed each, the median, as far as all of them went.";
    vec![Drawn {
        name: "loss-curves".into(),
        alt: format!("{title}: validation loss of {} cells against tokens, seconds and USD", cells.len()),
        caption: format!(
            "Validation loss after each evaluation but the first, from top to bottom against tokens, seconds and USD; evaluations are no \
             part of either. What is lowest at the left is the better buy. {seeds}{more}{}",
            in_common(&common)
        ),
        plot: Plot { title, panels },
    }]
}

/// The cells that are shown, by what a loss costs, or else by how low it is; and how many there are.
fn cells(facts: &Facts) -> (Vec<usize>, usize) {
    let learned = |i: &usize| facts.records()[*i].measurement.figures.as_ref().is_some_and(|f| !f.learned.is_empty());
    let mut cells: Vec<usize> = facts.measured().into_iter().filter(learned).collect();
    let all = cells.len();
    if all > MOST_SERIES {
        let value = |i: usize, metric| facts.get(i, metric).map_or(f64::INFINITY, |e| e.value);
        let order = |i: &usize| (value(*i, &USD_TO_LOSS), value(*i, &VALIDATION_LOSS));
        cells.sort_by(|a, b| order(a).partial_cmp(&order(b)).unwrap_or(std::cmp::Ordering::Equal));
        cells.truncate(MOST_SERIES);
        cells.sort_unstable();
    }
    (cells, all)
}

/// The loss that all cells are to reach.
fn target(facts: &Facts) -> Option<f64> {
    let of = |i: usize| facts.records()[i].cell.trial.learning.as_ref()?.until.validation_loss;
    let targets: Vec<Option<f64>> = facts.measured().into_iter().map(of).collect();
    let first = targets.first().copied().flatten()?;
    targets.iter().all(|t| *t == Some(first)).then_some(first)
}

fn panel(facts: &Facts, cells: &[(usize, String)], target: Option<f64>, (name, tick, place): &Along) -> Option<Panel> {
    let one = |(look, (i, label)): (usize, &(usize, String))| {
        let record = &facts.records()[*i];
        let context = Context::of(facts.run, record, facts.book);
        let hour = context.hour.map(|h| h.get() / facts.run.environment.price.utilisation.get());
        let points = curve(&record.measurement.figures.as_ref()?.learned);
        let mark = |p: &Point| Some(Mark::at(Estimate::exact(place(p, hour)?)?, Estimate::exact(p.loss)?));
        let marks: Vec<Mark> = points.iter().filter(|p| p.tokens > 0).filter_map(mark).collect();
        let label = if cells.len() > 1 { label.clone() } else { String::new() };
        (!marks.is_empty()).then_some(Series { label, marks, line: Join::ToTheLast, look })
    };
    let series: Vec<Series> = cells.iter().enumerate().filter_map(one).collect();
    if series.is_empty() {
        return None;
    }
    let xs = extents(&series, |m| &m.x);
    let mut losses = extents(&series, |m| &m.y);
    losses.extend(target);
    let scale = Scale::measured(&xs, *tick);
    let reference = target.map(|target| {
        let (from, to) = scale.ends();
        Reference { points: vec![(from, target), (to, target)], label: format!("target {target}") }
    });
    let x = Axis { name: (*name).into(), scale };
    let y = Axis { name: "validation loss, nats a token".into(), scale: Scale::near(&losses, short) };
    Some(Panel { x, y, series, reference, bars: vec![], height: 330 })
}

fn count(x: f64) -> String {
    match x {
        x if x >= 1e9 => format!("{}B", short(x / 1e9)),
        x if x >= 1e6 => format!("{}M", short(x / 1e6)),
        x if x >= 1e3 => format!("{}k", short(x / 1e3)),
        x => short(x),
    }
}

fn dollars(x: f64) -> String {
    format!("${}", short(x))
}
