//! Cost against latency over several runs, with what nothing beats in both marked.

use super::Drawn;
use super::latency::latency;
use super::plot::{Axis, Join, Mark, Panel, Plot, Series, extents};
use super::scale::Scale;
use super::series::tick;
use crate::comparison::pareto::front;
use crate::cost::metrics::USD_PER_MILLION;
use crate::report::facts::Facts;
use crate::transformer::Phase;

/// A picture for each phase of which three trials are known.
pub(crate) fn figures(labels: &[String], runs: &[Facts]) -> Vec<Drawn> {
    Phase::ALL.iter().filter_map(|phase| of_phase(labels, runs, *phase)).collect()
}

fn of_phase(labels: &[String], runs: &[Facts], phase: Phase) -> Option<Drawn> {
    let (metric, waited) = latency(phase);
    let known: Vec<_> = runs
        .iter()
        .enumerate()
        .flat_map(|(r, facts)| facts.measured().into_iter().map(move |i| (r, facts, i)))
        .filter(|(_, facts, i)| facts.records()[*i].cell.trial.workload.phase == phase)
        .filter_map(|(r, facts, i)| Some((r, facts.name(i), facts.get(i, metric)?, facts.get(i, &USD_PER_MILLION)?)))
        .collect();
    if known.len() < 3 {
        return None;
    }
    let best = front(&known.iter().map(|(_, _, t, usd)| (t.value, usd.value)).collect::<Vec<_>>());
    let mark = |k: usize, filled: bool| {
        let (_, name, t, usd) = &known[k];
        Mark { x: *t, y: *usd, filled, note: if filled { name.clone() } else { String::new() } }
    };
    let line = Series {
        label: String::new(),
        marks: best.iter().map(|k| mark(*k, true)).collect(),
        line: Join::Dashed,
        look: 7,
    };
    let mut series = vec![line];
    series[0].marks.iter_mut().for_each(|m| m.note.clear());
    for (r, label) in labels.iter().enumerate() {
        let mine = (0..known.len()).filter(|k| known[*k].0 == r);
        let mut marks: Vec<Mark> = mine.map(|k| mark(k, best.contains(&k))).collect();
        marks.sort_by(|a, b| a.x.value.total_cmp(&b.x.value));
        series.push(Series { label: label.clone(), marks, line: Join::None, look: r });
    }
    let x = Axis { name: waited.into(), scale: Scale::measured(&extents(&series, |m| &m.x), tick(metric)) };
    let y = Axis {
        name: USD_PER_MILLION.unit.into(),
        scale: Scale::measured(&extents(&series, |m| &m.y), tick(&USD_PER_MILLION)),
    };
    let title = format!("Cost against latency in {phase}");
    Some(Drawn {
        name: format!("cost-against-latency-{phase}"),
        alt: format!("{title}: {} trials of {} runs, {} of them on the Pareto front", known.len(), labels.len(), best.len()),
        caption: "Lower and further left is better. Nothing of any run beats a filled mark in both (the Pareto front, dashed); \
                  every hollow one is beaten by some filled one. Models of different size are different goods."
            .into(),
        plot: Plot { title, panels: vec![Panel { x, y, series, reference: None, bars: vec![], height: 420 }] },
    })
}
