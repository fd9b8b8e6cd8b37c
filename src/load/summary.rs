//! What a window of load comes to. Pure.
//!
//! Latencies are of the requests that were due in the window, whenever they were answered. Rates are of the window's time: of a request
//! that was under way at one of its ends the part that falls into it, with its tokens spread over its time, so that no rate depends on
//! how many requests happen to end before the window does, nor on where in their course they are.

use super::record::Record;
use super::served::{Intervals, Latency, Own, Served};
use super::spec::Slo;
use crate::stats::{quantile, quantile_interval};

/// From when to when, on the generator's clock.
pub(crate) type Window = (f64, f64);

/// Of records, those of a window and the rates in it. `None` where no request that was due in it was answered.
pub fn served(records: &[Record], window: Window, slo: &Slo) -> Option<Served> {
    let seconds = window.1 - window.0;
    let due: Vec<&Record> = records.iter().filter(|r| r.due >= window.0 && r.due < window.1).collect();
    let answered: Vec<&Record> = due.iter().copied().filter(|r| r.is_answered()).collect();
    if answered.is_empty() || seconds <= 0.0 {
        return None;
    }
    let each = |of: fn(&Record) -> Option<f64>| latency(&answered.iter().filter_map(|r| of(r)).collect::<Vec<_>>());
    let gaps: Vec<f64> = answered.iter().flat_map(|r| r.gaps.iter().copied()).collect();
    let rate = |of: &dyn Fn(&Record) -> f64| records.iter().filter(|r| r.is_answered()).map(of).sum::<f64>() / seconds;
    let completed = answered.len() as u64;
    let own = own(&due, &answered, seconds);
    let own = Own {
        input_tokens_per_second: rate(&|r| r.input_tokens as f64 * within(r.due, r.last, window)),
        goodput: (!slo.is_none()).then(|| rate(&|r| if keeps(r, slo) { within(r.due, r.last, window) } else { 0.0 })),
        slo_share: (!slo.is_none()).then(|| share(&due, |r| keeps(r, slo))),
        ..own
    };
    Some(Served {
        completed: Some(completed),
        failed: Some(due.len() as u64 - completed),
        requests_per_second: Some(rate(&|r| within(r.due, r.last, window))),
        output_tokens_per_second: Some(rate(&|r| r.output_tokens as f64 * within(r.due, r.last, window))),
        ttft: each(Record::ttft),
        tpot: each(Record::tpot),
        itl: latency(&gaps),
        e2e: each(Record::e2e),
        own: Some(own),
    })
}

fn own(due: &[&Record], answered: &[&Record], seconds: f64) -> Own {
    let sum = |of: &dyn Fn(&Record) -> f64| answered.iter().map(|r| of(r)).sum::<f64>();
    let n = answered.len() as f64;
    let (ttft, e2e) = (sum(&|r| r.ttft().unwrap_or(0.0)), sum(&|r| r.e2e().unwrap_or(0.0)));
    let input = sum(&|r| r.input_tokens as f64);
    let cached: Option<f64> = answered.iter().map(|r| r.cached_tokens.map(|n| n as f64)).sum();
    let mut lateness: Vec<f64> = due.iter().map(|r| (r.sent - r.due).max(0.0)).collect();
    lateness.sort_by(f64::total_cmp);
    let mut own = Own {
        seconds,
        mean_input_tokens: input / n,
        mean_output_tokens: sum(&|r| r.output_tokens as f64) / n,
        first_token_share: if e2e > 0.0 { ttft / e2e } else { 1.0 },
        lateness_p99: quantile(&lateness, 0.99),
        cached_share: cached.filter(|_| input > 0.0).map(|c| c / input),
        sent_again: due.iter().filter(|r| r.sent_again).count() as u64,
        ..Own::default()
    };
    for r in due.iter().filter(|r| !r.is_answered()) {
        *own.failures.entry(r.outcome.in_words()).or_default() += 1;
        if own.first_failure.is_empty() {
            own.first_failure.clone_from(&r.reason);
        }
    }
    own
}

/// Whether a request kept to every bound; one that was not answered did not.
fn keeps(r: &Record, slo: &Slo) -> bool {
    let within = |x: Option<f64>, most: Option<f64>| most.is_none_or(|most| x.is_some_and(|x| x <= most));
    // Of an answer of one token there is no time per token that could be too long.
    let tpot = r.tpot().or(Some(0.0));
    r.is_answered() && within(r.ttft(), slo.ttft) && within(tpot, slo.tpot) && within(r.e2e(), slo.e2e)
}

fn share(of: &[&Record], holds: impl Fn(&Record) -> bool) -> f64 {
    of.iter().filter(|r| holds(r)).count() as f64 / of.len() as f64
}

