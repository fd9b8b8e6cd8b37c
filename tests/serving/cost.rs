//! What the client itself costs: 200 streams at a time, 100 tokens a second each, a token an event.

use crate::mock::{Mock, Timing, answer};
use crate::support::{load, rules, target, traffic};
use centime::internal::load::Pace;
use std::time::{Duration, Instant};

/// Seconds that this thread has computed, which has all of the client's connections; the server's threads are others.
fn computed() -> Option<f64> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(told.split_whitespace().next()?.parse::<f64>().ok()? / 1e9)
}

#[test]
fn two_hundred_streams_take_a_part_of_one_core() {
    const STREAMS: u32 = 200;
    const ANSWER: u32 = 100;
    let Some(before) = computed() else {
        eprintln!("skipped: /proc/thread-self/schedstat is not there");
        return;
    };
    let timing = Timing::ms(500, 10);
    let mock = Mock::start(move |asked, stream| answer(asked, stream, timing));
    let began = Instant::now();
    let loaded =
        load(&target(&mock), traffic(Pace::Closed { concurrency: STREAMS }, 64, ANSWER, 20.0), rules(STREAMS, 3.0));
    let (wall, cpu) = (began.elapsed().as_secs_f64(), computed().unwrap() - before);
    let answered: Vec<_> = loaded.records.iter().filter(|r| r.is_answered()).collect();
    let tokens: u64 = answered.iter().map(|r| r.output_tokens).sum();
    let s = loaded.served();
    let whole = (timing.first + timing.each * (ANSWER - 1)).as_secs_f64();
    let mut late: Vec<f64> = answered.iter().map(|r| r.e2e().unwrap() - whole).collect();
    late.sort_by(f64::total_cmp);
    let at = |share: f64| Duration::from_secs_f64(late[(late.len() as f64 * share) as usize].max(0.0));
    eprintln!(
        "{} requests of {ANSWER} tokens, {:.0} tokens/s: {:.1} % of a core, {:.2} ms of CPU a request, {:.1} us a token; \
         answers were whole {:?} after they were due, 99 of 100 within {:?}; p99 lateness {:.2} ms",
        answered.len(),
        s.output_tokens_per_second.unwrap(),
        100.0 * cpu / wall,
        1e3 * cpu / answered.len() as f64,
        1e6 * cpu / tokens as f64,
        at(0.5),
        at(0.99),
        1e3 * s.own.as_ref().unwrap().lateness_p99.unwrap(),
    );
    assert_eq!(s.failed, Some(0));
    // Other programs make it wait; they do not make it compute.
    assert!(cpu / (tokens as f64) < 40e-6, "{cpu} s for {tokens} tokens");
}
