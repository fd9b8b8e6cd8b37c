//! Whether a trial had its machine to itself, from the kernel's own accounts: nothing is guessed, and what cannot be read is `None`.
//!
//! [`accounts`] reads /proc, /sys and the control group; [`between`] says what two readings tell, pure; [`watcher`] reads while a
//! trial runs, between its steps. A trial is *disturbed* when it lost more of its time than its
//! scenario's [`Tolerated`] says, or when others computed for more of the processor time that was used: they share caches,
//! memory bandwidth and clock rates even where they leave the trial its cores.

mod accounts;
mod between;
pub(crate) mod judged;
pub(super) mod watcher;

use crate::scenario::Tolerated;
use crate::units::Share;
use serde::{Deserialize, Serialize};

/// What a trial lost, as shares of the time in which its steps were measured, and what else was seen. `None`: the system does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Disturbance {
    /// Above which it is disturbed.
    #[serde(default, skip_serializing_if = "Tolerated::is_usual")]
    pub bounds: Tolerated,
    /// Length of the stretch that the figures are of.
    pub seconds: f64,
    /// For which the trial stood still, from its start on, until the machine was quieter or its patience was spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_seconds: Option<f64>,
    /// In which a thread was runnable and did not run: of the thread that lost most, a tenth of a second at a time. The others wait
    /// for it, spinning or not.
    pub waited: Option<f64>,
    /// In which the control group's quota kept it from running.
    pub throttled: Option<f64>,
    /// In which the hypervisor ran somebody else on one of its cores, of the core that lost most.
    pub stolen: Option<f64>,
    /// In which a core was slowed down by heat, of the core that was slowed down longest.
    pub hot: Option<f64>,
    /// In which tasks of this machine waited for memory to be reclaimed or read back; told where the trial itself had to read back.
    pub memory: Option<f64>,
    /// Of the processor time that was used on the cores that it may use: that of others.
    pub others: Option<f64>,
    /// Most processes that computed beside the trial on one of its GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_its_gpus: Option<u32>,
    /// Measured steps that ran, in part or whole, while more was lost than is allowed. They are counted like any other.
    pub disturbed_steps: Option<u64>,
    /// Times that a thread was taken off its core although it wanted to go on.
    pub preemptions: Option<u64>,
    /// Pages that had to be read from a disk.
    pub major_faults: Option<u64>,
    /// Pages of the machine that another NUMA node had to give.
    pub numa_misses: Option<u64>,
    /// Shares of the time in which some task of the machine waited for a processor, for memory, for a disk (PSI).
    pub cpu_pressure: Option<f64>,
    pub memory_pressure: Option<f64>,
    pub io_pressure: Option<f64>,
    /// Lowest of the mean clock rates of the cores at the start and at the end, in MHz.
    pub clock_mhz: Option<f64>,
}

/// A cause and its share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cause {
    pub words: &'static str,
    pub share: f64,
}

impl Disturbance {
    /// Share of its time that was lost, over all causes; `None` where the system tells of none.
    pub fn lost(&self) -> Option<f64> {
        let shares = self.losses();
        (!shares.is_empty()).then(|| shares.iter().map(|c| c.share).sum::<f64>().min(1.0))
    }

    /// Whether its figures are not those of this machine alone. `None` where the system does not tell.
    pub fn disturbed(&self) -> Option<bool> {
        let over = |share: Option<f64>, bound: f64| share.map(|s| s > bound);
        let told = [
            over(self.lost(), self.bounds.lost),
            over(self.others, self.bounds.others),
            self.on_its_gpus.map(|n| n > 0),
        ];
        told.into_iter().flatten().reduce(|a, b| a || b)
    }

    /// How far it is above what is allowed: what is compared when one of two is to be kept. Up to 1: undisturbed.
    pub fn excess(&self) -> f64 {
        let on_gpus = 2.0 * f64::from(self.on_its_gpus.unwrap_or_default());
        let (lost, others) = (self.lost().unwrap_or_default(), self.others.unwrap_or_default());
        (lost / self.bounds.lost).max(others / self.bounds.others).max(on_gpus)
    }