/// The share of the time between two moments that falls into the window.
fn within(from: f64, to: Option<f64>, window: Window) -> f64 {
    let Some(to) = to else { return 0.0 };
    if to <= from {
        return if from >= window.0 && from < window.1 { 1.0 } else { 0.0 };
    }
    ((to.min(window.1) - from.max(window.0)) / (to - from)).max(0.0)
}

/// Percentiles of samples in the order in which they were taken. A percentile of fewer samples than one beyond it takes is not told.
fn latency(samples: &[f64]) -> Latency {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |p: f64| {
        let enough = (samples.len() as f64) * (1.0 - p) >= 1.0 - 1e-9;
        quantile(&sorted, p).filter(|_| enough || p == 0.5)
    };
    let interval = |p: f64| quantile_interval(samples, p).map(|i| (i.low, i.high));
    Latency {
        p50: at(0.50),
        p90: at(0.90),
        p95: at(0.95),
        p99: at(0.99),
        intervals: Intervals { p50: interval(0.50), p90: interval(0.90), p95: interval(0.95), p99: interval(0.99) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::record::Outcome;

    /// Due at a time, with its first token after `ttft`, its last after `e2e`.
    fn record(due: f64, ttft: f64, e2e: f64, input: u64, output: u64) -> Record {
        Record {
            first: Some(due + ttft),
            last: Some(due + e2e),
            input_tokens: input,
            output_tokens: output,
            outcome: Outcome::Answered,
            ..Record::due(due, due)
        }
    }

    #[test]
    fn rates_are_those_of_the_window_wherever_its_ends_fall() {
        // One after the other, a second each: 0.5 s to the first token, 11 tokens out of 20.
        let all: Vec<Record> = (0..40).map(|i| record(f64::from(i), 0.5, 1.0, 20, 11)).collect();
        for (from, to) in [(5.0, 25.0), (5.25, 25.25), (5.7, 25.7)] {
            let s = served(&all, (from, to), &Slo::default()).unwrap();
            assert_eq!((s.completed, s.failed), (Some(20), Some(0)));
            let own = s.own.unwrap();
            for (found, wanted) in [
                (s.requests_per_second.unwrap(), 1.0),
                (s.output_tokens_per_second.unwrap(), 11.0),
                (own.input_tokens_per_second, 20.0),
                (own.first_token_share, 0.5),
                (s.tpot.p50.unwrap(), 0.05),
            ] {
                assert!((found / wanted - 1.0).abs() < 1e-9, "{from}: {found}, {wanted}");
            }
        }
    }

    #[test]
    fn percentiles_need_samples_and_have_intervals() {
        let few = latency(&[1.0; 19]);
        assert_eq!((few.p50, few.p90, few.p95, few.p99), (Some(1.0), Some(1.0), None, None));
        let samples: Vec<f64> = (0..1000).map(|i| f64::from(i * 619 % 1000 + 1)).collect();
        let many = latency(&samples);
        assert!((many.p99.unwrap() - 990.01).abs() < 1e-9);
        let (low, high) = many.intervals.p99.unwrap();
        assert!(low < 990.0 && high > 990.0 && high <= 1000.0, "{low} {high}");
        // 1 - 0.99^100 = 0.63: the largest of 100 does not bound it from above.
        assert_eq!(latency(&samples[..100]).intervals.p99, None);
        assert!(latency(&samples[..100]).p99.is_some());
    }

    #[test]
    fn a_good_request_keeps_to_every_bound_and_one_that_failed_to_none() {
        let slo = Slo { ttft: Some(0.5), tpot: Some(0.1), e2e: None, share: 0.9 };
        let good = record(0.0, 0.5, 1.0, 5, 6);
        let slow_start = record(0.0, 0.6, 0.7, 5, 6);
        let slow_tokens = record(0.0, 0.5, 1.1, 5, 6);
        let short = record(0.0, 0.4, 9.0, 5, 1);
        let failed = Record { outcome: Outcome::Status(429), reason: "429".into(), ..record(0.0, 0.1, 0.2, 5, 6) };
        let all = [good, slow_start, slow_tokens, short, failed];
        let s = served(&all, (0.0, 10.0), &slo).unwrap();
        let own = s.own.unwrap();
        assert_eq!((s.failed, own.slo_share, own.goodput), (Some(1), Some(0.4), Some(0.2)));
        assert_eq!(own.failures.get("status 429"), Some(&1));
        assert_eq!(served(&all[4..], (0.0, 10.0), &slo), None);
    }

    #[test]
    fn what_the_client_was_late_is_told() {
        let mut late = record(0.0, 0.1, 0.2, 1, 1);
        late.sent = 0.05;
        let own = served(&[late], (0.0, 1.0), &Slo::default()).unwrap().own.unwrap();
        assert_eq!(own.lateness_p99, Some(0.05));
    }
}
