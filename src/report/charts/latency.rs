//! Cost against latency, with what nothing beats in both marked.

use super::Drawn;
use super::plot::{Axis, Join, Mark, Panel, Plot, Series, extents};
use super::scale::Scale;
use super::series::tick;
use crate::comparison::pareto::front;
use crate::cost::metric::Metric;
use crate::cost::metrics::{STEP_P50, TPOT, TTFT, USD_PER_MILLION};
use crate::report::facts::Facts;
use crate::transformer::Phase;

pub(super) fn figures(facts: &Facts) -> Vec<Drawn> {
    Phase::ALL.iter().filter_map(|phase| of_phase(facts, *phase)).collect()
}

/// What a user waits for in this phase.
pub(super) fn latency(phase: Phase) -> (&'static Metric, &'static str) {
    match phase {
        Phase::Train => (&STEP_P50, "median step, seconds"),
        Phase::Prefill => (&TTFT, "time to first token, seconds"),
        Phase::Decode | Phase::Generate => (&TPOT, "time per output token, seconds"),
    }
}

/// More models than this share one front: their marks could not be told apart.
const MOST_MODELS: usize = 6;

/// The cell's name; within one model, without what makes the model.
fn short_name(facts: &Facts, record: usize, model: &str) -> String {
    if model.is_empty() {
        return facts.name(record);
    }
    let shape: Vec<&str> = facts.varied.iter().map(|v| v.path.as_str()).filter(|p| p.starts_with("model.")).collect();
    facts.name_without(record, &shape)
}

fn of_phase(facts: &Facts, phase: Phase) -> Option<Drawn> {
    let (metric, waited) = latency(phase);
    let of_this = |i: &usize| facts.records()[*i].cell.trial.workload.phase == phase;
    let known: Vec<_> = facts
        .measured()
        .into_iter()
        .filter(of_this)
        .filter_map(|i| Some((i, facts.get(i, metric)?, facts.get(i, &USD_PER_MILLION)?)))
        .collect();
    if known.len() < 3 {
        return None;
    }
    // Models of different size are different goods: a front for each, as long as they can be told apart.
    let model = |k: usize| facts.records()[known[k].0].cell.trial.model.as_str();
    let mut models: Vec<&str> = Vec::new();
    (0..known.len()).for_each(|k| {
        if !models.contains(&model(k)) {
            models.push(model(k))
        }
    });
    let groups: Vec<(String, Vec<usize>)> = if (2..=MOST_MODELS).contains(&models.len()) {
        let of = |m: &&str| (m.to_string(), (0..known.len()).filter(|k| model(*k) == *m).collect());
        models.iter().map(of).collect()
    } else {
        vec![(String::new(), (0..known.len()).collect())]
    };
    let mut series = Vec::new();
    let mut on_front = 0;
    for (look, (name, members)) in groups.iter().enumerate() {
        let best = front(&members.iter().map(|&k| (known[k].1.value, known[k].2.value)).collect::<Vec<_>>());
        on_front += best.len();
        let mark = |at: usize, filled: bool| {
            let (i, t, usd) = known[members[at]];
            let disturbed = if facts.disturbed(i) { " (disturbed)" } else { "" };
            let note = if filled { short_name(facts, i, name) + disturbed } else { String::new() };
            Mark { x: t, y: usd, filled, note }
        };
        let beaten = (0..members.len()).filter(|at| !best.contains(at)).map(|at| mark(at, false)).collect();
        let label = if name.is_empty() { "Pareto front".into() } else { format!("{name}, front") };
        series.push(Series { label: String::new(), marks: beaten, line: Join::None, look });
        let front = best.iter().map(|&at| mark(at, true)).collect();
        series.push(Series { label, marks: front, line: Join::Dashed, look });
    }
    let x = Axis { name: waited.into(), scale: Scale::measured(&extents(&series, |m| &m.x), tick(metric)) };
    let y = Axis {
        name: USD_PER_MILLION.unit.into(),
        scale: Scale::measured(&extents(&series, |m| &m.y), tick(&USD_PER_MILLION)),
    };
    let title = format!("Cost against latency in {phase}");
    Some(Drawn {
        name: format!("cost-against-latency-{phase}"),
        alt: format!("{title}: {} configurations, {} of them on the Pareto front", known.len(), on_front),
        caption:
            "Lower and further left is better. Nothing beats a filled mark in both; every hollow one is beaten by some \
                  filled one. Models of different size are different goods: compare within one."
                .into(),
        plot: Plot { title, panels: vec![Panel { x, y, series, reference: None, bars: vec![], height: 400 }] },
    })
}
