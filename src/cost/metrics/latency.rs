//! Seconds: steps, time to first token, time per output token.

use super::serving::percentile;
use crate::cost::metric::{Context, Direction, Estimate, Metric, Provenance, Quantity};
use crate::cost::steps;
use crate::transformer::Phase;

/// A metric of time: all of them are measured, in seconds, and better when lower.
const fn seconds(
    name: &'static str,
    label: &'static str,
    formula: &'static str,
    source: &'static str,
    compute: fn(&Context) -> Option<Estimate>,
) -> Metric {
    Metric {
        name,
        label,
        unit: "s",
        quantity: Quantity::Seconds,
        provenance: Provenance::Measured,
        direction: Direction::Lower,
        formula,
        source,
        compute,
    }
}

const QUANTILES: &str = "Hyndman & Fan 1996, type 7";

pub(crate) static STEP_P50: Metric = seconds(
    "step_seconds_p50",
    "p50 step",
    "median of the launches' median steps, with the 95 % interval of another run",
    QUANTILES,
    |c| steps::median(c, own_steps(c)?),
);
pub(crate) static STEP_P90: Metric =
    seconds("step_seconds_p90", "p90 step", "90th percentile of the measured steps", QUANTILES, |c| quantile(c, 0.90));
pub(crate) static STEP_P95: Metric =
    seconds("step_seconds_p95", "p95 step", "95th percentile of the measured steps", QUANTILES, |c| quantile(c, 0.95));
pub(crate) static STEP_P99: Metric =
    seconds("step_seconds_p99", "p99 step", "99th percentile of the measured steps", QUANTILES, |c| quantile(c, 0.99));

pub(crate) static TTFT: Metric = seconds(
    "ttft_seconds",
    "TTFT",
    "median time from the start of a step, or of a request to a server, to its first token; in prefill the step itself",
    "as vLLM, SGLang and aiperf count it",
    |c| match c.record.cell.trial.workload.phase {
        Phase::Prefill => steps::median(c, &c.figures()?.step_seconds),
        Phase::Generate if is_served(c) => percentile(c, |s| s.ttft.p50, |s| s.ttft.intervals.p50),
        Phase::Generate => steps::median(c, &c.figures()?.first_token_seconds),
        Phase::Train | Phase::Decode => None,
    },
);

fn is_served(c: &Context) -> bool {
    c.figures().is_some_and(|f| !f.served.is_empty())
}

pub(crate) static TPOT: Metric = seconds(
    "tpot_seconds",
    "TPOT",
    "median of (E2E - TTFT) / (new_tokens - 1) over the steps, or the requests to a server; in decode the step itself",
    "as vLLM, SGLang and aiperf count it; the first token is not in it",
    tpot,
);

/// Steps that were timed; those of a served load are made of its throughput.
fn own_steps<'a>(c: &Context<'a>) -> Option<&'a [f64]> {
    let figures = c.figures()?;
    figures.served.is_empty().then_some(&figures.step_seconds)
}

fn quantile(c: &Context, p: f64) -> Option<Estimate> {
    steps::quantile(own_steps(c)?, p)
}

fn tpot(c: &Context) -> Option<Estimate> {
    let workload = &c.record.cell.trial.workload;
    match workload.phase {
        Phase::Decode => steps::median(c, &c.figures()?.step_seconds),
        Phase::Generate if is_served(c) => percentile(c, |s| s.tpot.p50, |s| s.tpot.intervals.p50),
        Phase::Generate => {
            let intervals = f64::from(workload.new_tokens.checked_sub(1).filter(|&n| n > 0)?);
            let each: Vec<f64> = decode_seconds(c)?.into_iter().map(|s| s / intervals).collect();
            steps::median(c, &each)
        }
        Phase::Train | Phase::Prefill => None,
    }
}

/// Seconds of each `generate` step after its first token.
pub(super) fn decode_seconds(c: &Context) -> Option<Vec<f64>> {
    c.figures()?.seconds_after_first_token()
}
