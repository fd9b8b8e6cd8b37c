//! Runs whose trials were to learn something, made in code, and what is said of two of them.

use super::*;
use crate::comparison::runs::compare;
use crate::data::{Source, Tokenizer, What};
use crate::fixture;
use crate::runner::learning::learned::{EndedBy, Point, Text};
use crate::scenario::learning::{Decay, Eval, Learning, Schedule, Until};

/// What a launch came to: its seed, the loss at the end, and tokens and seconds to its loss, where it got there.
pub(crate) type Launch = (u64, f64, Option<(u64, f64)>);

/// A run of trials that are to reach a loss of 3, where `target` says so. A trial without launches diverged.
pub(crate) fn run(target: bool, trials: &[&[Launch]]) -> Run {
    let records = trials.iter().enumerate().map(|(i, launches)| {
        let mut trial = fixture::trial(256, 4, 1 << i, 1);
        trial.learning = Some(Learning {
            data: Source { what: What::Corpus, tokenizer: Tokenizer::Bpe(1024), share: 1.0, digest: String::new() },
            schedule: Schedule { rate: 1e-3, warmup: 10, decay: Decay::Cosine, floor: 0.1, weight_decay: None },
            until: Until { validation_loss: target.then_some(3.0), tokens: Some(1_000_000), seconds: None },
            eval: Eval { every: 10, tokens: 1024 },
            checkpoint: None,
        });
        let mut outcome = fixture::measured(&trial, 30.0);
        match outcome.figures.as_mut() {
            Some(figures) if !launches.is_empty() => figures.learned = launches.iter().map(learned).collect(),
            _ => {
                let reason = "the training loss is NaN at step 12 (1200 tokens)";
                outcome = crate::Measurement::without_figures(Status::Diverged, reason, outcome.predicted_memory);
            }
        }
        fixture::record(i as u32, i as u32, fixture::cell(trial, &[("batch", 1 << i)]), outcome)
    });
    fixture::run(fixture::environment("learning", &["batch"], trials.len() as u32), records.collect())
}

fn learned(&(seed, loss, to_loss): &Launch) -> Learned {
    let end = Point { step: 100, tokens: 1_000_000, seconds: 50.0, loss };
    Learned {
        seed,
        ended_by: if to_loss.is_some() { EndedBy::Target } else { EndedBy::Tokens },
        text: Text::default(),
        end,
        target: to_loss.map(|(tokens, seconds)| Point { step: 10, tokens, seconds, loss: 3.0 }),
        curve: vec![],
        evaluations: vec![end],
        evaluation_seconds: 0.1,
        waited_seconds: 0.0,
        checkpoints: None,
    }
}

/// Launches of three seeds that get there, the seeds alike in both of two runs that differ by factors.
pub(crate) fn seeds(tokens: f64, seconds: f64) -> Vec<Launch> {
    // Seeds differ by much, and alike in every run.
    [(1, 1.0), (2, 1.6), (3, 0.7)]
        .map(|(seed, much)| (seed, 2.99, Some(((4e5 * much * tokens) as u64, 20.0 * much * seconds))))
        .to_vec()
}

fn against(a: &Run, b: &Run, measure: Measure) -> Estimate {
    let all = compare(&[a.clone(), b.clone()], fixture::book()).taught;
    all[0].against(&[a, b], measure, 1, 0).unwrap()
}

#[test]
fn what_seeds_do_is_in_both_runs_alike_and_a_difference_between_them_shows() {
    let (a, b) = (run(true, &[&seeds(1.0, 1.0)]), run(true, &[&seeds(0.8, 0.8)]));
    let tokens = against(&a, &b, Measure::Tokens);
    assert!((tokens.value - 0.8).abs() < 1e-4 && change(&tokens) == Change::Lower, "{tokens:?}");
    let usd = against(&a, &b, Measure::Usd);
    assert!((usd.value - 0.8).abs() < 1e-4 && change(&usd) == Change::Lower, "{usd:?}");
    // What two runs differ by as a whole is in seconds and USD, and not in tokens.
    assert!(usd.relative_half_width() > tokens.relative_half_width());
    // Other seeds: medians whose intervals are as wide as seeds differ say nothing of it.
    let mut other = seeds(0.8, 0.8);
    other.iter_mut().for_each(|l| l.0 += 10);
    assert_eq!(change(&against(&a, &run(true, &[&other]), Measure::Usd)), Change::WithinNoise);
}

