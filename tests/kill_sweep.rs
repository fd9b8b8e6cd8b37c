//! `kill -9` of the parent or of a trial, at any time, loses no finished trial and measures none twice.
#![cfg(target_os = "linux")]

mod run_support;

use centime::Status;
use run_support::{Sweep, assert_complete, children_of, eventually, ids, signal, status_of};
use rustix::process::Signal;
use std::time::Duration;

/// SplitMix64: moments that look random and repeat.
struct Moments(u64);

impl Moments {
    fn within(&mut self, longest: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        longest.mul_f64((z ^ (z >> 31)) as f64 / u64::MAX as f64)
    }
}

#[test]
fn twenty_kills_of_the_parent_lose_nothing_and_repeat_nothing() {
    let mut moments = Moments(1);
    let (mut kills, mut finished_sweeps, mut cut_short) = (0, 0, 0);
    while kills < 20 {
        let sweep = Sweep::new("");
        let mut before = Vec::new();
        loop {
            let mut parent = sweep.start();
            if kills < 20 {
                std::thread::sleep(moments.within(Duration::from_millis(700)));
                kills += 1;
                signal(parent.id(), Signal::KILL);
            }
            let exit = parent.wait().unwrap();
            let after = sweep.journal();
            // What was there is there still, in its place, as it was; what came is new.
            assert_eq!(after[..before.len()], before[..], "kill {kills}");
            let mut unique = ids(&after);
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), after.len(), "kill {kills}: a trial was measured twice");
            cut_short += usize::from(!exit.success() && !after.is_empty());
            before = after;
            if exit.success() {
                break;
            }
        }
        assert_complete(&before);
        assert!(before.iter().all(|r| r.measurement.status == Status::Ok));
        finished_sweeps += 1;
    }
    assert!(
        cut_short >= 5,
        "kills came while trials were there to lose: {cut_short} of {kills}, {finished_sweeps} sweeps"
    );
}

#[test]
fn twenty_kills_of_trials_are_twenty_rows_that_say_so() {
    let mut moments = Moments(2);
    let mut kills = 0;
    while kills < 20 {
        let sweep = Sweep::new("");
        let mut parent = sweep.start();
        let mut killed = 0;
        while parent.try_wait().unwrap().is_none() {
            std::thread::sleep(moments.within(Duration::from_millis(150)));
            for child in children_of(parent.id()) {
                signal(child, Signal::KILL);
                killed += 1;
            }
        }
        let records = sweep.journal();
        assert_complete(&records);
        let crashed = records.iter().filter(|r| r.measurement.status == Status::Crashed).count();
        assert!(records.iter().all(|r| matches!(r.measurement.status, Status::Ok | Status::Crashed)), "{records:?}");
        // A kill may meet a trial that has just said its last word, never two trials.
        assert!(crashed <= killed, "{crashed} of {killed}");
        assert_eq!(parent.wait().unwrap().code(), Some(if crashed > 0 { 3 } else { 0 }));
        // A finished trial stays finished, however it ended.
        assert_eq!(sweep.run(&[]).status.code(), Some(if crashed > 0 { 3 } else { 0 }));
        assert_eq!(sweep.journal(), records);
        kills += crashed;
    }
}

#[test]
fn no_trial_outlives_a_killed_parent() {
    for _ in 0..5 {
        let sweep = Sweep::new("hang");
        let mut parent = sweep.start();
        let mut children = Vec::new();
        eventually("a trial starts", || {
            children = children_of(parent.id());
            !children.is_empty()
        });
        signal(parent.id(), Signal::KILL);
        parent.wait().unwrap();
        let alive = |pid: &u32| status_of(*pid).is_some_and(|(_, state)| state != 'Z');
        eventually("the trial dies with its parent", || !children.iter().any(alive));
    }
}
