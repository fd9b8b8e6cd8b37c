//! What a stage of a pipeline does when, one forward one backward (Narayanan et al. 2019, PipeDream, section 3.2; 2021, Megatron-LM,
//! section 2.2.1): as many micro-batches go forward as there are stages behind, then one forward and one back in turn, then the rest back.
//! As soon as the last stage has a loss, gradients flow, and no stage keeps more than [`Stage::in_flight`] micro-batches.
//!
//! What two stages hand to one another is an exchange of both at the same time, so that both have to come to the same exchanges in
//! the same order: where one is due in each direction, the activations go first.

use super::super::collective::stage::Stage;

/// One thing that a stage does, with the number of the micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The stream comes from the stage before.
    TakeStream(usize),
    Forward(usize),
    /// It goes to the next.
    GiveStream(usize),
    /// The stream's gradient comes from the next stage.
    TakeGradient(usize),
    Backward(usize),
    /// It goes to the stage before.
    GiveGradient(usize),
}

/// All turns of a training step.
pub(super) fn one_forward_one_backward(stage: Stage, micro_batches: usize) -> Vec<Turn> {
    let behind = stage.of - 1 - stage.number;
    let warm_up = behind.min(micro_batches);
    let mut turns = Vec::with_capacity(6 * micro_batches);
    for number in 0..warm_up {
        take_stream(&mut turns, stage, number);
        forward(&mut turns, stage, number);
    }
    if warm_up < micro_batches {
        take_stream(&mut turns, stage, warm_up);
    }
    for number in 0..micro_batches {
        let ahead = number + warm_up;
        if ahead < micro_batches {
            forward(&mut turns, stage, ahead);
        }
        if !stage.is_last() {
            turns.push(Turn::TakeGradient(number));
        }
        turns.push(Turn::Backward(number));
        // The stage before has both to exchange by now, and hands its stream on first.
        if ahead + 1 < micro_batches {
            take_stream(&mut turns, stage, ahead + 1);
        }
        if !stage.is_first() {
            turns.push(Turn::GiveGradient(number));
        }
    }
    turns
}

/// Those of a pass over every micro-batch without a way back.
pub(super) fn forward_alone(stage: Stage, micro_batches: usize) -> Vec<Turn> {
    let mut turns = Vec::with_capacity(3 * micro_batches);
    for number in 0..micro_batches {
        take_stream(&mut turns, stage, number);
        forward(&mut turns, stage, number);
    }
    turns
}

fn take_stream(turns: &mut Vec<Turn>, stage: Stage, number: usize) {
    if !stage.is_first() {
        turns.push(Turn::TakeStream(number));
    }
}

fn forward(turns: &mut Vec<Turn>, stage: Stage, number: usize) {
    turns.push(Turn::Forward(number));
    if !stage.is_last() {
        turns.push(Turn::GiveStream(number));
    }
}

#[cfg(test)]
mod tests {
    use super::Turn::*;
    use super::*;

    fn all(of: usize, micro_batches: usize) -> Vec<Vec<Turn>> {
        (0..of).map(|number| one_forward_one_backward(Stage::new(number, of, of), micro_batches)).collect()
    }

    /// Forward and backward passes alone: `+k` and `-k`, counted from 1.
    fn passes(turns: &[Turn]) -> Vec<i32> {
        let pass = |turn: &Turn| match turn {
            Forward(number) => Some(*number as i32 + 1),
            Backward(number) => Some(-(*number as i32) - 1),
            _ => None,
        };
        turns.iter().filter_map(pass).collect()
    }

    #[test]
    fn the_order_is_that_of_the_papers() {
        let of = |p, m| all(p, m).iter().map(|t| passes(t)).collect::<Vec<_>>();
        assert_eq!(of(1, 3), [[1, -1, 2, -2, 3, -3]]);
        assert_eq!(of(2, 3), [[1, 2, -1, 3, -2, -3], [1, -1, 2, -2, 3, -3]]);
        // Narayanan et al. 2021, figure 4, the first stage of four with eight micro-batches.
        assert_eq!(of(4, 8)[0], [1, 2, 3, 4, -1, 5, -2, 6, -3, 7, -4, 8, -5, -6, -7, -8]);
        assert_eq!(of(4, 8)[2], [1, 2, -1, 3, -2, 4, -3, 5, -4, 6, -5, 7, -6, 8, -7, -8]);
        // Fewer micro-batches than stages.
        assert_eq!(of(4, 2)[0], [1, 2, -1, -2]);
        assert_eq!(
            one_forward_one_backward(Stage::new(1, 3, 3), 2),
            [
                TakeStream(0),
                Forward(0),
                GiveStream(0),
                TakeStream(1),
                Forward(1),
                GiveStream(1),
                TakeGradient(0),
                Backward(0),
                GiveGradient(0),
                TakeGradient(1),
                Backward(1),
                GiveGradient(1),
            ]
        );
    }

