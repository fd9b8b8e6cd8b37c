//! The clocks of a trial: monotonic time for steps, and what tells whether the machine was ours all the while.

use crate::hardware::energy::Energy;
use crate::hardware::machine::CpuTimes;
use std::time::{Duration, Instant};

/// Monotonic time; a trait so that the measuring loop can be tested exactly.
pub(super) trait Clock {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
}

/// The system's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Monotonic(Instant);

impl Monotonic {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A machine that slept this long in the middle of a trial spoils it; less is the two clocks being read one after the other.
const LONGEST_NAP: f64 = 0.05;

/// Watches a stretch of time from its construction on.
#[derive(Debug)]
pub(super) struct Watch {
    asleep: Option<f64>,
    processors: Option<CpuTimes>,
    energy: Option<(Energy, Instant)>,
}

impl Watch {
    pub(super) fn start() -> Self {
        Self {
            asleep: seconds_asleep(),
            processors: CpuTimes::now(),
            energy: Energy::now().map(|e| (e, Instant::now())),
        }
    }

    /// Mean power of the processors since the start, where they have counters that may be read.
    pub(super) fn watts(&self) -> Option<f64> {
        let (energy, began) = self.energy.as_ref()?;
        let watts = energy.joules_since()? / began.elapsed().as_secs_f64();
        (watts.is_finite() && watts > 0.0).then_some(watts)
    }

    /// Seconds that the machine was suspended since the start, if it was.
    pub(super) fn suspended(&self) -> Option<f64> {
        let slept = seconds_asleep()? - self.asleep?;
        (slept > LONGEST_NAP).then_some(slept)
    }

    /// Share of the machine's time since the start that the hypervisor gave to somebody else, where the system tells.
    pub(super) fn steal_share(&self) -> Option<f64> {
        self.processors?.steal_since()
    }
}

/// Seconds since boot in which the machine was suspended: BOOTTIME counts them, MONOTONIC does not.
#[cfg(target_os = "linux")]
fn seconds_asleep() -> Option<f64> {
    use rustix::time::{ClockId, clock_gettime};
    let seconds = |id| {
        let t = clock_gettime(id);
        t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
    };
    // A process that is preempted between the two readings would look suspended: bracket, and keep the tightest of a few.
    let bracketed = || {
        let before = seconds(ClockId::Monotonic);
        let boottime = seconds(ClockId::Boottime);
        let after = seconds(ClockId::Monotonic);
        (after - before, boottime - (before + after) / 2.0)
    };
    (0..5).map(|_| bracketed()).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, asleep)| asleep)
}

#[cfg(not(target_os = "linux"))]
fn seconds_asleep() -> Option<f64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_stays_awake_is_not_called_suspended() {
        let watch = Watch::start();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(watch.suspended(), None);
        // One that began 2 s "less asleep" than it is now has slept since.
        if let Some(now) = seconds_asleep() {
            let slept = Watch { asleep: Some(now - 2.0), processors: None, energy: None }.suspended();
            assert!(slept.is_some_and(|s| (s - 2.0).abs() < 0.05), "{slept:?}");
        }
    }
}
