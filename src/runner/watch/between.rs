//! What two readings of the kernel's accounts tell of the time between them. Pure.

use super::Disturbance;
use super::accounts::{Accounts, Core, TICK, Task};
use crate::scenario::Tolerated;

/// Share of a stretch that a thread has to want to run for others to wait for it: not one that wakes now and then.
const WANTED: f64 = 0.1;

/// Share of a stretch for which a core has to be in use to be one of the trial's.
const IN_USE: f64 = 0.5;

/// Everything but what threads waited. `alone`: nobody else's processes belong to the trial, so that others are others.
pub(super) fn between(first: &Accounts, last: &Accounts, alone: bool) -> Disturbance {
    let seconds = (last.active - first.active).max(0.0);
    let share = |a: Option<f64>, b: Option<f64>| {
        let lost = b? - a?;
        (seconds > 0.0).then(|| (lost / seconds).clamp(0.0, 1.0))
    };
    let count = |a: Option<u64>, b: Option<u64>| Some(b?.saturating_sub(a?));
    let pressure = |i: usize| share(first.pressure[i], last.pressure[i]);
    let major_faults = count(first.major_faults, last.major_faults);
    Disturbance {
        bounds: Tolerated::default(),
        seconds,
        paused_seconds: None,
        waited: None,
        throttled: share(first.throttled, last.throttled),
        stolen: stolen(first, last, seconds),
        hot: first.hot.iter().zip(&last.hot).filter_map(|(a, b)| share(Some(*a), Some(*b))).reduce(f64::max),
        memory: pressure(1).map(|p| if major_faults.is_some_and(|n| n > 0) { p } else { 0.0 }),
        others: if alone { others(first, last) } else { None },
        on_its_gpus: None,
        disturbed_steps: None,
        preemptions: count(first.preemptions, last.preemptions),
        major_faults,
        numa_misses: count(first.numa_misses, last.numa_misses),
        cpu_pressure: pressure(0),
        memory_pressure: pressure(1),
        io_pressure: pressure(2),
        clock_mhz: first.clock_mhz.into_iter().chain(last.clock_mhz).reduce(f64::min),
    }
}

/// Ticks that each core was busy and stolen in between.
fn cores<'a>(first: &'a Accounts, last: &'a Accounts) -> impl Iterator<Item = (f64, f64)> + 'a {
    let pair = |now: &Core| {
        let before = first.cores.iter().find(|c| c.number == now.number)?;
        Some((now.busy.saturating_sub(before.busy) as f64, now.stolen.saturating_sub(before.stolen) as f64))
    };
    last.cores.iter().filter_map(pair)
}

/// Of the core that lost most, of those that were in use; one tick is none.
fn stolen(first: &Accounts, last: &Accounts, seconds: f64) -> Option<f64> {
    if first.cores.is_empty() || seconds <= 0.0 {
        return None;
    }
    let used = cores(first, last).filter(|(busy, stolen)| (busy + stolen) * TICK >= IN_USE * seconds);
    let lost = used.map(|(_, stolen)| ((stolen - 1.0) * TICK / seconds).clamp(0.0, 1.0));
    Some(lost.fold(0.0, f64::max))
}

/// The processor time that others used, over all that was used. Each busy core's account may be a tick off.
fn others(first: &Accounts, last: &Accounts) -> Option<f64> {
    let own = last.own? - first.own?;
    if first.cores.is_empty() {
        return None;
    }
    let (mut used, mut unsure) = (0.0, 0.0);
    for (busy, _) in cores(first, last) {
        used += busy * TICK;
        unsure += if busy > 0.0 { TICK } else { 0.0 };
    }
    let theirs = (used - own - unsure).max(0.0);
    Some(if theirs > 0.0 { theirs / (own + theirs) } else { 0.0 })
}

/// Processor seconds that others used, but for one tick of doubt; `None` where the system does not tell.
pub(super) fn others_seconds(first: &Accounts, last: &Accounts) -> Option<f64> {
    let own = last.own? - first.own?;
    let used: f64 = cores(first, last).map(|(busy, _)| busy * TICK).sum();
    (!first.cores.is_empty()).then(|| (used - own - TICK).max(0.0))
}

