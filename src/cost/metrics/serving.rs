//! Requests to a server, as a load generator tells of them: of several launches the median of what each tells.

use crate::cost::metric::{Context, Direction, Estimate, Metric, Provenance, Quantity};
use crate::cost::steps;
use crate::load::served::{Own, Served};
use crate::stats::median;

const fn metric(
    name: &'static str,
    label: &'static str,
    unit: &'static str,
    (quantity, direction): (Quantity, Direction),
    formula: &'static str,
    compute: fn(&Context) -> Option<Estimate>,
) -> Metric {
    Metric {
        name,
        label,
        unit,
        quantity,
        provenance: Provenance::Measured,
        direction,
        formula,
        source: "as vLLM, SGLang and aiperf count it",
        compute,
    }
}

const TIME: (Quantity, Direction) = (Quantity::Seconds, Direction::Lower);

/// A percentile of what requests took, with its interval where there is one launch.
macro_rules! percentile {
    ($static:ident, $name:literal, $label:literal, $formula:literal, $of:ident, $p:ident) => {
        pub(crate) static $static: Metric =
            metric($name, $label, "s", TIME, $formula, |c| percentile(c, |s| s.$of.$p, |s| s.$of.intervals.$p));
    };
}

percentile!(
    TTFT_P90,
    "ttft_seconds_p90",
    "p90 TTFT",
    "90th percentile of the requests' time to first token",
    ttft,
    p90
);
percentile!(TTFT_P95, "ttft_seconds_p95", "p95 TTFT", "95th percentile of the same", ttft, p95);
percentile!(TTFT_P99, "ttft_seconds_p99", "p99 TTFT", "99th percentile of the same", ttft, p99);
percentile!(
    TPOT_P90,
    "tpot_seconds_p90",
    "p90 TPOT",
    "90th percentile of (E2E - TTFT) / (output tokens - 1) over the requests",
    tpot,
    p90
);
percentile!(TPOT_P95, "tpot_seconds_p95", "p95 TPOT", "95th percentile of the same", tpot, p95);
percentile!(TPOT_P99, "tpot_seconds_p99", "p99 TPOT", "99th percentile of the same", tpot, p99);
percentile!(ITL, "itl_seconds", "ITL", "median time between two tokens, or chunks of them, as they arrive", itl, p50);
percentile!(ITL_P90, "itl_seconds_p90", "p90 ITL", "90th percentile of the same", itl, p90);
percentile!(ITL_P95, "itl_seconds_p95", "p95 ITL", "95th percentile of the same", itl, p95);
percentile!(ITL_P99, "itl_seconds_p99", "p99 ITL", "99th percentile of the same", itl, p99);
percentile!(E2E, "e2e_seconds", "E2E", "median time from a request's start to its last token", e2e, p50);
percentile!(E2E_P90, "e2e_seconds_p90", "p90 E2E", "90th percentile of the same", e2e, p90);
percentile!(E2E_P95, "e2e_seconds_p95", "p95 E2E", "95th percentile of the same", e2e, p95);
percentile!(E2E_P99, "e2e_seconds_p99", "p99 E2E", "99th percentile of the same", e2e, p99);

pub(crate) static OUTPUT_TOKENS_PER_SECOND: Metric = metric(
    "output_tokens_per_second",
    "output tokens/s",
    "tokens/s",
    (Quantity::TokensPerSecond, Direction::Higher),
    "tokens of all answers / seconds of the launch",
    |c| served(c, |s| s.output_tokens_per_second),
);
pub(crate) static REQUESTS_PER_SECOND: Metric = metric(
    "requests_per_second",
    "requests/s",
    "requests/s",
    (Quantity::TokensPerSecond, Direction::Higher),
    "completed requests / seconds of the launch",
    |c| served(c, |s| s.requests_per_second),
);
pub(crate) static FAILED_REQUESTS: Metric = metric(
    "failed_requests",
    "failed requests",
    "",
    (Quantity::Count, Direction::Lower),
    "requests of all launches that were not answered to their end",
    |c| {
        let all = &c.figures()?.served;
        let failed: u64 = all.iter().map(|s| s.failed).sum::<Option<u64>>().filter(|_| !all.is_empty())?;
        Estimate::exact(failed as f64)
    },
);

