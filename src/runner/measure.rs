//! The measuring loop of one trial: warm-up until the step time is stationary, then steps until the median is precise.
//!
//! Every step is timed from the call to its return and kept. Between steps, never inside one, the loop looks at what it has,
//! on a schedule that grows with the number of steps: looking costs less than a tenth of measuring, and the fewer looks the
//! less the stopping rule favours a lucky one.

use super::allocation;
use super::clock::Clock;
use super::measurement::Stop;
use super::precision;
use super::protocol::{Progress, Stage};
use crate::scenario::Measure;
use crate::stats;
use crate::transformer::error::SessionError;
use crate::transformer::loads::Loads;
use crate::transformer::memory::DeviceMemory;
use crate::transformer::session::Session;
use std::time::Duration;

/// The most samples that are kept of a trial, warm-up included.
const MOST_STEPS: usize = 1_000_000;

/// Least time between two reports of progress: at most five a second.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Share of `max_seconds` that warming up may take before measuring starts whatever the steps look like.
const WARM_UP_SHARE: f64 = 0.5;

/// What the loop found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub step_seconds: Vec<f64>,
    /// When each of them began, on the clock, in seconds.
    pub step_starts: Vec<f64>,
    /// As long as `step_seconds` in `generate`; empty otherwise.
    pub first_token_seconds: Vec<f64>,
    pub warmup_steps: u32,
    pub stopped_by: Stop,
    pub precision_reached: Option<f64>,
    pub loss: Option<f64>,
    /// Of the session after its first step: later ones depend on how many steps there was time for.
    pub checksum: u32,
    /// Highest bytes allocated by the end of the second step, or of the only one.
    pub first_allocated_bytes: u64,
    /// After the last step.
    pub device_memory: Option<DeviceMemory>,
    pub expert_loads: Option<Loads>,
}

/// Who looks on between two steps.
pub(super) trait Onlooker {
    /// A step has ended, at this moment on the clock. Whether to stand still before the next.
    fn look(&mut self, now: Duration) -> bool;
    /// Lets a moment pass; whether to stand still for longer. It sees to it that this ends.
    fn pause(&mut self, clock: &dyn Clock) -> bool;
}

/// Warms `session` up and measures it.
///
/// # Errors
/// The session's, at the step where it failed.
pub(super) fn measure(
    session: &mut dyn Session,
    settings: &Measure,
    clock: &dyn Clock,
    onlooker: &mut dyn Onlooker,
    report: &mut dyn FnMut(Progress),
) -> Result<Measured, SessionError> {
    let (stage, began) = (Stage::WarmUp, clock.now());
    let mut steps = Steps { session, clock, onlooker, report, tally: Tally::default(), stage, began, reported: None };
    let discard = match settings.warmup_steps {
        Some(count) => steps.warm_up_for(count as usize)?,
        None => steps.warm_up_until_stationary(settings.max_seconds * WARM_UP_SHARE)?,
    };
    // Steps after the truncation point are as good as later ones, and with slow steps every one counts.
    steps.tally.discard(discard);
    steps.begin(Stage::Measuring);
    let (stopped_by, precision_reached) = steps.until_precise(settings)?;
    let (device_memory, expert_loads) = (steps.session.device_memory(), steps.session.loads());
    let first_allocated_bytes = steps.tally.allocated.unwrap_or_else(allocation::peak_bytes);
    let Tally { seconds, starts, first_tokens, loss, checksum, .. } = steps.tally;
    Ok(Measured {
        step_seconds: seconds,
        step_starts: starts,
        first_token_seconds: first_tokens,
        warmup_steps: u32::try_from(discard).unwrap_or(u32::MAX),
        stopped_by,
        precision_reached,
        loss,
        checksum: checksum.unwrap_or_default(),
        first_allocated_bytes,
        device_memory,
        expert_loads,
    })
}

/// What has been seen so far, in the order it happened.
#[derive(Debug, Default)]
struct Tally {
    seconds: Vec<f64>,
    starts: Vec<f64>,
    first_tokens: Vec<f64>,
    tokens_per_step: u64,
    loss: Option<f64>,
    checksum: Option<u32>,
    /// Steps so far, those that are discarded among them.
    done: u64,
    /// Highest bytes allocated by the end of the second step.
    allocated: Option<u64>,
}

