//! Watches a trial from inside its process: looks between two steps, never within one, and so seldom that it costs nothing.

use super::Disturbance;
use super::accounts::{Accounts, TICK, Task, allowed_cores, busy_seconds, tasks};
use super::between::{between, others_seconds, waited};
use crate::scenario::Tolerated;
use std::time::{Duration, Instant};

/// Seconds between two looks at the threads, at least.
const EVERY: f64 = 0.1;

/// Share of the time since the last look that has to be lost for it to be worth while to wait: not one wake of some daemon.
const IN_THE_WAY: f64 = 0.05;

/// Between two looks of a pause: ten ticks of the cores' accounts.
const MOMENT: Duration = Duration::from_millis(100);

/// A look takes at most this share of the time until the next.
const COST: f64 = 0.005;

/// Whole readings are made when the time since the start has grown by this factor: few, and one near the start of any stretch.
const GROWTH: f64 = 1.25;

/// A stretch between two looks, in seconds on the trial's clock, and how much of it was lost.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    from: f64,
    to: f64,
    waited: f64,
}

/// What is to be known of the process before its threads bind themselves to cores.
#[derive(Clone, Debug)]
pub(in crate::runner) struct Seat {
    cores: Vec<usize>,
    /// Every process of the trial is this one: what others do is not the trial's.
    alone: bool,
    /// Cores that the trial computes on.
    used: u32,
    bounds: Tolerated,
    /// Seconds for which it may stand still, all in all, until others are done.
    patience: f64,
}

impl Seat {
    /// Of this process as it is now.
    pub(crate) fn now(alone: bool, used: u32, bounds: Tolerated, patience: f64) -> Self {
        Self { cores: allowed_cores(), alone, used, bounds, patience: if alone { patience } else { 0.0 } }
    }
}

/// Looks that were taken so far.
#[derive(Debug)]
pub(in crate::runner) struct Watcher {
    seat: Seat,
    readings: Vec<Accounts>,
    threads: Option<Vec<Task>>,
    looked: f64,
    every: f64,
    stretches: Vec<Stretch>,
    paused: f64,
    /// The reading at the start of the pause that the trial is in.
    pause: Option<Accounts>,
}

impl Watcher {
    /// From `at` on, in seconds on the trial's clock.
    pub(crate) fn start(seat: Seat, at: f64) -> Self {
        let readings = vec![Accounts::now(at, &seat.cores)];
        Self {
            seat,
            readings,
            threads: tasks(),
            looked: at,
            every: EVERY,
            stretches: Vec::new(),
            paused: 0.0,
            pause: None,
        }
    }

    /// To be called after each step: looks when it is time to. Whether others are in the way just now, and waiting for them is allowed.
    pub(crate) fn look(&mut self, at: f64) -> bool {
        if at - self.looked < self.every {
            return false;
        }
        self.note(at);
        let lost = self.stretches.last().is_some_and(|s| s.waited > IN_THE_WAY * (s.to - s.from));
        lost && self.paused < self.seat.patience
    }

    /// Sleeps for a moment of a pause, and says whether the pause goes on: others compute still, and patience is left.
    pub(crate) fn pause(&mut self, clock: &dyn Fn() -> f64) -> bool {
        let began = clock();
        let first = self.pause.is_none();
        if first {
            self.pause = Some(Accounts::now(began, &self.seat.cores));
        }
        let busy = busy_seconds(&self.seat.cores);
        std::thread::sleep(MOMENT);
        let others = busy_seconds(&self.seat.cores) - busy;
        let now = clock();
        self.paused += now - began;
        // The account of a core may be a tick late.
        let allowed = self.seat.bounds.others * (now - began) * f64::from(self.seat.used.max(1)) + TICK;
        if others > allowed && self.paused < self.seat.patience {
            return true;
        }
        if first {
            // Nobody was there: what waited were threads of its own, and they will again.
            self.seat.patience = 0.0;
        }
        self.resume(now);
        false
    }

    /// The pause is over, and nothing that happened in it counts.
    fn resume(&mut self, at: f64) {
        if let Some(before) = self.pause.take() {
            let after = Accounts::now(at, &self.seat.cores);
            self.readings.iter_mut().for_each(|r| r.leave_out(&before, &after));
        }
        (self.threads, self.looked) = (tasks(), at);
    }

