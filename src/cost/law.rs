//! Runs of a sweep of sizes and tokens as a scaling law takes them: what each launch cost, and the loss that it ended with.

use super::metric::Context;
use crate::hardware::book::Book;
use crate::projection::law::Point;
use crate::results::run::Run;
use crate::transformer::Workload;
use crate::transformer::shape::count;

/// A point for every launch that learnt something; other trials have none. A launch that ended at a target says nothing of how low
/// its loss would have gone, and is as good as any other: it has its tokens and its loss.
pub(crate) fn points(run: &Run, book: &Book) -> Vec<Point> {
    let of = |record| {
        let c = Context::of(run, record, book);
        let parameters = count::parameters(&record.cell.trial.workload.shape).ok();
        let usd = c.hour.map(|h| h.get() / 3600.0 / c.price.utilisation.get());
        let learned = c.figures().map(|f| f.learned.as_slice()).unwrap_or_default();
        let point = move |l: &crate::runner::learning::learned::Learned| Point {
            parameters: parameters.unwrap_or(0) as f64,
            tokens: l.end.tokens as f64,
            loss: l.end.loss,
            usd: usd.map(|u| u * l.end.seconds),
        };
        learned.iter().map(point).filter(|p| p.parameters > 0.0 && p.tokens > 0.0 && p.loss > 0.0).collect::<Vec<_>>()
    };
    run.records.iter().flat_map(of).collect()
}

/// Every size of the run that learnt something, and its workload.
pub(crate) fn workloads(run: &Run) -> impl Iterator<Item = (f64, &Workload)> {
    let learnt = run.records.iter().filter(|r| r.measurement.figures.as_ref().is_some_and(|f| !f.learned.is_empty()));
    let trained = learnt.map(|r| &r.cell.trial.workload);
    trained.filter_map(|w| Some((count::parameters(&w.shape).ok()? as f64, w)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::runner::learning::learned::{self, EndedBy, Learned, Text};

    #[test]
    fn every_launch_is_a_point_at_what_its_training_cost() {
        let mut run = fixture::heads();
        let end = learned::Point { step: 100, tokens: 5000, seconds: 36.0, loss: 3.5 };
        let one = Learned {
            seed: 1,
            ended_by: EndedBy::Tokens,
            text: Text::default(),
            end,
            target: None,
            curve: vec![],
            evaluations: vec![],
            evaluation_seconds: 9.0,
            waited_seconds: 0.0,
            checkpoints: None,
        };
        assert_eq!(points(&run, fixture::book()), []);
        run.records[0].measurement.figures.as_mut().unwrap().learned = vec![one.clone(), Learned { seed: 2, ..one }];
        let found = points(&run, fixture::book());
        assert_eq!(found.len(), 2);
        // 36 s of an hour of 0.0856 USD, evaluations not counted.
        assert!((found[0].usd.unwrap() - 0.000_856).abs() < 1e-9 && found[0].tokens == 5000.0, "{found:?}");
        assert_eq!(workloads(&run).map(|(n, _)| n).collect::<Vec<_>>(), [found[0].parameters]);
    }
}