    #[test]
    fn every_micro_batch_goes_forward_and_back_once_and_no_more_are_kept_than_is_said() {
        for of in 1..=4 {
            for m in 1..=8 {
                for (number, turns) in all(of, m).iter().enumerate() {
                    let stage = Stage::new(number, of, of);
                    let (mut forwards, mut backwards, mut most) = (0, 0, 0);
                    for pass in passes(turns) {
                        if pass > 0 {
                            forwards += 1;
                            assert_eq!(pass, forwards, "in their order");
                        } else {
                            backwards += 1;
                            assert_eq!(-pass, backwards, "in their order");
                        }
                        assert!(backwards <= forwards);
                        most = most.max(forwards - backwards);
                    }
                    assert_eq!((forwards, backwards), (m as i32, m as i32));
                    assert_eq!(most as usize, stage.in_flight(m), "stage {number} of {of}, {m} micro-batches");
                    // What arrives finds its place free: the micro-batch that had it has gone back.
                    let mut gone = 0;
                    for turn in turns {
                        match turn {
                            Backward(_) => gone += 1,
                            TakeStream(k) | Forward(k) => assert!(k - gone < stage.in_flight(m)),
                            _ => {}
                        }
                    }
                }
            }
        }
    }

    /// Runs all stages, an exchange being done when both have come to it: what each had done when nobody could go on.
    fn meet(all: &[Vec<Turn>]) -> Vec<usize> {
        let mut at = vec![0; all.len()];
        loop {
            let before = at.clone();
            for stage in 0..all.len() {
                while let Some(turn) = all[stage].get(at[stage]) {
                    let partner = match *turn {
                        Forward(_) | Backward(_) => {
                            at[stage] += 1;
                            continue;
                        }
                        GiveStream(k) => (stage + 1, TakeStream(k)),
                        TakeStream(k) => (stage - 1, GiveStream(k)),
                        GiveGradient(k) => (stage - 1, TakeGradient(k)),
                        TakeGradient(k) => (stage + 1, GiveGradient(k)),
                    };
                    if all[partner.0].get(at[partner.0]) != Some(&partner.1) {
                        break;
                    }
                    at[stage] += 1;
                    at[partner.0] += 1;
                }
            }
            if at == before {
                return at;
            }
        }
    }

    #[test]
    fn stages_that_wait_for_one_another_come_to_the_end() {
        for of in 1..=4 {
            for m in 1..=8 {
                let turns = all(of, m);
                assert_eq!(meet(&turns), turns.iter().map(Vec::len).collect::<Vec<_>>(), "{of} stages, {m}");
                let alone: Vec<_> = (0..of).map(|s| forward_alone(Stage::new(s, of, of), m)).collect();
                assert_eq!(meet(&alone), alone.iter().map(Vec::len).collect::<Vec<_>>());
            }
        }
        // With gradients first, neighbours would wait for one another for ever: the check sees it.
        let mut turns = all(2, 3);
        let at = turns[1].iter().position(|t| *t == TakeStream(1)).unwrap();
        turns[1].swap(at, at + 1);
        assert!(meet(&turns)[0] < turns[0].len());
    }

    #[test]
    fn stages_of_one_speed_wait_for_the_share_of_a_step_that_is_the_bubble() {
        use super::super::super::collective::grid::Parallel;
        for of in 1..=4u32 {
            for m in 1..=8u32 {
                let turns = all(of as usize, m as usize);
                // Forward passes take 1, backward passes 2, exchanges nothing.
                let (mut clocks, mut at) = (vec![0; turns.len()], vec![0; turns.len()]);
                while at.iter().zip(&turns).any(|(at, t)| *at < t.len()) {
                    for stage in 0..turns.len() {
                        let Some(turn) = turns[stage].get(at[stage]) else { continue };
                        let partner = match *turn {
                            Forward(_) => {
                                clocks[stage] += 1;
                                at[stage] += 1;
                                continue;
                            }
                            Backward(_) => {
                                clocks[stage] += 2;
                                at[stage] += 1;
                                continue;
                            }
                            GiveStream(k) => (stage + 1, TakeStream(k)),
                            TakeStream(k) => (stage - 1, GiveStream(k)),
                            GiveGradient(k) => (stage - 1, TakeGradient(k)),
                            TakeGradient(k) => (stage + 1, GiveGradient(k)),
                        };
                        if turns[partner.0].get(at[partner.0]) == Some(&partner.1) {
                            let met = clocks[stage].max(clocks[partner.0]);
                            (clocks[stage], clocks[partner.0]) = (met, met);
                            at[stage] += 1;
                            at[partner.0] += 1;
                        }
                    }
                }
                let (step, busy) = (f64::from(clocks.into_iter().max().unwrap()), f64::from(3 * m));
                let bubble = Parallel { pipeline: of, ..Parallel::replicas(1) }.bubble(m);
                assert!((1.0 - busy / step - bubble).abs() < 1e-12, "{of} stages, {m}: {step}");
            }
        }
    }
}
