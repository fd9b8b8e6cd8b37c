//! When requests of an open loop are due, and a thread that says so: sleeping threads wake within a tenth of a millisecond, which the
//! timers of an event loop do not.

use super::spec::{Arrivals, Pace, uniform};
use crate::stats::random::SplitMix64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Between two looks whether it is over.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// Moments in seconds, in order, without an end.
#[derive(Debug)]
pub(super) struct Schedule {
    way: Way,
    count: u64,
    last: f64,
}

#[derive(Debug)]
enum Way {
    Constant {
        rate: f64,
    },
    Poisson {
        rate: f64,
        random: SplitMix64,
    },
    /// Over and over, a round in `period`.
    Times {
        times: Vec<f64>,
        period: f64,
    },
}

impl Schedule {
    /// Of an open loop. `times`: those of the trace, in order, from 0.
    ///
    /// # Errors
    /// A trace is to say when, and does not.
    pub(super) fn of(pace: Pace, times: Option<Vec<f64>>, seed: u64) -> Result<Option<Self>, String> {
        let way = match pace {
            Pace::Closed { .. } => return Ok(None),
            Pace::Open { rate, arrivals: Arrivals::Constant } => Way::Constant { rate },
            Pace::Open { rate, arrivals: Arrivals::Poisson } => Way::Poisson { rate, random: SplitMix64::new(seed) },
            Pace::Open { arrivals: Arrivals::Trace, .. } | Pace::Replay => {
                let times = times
                    .filter(|t| t.len() > 1)
                    .ok_or("load.arrivals: the trace does not say when its requests came")?;
                let last = times.last().copied().unwrap_or(1.0);
                // From the last to the first again as long as from one to the next in the mean.
                let period = last * times.len() as f64 / (times.len() as f64 - 1.0);
                let scale = pace.load().map_or(1.0, |rate| times.len() as f64 / period / rate);
                Way::Times { times: times.iter().map(|t| t * scale).collect(), period: period * scale }
            }
        };
        Ok(Some(Self { way, count: 0, last: 0.0 }))
    }
}

impl Iterator for Schedule {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        self.count += 1;
        self.last = match &mut self.way {
            // By multiplication: a sum of many gaps would drift.
            Way::Constant { rate } => self.count as f64 / *rate,
            Way::Poisson { rate, random } => self.last - uniform(random).ln() / *rate,
            Way::Times { times, period } => {
                let (at, length) = (self.count - 1, times.len() as u64);
                times.get((at % length) as usize)? + (at / length) as f64 * *period
            }
        };
        Some(self.last)
    }
}

/// What the thread says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Moment {
    /// A request is due, or was at this time.
    Due(f64),
    /// Time has passed.
    Tick,
}

/// A thread that says when a moment has come.
pub(super) struct Ticker {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Calls `say` with every moment of `schedule` when it has come, counted from `origin`, and with a tick every so often; until it
    /// says false.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(
        schedule: Option<Schedule>,
        origin: Instant,
        say: impl Fn(Moment) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread =
            thread::Builder::new().name("arrivals".into()).spawn(move || run(schedule, origin, &seen, &say))?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

fn run(mut schedule: Option<Schedule>, origin: Instant, over: &AtomicBool, say: &dyn Fn(Moment) -> bool) {
    let mut next = || schedule.as_mut().and_then(Iterator::next);
    let (mut due, mut tick) = (next(), TICK);
    while !over.load(Ordering::Relaxed) {
        let now = origin.elapsed();
        let moment = due.and_then(|d| Duration::try_from_secs_f64(d).ok());
        let said = match moment.filter(|m| *m <= now) {
            Some(moment) => {
                due = next();
                say(Moment::Due(moment.as_secs_f64()))
            }
            None if tick <= now => {
                tick = now + TICK;
                say(Moment::Tick)
            }
            None => {
                thread::sleep(moment.map_or(tick, |m| m.min(tick)).saturating_sub(now));
                true
            }
        };
        if !said {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_at_their_rate_evenly_or_as_a_poisson_process() {
        let of = |rate: f64, arrivals: Arrivals| Schedule::of(Pace::Open { rate, arrivals }, None, 1).unwrap().unwrap();
        let constant: Vec<f64> = of(4.0, Arrivals::Constant).take(3).collect();
        assert_eq!(constant, [0.25, 0.5, 0.75]);
        let n = 40_000;
        let all: Vec<f64> = of(10.0, Arrivals::Poisson).take(n).collect();
        let gaps: Vec<f64> = std::iter::once(all[0]).chain(all.windows(2).map(|w| w[1] - w[0])).collect();
        let mean = gaps.iter().sum::<f64>() / n as f64;
        let deviation = (gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
        // Mean and deviation of exponential gaps are the same; four standard errors of each.
        assert!((mean / 0.1 - 1.0).abs() < 4.0 / (n as f64).sqrt(), "{mean}");
        assert!((deviation / 0.1 - 1.0).abs() < 4.0 * 2f64.sqrt() / (n as f64).sqrt(), "{deviation}");
        let again: Vec<f64> = of(10.0, Arrivals::Poisson).take(3).collect();
        assert_eq!(again, all[..3]);
    }

    #[test]
    fn a_traces_times_come_as_they_were_or_drawn_together_to_a_rate() {
        let times = Some(vec![0.0, 1.0, 4.0]);
        let all: Vec<f64> = Schedule::of(Pace::Replay, times.clone(), 0).unwrap().unwrap().take(5).collect();
        // Two gaps of two seconds in the mean.
        assert_eq!(all, [0.0, 1.0, 4.0, 6.0, 7.0]);
        let pace = Pace::Open { rate: 1.0, arrivals: Arrivals::Trace };
        let all: Vec<f64> = Schedule::of(pace, times, 0).unwrap().unwrap().take(4).collect();
        assert_eq!(all, [0.0, 0.5, 2.0, 3.0]);
        assert!(Schedule::of(Pace::Replay, None, 0).unwrap_err().contains("does not say when"));
    }
}
