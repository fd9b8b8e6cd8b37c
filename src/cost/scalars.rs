//! A trial over its steps, for tools that draw such: throughput, loss, memory and the money that is spent.

use super::learning::curve;
use super::metric::Context;
use super::metrics::PEAK_MEMORY;
use crate::results::tensorboard::{Scalar, Scalars};
use crate::runner::learning::learned::Point;
use crate::scenario::learning::Progress;

/// The most points of a tag: neighbouring steps are one where there are more.
const MOST: usize = 1000;

/// What there is to draw of a record, its steps beginning at `started`, in seconds since 1970. Empty for a trial without figures.
pub(crate) fn scalars(c: &Context, started: f64) -> Vec<Scalars> {
    let Some(figures) = c.figures() else { return vec![] };
    let (mut rates, mut spent) = (Vec::new(), Vec::new());
    let (mut steps, mut seconds) = (0u64, 0.0);
    let usd_per_second = c.hour.map(|h| h.get() / 3600.0 / c.price.utilisation.get());
    for some in figures.step_seconds.chunks(figures.step_seconds.len().div_ceil(MOST).max(1)) {
        let took: f64 = some.iter().sum();
        steps += some.len() as u64;
        seconds += took;
        let at = |value: f64| Scalar { step: steps, at: started + seconds, value };
        rates.push(at((figures.tokens_per_step * some.len() as u64) as f64 / took));
        spent.extend(usd_per_second.map(|usd| at(usd * seconds)));
    }
    let last = |value: f64| vec![Scalar { step: steps, at: started + seconds, value }];
    let one = |tag: &'static str, value: Option<f64>| Scalars { tag, points: value.map_or(vec![], last) };
    let all = [
        Scalars { tag: "tokens_per_second", points: rates },
        Scalars { tag: "usd_spent", points: spent },
        one("loss/train", figures.loss.filter(|_| figures.learned.is_empty())),
        one("peak_memory_bytes", (PEAK_MEMORY.compute)(c).map(|e| e.value)),
    ];
    all.into_iter().chain(learnt(c, started)).filter(|s| !s.points.is_empty()).collect()
}

/// Losses and rates of a trial that learnt something: of its first launch, and the validation loss in the median of all.
fn learnt(c: &Context, started: f64) -> Vec<Scalars> {
    let (Some(figures), Some(learning)) = (c.figures(), &c.record.cell.trial.learning) else { return vec![] };
    let Some(first) = figures.learned.first() else { return vec![] };
    let scalar = |p: &Point, value: f64| Scalar { step: p.step, at: started + p.seconds, value };
    let rate = |p: &Point| {
        let at = Progress { step: p.step.saturating_sub(1), seconds: p.seconds };
        scalar(p, f64::from(learning.rate(at, figures.tokens_per_step)))
    };
    vec![
        Scalars { tag: "loss/train", points: first.curve.iter().map(|p| scalar(p, p.loss)).collect() },
        Scalars { tag: "loss/validation", points: curve(&figures.learned).iter().map(|p| scalar(p, p.loss)).collect() },
        Scalars { tag: "learning_rate", points: first.curve.iter().map(rate).collect() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn money_and_steps_run_up_and_many_steps_are_thinned() {
        let mut run = fixture::heads();
        let figures = run.records[0].measurement.figures.as_mut().unwrap();
        figures.step_seconds = vec![0.5; 2500];
        figures.tokens_per_step = 100;
        let all = scalars(&Context::of(&run, &run.records[0], fixture::book()), 1e9);
        let of = |tag: &str| &all.iter().find(|s| s.tag == tag).unwrap().points;
        assert_eq!(of("tokens_per_second").len(), 834);
        assert!(of("tokens_per_second").iter().all(|p| (p.value - 200.0).abs() < 1e-9));
        let last = of("usd_spent").last().unwrap();
        // 1,250 s at 0.0856 USD an hour.
        assert_eq!((last.step, last.at), (2500, 1e9 + 1250.0));
        assert!((last.value - 0.0856 * 1250.0 / 3600.0).abs() < 1e-9, "{}", last.value);
        assert_eq!(of("peak_memory_bytes").len(), 1);
        run.environment.price.usd_per_hour = None;
        let all = scalars(&Context::of(&run, &run.records[0], fixture::book()), 1e9);
        assert!(all.iter().all(|s| s.tag != "usd_spent"));
    }
}
