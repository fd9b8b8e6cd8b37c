//! Launches: a fresh process of a program for one trial, and what many of them come to.

use super::design::Design;
use crate::comparison::check::Side;
use crate::plan::PlannedTrial;
use crate::runner::measurement::{Figures, Status};
use crate::runner::{Options, Request, run_trial};
use crate::scenario::engine::Each;
use crate::scenario::{Measure, Price};
use crate::stats::median;
use crate::stats::random::SplitMix64;
use crate::transformer::Phase;
use crate::units::TokensPerSecond;
use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// One launch's figures.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub tokens_per_second: f64,
    /// What is compared: tokens a second, or, of a trial that is to reach a loss, how often it would in a second. One that did not is
    /// as if it had at its end, which is more than it did.
    pub pace: f64,
    pub figures: Figures,
}

/// Whether a trial's program is launched for every figure: what it finds in memory is all that a launch before it can have warmed.
pub(crate) fn one_figure(trial: &PlannedTrial) -> bool {
    trial.cell.trial.engine.as_ref().is_some_and(|e| e.each() == Each::Launch)
}

/// Whether a trial is to reach a loss.
pub(crate) fn to_loss(trial: &PlannedTrial) -> bool {
    trial.cell.trial.learning.as_ref().is_some_and(|l| l.until.validation_loss.is_some())
}

/// A fresh process of a program for one trial, with the seed of a round: its figures, or why there are none. The environment is padded by up to 4095
/// random bytes, so that where the stack lies is not the same for all launches of a program (Mytkowicz et al. 2009).
///
/// # Errors
/// The status of the trial and its reason; that no step was timed.
pub(crate) fn launch(
    design: &Design,
    program: &Path,
    trial: &PlannedTrial,
    round: u32,
    random: &mut SplitMix64,
) -> Result<Launch, String> {
    let seconds = design.launch_seconds;
    let stated = &design.scenario.measure;
    let warmup_steps = stated.warmup_steps.or(one_figure(trial).then_some(0));
    let (max_seconds, seed) = (2.0 * seconds, stated.seed_of(round));
    let measure = Measure { precision: 0.5, min_seconds: seconds, max_seconds, warmup_steps, seed, ..stated.clone() };
    // Both programs of a pair meet what there is.
    let patience_seconds = 0.0;
    let request = Request {
        trial: trial.cell.trial.clone(),
        measure,
        predicted_memory: trial.memory,
        patience_seconds,
        loss_change: false,
    };
    let padding = "x".repeat(random.below(4096));
    let variables = vec![(OsString::from("CENTIME_PADDING"), OsString::from(padding))];
    let options = Options { program: program.to_path_buf(), variables };
    let m = run_trial(&request, &options, &mut |_| {}, &AtomicBool::new(false));
    match (m.status, m.figures) {
        (Status::Ok, Some(figures)) => {
            let step = median(&figures.step_seconds).filter(|s| *s > 0.0).ok_or("no step was timed")?;
            let tokens_per_second = figures.tokens_per_step as f64 / step;
            let learned = figures.learned.first().filter(|_| to_loss(trial));
            let pace = learned.map_or(tokens_per_second, |l| 1.0 / l.target.unwrap_or(l.end).seconds);
            Ok(Launch { tokens_per_second, pace, figures })
        }
        (status, _) => Err(format!("{}: {}", status.name(), m.reason)),
    }
}

/// Medians of one side's launches.
pub(crate) fn side(price: &Price, trial: &PlannedTrial, launches: &[Launch]) -> Side {
    let of = |f: &dyn Fn(&Launch) -> Option<f64>| median(&launches.iter().filter_map(f).collect::<Vec<_>>());
    let w = &trial.cell.trial.workload;
    let tokens_per_second = of(&|l| Some(l.tokens_per_second));
    let step = |l: &Launch| median(&l.figures.step_seconds);
    let hour = price.for_devices(trial.cell.trial.devices);
    let cost = tokens_per_second.and_then(|t| {
        let hour = hour?;
        crate::cost::price::usd_per_million_tokens(hour, TokensPerSecond(t), price.utilisation).ok()
    });
    let seconds = of(&|l| Some(l.figures.learned.first()?.target?.seconds));
    Side {
        usd_to_loss: seconds.zip(hour).map(|(s, h)| s * h.get() / 3600.0 / price.utilisation.get()),
        validation_loss: of(&|l| Some(l.figures.learned.first()?.end.loss)),
        tokens_per_second,
        usd_per_million_tokens: cost.map(|c| c.get()),
        // Of a server that somebody else started nothing is known.
        peak_memory_bytes: of(&|l| Some(l.figures.peak_rss_bytes as f64).filter(|bytes| *bytes > 0.0)),
        ttft_seconds: match w.phase {
            Phase::Prefill => of(&step),
            Phase::Generate => of(&|l| match l.figures.served.first() {
                Some(served) => served.ttft.p50,
                None => median(&l.figures.first_token_seconds),
            }),
            Phase::Train | Phase::Decode => None,
        },
        tpot_seconds: match w.phase {
            Phase::Decode => of(&step),
            Phase::Generate if launches.iter().any(|l| !l.figures.served.is_empty()) => {
                of(&|l| l.figures.served.first()?.tpot.p50)
            }
            // As the metric says it: the median of differences, not the difference of medians.
            Phase::Generate if w.new_tokens > 1 => {
                of(&|l| Some(median(&l.figures.seconds_after_first_token()?)? / f64::from(w.new_tokens - 1)))
            }
            _ => None,
        },
    }
}