    /// "12.0 % lost waiting for a core, others used 40.0 % of the CPU time"; empty where it is not disturbed.
    pub fn in_words(&self) -> String {
        let one = |(i, c): (usize, &Cause)| match c.words {
            OTHERS_COMPUTED => format!("others used {} of the CPU time", Share(c.share)),
            words if i == 0 => format!("{} lost {words}", Share(c.share)),
            words => format!("{} {words}", Share(c.share)),
        };
        let on_gpus = self.on_its_gpus.filter(|n| *n > 0).map(|n| match n {
            1 => "another process computed on its GPU".to_string(),
            n => format!("{n} other processes computed on its GPU"),
        });
        self.causes().iter().enumerate().map(one).chain(on_gpus).collect::<Vec<_>>().join(", ")
    }

    /// The shares that made it disturbed, the largest first; empty where it is not.
    pub fn causes(&self) -> Vec<Cause> {
        let mut all = if self.lost().is_some_and(|lost| lost > self.bounds.lost) { self.losses() } else { Vec::new() };
        all.retain(|c| c.share > self.bounds.lost / 4.0);
        all.sort_by(|a, b| b.share.total_cmp(&a.share));
        let others = Cause { words: OTHERS_COMPUTED, share: self.others.unwrap_or_default() };
        if others.share > self.bounds.others {
            all.push(others);
        }
        all
    }

    /// That of both launches together: shares weighed by their time, and what was counted added. What one of them does not tell is untold.
    pub fn and_then(&self, next: &Self) -> Self {
        let seconds = self.seconds + next.seconds;
        let mean = |of: fn(&Self) -> Option<f64>| {
            let all = of(self)? * self.seconds + of(next)? * next.seconds;
            (seconds > 0.0).then(|| all / seconds)
        };
        let sum = |of: fn(&Self) -> Option<u64>| Some(of(self)?.saturating_add(of(next)?));
        let paused = [self.paused_seconds, next.paused_seconds];
        Self {
            bounds: self.bounds,
            seconds,
            paused_seconds: paused.into_iter().flatten().reduce(|a, b| a + b),
            waited: mean(|d| d.waited),
            throttled: mean(|d| d.throttled),
            stolen: mean(|d| d.stolen),
            hot: mean(|d| d.hot),
            memory: mean(|d| d.memory),
            others: mean(|d| d.others),
            on_its_gpus: self.on_its_gpus.max(next.on_its_gpus),
            disturbed_steps: sum(|d| d.disturbed_steps),
            preemptions: sum(|d| d.preemptions),
            major_faults: sum(|d| d.major_faults),
            numa_misses: sum(|d| d.numa_misses),
            cpu_pressure: mean(|d| d.cpu_pressure),
            memory_pressure: mean(|d| d.memory_pressure),
            io_pressure: mean(|d| d.io_pressure),
            clock_mhz: self.clock_mhz.into_iter().chain(next.clock_mhz).reduce(f64::min),
        }
    }

    /// The larger of each, where several processes ran a trial: who waits for a disturbed one is disturbed.
    pub fn or_worse(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.waited, other.waited),
            (&mut self.throttled, other.throttled),
            (&mut self.stolen, other.stolen),
            (&mut self.hot, other.hot),
            (&mut self.memory, other.memory),
        ] {
            *mine = mine.iter().copied().chain(theirs).reduce(f64::max);
        }
    }

    /// What was lost. A thread that its quota stops is runnable on some kernels and not on others: the larger of both counts.
    fn losses(&self) -> Vec<Cause> {
        let throttled = self.throttled.filter(|t| *t > 0.0 && self.waited.is_none_or(|w| *t >= w / 2.0));
        let first = match (throttled, self.waited) {
            (Some(t), waited) => Some(Cause { words: QUOTA, share: t.max(waited.unwrap_or_default()) }),
            (None, Some(share)) => Some(Cause { words: WAITED, share }),
            (None, None) => self.throttled.map(|share| Cause { words: QUOTA, share }),
        };
        let rest = [(STOLEN, self.stolen), (HOT, self.hot), (MEMORY, self.memory)];
        let rest = rest.into_iter().filter_map(|(words, share)| Some(Cause { words, share: share? }));
        first.into_iter().chain(rest).collect()
    }
}

