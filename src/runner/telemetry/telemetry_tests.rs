//! A scripted NVML drives the sampler and the summary.

use super::sampler::Sampler;
use super::scripted::Script;
use super::summary::{Steps, summarise};
use super::{Heard, Telemetry};
use crate::hardware::gpu::{Gpu, Reading, Reason};
use crate::runner::clock::Monotonic;
use std::time::Duration;

/// `script` read once every 100 ms, twice before steps of 10 ms that take a second from 0.25 s on.
fn told(script: &str, devices: u32) -> Telemetry {
    let sensors = Script::named(script).unwrap().sensors(devices).unwrap();
    let mut heard: Vec<Heard> =
        (0..devices).map(|i| Heard { gpu: sensors.describe(i).unwrap(), ..Heard::default() }).collect();
    for turn in 0..14 {
        let now = f64::from(turn) / 10.0;
        for h in heard.iter_mut().filter(|h| h.lost.is_none()) {
            match sensors.read(h.gpu.index) {
                Ok(reading) => h.readings.push((now, reading)),
                Err(e) => h.lost = Some((now, e.to_string())),
            }
            h.process_bytes = sensors.process_bytes(h.gpu.index).unwrap();
        }
    }
    let (starts, seconds) = steps(0.25, 0.01, 100);
    summarise(&heard, Steps { starts: &starts, seconds: &seconds })
}

fn steps(from: f64, each: f64, count: usize) -> (Vec<f64>, Vec<f64>) {
    ((0..count).map(|i| from + each * i as f64).collect(), vec![each; count])
}

fn close(a: Option<f64>, b: f64) -> bool {
    a.is_some_and(|a| (a - b).abs() < 1e-9 * b.abs().max(1.0))
}

#[test]
fn a_steady_gpu_gives_clocks_power_energy_and_memory_of_the_measured_time() {
    let t = told("steady", 2);
    assert_eq!((t.gpus.len(), t.throttled_steps, t.notes.len()), (2, 0, 0), "{t:?}");
    let g = &t.gpus[1];
    assert_eq!(g.samples, 10, "from 0.3 to 1.2 s");
    assert!(close(g.mean_sm_mhz, 1980.0) && close(g.p10_sm_mhz, 1980.0) && close(g.clock_share(), 1.0));
    // From the reading at 0.2 s to that at 1.3 s.
    assert!(close(g.joules, 550.0) && close(g.mean_watts, 500.0), "{g:?}");
    assert_eq!(g.max_celsius, Some(69));
    assert_eq!((g.peak_used_bytes, g.peak_process_bytes), (Some(15 << 30), Some(9 << 30)));
    assert_eq!((g.throttled_share, g.reasons.len(), g.throttled(), g.slow()), (Some(0.0), 0, false, false));
    assert!(close(t.watts(), 1000.0));
    assert_eq!(t.peak_bytes(), Some(9 << 30));
}

#[test]
fn steps_in_throttled_readings_are_counted_and_the_reason_is_named() {
    let t = told("capped", 1);
    let g = &t.gpus[0];
    assert_eq!((g.reasons_in_words().as_str(), g.throttled_share), ("power cap", Some(0.5)));
    assert!(close(g.mean_sm_mhz, 1485.0) && close(g.p10_sm_mhz, 990.0) && !g.slow(), "{g:?}");
    // Readings at 0.3, 0.5, ... 1.1 s and, after the end, 1.3 s (from 1.25 s on); each stands for 50 ms before and after it.
    assert!((50..=56).contains(&t.throttled_steps), "{}", t.throttled_steps);
}

#[test]
fn a_low_clock_counts_without_a_reason() {
    let g = &told("slow", 1).gpus[0];
    assert!(g.slow() && !g.throttled() && close(g.clock_share(), 0.5));
}

#[test]
fn a_gpu_that_is_lost_keeps_what_it_told_before() {
    let t = told("lost", 1);
    assert!(close(t.gpus[0].lost_after_seconds, 0.3));
    assert_eq!(t.gpus[0].samples, 1, "the reading before the steps stands for them");
    assert!(t.notes[0].contains("was lost") && t.notes[0].contains("0.3 s into the trial"), "{:?}", t.notes);
}

