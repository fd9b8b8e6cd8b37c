//! Against a stored run: advisory, since what differs between the machine of then and of now cannot be told from the code.

use super::design::Design;
use super::launch::{Launch, launch, side, to_loss};
use crate::comparison::check::{Check, CheckedCell, Side};
use crate::comparison::guards::of_gpus;
use crate::comparison::judge::{Judged, Verdict};
use crate::cost::evaluate::evaluate;
use crate::cost::metrics::{
    PEAK_MEMORY, SECONDS_TO_LOSS, TOKENS_PER_SECOND, TPOT, TTFT, USD_PER_MILLION, USD_TO_LOSS, VALIDATION_LOSS,
};
use crate::hardware::machine;
use crate::plan::PlannedTrial;
use crate::results::ResultsError;
use crate::results::run::load;
use crate::stats::random::SplitMix64;
use std::path::Path;

/// Why a stored run cannot be compared with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredError {
    #[error(transparent)]
    Results(#[from] ResultsError),
    #[error("{folder}: it measured none of this scenario's trials; give a run of the same scenario")]
    NothingInCommon { folder: String },
}

/// Launches of the head, for each cell.
const LAUNCHES: usize = 8;
/// Student's t with seven degrees of freedom, 97.5 %.
const T: f64 = 2.365;

/// Launches of the head against what a folder holds: advisory.
///
/// # Errors
/// [`StoredError`]: a folder that cannot be read, or none of whose trials are the scenario's.
pub(crate) fn check(design: &Design, folder: &Path) -> Result<Check, StoredError> {
    let run = load(folder)?;
    let figures = evaluate(&run, &design.scenario.book);
    let mut random = SplitMix64::new(design.seed);
    let (mut cells, mut told) = (Vec::new(), Vec::new());
    for trial in &design.trials {
        let Some(at) = run.records.iter().position(|r| r.trial_id == trial.id && r.measurement.figures.is_some())
        else {
            continue;
        };
        let (launches, failure) = launched(design, trial, &mut random);
        let then = run.records[at].measurement.figures.iter();
        told.extend(then.chain(launches.iter().map(|l| &l.figures)).filter_map(|f| f.telemetry.clone()));
        let get = |metric| figures[at].get(metric).map(|e| e.value);
        let base = Side {
            tokens_per_second: get(&TOKENS_PER_SECOND),
            usd_per_million_tokens: get(&USD_PER_MILLION),
            peak_memory_bytes: get(&PEAK_MEMORY),
            ttft_seconds: get(&TTFT),
            tpot_seconds: get(&TPOT),
            usd_to_loss: get(&USD_TO_LOSS),
            validation_loss: get(&VALIDATION_LOSS),
        };
        let rates: Vec<f64> = launches.iter().map(|l| l.pace.ln()).collect();
        let then = get(&SECONDS_TO_LOSS).map(|s| 1.0 / s);
        let judged = predicted(design, then.or(base.tokens_per_second.filter(|_| !to_loss(trial))), &rates);
        let mut findings = Vec::new();
        if let (Some(then), Some(now)) = (&run.records[at].measurement.figures, launches.first())
            && trial.cell.trial.backend.repeats_bits()
            && then.checksum != now.figures.checksum
        {
            findings.push(format!("checksum of the output: {} before, {} now", then.checksum, now.figures.checksum));
        }
        cells.push(CheckedCell {
            trial_id: trial.id.clone(),
            name: trial.cell.name(),
            base,
            head: side(&design.scenario.price, trial, &launches),
            judged,
            findings,
            failure,
        });
    }
    if cells.is_empty() {
        return Err(StoredError::NothingInCommon { folder: folder.display().to_string() });
    }
    let gpus = of_gpus(told.iter());
    let mut guards = gpus.guards;
    let (then, now) = (run.environment.machine.fingerprint(), machine::inspect().fingerprint());
    if then != now {
        guards.push(format!("the machine is another one: {then} before, {now} now"));
    }
    let prices = run.environment.price.usd_per_hour.zip(design.scenario.price.usd_per_hour);
    let price_change = prices.map(|(a, b)| (a.get(), b.get())).filter(|(a, b)| a != b);
    Ok(Check {
        version: 1,
        scenario: design.scenario.name.clone(),
        verdict: Check::conclude(&cells, &guards),
        advisory: true,
        cells,
        budgets: Vec::new(),
        guards,
        remarks: gpus.remarks,
        price_change,
        method: design.method(folder.display().to_string(), 0, None),
    })
}

/// All launches of the head for one trial, and why the last of those that failed did.
fn launched(design: &Design, trial: &PlannedTrial, random: &mut SplitMix64) -> (Vec<Launch>, Option<String>) {
    let (mut launches, mut failure) = (Vec::new(), None);
    for round in 0..LAUNCHES as u32 {
        match launch(design, &design.head, trial, round, random) {
            Ok(l) => launches.push(l),
            Err(why) => failure = Some(format!("head: {why}")),
        }
    }
    (launches, failure)
}

/// Without a baseline: the head's figures alone, so that budgets can be held and the next run has something to read.
pub(crate) fn first(design: &Design) -> Check {
    let mut random = SplitMix64::new(design.seed);
    let mut cells = Vec::new();
    for trial in &design.trials {
        let (launches, failure) = launched(design, trial, &mut random);
        let pairs = launches.len();
        let nothing = Judged {
            verdict: Verdict::Inconclusive,
            pairs,
            ratio: None,
            low: None,
            high: None,
            p: None,
            detectable: None,
        };
        cells.push(CheckedCell {
            trial_id: trial.id.clone(),
            name: trial.cell.name(),
            base: Side::default(),
            head: side(&design.scenario.price, trial, &launches),
            judged: nothing,
            findings: Vec::new(),
            failure,
        });
    }
    Check {
        version: 1,
        scenario: design.scenario.name.clone(),
        verdict: Verdict::Inconclusive,
        advisory: true,
        cells,
        budgets: Vec::new(),
        guards: vec!["there is no baseline to compare with yet; the figures are this build's alone".into()],
        remarks: Vec::new(),
        price_change: None,
        method: design.method("nothing".into(), 0, None),
    }
}

/// The stored figure against a prediction interval of one more launch like those at hand: mean -/+ t s sqrt(1 + 1/n) on the
/// logarithmic scale.
fn predicted(design: &Design, base: Option<f64>, rates: &[f64]) -> Judged {
    let n = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / n;
    let sd = (rates.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let wide = T * sd * (1.0 + 1.0 / n).sqrt();
    let known = base.filter(|b| *b > 0.0 && rates.len() == LAUNCHES && wide.is_finite());
    // How many times as dear: the ratio of the throughputs, the other way up.
    let ratio = known.map(|b| (b.ln() - mean).exp());
    let (low, high) = (ratio.map(|r| r * (-wide).exp()), ratio.map(|r| r * wide.exp()));
    let verdict = match (low, high) {
        (Some(low), _) if low > 1.0 + design.rule.tolerance => Verdict::Regression,
        (_, Some(high)) if high < 1.0 + design.rule.detect => Verdict::Pass,
        _ => Verdict::Inconclusive,
    };
    let detectable = known.map(|_| (2.0 * wide).exp_m1().max(design.rule.tolerance));
    Judged { verdict, pairs: rates.len(), ratio, low, high, p: None, detectable }
}
