//! Every metric of every record, computed once.

use super::metric::{Context, Estimate, Metric};
use super::metrics::METRICS;
use crate::hardware::book::Book;
use crate::results::run::Run;

/// The metrics of one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Figured {
    /// In the order of [`METRICS`].
    values: Vec<Option<Estimate>>,
}

impl Figured {
    /// Computes the whole table for one record.
    pub fn of(context: &Context) -> Self {
        Self { values: METRICS.iter().map(|m| (m.compute)(context)).collect() }
    }

    /// `None` where the metric does not apply or its inputs are missing.
    pub fn get(&self, metric: &Metric) -> Option<Estimate> {
        let index = METRICS.iter().position(|m| m.name == metric.name)?;
        self.values.get(index).copied().flatten()
    }
}

/// The metrics of every record of a run, in the order of its records.
pub fn evaluate(run: &Run, book: &Book) -> Vec<Figured> {
    run.records.iter().map(|record| Figured::of(&Context::of(run, record, book))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::metrics::{
        MBU, MFU, TOKENS_PER_SECOND, TPOT, TTFT, USD_PER_MILLION, USD_PER_MILLION_INPUT, USD_PER_MILLION_OUTPUT,
    };
    use crate::fixture;
    use crate::transformer::Phase;

    #[test]
    fn a_phase_has_the_costs_and_latencies_that_it_measures() {
        let has = |phase: Phase| {
            let run = fixture::phase(phase);
            let figures = evaluate(&run, fixture::book());
            [&USD_PER_MILLION_INPUT, &USD_PER_MILLION_OUTPUT, &TTFT, &TPOT, &MBU]
                .map(|m| figures.iter().all(|f| f.get(m).is_some()))
        };
        assert_eq!(has(Phase::Train), [false, false, false, false, false]);
        assert_eq!(has(Phase::Prefill), [true, false, true, false, false]);
        assert_eq!(has(Phase::Decode), [false, true, false, true, true]);
        assert_eq!(has(Phase::Generate), [true, true, true, true, false]);
    }

    #[test]
    fn input_and_output_of_a_generation_add_up_to_its_hour() {
        let run = fixture::phase(Phase::Generate);
        for (record, figured) in run.records.iter().zip(evaluate(&run, fixture::book())) {
            let w = &record.cell.trial.workload;
            let [input, output, all] = [&USD_PER_MILLION_INPUT, &USD_PER_MILLION_OUTPUT, &USD_PER_MILLION]
                .map(|m| figured.get(m).unwrap().value);
            let (n_in, n_out) = (f64::from(w.prompt_len), f64::from(w.new_tokens));
            let parts = (input * n_in + output * n_out) / (n_in + n_out);
            // The medians of parts do not add up exactly to the median of the whole; with like noise they nearly do.
            assert!((parts / all - 1.0).abs() < 0.02, "{parts} {all}");
        }
    }

    #[test]
    fn the_cost_of_a_known_throughput_is_the_worked_out_one() {
        let mut run = fixture::heads();
        run.records.truncate(1);
        let figures = run.records[0].measurement.figures.as_mut().unwrap();
        figures.step_seconds = vec![0.5; 20];
        figures.tokens_per_step = 1024;
        let figured = &evaluate(&run, fixture::book())[0];
        // 1024 tokens in 0.5 s are 2048 tokens/s; 0.0856 USD / (3600 * 2048) * 1e6 = 0.011610 USD.
        assert_eq!(figured.get(&TOKENS_PER_SECOND).unwrap().value, 2048.0);
        assert!((figured.get(&USD_PER_MILLION).unwrap().value - 0.011_610_243).abs() < 1e-8);
        assert!(figured.get(&MFU).is_some());
    }
}