#[test]
fn what_a_virtual_gpu_does_not_tell_is_absent_and_said() {
    let t = told("silent", 1);
    let g = &t.gpus[0];
    assert_eq!((g.mean_sm_mhz, g.mean_watts, g.joules, g.throttled_share), (None, None, None, None));
    assert_eq!((g.peak_bytes(), g.slow(), g.throttled()), (Some(15 << 30), false, false));
    assert!(t.notes[0].contains("does not tell its clock, power, throttling"), "{:?}", t.notes);
}

#[test]
fn the_power_of_a_partitioned_gpu_is_not_the_trials() {
    let t = told("mig", 1);
    assert!(close(t.gpus[0].mean_watts, 500.0) && t.watts().is_none());
    assert!(t.notes[0].contains("MIG"), "{:?}", t.notes);
}

#[test]
fn a_short_counter_is_followed_over_its_end_and_one_that_goes_back_is_not_believed() {
    assert!(close(told("short", 1).gpus[0].joules, 550.0));
    let counters = |all: &[u64]| {
        let reading = |(i, mj): (usize, &u64)| {
            (i as f64, Reading { millijoules: Some(*mj), milliwatts: Some(300_000), ..Reading::default() })
        };
        let readings = all.iter().enumerate().map(reading).collect();
        let heard = Heard { gpu: Gpu::default(), readings, ..Heard::default() };
        summarise(&[heard], Steps { starts: &[0.5], seconds: &[1.0] })
    };
    let back = counters(&[9_000_000, 100, 200]);
    assert!(back.gpus[0].joules.is_none() && close(back.gpus[0].mean_watts, 300.0));
    assert!(back.notes.iter().any(|n| n.contains("went backwards")), "{:?}", back.notes);
    let still = counters(&[5, 5, 5]);
    assert!(still.notes.iter().any(|n| n.contains("stands still")), "{:?}", still.notes);
}

#[test]
fn a_step_shorter_than_the_time_between_readings_has_those_around_it() {
    let reading = |t: f64, throttled: bool| {
        let reasons = if throttled { vec![Reason::ThermalSlowdown] } else { vec![] };
        (t, Reading { sm_mhz: Some(1000), reasons: Some(reasons), ..Reading::default() })
    };
    let heard =
        Heard { readings: vec![reading(0.0, false), reading(0.1, true), reading(0.2, false)], ..Heard::default() };
    let of = |start: f64| summarise(std::slice::from_ref(&heard), Steps { starts: &[start], seconds: &[0.001] });
    assert_eq!((of(0.02).gpus[0].samples, of(0.02).throttled_steps), (2, 0));
    assert_eq!(of(0.07).throttled_steps, 1);
    assert_eq!(of(0.16).throttled_steps, 0);
}

#[test]
fn the_thread_reads_before_during_and_after_and_costs_no_time_to_stop() {
    let sensors = Script::named("steady").unwrap().sensors(1);
    let every = Duration::from_millis(5);
    let sampler = Sampler::start(sensors, 1, Monotonic::start(), every);
    std::thread::sleep(Duration::from_millis(60));
    let began = std::time::Instant::now();
    let t = sampler.finish(Steps { starts: &[0.01], seconds: &[0.04] });
    assert!(began.elapsed() < Duration::from_secs(2));
    let g = &t.gpus[0];
    assert!(g.samples >= 2 && g.joules.is_some_and(|j| j > 0.0), "{g:?}");
    let slow =
        Sampler::start(Script::named("steady").unwrap().sensors(1), 1, Monotonic::start(), Duration::from_secs(60));
    let began = std::time::Instant::now();
    let _ = slow.finish(Steps { starts: &[0.0], seconds: &[0.1] });
    assert!(began.elapsed() < Duration::from_secs(10), "it does not wait for the next reading");
}

#[test]
fn without_a_driver_there_is_a_word_and_nothing_else() {
    let sampler =
        Sampler::start(Script::named("none").unwrap().sensors(1), 1, Monotonic::start(), Duration::from_secs(60));
    let t = sampler.finish(Steps { starts: &[0.0], seconds: &[0.1] });
    assert!(t.gpus.is_empty() && t.notes[0].contains("no NVIDIA driver"), "{t:?}");
    assert_eq!((t.watts(), t.peak_bytes(), t.mean_sm_mhz(), t.throttled_share()), (None, None, None, None));
}
