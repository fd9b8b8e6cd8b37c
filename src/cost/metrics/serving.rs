//! Requests to a server, as a load generator tells of them: of several launches the median of what each tells.

use crate::cost::metric::{Context, Direction, Estimate, Metric, Provenance, Quantity};
use crate::cost::steps;
use crate::runner::served::Served;

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

pub(crate) static TTFT_P99: Metric =
    metric("ttft_seconds_p99", "p99 TTFT", "s", TIME, "99th percentile of the requests' time to first token", |c| {
        served(c, |s| s.ttft.p99)
    });
pub(crate) static TPOT_P99: Metric = metric(
    "tpot_seconds_p99",
    "p99 TPOT",
    "s",
    TIME,
    "99th percentile of (E2E - TTFT) / (output tokens - 1) over the requests",
    |c| served(c, |s| s.tpot.p99),
);
pub(crate) static ITL: Metric =
    metric("itl_seconds", "ITL", "s", TIME, "median time between two tokens, or chunks of them, as they arrive", |c| {
        served(c, |s| s.itl.p50)
    });
pub(crate) static E2E: Metric =
    metric("e2e_seconds", "E2E", "s", TIME, "median time from a request's start to its last token", |c| {
        served(c, |s| s.e2e.p50)
    });
pub(crate) static E2E_P99: Metric =
    metric("e2e_seconds_p99", "p99 E2E", "s", TIME, "99th percentile of the same", |c| served(c, |s| s.e2e.p99));
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

/// What every launch tells, and the median of it; `None` where one of them does not.
pub(super) fn served(c: &Context, of: fn(&Served) -> Option<f64>) -> Option<Estimate> {
    let each: Vec<f64> = c.figures()?.served.iter().map(of).collect::<Option<_>>()?;
    steps::median(c, &each)
}
