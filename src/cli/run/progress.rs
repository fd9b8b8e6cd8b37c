//! What a watcher of a sweep sees on stderr: a bar on a terminal, lines elsewhere, nothing when asked to be quiet.

use crate::cli::colour::colour;
use crate::plan::PlannedTrial;
use crate::results::record::Record;
use crate::runner::learning::learned::checkpoints_in_words;
use crate::runner::measurement::{Figures, Status};
use crate::runner::{Progress, Stage};
use crate::stats::median;
use crate::sweep::trials::Display;
use crate::units::{Seconds, TokensPerSecond, grouped};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Without a terminal, silence lasts no longer than this.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// The display that suits this stderr, for `total` cells of which `done` have their records already.
pub(super) fn display(total: usize, done: usize, quiet: bool) -> Box<dyn Display> {
    let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
    if quiet {
        Box::new(Quiet)
    } else if std::io::stderr().is_terminal() && !dumb {
        Box::new(Bar::new(total, done))
    } else {
        Box::new(Lines { total, done, current: None, said: Instant::now() })
    }
}

struct Quiet;

impl Display for Quiet {
    fn begin(&mut self, _: &PlannedTrial, _: Seconds) {}
    fn progress(&mut self, _: Progress) {}
    fn again(&mut self, _: usize) {}
    fn finished(&mut self, _: &Record) {}
}

/// The trial that runs.
struct Current {
    name: String,
    left: Seconds,
    began: Instant,
}

impl Current {
    fn new(trial: &PlannedTrial, left: Seconds) -> Self {
        Self { name: plain(&trial.cell.name()), left, began: Instant::now() }
    }

    /// Seconds that are left of the whole sweep by now.
    fn eta(&self) -> Seconds {
        Seconds((self.left.get() - self.began.elapsed().as_secs_f64()).max(0.0).round())
    }
}

struct Bar {
    bar: ProgressBar,
    current: Option<Current>,
}

impl Bar {
    fn new(total: usize, done: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        let template =
            if colour() { "{bar:20.cyan/blue} {pos}/{len}  {wide_msg}" } else { "{bar:20} {pos}/{len}  {wide_msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_position(done as u64);
        Self { bar, current: None }
    }
}

impl Display for Bar {
    fn begin(&mut self, trial: &PlannedTrial, left: Seconds) {
        self.current = Some(Current::new(trial, left));
    }

    fn progress(&mut self, progress: Progress) {
        if let Some(c) = &self.current {
            self.bar.set_message(format!("{} left · {} · {}", c.eta(), c.name, words(&progress)));
        }
    }

    fn again(&mut self, launches: usize) {
        self.bar.inc_length(launches as u64);
        self.bar.suspend(|| eprintln!("{}", again(launches)));
    }

    fn finished(&mut self, record: &Record) {
        if !matches!(record.measurement.status, Status::Ok | Status::Skipped) {
            self.bar.suspend(|| eprintln!("{}", outcome(record)));
        }
        if record.measurement.status != Status::Cancelled {
            self.bar.inc(1);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

struct Lines {
    total: usize,
    done: usize,
    current: Option<Current>,
    said: Instant,
}

impl Display for Lines {
    fn begin(&mut self, trial: &PlannedTrial, left: Seconds) {
        self.current = Some(Current::new(trial, left));
    }

    fn progress(&mut self, progress: Progress) {
        let Some(c) = self.current.as_ref().filter(|_| self.said.elapsed() >= SAY_EVERY) else { return };
        eprintln!("[{}/{}] {}: {}; {} left", self.done + 1, self.total, c.name, words(&progress), c.eta());
        self.said = Instant::now();
    }

    fn again(&mut self, launches: usize) {
        self.total += launches;
        eprintln!("{}", again(launches));
    }

    fn finished(&mut self, record: &Record) {
        self.done += 1;
        eprintln!("[{}/{}] {}", self.done, self.total, outcome(record));
        self.said = Instant::now();
    }
}

fn again(launches: usize) -> String {
    let what = if launches == 1 { "1 launch".to_string() } else { format!("{} launches", grouped(launches as u64)) };
    format!("others on this machine disturbed {what}: measuring again, while time and money last (--once: not)")
}

/// "measuring, step 120, 12,345 tok/s".
fn words(progress: &Progress) -> String {
    if matches!(progress.stage, Stage::Preparing | Stage::Waiting) {
        return progress.stage.name().into();
    }
    let rate = progress.tokens_per_second.map_or(String::new(), |t| format!(", {}", TokensPerSecond(t)));
    format!("{}, step {}{rate}", progress.stage.name(), grouped(progress.steps))
}

/// "d_model 256, batch 4: ok, 12,345 tok/s, 12.3 ms a step".
fn outcome(record: &Record) -> String {
    let m = &record.measurement;
    let name = plain(&record.cell.name());
    match m.figures.as_ref().and_then(|f| Some((f, median_step(f)?))) {
        Some((figures, step)) => {
            let rate = TokensPerSecond(figures.tokens_per_step as f64 / step);
            let words = figures.disturbance.as_ref().map(|d| d.in_words()).filter(|w| !w.is_empty());
            let disturbed = words.map_or(String::new(), |w| format!("; disturbed: {w}"));
            let answered: u64 = figures.served.iter().filter_map(|s| s.completed).sum();
            if answered > 0 {
                return format!("{name}: {rate}, {} requests answered{disturbed}", grouped(answered));
            }
            let steps = grouped(figures.step_seconds.len() as u64);
            let kept =
                checkpoints_in_words(&figures.learned).map_or(String::new(), |said| format!("; {}", plain(&said)));
            format!("{name}: {rate}, {} a step, {steps} steps{disturbed}{kept}", Seconds(step))
        }
        None => format!("{name}: {}: {}", m.status.name(), plain(&m.reason)),
    }
}

/// The median of the measured steps, in seconds.
pub(super) fn median_step(figures: &Figures) -> Option<f64> {
    median(&figures.step_seconds).filter(|s| *s > 0.0)
}

/// Without anything that a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_as_a_sentence_with_units() {
        let mut p =
            Progress { stage: Stage::Measuring, steps: 1200, seconds: 1.0, tokens_per_second: None, precision: None };
        assert_eq!(words(&p), "measuring, step 1,200");
        p.tokens_per_second = Some(12345.6);
        assert_eq!(words(&p), "measuring, step 1,200, 12,346 tok/s");
        p.stage = Stage::Preparing;
        assert_eq!(words(&p), "preparing");
    }

    #[test]
    fn a_terminal_is_not_given_orders_by_a_name() {
        assert_eq!(plain("a\u{1b}[31mb\n"), "a [31mb ");
    }
}