impl Tally {
    fn discard(&mut self, count: usize) {
        self.seconds.drain(..count.min(self.seconds.len()));
        self.starts.drain(..count.min(self.starts.len()));
        self.first_tokens.drain(..count.min(self.first_tokens.len()));
    }

    fn tokens_per_second(&self) -> Option<f64> {
        let seconds: f64 = self.seconds.iter().sum();
        (seconds > 0.0).then(|| self.tokens_per_step as f64 * self.seconds.len() as f64 / seconds)
    }
}

/// A session with a clock beside it.
struct Steps<'a> {
    session: &'a mut dyn Session,
    clock: &'a dyn Clock,
    onlooker: &'a mut dyn Onlooker,
    report: &'a mut dyn FnMut(Progress),
    tally: Tally,
    stage: Stage,
    began: Duration,
    reported: Option<Duration>,
}

impl Steps<'_> {
    fn begin(&mut self, stage: Stage) {
        self.stage = stage;
        self.began = self.clock.now();
        self.reported = None;
    }

    /// Seconds since the stage began.
    fn elapsed(&self) -> f64 {
        self.clock.now().saturating_sub(self.began).as_secs_f64()
    }

    fn full(&self) -> bool {
        self.tally.seconds.len() >= MOST_STEPS
    }

    /// One step; whether there was one.
    fn step(&mut self) -> Result<bool, SessionError> {
        let start = self.clock.now();
        let outcome = match self.session.step() {
            Err(SessionError::Ended) => return Ok(false),
            outcome => outcome?,
        };
        let end = self.clock.now();
        let timed = || end.saturating_sub(start).as_secs_f64();
        self.tally.seconds.push(self.session.last_seconds().unwrap_or_else(timed));
        self.tally.starts.push(start.as_secs_f64());
        self.tally.first_tokens.extend(outcome.first_token_seconds);
        self.tally.tokens_per_step = outcome.tokens;
        self.tally.loss = outcome.loss.map(f64::from);
        self.tally.done += 1;
        if self.tally.done == 2 {
            self.tally.allocated = Some(allocation::peak_bytes());
        }
        if self.tally.checksum.is_none() {
            self.tally.checksum = Some(self.session.checksum());
        }
        if self.onlooker.look(end) {
            self.stand_still();
        }
        Ok(true)
    }

    /// Until the machine is quieter. The time does not count.
    fn stand_still(&mut self) {
        let (stage, from) = (self.stage, self.clock.now());
        (self.stage, self.reported) = (Stage::Waiting, None);
        loop {
            self.report(None);
            if !self.onlooker.pause(self.clock) {
                break;
            }
        }
        self.stage = stage;
        self.began += self.clock.now().saturating_sub(from);
    }

    fn report(&mut self, precision: Option<f64>) {
        let now = self.clock.now();
        if self.reported.is_some_and(|last| now.saturating_sub(last) < REPORT_EVERY) {
            return;
        }
        self.reported = Some(now);
        let progress = Progress {
            stage: self.stage,
            steps: self.tally.seconds.len() as u64,
            seconds: self.elapsed(),
            tokens_per_second: self.tally.tokens_per_second(),
            precision,
        };
        (self.report)(progress);
    }

    /// Runs a fixed number of steps; returns how many to discard: all.
    fn warm_up_for(&mut self, count: usize) -> Result<usize, SessionError> {
        while self.tally.seconds.len() < count && !self.full() && self.step()? {
            self.report(None);
        }
        let discard = self.tally.seconds.len();
        Ok(discard)
    }

    /// Runs until the step time is stationary, or for `budget` seconds; returns how many steps to discard: those before the
    /// series became stationary, at least the first, or all of them when it never did.
    fn warm_up_until_stationary(&mut self, budget: f64) -> Result<usize, SessionError> {
        let mut look_at = 1;
        loop {
            let ended = !self.step()?;
            self.report(None);
            let steps = self.tally.seconds.len();
            if steps >= look_at || ended {
                look_at = next_look(steps);
                if let Some(from) = stats::stationary_from(&self.tally.seconds) {
                    return Ok(from.clamp(1, steps));
                }
            }
            if self.elapsed() >= budget || self.full() || ended {
                return Ok(steps);
            }
        }
    }

    /// Steps until the median is precise enough or time is up; says which, and how precise it is.
    fn until_precise(&mut self, settings: &Measure) -> Result<(Stop, Option<f64>), SessionError> {
        // Steps kept from the warm-up count towards the time they took.
        let before: f64 = self.tally.seconds.iter().sum();
        let mut look_at = 1;
        let mut precision = None;
        loop {
            if !self.step()? {
                return self.ended();
            }
            self.report(precision);
            let steps = self.tally.seconds.len();
            let elapsed = before + self.elapsed();
            let up = elapsed >= settings.max_seconds;
            if up || self.full() || (elapsed >= settings.min_seconds && steps >= look_at) {
                look_at = next_look(steps);
                precision = precision::reached(&self.tally.seconds);
                if elapsed >= settings.min_seconds && precision.is_some_and(|p| p <= settings.precision) {
                    return Ok((Stop::Precision, precision));
                }
                if up || self.full() {
                    return Ok((if up { Stop::MaxSeconds } else { Stop::MaxSteps }, precision));
                }
            }
        }
    }

    /// There are no more steps: what was measured so far is what there is.
    fn ended(&self) -> Result<(Stop, Option<f64>), SessionError> {
        if self.tally.seconds.is_empty() {
            return Err(SessionError::Invalid(format!(
                "the program ended after {} steps, all of them warm-up; have it run for more, or set measure.warmup to fewer",
                self.tally.done
            )));
        }
        Ok((Stop::Ended, precision::reached(&self.tally.seconds)))
    }
}

