//! How often each cell is launched: all cells once a round, so that drift of the machine meets them alike and what differs from launch
//! to launch is seen.

use super::MachineFacts;
use super::limits::time_budget;
use crate::scenario::trial::Trial;
use crate::scenario::{Limits, Measure};
use crate::stats::random::SplitMix64;

/// Rounds where there is time: fewer tell next to nothing of how launches differ, more cost a start and a warm-up each.
const ROUNDS: u32 = 3;
/// A sweep in rounds may take at most so many times as long as with one launch a cell: starting and warming up is done once a launch.
const LONGER: f64 = 1.9;

/// Seconds that a trial takes beside its steps: start of the process, weights, end.
const OVERHEAD_SECONDS: f64 = 0.3;
/// Steps of warm-up that an estimate assumes.
const WARMUP_STEPS: f64 = 4.0;
/// Steps after which an estimate assumes the median to be known well enough.
pub(crate) const MEASURED_STEPS: f64 = 8.0;

/// Estimated seconds of all launches of a cell whose steps take so long.
pub(super) fn seconds_of_cell(step: f64, measure: &Measure, rounds: u32) -> f64 {
    let m = measure.of_launch(rounds);
    let measuring = (step * MEASURED_STEPS).min(m.max_seconds).max(m.min_seconds).max(step);
    let warmup = m.warmup_steps.map_or(WARMUP_STEPS, f64::from) * step;
    f64::from(rounds) * (OVERHEAD_SECONDS + warmup + measuring).min(m.timeout_seconds)
}

/// The same of a trial that is to learn something: as if no loss ended it before its bound.
pub(super) fn seconds_of_learning(trial: &Trial, step: f64, measure: &Measure, rounds: u32) -> Option<f64> {
    /// A forward pass beside a training step.
    const FORWARD: f64 = 1.0 / 3.0;
    let learning = trial.learning.as_ref()?;
    let tokens = trial.workload.tokens_per_step();
    let planned = learning.steps(tokens).map_or(f64::INFINITY, |steps| steps as f64 * step);
    let training = planned.min(learning.until.seconds.unwrap_or(f64::INFINITY));
    let evaluations = 1.0 + training / step / learning.eval.every.max(1) as f64;
    let evaluation = learning.evaluation_batches(tokens, u64::MAX) as f64 * step * FORWARD;
    let launch = OVERHEAD_SECONDS + training + evaluations * evaluation;
    Some(f64::from(rounds) * launch.min(measure.timeout_seconds))
}

/// As many as there are seeds, or as are asked for; else three or two where the sweep stays within its limits and does not take much longer than with one.
/// `steps`: estimated seconds of a step of each cell that will run; none where trials are to learn something, which with one seed comes to
/// the same every time.
pub(super) fn chosen(measure: &Measure, limits: Limits, steps: &[f64], facts: &MachineFacts) -> u32 {
    if !measure.seeds.is_empty() {
        return u32::try_from(measure.seeds.len()).unwrap_or(u32::MAX);
    }
    if let Some(rounds) = measure.rounds {
        return rounds;
    }
    if steps.is_empty() {
        return 1;
    }
    if facts.processes.all > 1 {
        // Every process makes a plan of its own, from what it knows of its machine; this they all have in common.
        return ROUNDS;
    }
    let total = |rounds| steps.iter().map(|s| seconds_of_cell(*s, measure, rounds)).sum::<f64>();
    let (budget, _) = time_budget(limits, facts.usd_per_hour);
    let most = budget.min(LONGER * total(1));
    (2..=ROUNDS).rev().find(|rounds| total(*rounds) <= most).unwrap_or(1)
}

/// The order of a round, from 0, of so many trials, by their places in the plan: the first as planned, every second one the one before
/// backwards, so that a trial that came early comes late and what goes on getting slower or faster meets all alike; the others
/// shuffled anew.
pub fn order_of_round(trials: usize, seed: u64, round: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..trials).collect();
    let forwards = round - round % 2;
    if forwards > 0 {
        SplitMix64::new(seed.wrapping_add(u64::from(forwards))).shuffle(&mut order);
    }
    if round > forwards {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_round_is_the_one_before_backwards() {
        assert_eq!(order_of_round(4, 9, 0), [0, 1, 2, 3]);
        assert_eq!(order_of_round(4, 9, 1), [3, 2, 1, 0]);
        let (third, fourth) = (order_of_round(12, 9, 2), order_of_round(12, 9, 3));
        assert!(third != order_of_round(12, 9, 0) && third != order_of_round(12, 10, 2));
        assert!(third.iter().eq(fourth.iter().rev()));
        assert_eq!(order_of_round(0, 9, 3), [0; 0]);
    }

    fn rounds(steps: &[f64], limits: Limits) -> u32 {
        chosen(&Measure::default(), limits, steps, &super::super::tests::facts())
    }

    #[test]
    fn short_steps_have_three_launches_and_long_ones_fewer() {
        let free = Limits::default();
        assert_eq!(rounds(&[0.001; 12], free), 3);
        assert_eq!(rounds(&[5.0], free), 2);
        assert_eq!(rounds(&[60.0], free), 1, "a launch is a warm-up of minutes");
        assert_eq!(rounds(&[], free), 1);
    }

    #[test]
    fn limits_of_time_and_money_leave_room_for_fewer() {
        // 12 cells of 1.3 s each, 1.9 s in three launches, at 100 USD an hour.
        let of = |minutes, usd| rounds(&[0.001; 12], Limits { minutes, usd, ..Limits::default() });
        assert_eq!(of(Some(1.0), None), 3);
        assert_eq!(of(Some(0.33), None), 2);
        assert_eq!(of(Some(0.1), None), 1);
        assert_eq!(of(None, Some(0.1)), 1);
    }

    #[test]
    fn what_is_asked_for_is_done() {
        let measure = Measure { rounds: Some(7), ..Measure::default() };
        assert_eq!(chosen(&measure, Limits::default(), &[60.0], &super::super::tests::facts()), 7);
    }

    #[test]
    fn rounds_share_the_seconds_of_a_cell() {
        let m = Measure::default();
        let of = |rounds| seconds_of_cell(0.001, &m, rounds);
        // A second of measuring either way; a start and four steps of warm-up each.
        assert!((of(3) - of(1) - 2.0 * (0.3 + 0.004)).abs() < 1e-9, "{} {}", of(3), of(1));
        let launch = m.of_launch(4);
        assert_eq!((launch.min_seconds, launch.max_seconds, launch.precision), (0.25, 2.5, 0.02));
    }
}