pub(crate) static INPUT_TOKENS_PER_SECOND: Metric = metric(
    "input_tokens_per_second",
    "input tokens/s",
    "tokens/s",
    (Quantity::TokensPerSecond, Direction::Higher),
    "tokens of all prompts / seconds of the launch",
    |c| own(c, |o| Some(o.input_tokens_per_second)),
);
pub(crate) static GOODPUT: Metric = metric(
    "goodput_requests_per_second",
    "goodput",
    "requests/s",
    (Quantity::TokensPerSecond, Direction::Higher),
    "requests that kept to every bound of the SLO / seconds of the launch",
    |c| own(c, |o| o.goodput),
);
pub(crate) static SLO_SHARE: Metric = metric(
    "slo_share",
    "within SLO",
    "",
    (Quantity::Share, Direction::Higher),
    "share of the requests that kept to every bound of the SLO; one that failed did not",
    |c| own(c, |o| o.slo_share),
);
pub(crate) static INPUT_TOKENS: Metric = metric(
    "input_tokens_per_request",
    "input tokens",
    "tokens",
    (Quantity::Count, Direction::Neutral),
    "mean tokens of a prompt as the server counts them, its template included",
    |c| own(c, |o| Some(o.mean_input_tokens)),
);
pub(crate) static OUTPUT_TOKENS: Metric = metric(
    "output_tokens_per_request",
    "output tokens",
    "tokens",
    (Quantity::Count, Direction::Neutral),
    "mean tokens of an answer as the server counts them",
    |c| own(c, |o| Some(o.mean_output_tokens)),
);
pub(crate) static CACHED_SHARE: Metric = metric(
    "cached_input_share",
    "cached input",
    "",
    (Quantity::Share, Direction::Neutral),
    "share of the input tokens that the server says it had in its cache (usage.prompt_tokens_details)",
    |c| own(c, |o| o.cached_share),
);
pub(crate) static LATENESS: Metric = metric(
    "client_lateness_seconds_p99",
    "p99 lateness",
    "s",
    TIME,
    "99th percentile of how late the client itself sent requests after they were due; latencies hold it",
    |c| own(c, |o| o.lateness_p99),
);

pub(crate) static LARGEST_LOAD: Metric = metric(
    "largest_load_within_slo",
    "largest load",
    "requests/s, or at a time",
    (Quantity::TokensPerSecond, Direction::Higher),
    "the largest load that a search found to keep to the SLO; its interval ends at the smallest that did not",
    |c| {
        let each = c.figures()?.served.iter().map(|s| s.own.as_ref()?.largest).collect::<Option<Vec<_>>>()?;
        let held: Vec<f64> = each.iter().map(|(held, _)| *held).collect();
        let least = held.iter().copied().reduce(f64::min)?;
        let failed = each.iter().map(|(_, failed)| *failed).collect::<Option<Vec<f64>>>();
        match failed.and_then(|all| all.into_iter().reduce(f64::max)) {
            Some(most) => Estimate::with_interval(median(&held)?, least, most),
            None => Estimate::exact(median(&held)?),
        }
    },
);
pub(crate) static SERVER_RUNNING: Metric = metric(
    "server_running_requests",
    "running",
    "requests",
    (Quantity::Count, Direction::Neutral),
    "mean of the requests that the server says it runs (/metrics, twice a second)",
    |c| own(c, |o| o.server.as_ref()?.running),
);
pub(crate) static SERVER_WAITING: Metric = metric(
    "server_waiting_requests",
    "waiting",
    "requests",
    (Quantity::Count, Direction::Lower),
    "mean of the requests that the server says wait in it (/metrics)",
    |c| own(c, |o| o.server.as_ref()?.waiting),
);
pub(crate) static SERVER_KV_USE: Metric = metric(
    "server_kv_use",
    "KV use",
    "",
    (Quantity::Share, Direction::Neutral),
    "the largest share of its room for keys and values that the server says is taken (/metrics)",
    |c| own(c, |o| o.server.as_ref()?.kv_use),
);
pub(crate) static SERVER_PREFIX_HITS: Metric = metric(
    "server_prefix_hits",
    "prefix hits",
    "",
    (Quantity::Share, Direction::Neutral),
    "share of the prompts' tokens that the server says were in its prefix cache (/metrics)",
    |c| own(c, |o| o.server.as_ref()?.prefix_hits),
);

/// A percentile: of one launch with the interval of its requests, of several the median.
pub(super) fn percentile(
    c: &Context,
    of: fn(&Served) -> Option<f64>,
    interval: fn(&Served) -> Option<(f64, f64)>,
) -> Option<Estimate> {
    match c.figures()?.served.as_slice() {
        [one] if let Some((low, high)) = interval(one) => Estimate::with_interval(of(one)?, low, high),
        _ => served(c, of),
    }
}

/// What only Centime's own load tells.
pub(super) fn own(c: &Context, of: impl Fn(&Own) -> Option<f64>) -> Option<Estimate> {
    let each: Vec<f64> = c.figures()?.served.iter().map(|s| of(s.own.as_ref()?)).collect::<Option<_>>()?;
    match each.as_slice() {
        [one] => Estimate::exact(*one),
        // Shares and latenesses may be 0, which no step is.
        _ => steps::median(c, &each).or_else(|| Estimate::exact(median(&each)?)),
    }
}

/// What every launch tells, and the median of it; `None` where one of them does not.
fn served(c: &Context, of: fn(&Served) -> Option<f64>) -> Option<Estimate> {
    let each: Vec<f64> = c.figures()?.served.iter().map(of).collect::<Option<_>>()?;
    steps::median(c, &each)
}
