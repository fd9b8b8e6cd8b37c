use super::*;
use crate::data::{Language, Source, Tokenizer, What};
use crate::scenario::learning::{Decay, Eval, Schedule, Until};
use crate::transformer::session::StepOutcome;
use std::cell::Cell;
use std::rc::Rc;

/// Time that passes only when a session says so.
#[derive(Clone, Default)]
struct Hand(Rc<Cell<Duration>>);

impl Hand {
    fn pass(&self, seconds: f64) {
        self.0.set(self.0.get() + Duration::from_secs_f64(seconds));
    }
}

impl Clock for Hand {
    fn now(&self) -> Duration {
        self.0.get()
    }
}

/// Stands still once after the third step, for an hour.
struct Patient {
    hand: Hand,
    steps: usize,
}

impl Onlooker for Patient {
    fn look(&mut self, _: Duration) -> bool {
        self.steps += 1;
        self.steps == 3
    }

    fn pause(&mut self, _: &dyn Clock) -> bool {
        self.hand.pass(3600.0);
        false
    }
}

/// Steps of 10 s, evaluations of 100 s, losses by the number of steps; the rates that it was told.
struct Pupil {
    hand: Hand,
    steps: u64,
    rates: Vec<f32>,
    loss: fn(u64) -> f64,
}

impl Session for Pupil {
    fn step(&mut self) -> Result<StepOutcome, SessionError> {
        Err(SessionError::Invalid("is taught".into()))
    }

    fn checksum(&self) -> u32 {
        self.steps as u32
    }

    fn train(&mut self, rate: f32) -> Result<StepOutcome, SessionError> {
        self.rates.push(rate);
        self.hand.pass(10.0);
        self.steps += 1;
        Ok(StepOutcome { tokens: 100, loss: Some((self.loss)(self.steps) as f32), first_token_seconds: None })
    }

    fn evaluate(&mut self, batches: u64) -> Result<f64, SessionError> {
        assert_eq!(batches, 7);
        self.hand.pass(100.0);
        Ok((self.loss)(self.steps))
    }

    fn waited(&self) -> Option<f64> {
        Some(self.steps as f64)
    }
}

/// 4 at first, a tenth less with every step.
fn falling(steps: u64) -> f64 {
    4.0 - 0.1 * steps as f64
}

fn learning(until: Until) -> Learning {
    let data = Source::new(What::Synthetic(Language::default()), Tokenizer::Bytes);
    let schedule = Schedule { rate: 1.0, warmup: 2, decay: Decay::Linear, floor: 0.0, weight_decay: None };
    Learning { data, schedule, until, eval: Eval { every: 4, tokens: 700 } }
}

fn studied(until: Until, timeout: f64, loss: fn(u64) -> f64) -> (Result<(Measured, Learned), Broken>, Vec<f32>) {
    let (hand, learning) = (Hand::default(), learning(until));
    let mut pupil = Pupil { hand: hand.clone(), steps: 0, rates: vec![], loss };
    let terms = Terms {
        learning: &learning,
        text: Text::default(),
        seed: 9,
        tokens_per_step: 100,
        batches: learning.evaluation_batches(100, 50),
        timeout_seconds: timeout,
        gone_seconds: 0.0,
    };
    let mut patient = Patient { hand: hand.clone(), steps: 0 };
    let found = study(&mut pupil, &terms, &hand, &mut patient, &mut |p| assert_eq!(p.stage, Stage::Learning));
    (found, pupil.rates)
}

const NOTHING: Until = Until { validation_loss: None, tokens: None, seconds: None };
const LONG: f64 = 1e6;

#[test]
fn a_loss_is_there_at_the_first_evaluation_that_has_it_and_only_steps_count_as_training() {
    let until = Until { validation_loss: Some(3.3), tokens: Some(10_000), ..NOTHING };
    let (found, rates) = studied(until, LONG, falling);
    let (measured, learned) = found.unwrap();
    // 3.3 is there after 7 steps, and looked for after 8.
    assert_eq!(learned.ended_by, EndedBy::Target);
    let target = learned.target.unwrap();
    assert_eq!((target.step, target.tokens, target.seconds), (8, 800, 80.0), "an hour's pause does not count");
    assert_eq!(learned.evaluations.iter().map(|e| e.step).collect::<Vec<_>>(), [0, 4, 8]);
    assert_eq!((learned.evaluation_seconds, learned.waited_seconds, learned.seed), (300.0, 8.0, 9));
    assert_eq!((measured.step_seconds, measured.warmup_steps), (vec![10.0; 7], 1));
    assert_eq!((measured.checksum, measured.stopped_by), (1, Stop::Goal));
    assert_eq!(rates[..3], [0.5, 1.0, 1.0]);
    // Of 98 steps after the warm-up, five are behind.
    assert!((rates[7] - (1.0 - 5.0 / 98.0)).abs() < 1e-6, "{rates:?}");
}

#[test]
fn a_bound_ends_it_with_an_evaluation_and_without_the_loss() {
    let until = Until { validation_loss: Some(0.1), tokens: Some(550), ..NOTHING };
    let (_, learned) = studied(until, LONG, falling).0.unwrap();
    assert_eq!((learned.ended_by, learned.target), (EndedBy::Tokens, None));
    assert_eq!((learned.end.step, learned.end.tokens), (6, 600), "whole steps");
    assert!((learned.end.loss - 3.4).abs() < 1e-9 && learned.curve.len() == 6);
    let (found, rates) = studied(Until { seconds: Some(45.0), ..NOTHING }, LONG, falling);
    let (_, learned) = found.unwrap();
    assert_eq!((learned.ended_by, learned.end.seconds), (EndedBy::Seconds, 50.0));
    // The share of the seconds that is behind is what the rate falls by.
    assert!((rates[4] - (1.0 - 40.0 / 45.0)).abs() < 1e-6, "{rates:?}");
    // The pause is part of what the time-out counts: 100 s of evaluation, 30 of steps, an hour.
    let (_, learned) = studied(Until { tokens: Some(10_000), ..NOTHING }, 4000.0, falling).0.unwrap();
    assert_eq!((learned.ended_by, learned.end.step), (EndedBy::Timeout, 3));
}

#[test]
fn losses_that_are_none_end_it_with_the_step() {
    let diverged = |loss: fn(u64) -> f64| match studied(Until { tokens: Some(5000), ..NOTHING }, LONG, loss).0 {
        Err(Broken::Diverged(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let nan = diverged(|steps| if steps < 6 { falling(steps) } else { f64::NAN });
    assert_eq!(nan, "the training loss is no number (NaN) at step 6 (600 tokens); validation loss 3.6000 at step 4");
    let exploded = diverged(|steps| if steps < 2 { 4.0 } else { 8.5 });
    assert!(exploded.starts_with("the training loss is 8.500, over twice what it began with at step 2"), "{exploded}");
    // A spike that is not twice as high is one that may go away.
    assert!(studied(Until { tokens: Some(500), ..NOTHING }, LONG, |s| if s == 2 { 7.9 } else { 4.0 }).0.is_ok());
}

#[test]
fn a_target_that_is_there_before_the_first_step_is_refused() {
    let until = Until { validation_loss: Some(4.5), tokens: Some(500), ..NOTHING };
    match studied(until, LONG, falling).0 {
        Err(Broken::Session(e)) => assert!(e.to_string().contains("before the first step (4.0000)"), "{e}"),
        other => panic!("{other:?}"),
    }
}