/// The number of steps at which to look again: an eighth more than now.
fn next_look(steps: usize) -> usize {
    steps + (steps / 8).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Order, Tolerated};
    use crate::transformer::session::StepOutcome;
    use std::cell::Cell;
    use std::rc::Rc;

    /// Time that passes only when a session says so.
    #[derive(Clone, Default)]
    struct Hand(Rc<Cell<Duration>>);

    impl Clock for Hand {
        fn now(&self) -> Duration {
            self.0.get()
        }
    }

    /// Counts the looks, and stands still at one of them for so many moments of a second.
    #[derive(Default)]
    struct Looks {
        done: usize,
        stop_at: Option<usize>,
        moments: u32,
        hand: Hand,
    }

    impl Onlooker for Looks {
        fn look(&mut self, _: Duration) -> bool {
            self.done += 1;
            self.stop_at == Some(self.done)
        }

        fn pause(&mut self, clock: &dyn Clock) -> bool {
            self.moments -= 1;
            self.hand.0.set(clock.now() + Duration::from_secs(1));
            self.moments > 0
        }
    }

    /// Steps of exactly known length: the first ones, then a pattern for ever.
    struct Scripted {
        hand: Hand,
        first: Vec<u64>,
        pattern: Vec<u64>,
        done: usize,
    }

    impl Session for Scripted {
        fn step(&mut self) -> Result<StepOutcome, SessionError> {
            let micros = match self.first.get(self.done) {
                Some(first) => *first,
                None => self.pattern[(self.done - self.first.len()) % self.pattern.len()],
            };
            self.done += 1;
            self.hand.0.set(self.hand.0.get() + Duration::from_micros(micros));
            Ok(StepOutcome { tokens: 100, loss: Some(self.done as f32), first_token_seconds: None })
        }

        fn checksum(&self) -> u32 {
            self.done as u32
        }

        fn device_memory(&self) -> Option<DeviceMemory> {
            Some(DeviceMemory { peak_allocated_bytes: self.done as u64, peak_reserved_bytes: 1 << 20 })
        }
    }

    fn settings(min_seconds: f64, max_seconds: f64, warmup_steps: Option<u32>) -> Measure {
        Measure {
            precision: 0.01,
            min_seconds,
            max_seconds,
            warmup_steps,
            rounds: None,
            seed: 0,
            seeds: Vec::new(),
            order: Order::File,
            timeout_seconds: 60.0,
            ignore_memory: false,
            disturbed: Tolerated::default(),
        }
    }

    fn measured(first: &[u64], pattern: &[u64], settings: &Measure) -> (Measured, Vec<Progress>) {
        let hand = Hand::default();
        let mut session = Scripted { hand: hand.clone(), first: first.to_vec(), pattern: pattern.to_vec(), done: 0 };
        let mut seen = Vec::new();
        let mut looks = Looks { hand: hand.clone(), ..Looks::default() };
        let found = measure(&mut session, settings, &hand, &mut looks, &mut |p| seen.push(p)).unwrap();
        assert_eq!(looks.done, session.done, "after every step");
        (found, seen)
    }

    #[test]
    fn steady_steps_stop_at_the_least_time_with_their_precision() {
        let (m, _) = measured(&[], &[10_000, 10_010], &settings(1.0, 10.0, Some(3)));
        assert_eq!(m.stopped_by, Stop::Precision);
        assert_eq!(m.warmup_steps, 3);
        let total: f64 = m.step_seconds.iter().sum();
        assert!((1.0..1.2).contains(&total), "{total}");
        assert!(m.precision_reached.unwrap() <= 0.01);
        assert_eq!(m.loss, Some(3.0 + m.step_seconds.len() as f64));
        assert_eq!(m.checksum, 1, "of the first step, whatever there was time for");
        assert_eq!(
            m.device_memory.unwrap().peak_allocated_bytes,
            3 + m.step_seconds.len() as u64,
            "of the whole trial"
        );
    }

    #[test]
    fn time_in_which_the_trial_stands_still_is_told_and_does_not_count() {
        let hand = Hand::default();
        let mut session = Scripted { hand: hand.clone(), first: vec![], pattern: vec![10_000, 10_010], done: 0 };
        let mut looks = Looks { stop_at: Some(20), moments: 7, hand: hand.clone(), ..Looks::default() };
        let mut seen = Vec::new();
        let m = measure(&mut session, &settings(1.0, 5.0, Some(3)), &hand, &mut looks, &mut |p| seen.push(p)).unwrap();
        let total: f64 = m.step_seconds.iter().sum();
        assert!((1.0..1.2).contains(&total) && m.step_seconds.iter().all(|s| *s < 0.011), "{total}");
        assert!(hand.now().as_secs_f64() > 8.0 && m.stopped_by == Stop::Precision);
        assert_eq!(seen.iter().filter(|p| p.stage == Stage::Waiting).count(), 7);
    }

    #[test]
    fn wild_steps_stop_when_the_time_is_up() {
        let (m, _) = measured(&[], &[10_000, 30_000], &settings(0.1, 0.5, Some(0)));
        assert_eq!(m.stopped_by, Stop::MaxSeconds);
        assert!(m.precision_reached.unwrap() > 0.01);
        // 25 steps take 0.49 s.
        assert_eq!(m.step_seconds.len(), 26, "every step is kept, and the one that passes the limit is the last");
    }

    #[test]
    fn a_step_longer_than_the_limit_gives_one_sample_and_no_interval() {
        let (m, _) = measured(&[], &[3_000_000], &settings(0.1, 2.0, None));
        assert_eq!((m.warmup_steps, m.step_seconds.as_slice()), (1, &[3.0][..]));
        assert_eq!((m.stopped_by, m.precision_reached), (Stop::MaxSeconds, None));
    }

    #[test]
    fn slow_first_steps_are_warmed_up_and_not_counted() {
        let (m, _) = measured(&[90_000, 60_000, 30_000], &[10_000, 10_020, 10_040], &settings(0.5, 5.0, None));
        assert!(m.warmup_steps >= 3, "{}", m.warmup_steps);
        assert!(m.step_seconds.iter().all(|s| *s < 0.011), "{:?}", m.step_seconds);
        assert_eq!(m.step_starts.len(), m.step_seconds.len());
        assert!(m.step_starts[0] > 0.17, "the slow ones come first: {}", m.step_starts[0]);
        assert_eq!(m.stopped_by, Stop::Precision);
    }

    #[test]
    fn progress_is_told_at_most_five_times_a_second_and_stage_by_stage() {
        let (m, seen) = measured(&[], &[1_000, 1_001], &settings(2.0, 5.0, Some(500)));
        let elapsed = 0.5 + m.step_seconds.iter().sum::<f64>();
        assert!(seen.len() as f64 <= elapsed * 5.0 + 2.0, "{} in {elapsed} s", seen.len());
        assert_eq!(seen.first().unwrap().stage, Stage::WarmUp);
        let last = seen.last().unwrap();
        assert_eq!(last.stage, Stage::Measuring);
        assert!((last.tokens_per_second.unwrap() - 100_000.0).abs() < 100.0);
    }
}
