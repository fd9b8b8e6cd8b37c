//! Servers whose times are known: what comes back is what they took.

use crate::mock::{Mock, Timing, answer, begin, end, event, text, until};
use crate::support::{load, rules, runtime, target, traffic};
use centime::internal::load::{Arrivals, Client, Dialect, Outcome, Pace, Slo, learn};
use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What was found and what the server took, and by which share they may differ.
type Found = (&'static str, f64, f64, f64);

/// Measures until everything is as near as it has to be, five times at most: a machine that has other things to do wakes nobody in
/// time, and what is wrong is wrong every time.
fn near(measured: impl Fn() -> Vec<Found>) {
    let mut off = Vec::new();
    for _ in 0..5 {
        off = measured();
        off.retain(|(_, found, wanted, share)| (found / wanted - 1.0).abs() > *share);
        if off.is_empty() {
            return;
        }
    }
    panic!("what, found, and what the server took: {off:?}");
}

#[test]
fn times_and_rates_of_a_closed_loop_are_the_servers() {
    let mock = Mock::start(|asked, stream| answer(asked, stream, Timing::ms(1000, 200)));
    near(|| {
        let mut traffic = traffic(Pace::Closed { concurrency: 10 }, 50, 6, 10.0);
        traffic.slo = Slo { ttft: Some(1.5), tpot: Some(0.3), ..Slo::default() };
        let s = load(&target(&mock), traffic, rules(10, 8.0)).served();
        let own = s.own.unwrap();
        assert_eq!((own.mean_input_tokens, own.mean_output_tokens, own.slo_share), (50.0, 6.0, Some(1.0)));
        assert_eq!((s.failed, s.ttft.p99), (Some(0), None), "a 99th percentile takes 100 requests");
        vec![
            ("TTFT", s.ttft.p50.unwrap(), 1.0, 0.01),
            ("p90 TTFT", s.ttft.p90.unwrap(), 1.0, 0.02),
            ("TPOT", s.tpot.p50.unwrap(), 0.2, 0.01),
            ("ITL", s.itl.p50.unwrap(), 0.2, 0.01),
            ("E2E", s.e2e.p50.unwrap(), 2.0, 0.01),
            ("requests a second", s.requests_per_second.unwrap(), 5.0, 0.01),
            ("output tokens a second", s.output_tokens_per_second.unwrap(), 30.0, 0.01),
            ("input tokens a second", own.input_tokens_per_second, 250.0, 0.01),
            ("goodput", own.goodput.unwrap(), 5.0, 0.01),
        ]
    });
}

#[test]
fn tokens_are_counted_by_usage_however_many_come_in_a_chunk() {
    let mock = Mock::start(|asked, stream| answer(asked, stream, Timing { together: 5, ..Timing::ms(1000, 100) }));
    near(|| {
        let pace = Pace::Closed { concurrency: 6 };
        let s = load(&target(&mock), traffic(pace, 50, 11, 10.0), rules(6, 6.0)).served();
        assert_eq!(s.own.unwrap().mean_output_tokens, 11.0);
        vec![
            ("TPOT", s.tpot.p50.unwrap(), 0.1, 0.01),
            ("the time between chunks", s.itl.p50.unwrap(), 0.5, 0.01),
            ("output tokens a second", s.output_tokens_per_second.unwrap(), 33.0, 0.01),
        ]
    });
}

/// A server that does one request at a time, each in `service`; whoever comes meanwhile waits in line.
fn one_at_a_time(service: Duration) -> Mock {
    let free: Mutex<Option<Instant>> = Mutex::new(None);
    Mock::start(move |asked, stream| {
        let done = {
            let mut free = free.lock().unwrap();
            let done = free.map_or(asked.at, |f| f.max(asked.at)) + service;
            *free = Some(done);
            done
        };
        begin(stream)?;
        until(done);
        event(stream, &text(asked, " word"))?;
        end(asked, stream)
    })
}

#[test]
fn an_open_loop_waits_as_long_as_queueing_theory_says() {
    let (service, rate) = (0.1, 6.0);
    // Pollaczek and Khinchine: rho D / (2 (1 - rho)).
    let theory = rate * service * service / (2.0 * (1.0 - rate * service));
    near(|| {
        let mock = one_at_a_time(Duration::from_secs_f64(service));
        let pace = Pace::Open { rate, arrivals: Arrivals::Poisson };
        let loaded = load(&target(&mock), traffic(pace, 50, 1, 10.0), rules(6, 30.0));
        // Lindley 1952: what each has to wait follows from when they came.
        let (mut free, mut wanted, mut waits) = (0.0f64, Vec::new(), Vec::new());
        for r in loaded.records.iter().filter(|r| r.outcome != Outcome::Abandoned) {
            let start = free.max(r.due);
            free = start + service;
            wanted.push(start - r.due);
            waits.push(r.ttft().unwrap() - service);
        }
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        // The interval by the means of ten stretches, t of 9 degrees of freedom.
        let means: Vec<f64> = waits.chunks(waits.len() / 10).take(10).map(mean).collect();
        let error = (means.iter().map(|m| (m - mean(&means)).powi(2)).sum::<f64>() / 90.0).sqrt();
        let off = (mean(&means) - theory).abs() / (2.262 * error);
        vec![
            ("mean wait", service + mean(&waits), service + mean(&wanted), 0.1),
            ("1 + theory's distance in half widths of the interval", 1.0 + off, 1.5, 0.5 / 1.5),
            ("requests", loaded.due().count() as f64 / 30.0, rate, 0.15),
        ]
    });
}

#[test]
fn a_server_that_stalls_cannot_hide_it_from_an_open_loop() {
    near(|| {
        let began: Mutex<Option<Instant>> = Mutex::new(None);
        let mock = Mock::start(move |asked, stream| {
            let origin = *began.lock().unwrap().get_or_insert(asked.at);
            // From the third to the fourth second nothing moves.
            let (from, to) = (origin + Duration::from_secs(3), origin + Duration::from_secs(4));
            let at = if asked.at >= from && asked.at < to { to } else { asked.at };
            begin(stream)?;
            until(at + Duration::from_millis(20));
            event(stream, &text(asked, " word"))?;
            end(asked, stream)
        });
        let pace = Pace::Open { rate: 40.0, arrivals: Arrivals::Constant };
        let loaded = load(&target(&mock), traffic(pace, 50, 1, 10.0), rules(0, 10.0));
        let s = loaded.served();
        // A tenth of the requests wait from 0 to 1 s: half of those for more than half a second.
        vec![
            ("p50: no wait", s.ttft.p50.unwrap(), 0.05, 0.99),
            ("p95", s.ttft.p95.unwrap(), 0.525, 0.143),
            ("p99", s.ttft.p99.unwrap(), 0.925, 0.081),
            ("requests: the schedule went on", loaded.due().count() as f64, 400.0, 0.005),
            ("lateness", s.own.unwrap().lateness_p99.unwrap(), 0.05, 1.0),
        ]
    });
}

#[test]
fn prompts_have_the_length_that_is_asked_for_and_never_begin_alike() {
    let mock = Mock::start(|asked, stream| {
        // This model reasons and knows no ignore_eos.
        if asked.body.get("ignore_eos").is_some() {
            return crate::mock::respond(stream, "400 Bad Request", "", r#"{"error": {"message": "unknown field"}}"#);
        }
        answer(asked, stream, Timing::ms(5, 1))
    });
    let client = Client::new(&target(&mock), None).unwrap();
    let (dialect, sizing) = runtime().block_on(learn(&client, None, 300, 3, Duration::from_secs(5))).unwrap();
    assert_eq!((dialect, sizing.overhead, sizing.per_word), (Dialect::Plain, 10.0, 1.0));
    let loaded = load(&target(&mock), traffic(Pace::Closed { concurrency: 2 }, 300, 3, 10.0), rules(0, 0.5));
    assert!(loaded.due().all(|r| !r.is_answered() || r.input_tokens == 300));
    let prompts = mock.prompts();
    let beginnings: HashSet<Vec<&str>> = prompts.iter().map(|p| p.split(' ').take(6).collect()).collect();
    assert_eq!(beginnings.len(), prompts.len());
}
