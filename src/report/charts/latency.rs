//! Cost against latency, with what nothing beats in both marked.

use super::Drawn;
use super::plot::{Axis, Line, Mark, Panel, Plot, Series, extents};
use super::scale::Scale;
use super::series::tick;
use crate::comparison::pareto::front;
use crate::cost::metric::Metric;
use crate::cost::metrics::{STEP_P50, TPOT, TTFT, USD_PER_MILLION};
use crate::report::facts::Facts;
use crate::transformer::Phase;

pub fn figures(facts: &Facts) -> Vec<Drawn> {
    Phase::ALL.iter().filter_map(|phase| of_phase(facts, *phase)).collect()
}

/// What a user waits for in this phase.
fn latency(phase: Phase) -> (&'static Metric, &'static str) {
    match phase {
        Phase::Train => (&STEP_P50, "median step, seconds"),
        Phase::Prefill => (&TTFT, "time to first token, seconds"),
        Phase::Decode | Phase::Generate => (&TPOT, "time per output token, seconds"),
    }
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
    let best = front(&known.iter().map(|(_, t, usd)| (t.value, usd.value)).collect::<Vec<_>>());
    let mark = |k: usize, filled: bool| {
        let (i, t, usd) = known[k];
        Mark { x: t, y: usd, filled, note: if filled { facts.name(i) } else { String::new() } }
    };
    let beaten = (0..known.len()).filter(|k| !best.contains(k)).map(|k| mark(k, false)).collect();
    let series = vec![
        Series { label: "beaten in both".into(), marks: beaten, line: Line::None, look: 7 },
        Series {
            label: "Pareto front".into(),
            marks: best.iter().map(|&k| mark(k, true)).collect(),
            line: Line::Dashed,
            look: 0,
        },
    ];
    let series: Vec<Series> = series.into_iter().filter(|s| !s.marks.is_empty()).collect();
    let x = Axis { name: waited.into(), scale: Scale::measured(&extents(&series, |m| &m.x), tick(metric)) };
    let y = Axis {
        name: USD_PER_MILLION.unit.into(),
        scale: Scale::measured(&extents(&series, |m| &m.y), tick(&USD_PER_MILLION)),
    };
    let title = format!("Cost against latency in {phase}");
    Some(Drawn {
        name: format!("cost-against-latency-{phase}"),
        alt: format!("{title}: {} configurations, {} of them on the Pareto front", known.len(), best.len()),
        caption:
            "Lower and further left is better. Nothing beats a filled mark in both; every hollow one is beaten by some \
                  filled one. Models of different size are different goods: compare within one."
                .into(),
        plot: Plot { title, panels: vec![Panel { x, y, series, reference: None, height: 400 }] },
    })
}