const WAITED: &str = "waiting for a core";
const QUOTA: &str = "held by its CPU quota";
const STOLEN: &str = "taken by the hypervisor";
const HOT: &str = "slowed by heat";
const MEMORY: &str = "short of memory";
const OTHERS_COMPUTED: &str = "others computing beside it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_disturbed_above_two_per_cent_or_beside_others() {
        let quiet = Disturbance { waited: Some(0.004), stolen: Some(0.01), others: Some(0.03), ..Default::default() };
        assert_eq!((quiet.disturbed(), quiet.causes().len()), (Some(false), 0));
        let lost = Disturbance { waited: Some(0.015), stolen: Some(0.006), ..quiet.clone() };
        assert_eq!(lost.disturbed(), Some(true));
        assert!((lost.lost().unwrap() - 0.021).abs() < 1e-12);
        assert_eq!(lost.causes().iter().map(|c| c.words).collect::<Vec<_>>(), [WAITED, STOLEN]);
        let shared = Disturbance { on_its_gpus: Some(1), ..quiet.clone() };
        assert_eq!(
            (shared.disturbed(), shared.in_words().as_str()),
            (Some(true), "another process computed on its GPU")
        );
        let beside = Disturbance { others: Some(0.5), ..quiet.clone() };
        assert_eq!(beside.causes(), [Cause { words: OTHERS_COMPUTED, share: 0.5 }]);
        assert_eq!(beside.in_words(), "others used 50.0 % of the CPU time");
        assert_eq!(lost.in_words(), "1.5 % lost waiting for a core, 0.6 % taken by the hypervisor");
        assert_eq!(quiet.in_words(), "");
        assert!(quiet.excess() < 1.0 && lost.excess() > 1.0 && beside.excess() > lost.excess());
    }

    #[test]
    fn the_bounds_are_those_of_the_scenario() {
        let loose = Tolerated { lost: 0.05, others: 0.6 };
        let seen = Disturbance { waited: Some(0.04), others: Some(0.5), ..Disturbance::default() };
        let allowed = Disturbance { bounds: loose, ..seen.clone() };
        assert_eq!((seen.disturbed(), allowed.disturbed()), (Some(true), Some(false)));
        assert!(seen.excess() > 1.0 && allowed.excess() < 1.0 && allowed.causes().is_empty());
        // A record of before there were others says nothing of them.
        let json = serde_json::to_value(&seen).unwrap();
        assert!(json.get("bounds").is_none());
        assert_eq!(serde_json::from_value::<Disturbance>(json).unwrap(), seen);
        let json = serde_json::to_string(&allowed).unwrap();
        assert_eq!(serde_json::from_str::<Disturbance>(&json).unwrap().bounds, loose);
    }

    #[test]
    fn what_the_system_does_not_tell_is_neither_quiet_nor_disturbed() {
        let silent = Disturbance::default();
        assert_eq!((silent.disturbed(), silent.lost()), (None, None));
        assert_eq!(Disturbance { others: Some(0.0), ..silent }.disturbed(), Some(false));
    }

    #[test]
    fn time_held_by_a_quota_is_counted_once() {
        let both = Disturbance { waited: Some(0.3), throttled: Some(0.28), ..Default::default() };
        assert_eq!(both.losses(), [Cause { words: QUOTA, share: 0.3 }]);
        let little = Disturbance { waited: Some(0.3), throttled: Some(0.01), ..Default::default() };
        assert_eq!(little.losses(), [Cause { words: WAITED, share: 0.3 }]);
        let kept_off = Disturbance { waited: Some(0.0), throttled: Some(0.4), ..Default::default() };
        assert_eq!(kept_off.lost(), Some(0.4));
    }

    #[test]
    fn launches_are_weighed_by_their_time() {
        let long = Disturbance { seconds: 3.0, waited: Some(0.04), preemptions: Some(3), ..Default::default() };
        let short =
            Disturbance { seconds: 1.0, waited: Some(0.0), preemptions: Some(1), others: Some(0.5), ..long.clone() };
        let both = Disturbance { paused_seconds: Some(0.5), ..long }.and_then(&short);
        assert_eq!((both.seconds, both.preemptions, both.others, both.paused_seconds), (4.0, Some(4), None, Some(0.5)));
        assert!((both.waited.unwrap() - 0.03).abs() < 1e-12);
    }

    #[test]
    fn of_several_processes_the_worst_counts() {
        let mut mine = Disturbance { waited: Some(0.0), ..Default::default() };
        mine.or_worse(&Disturbance { waited: Some(0.2), stolen: Some(0.1), ..Default::default() });
        assert_eq!((mine.waited, mine.stolen, mine.hot), (Some(0.2), Some(0.1), None));
    }
}