    fn note(&mut self, at: f64) {
        let began = Instant::now();
        let start = self.readings[0].at;
        let last = self.readings.last().map_or(start, |r| r.at);
        if at - start >= (last - start) * GROWTH {
            self.readings.push(Accounts::now(at, &self.seat.cores));
        }
        let now = tasks();
        if let (Some(before), Some(now)) = (&self.threads, &now) {
            let waited = waited(before, now, at - self.looked);
            self.stretches.push(Stretch { from: self.looked, to: at, waited });
        }
        (self.threads, self.looked) = (now, at);
        self.every = (began.elapsed().as_secs_f64() / COST).max(EVERY);
    }

    /// What is to be said of the steps with these starts, which ended at `at`.
    pub(crate) fn finish(mut self, starts: &[f64], at: f64) -> Disturbance {
        self.note(at);
        let from = starts.first().copied().unwrap_or(self.readings[0].at);
        let last = Accounts::now(at, &self.seat.cores);
        let first = self.readings.iter().rev().find(|r| r.at <= from).unwrap_or(&self.readings[0]);
        let told = between(first, &last, self.seat.alone);
        // Threads of the trial that wait for one another's cores are its own affair: others took no more than they used.
        let theirs = others_seconds(first, &last).filter(|_| self.seat.alone && told.seconds > 0.0);
        let most = theirs.map_or(1.0, |seconds| seconds / told.seconds);
        let waited = share_waited(&self.stretches, from).map(|share| share.min(most));
        let lost = self.seat.bounds.lost;
        Disturbance {
            bounds: self.seat.bounds,
            waited,
            paused_seconds: (self.paused > 0.0).then_some(self.paused),
            disturbed_steps: (!self.stretches.is_empty()).then(|| disturbed_steps(&self.stretches, starts, lost)),
            ..told
        }
    }
}

/// What was waited in the stretches from a moment on, over their length.
fn share_waited(stretches: &[Stretch], from: f64) -> Option<f64> {
    let counted = stretches.iter().filter(|s| s.to > from);
    let (lost, all) = counted.fold((0.0, 0.0), |(lost, all), s| (lost + s.waited, all + (s.to - s.from)));
    (all > 0.0).then(|| lost / all)
}

/// Steps that began in a stretch of which too much was lost; looks fall between steps, so that none lies in two.
fn disturbed_steps(stretches: &[Stretch], starts: &[f64], bound: f64) -> u64 {
    let disturbed = stretches.iter().filter(|s| s.waited > bound * (s.to - s.from));
    let count = |s: &Stretch| starts.partition_point(|t| *t < s.to) - starts.partition_point(|t| *t < s.from);
    disturbed.map(count).sum::<usize>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRETCHES: [Stretch; 3] = [
        Stretch { from: 0.0, to: 0.1, waited: 0.05 },
        Stretch { from: 0.1, to: 0.2, waited: 0.0 },
        Stretch { from: 0.2, to: 0.4, waited: 0.03 },
    ];

    #[test]
    fn what_was_lost_before_the_measured_steps_does_not_count() {
        assert!((share_waited(&STRETCHES, 0.1).unwrap() - 0.1).abs() < 1e-12);
        assert!((share_waited(&STRETCHES, 0.0).unwrap() - 0.2).abs() < 1e-12);
        assert_eq!(share_waited(&STRETCHES, 0.4), None);
    }

    #[test]
    fn steps_are_disturbed_with_their_stretch() {
        assert_eq!(disturbed_steps(&STRETCHES, &[0.1, 0.15, 0.2, 0.25, 0.3], 0.02), 3);
        assert_eq!(disturbed_steps(&STRETCHES, &[0.0, 0.1], 0.02), 1);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_competes_for_a_core_is_seen_to_wait() {
        let Some(core) = allowed_cores().first().copied().filter(|_| tasks().is_some()) else { return };
        let began = Instant::now();
        let mut watcher = Watcher::start(Seat::now(false, 1, Tolerated::default(), 0.0), 0.0);
        let spin = move || {
            let mut set = rustix::thread::CpuSet::new();
            set.set(core);
            let bound = rustix::thread::sched_setaffinity(None, &set).is_ok();
            while began.elapsed().as_secs_f64() < 0.4 {
                std::hint::spin_loop();
            }
            bound
        };
        let rivals: Vec<_> = (0..2).map(|_| std::thread::spawn(spin)).collect();
        while began.elapsed().as_secs_f64() < 0.38 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!watcher.look(began.elapsed().as_secs_f64()), "without patience nothing is waited for");
        }
        let seen = watcher.finish(&[0.0, 0.1, 0.2], 0.38);
        if rivals.into_iter().all(|r| r.join().unwrap()) {
            assert!(seen.waited.unwrap() > 0.3 && seen.disturbed() == Some(true), "{seen:?}");
            assert!(seen.disturbed_steps.unwrap() >= 2, "{seen:?}");
        }
    }
}
