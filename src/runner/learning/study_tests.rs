use super::*;
use crate::data::{Language, Source, Tokenizer, What};
use crate::scenario::learning::{Decay, Eval, Every, Schedule, Until};
use crate::transformer::checkpoint::written::Written;
use crate::transformer::session::StepOutcome;
use std::cell::Cell;
use std::path::Path;
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
    /// It ends with the step after so many.
    dies_after: u64,
    /// The disk is full from this step on.
    full_from: u64,
}

impl Session for Pupil {
    fn step(&mut self) -> Result<StepOutcome, SessionError> {
        Err(SessionError::Invalid("is taught".into()))
    }

    fn checksum(&self) -> u32 {
        self.steps as u32
    }

    fn train(&mut self, rate: f32) -> Result<StepOutcome, SessionError> {
        if self.steps == self.dies_after {
            return Err(SessionError::Device("killed".into()));
        }
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

    fn save(&mut self, folder: &Path) -> Result<Vec<Written>, String> {
        self.hand.pass(1000.0);
        let content = self.steps.to_le_bytes();
        if self.steps >= self.full_from {
            std::fs::write(folder.join("state"), &content[..3]).unwrap();
            return Err("no space left".into());
        }
        std::fs::write(folder.join("state"), content).unwrap();
        Ok(vec![Written { file: "state".into(), bytes: 8, crc32: crc32fast::hash(&content) }])
    }

    fn restore(&mut self, folder: &Path, step: u64) -> Result<(), SessionError> {
        let content = std::fs::read(folder.join("state")).unwrap();
        self.steps = u64::from_le_bytes(content.try_into().unwrap());
        assert_eq!(self.steps, step);
        Ok(())
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
    Learning { data, schedule, until, eval: Eval { every: 4, tokens: 700 }, checkpoint: None }
}

fn pupil(hand: &Hand, loss: fn(u64) -> f64) -> Pupil {
    Pupil { hand: hand.clone(), steps: 0, rates: vec![], loss, dies_after: u64::MAX, full_from: u64::MAX }
}

fn studied(until: Until, timeout: f64, loss: fn(u64) -> f64) -> (Result<(Measured, Learned), Broken>, Vec<f32>) {
    let (hand, learning) = (Hand::default(), learning(until));
    let mut pupil = pupil(&hand, loss);
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
    let found =
        study(&mut pupil, &terms, Start::default(), &hand, &mut patient, &mut |p| assert_eq!(p.stage, Stage::Learning));
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

const THIRTY_STEPS: Until = Until { tokens: Some(3000), ..NOTHING };

/// One process of a launch with checkpoints, which learns for thirty steps or dies; with the rates that it was told.
fn process(folder: &Path, every: Every, of: impl Fn(&mut Pupil)) -> (Result<(Measured, Learned), Broken>, Vec<f32>) {
    let (hand, learning) = (Hand::default(), learning(THIRTY_STEPS));
    let mut pupil = pupil(&hand, |steps| 4.0 - 0.1 * steps as f64 + 0.003 * (steps * steps % 7) as f64);
    of(&mut pupil);
    let terms = Terms {
        learning: &learning,
        text: Text::default(),
        seed: 9,
        tokens_per_step: 100,
        batches: learning.evaluation_batches(100, 50),
        timeout_seconds: LONG,
        gone_seconds: 0.0,
    };
    let mut keeper = Keeper::of_test(every, folder, 9);
    let notes = keeper.resume(&mut pupil).unwrap();
    let start = Start { notes, keeper: Some(keeper) };
    let mut patient = Patient { hand: hand.clone(), steps: 3 };
    let found = study(&mut pupil, &terms, start, &hand, &mut patient, &mut |_| {});
    (found, pupil.rates)
}

#[test]
fn what_a_killed_process_had_learnt_the_next_one_goes_on_with() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (whole, rates) = process(folders[0].path(), Every::Steps(7), |_| {});
    let (measured, whole) = whole.unwrap();
    let own = whole.checkpoints.clone().unwrap();
    assert_eq!((own.made, own.failed, own.resumed, own.lost_steps), (4, 0, 0, 0));
    assert_eq!((own.seconds, own.said.len()), (4000.0, 0), "at 7, 14, 21 and 28");
    assert!((whole.end.seconds, whole.end.step) == (300.0, 30), "checkpoints are no part of the training");
    let (again, mut told) = (|of: u64| process(folders[1].path(), Every::Steps(7), |p| p.dies_after = of), Vec::new());
    // Before the first checkpoint, after one, two steps after another, at once; and then not at all.
    for (dies, from) in [(5, 0), (8, 0), (16, 7), (14, 14), (u64::MAX, 14)] {
        let (found, rates) = again(dies);
        told.truncate(from);
        told.extend(rates);
        if let Ok((other, learned)) = found {
            let own = learned.checkpoints.clone().unwrap();
            assert_eq!((own.made, own.resumed, own.lost_steps, own.lost_seconds), (4, 4, 5 + 1 + 2, 80.0));
            assert_eq!((own.seconds, own.said), (4000.0, vec![]), "of the processes before as well");
            assert_eq!((&other.step_seconds, other.step_starts.len()), (&measured.step_seconds, 16));
            assert_eq!((other.checksum, other.loss), (measured.checksum, measured.loss));
            // Of each process only its own waits are known until its last checkpoint.
            let same = Learned { checkpoints: None, ..whole.clone() };
            assert_eq!(Learned { checkpoints: None, waited_seconds: whole.waited_seconds, ..learned }, same);
        }
    }
    assert_eq!(told, rates);
}

#[test]
fn time_makes_checkpoints_due_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let (found, _) = process(folder.path(), Every::Seconds(95.0), |_| {});
    assert_eq!(found.unwrap().1.checkpoints.unwrap().made, 2, "after 100 and 200 of 300 s");
}

#[test]
fn a_full_disk_is_said_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (found, _) = process(folder.path(), Every::Steps(10), |p| (p.full_from, p.dies_after) = (20, 25));
    assert!(found.is_err());
    let (found, rates) = process(folder.path(), Every::Steps(10), |p| p.full_from = 20);
    let (_, learned) = found.unwrap();
    assert_eq!((rates.len(), learned.end.step), (20, 30), "from the checkpoint before");
    let own = learned.checkpoints.unwrap();
    assert_eq!((own.made, own.failed, own.lost_steps), (1, 2, 15));
    assert_eq!(own.said, ["2 of 3 checkpoints could not be written (no space left)"]);
    let nowhere = folder.path().join("file");
    std::fs::write(&nowhere, "").unwrap();
    let (found, _) = process(&nowhere, Every::Steps(10), |_| {});
    let own = found.unwrap().1.checkpoints.unwrap();
    assert_eq!((own.made, own.failed), (0, 2));
    assert!(own.said[0].starts_with("2 of 2 checkpoints could not be written (") && own.said[0].contains("file"));
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before_and_two_to_a_new_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let dies = |at: u64| process(folder.path(), Every::Steps(5), |p| p.dies_after = at).1.len();
    let damage = |step: u64| std::fs::write(folder.path().join(format!("step-{step:09}/state")), "x").unwrap();
    assert_eq!(dies(18), 18);
    damage(15);
    assert_eq!(dies(19), 9, "from step 10");
    damage(15);
    damage(10);
    let (found, rates) = process(folder.path(), Every::Steps(5), |_| {});
    let own = found.unwrap().1.checkpoints.unwrap();
    assert_eq!((rates.len(), own.lost_steps), (30, 8 + 19));
    let why = "was damaged (state: expected 8 bytes, found 1): it began anew";
    assert_eq!(own.said, [15, 10].map(|step| format!("the checkpoint of step {step} {why}")));
}

#[test]
fn a_checkpoint_of_another_launch_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(process(folder.path(), Every::Steps(5), |p| p.dies_after = 7).0.is_err());
    let mut other = Keeper::of_test(Every::Steps(5), folder.path(), 10);
    let said = other.resume(&mut pupil(&Hand::default(), falling)).unwrap_err().to_string();
    assert!(
        said.contains("step-000000005: a checkpoint of another trial or launch: seed: expected 10, found 9; move"),
        "{said}"
    );
}