#[test]
fn runs_that_read_the_same_tokens_differ_by_their_speed_alone() {
    let (a, b) = (run(true, &[&seeds(1.0, 1.0)]), run(true, &[&seeds(1.0, 1.5)]));
    let tokens = against(&a, &b, Measure::Tokens);
    assert_eq!((tokens.value, change(&tokens)), (1.0, Change::WithinNoise));
    assert_eq!(change(&against(&a, &b, Measure::Seconds)), Change::Higher);
    assert_eq!(change(&against(&a, &a, Measure::Usd)), Change::WithinNoise);
    // One seed is enough where it reads the same tokens, and says nothing where it does not.
    let one = |tokens, seconds| run(true, &[&seeds(tokens, seconds)[..1]]);
    assert_eq!(change(&against(&one(1.0, 1.0), &one(1.0, 1.5), Measure::Usd)), Change::Higher);
    assert_eq!(change(&against(&one(1.0, 1.0), &one(0.8, 0.8), Measure::Usd)), Change::Unknown);
}

#[test]
fn a_price_is_in_usd_and_not_in_seconds() {
    let a = run(true, &[&seeds(1.0, 1.0)]);
    let mut dear = a.clone();
    dear.environment.price.usd_per_hour = crate::UsdPerHour::of(3.0 * a.environment.price.usd_per_hour.unwrap().get());
    assert!((against(&a, &dear, Measure::Usd).value - 3.0).abs() < 1e-9);
    assert!((against(&a, &dear, Measure::Seconds).value - 1.0).abs() < 1e-9);
}

#[test]
fn who_gets_there_in_one_run_and_not_in_the_other_is_apart() {
    let some: Vec<Launch> =
        seeds(1.0, 1.0).into_iter().enumerate().map(|(i, l)| if i == 1 { (l.0, 3.2, None) } else { l }).collect();
    let a = run(true, &[&seeds(1.0, 1.0), &seeds(1.0, 1.0), &seeds(1.0, 1.0)]);
    let b = run(true, &[&seeds(1.0, 1.0), &some, &[]]);
    let found = compare(&[a.clone(), b.clone()], fixture::book());
    let ends: Vec<&Ending> = found.taught.iter().map(|t| &t.outcome(1).unwrap().ending).collect();
    assert_eq!(ends, [&Ending::There, &Ending::Short { reached: 2, of: 3 }, &Ending::Failed(Status::Diverged)]);
    assert_eq!(found.taught.iter().map(Taught::is_apart).collect::<Vec<_>>(), [false, true, true]);
    let runs = [&a, &b];
    let l = learnt(&runs, &found.taught, 1, 0);
    assert_eq!((l.only_here, l.only_there, l.both, l.worse()), (0, 2, 1, true));
    let back = learnt(&runs, &found.taught, 0, 1);
    assert_eq!((back.only_here, back.only_there, back.worse()), (2, 0, false));
}

#[test]
fn losses_at_the_end_are_compared_where_no_loss_is_to_be_reached() {
    let ends = |more: f64| run(false, &[&[(1, 3.0 + more, None), (2, 3.1 + more, None), (3, 2.9 + more, None)]]);
    let (a, b) = (ends(0.0), ends(0.2));
    let all = compare(&[a.clone(), b.clone()], fixture::book()).taught;
    assert_eq!(all[0].outcome(1).unwrap().ending, Ending::There);
    let l = learnt(&[&a, &b], &all, 1, 0);
    assert!(l.worse() && change(&l.loss.unwrap()) == Change::Higher && l.tokens.is_none(), "{l:?}");
    assert!(!learnt(&[&a, &b], &all, 0, 1).worse());
    // A trial of another run that was not asked for is no failure of it.
    let both = [run(true, &[&seeds(1.0, 1.0), &seeds(1.0, 1.0)]), run(true, &[&seeds(1.0, 1.0)])];
    let all = compare(&both, fixture::book()).taught;
    assert_eq!((all[1].outcome(1), all[1].is_apart()), (None, false));
}