/// Seconds that the thread waited for a core that waited longest, of those that wanted to run in these `seconds`.
pub(super) fn waited(before: &[Task], now: &[Task], seconds: f64) -> f64 {
    let one = |task: &Task| {
        let old = before.iter().find(|t| t.id == task.id);
        let since = |of: fn(&Task) -> u64| of(task).saturating_sub(old.map_or(0, of)) as f64 * 1e-9;
        let (ran, waited) = (since(|t| t.ran), since(|t| t.waited));
        (ran + waited >= WANTED * seconds).then_some(waited)
    };
    now.iter().filter_map(one).fold(0.0, f64::max).min(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(number: usize, busy: u64, stolen: u64) -> Core {
        Core { number, busy, stolen }
    }

    /// Two seconds: core 0 busy all the time, core 1 as given; the process took `own` seconds.
    fn stretch(own: f64, other: Core) -> (Accounts, Accounts) {
        let first = Accounts {
            active: 1.0,
            own: Some(5.0),
            cores: vec![core(0, 1000, 10), core(other.number, 0, 0)],
            pressure: [Some(1.0), Some(0.5), None],
            throttled: Some(0.0),
            major_faults: Some(3),
            hot: vec![1.0, 7.0],
            clock_mhz: Some(3000.0),
            ..Accounts::default()
        };
        let last = Accounts {
            active: 3.0,
            own: Some(5.0 + own),
            cores: vec![core(0, 1200, 10), other],
            pressure: [Some(1.5), Some(0.7), None],
            throttled: Some(0.1),
            major_faults: Some(3),
            hot: vec![1.0, 7.2],
            clock_mhz: Some(2400.0),
            ..first.clone()
        };
        (first, last)
    }

    #[test]
    fn shares_are_of_the_time_between_and_what_is_not_told_stays_untold() {
        let (first, last) = stretch(2.0, core(1, 0, 0));
        let d = between(&first, &last, true);
        assert_eq!((d.seconds, d.others, d.stolen), (2.0, Some(0.0), Some(0.0)));
        let near = |a: Option<f64>, b: f64| assert!(a.is_some_and(|a| (a - b).abs() < 1e-9), "{a:?} {b}");
        near(d.throttled, 0.05);
        near(d.hot, 0.1);
        near(d.cpu_pressure, 0.25);
        near(d.memory_pressure, 0.1);
        near(d.clock_mhz, 2400.0);
        assert_eq!(d.memory, Some(0.0), "others' want of memory, without a page of our own read back");
        assert_eq!((d.io_pressure, d.preemptions, d.major_faults), (None, None, Some(0)));
        let faulted = Accounts { major_faults: Some(9), ..last.clone() };
        near(between(&first, &faulted, true).memory, 0.1);
        assert_eq!(between(&Accounts::default(), &Accounts::default(), true).disturbed(), None);
    }

    #[test]
    fn others_are_what_the_cores_did_beside_the_trial() {
        // Core 1 did somebody else's work for a second: 2 of 3 seconds are ours, but for two ticks.
        let (first, last) = stretch(2.0, core(1, 100, 0));
        let share = between(&first, &last, true).others.unwrap();
        assert!((share - 0.98 / 2.98).abs() < 1e-9, "{share}");
        assert_eq!(between(&first, &last, false).others, None, "where others are ranks of the same trial");
        let (first, last) = stretch(2.0, core(1, 1, 0));
        assert_eq!(between(&first, &last, true).others, Some(0.0), "a tick is no neighbour");
    }

    #[test]
    fn a_pause_does_not_count_whatever_others_did_in_it() {
        let (mut first, last) = stretch(2.0, core(1, 150, 0));
        let before =
            Accounts { active: 2.0, own: Some(6.0), cores: vec![core(0, 1100, 10), core(1, 0, 0)], ..first.clone() };
        let after = Accounts { active: 2.5, cores: vec![core(0, 1150, 10), core(1, 150, 0)], ..before.clone() };
        first.leave_out(&before, &after);
        // Of 200 ticks on core 0 the pause had 50: what is left is less than the process took itself.
        let told = between(&first, &last, true);
        assert_eq!((told.seconds, told.others), (1.5, Some(0.0)));
        assert!((told.throttled.unwrap() - 0.1 / 1.5).abs() < 1e-9 && told.major_faults == Some(0));
    }

    #[test]
    fn steal_counts_on_the_cores_that_were_in_use() {
        let (first, last) = stretch(2.0, core(1, 110, 41));
        assert!((between(&first, &last, true).stolen.unwrap() - 0.2).abs() < 1e-9);
        let (first, last) = stretch(2.0, core(1, 10, 41));
        assert_eq!(between(&first, &last, true).stolen, Some(0.0), "nobody missed that core");
    }

    #[test]
    fn the_slowest_thread_holds_up_all_whether_or_not_they_spin() {
        let task =
            |id, ran_ms: u64, waited_ms: u64| Task { id, ran: ran_ms * 1_000_000, waited: waited_ms * 1_000_000 };
        let before = [task(1, 500, 10), task(2, 500, 10), task(3, 0, 0)];
        // Thread 2 had half of its core; 1 spun for it; 3 woke up once, and waited long for it; 4 is new.
        let now = [task(1, 600, 10), task(2, 550, 60), task(3, 0, 9), task(4, 80, 20)];
        assert!((waited(&before, &now, 0.1) - 0.05).abs() < 1e-12);
        assert!((waited(&before[..1], &now[..1], 0.1)).abs() < 1e-12);
        assert!((waited(&before, &[task(3, 0, 9)], 0.1)).abs() < 1e-12, "who hardly wants to run is not waited for");
        assert!((waited(&[], &[task(9, 0, 900)], 0.1) - 0.1).abs() < 1e-12, "no more than all of it");
    }
}
