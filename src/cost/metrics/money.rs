//! USD a token, and tokens a USD.

use super::latency::decode_seconds;
use super::throughput::tokens_per_second;
use crate::cost::metric::{Context, Direction, Estimate, Metric, Provenance, Quantity};
use crate::cost::price::Pricing;
use crate::cost::steps;
use crate::load::served::{Own, Served};
use crate::transformer::Phase;
use crate::units::TokensPerSecond;

/// A cost: quoted (it rests on a stated price), and better when lower.
const fn cost(
    name: &'static str,
    label: &'static str,
    formula: &'static str,
    compute: fn(&Context) -> Option<Estimate>,
) -> Metric {
    Metric {
        name,
        label,
        unit: "USD per million tokens",
        quantity: Quantity::UsdPerMillionTokens,
        provenance: Provenance::Quoted,
        direction: Direction::Lower,
        formula,
        source: "the price of an hour over the tokens of an hour; the price is the scenario's",
        compute,
    }
}

pub(crate) static USD_PER_MILLION: Metric = cost(
    "usd_per_million_tokens",
    "$/M tokens",
    "usd_per_hour / (3600 * tokens_per_second * utilisation) * 1e6; its interval is the image of the throughput's",
    |c| of_throughput(c, tokens_per_second(c)?),
);

pub(crate) static USD_PER_MILLION_INPUT: Metric = cost(
    "usd_per_million_input_tokens",
    "$/M input",
    "the same over batch * prompt_len tokens and the time to first token (which pays for the first token, too); of requests to a server \
     input_tokens_per_second takes that share of the price that times to first token are of the requests' times",
    input,
);

pub(crate) static USD_PER_MILLION_OUTPUT: Metric = cost(
    "usd_per_million_output_tokens",
    "$/M output",
    "the same over batch * new_tokens tokens and the time after the first token; in decode over the step; of requests to a server \
     output_tokens_per_second takes the rest of the price",
    output,
);

pub(crate) static TOKENS_PER_USD: Metric = Metric {
    name: "tokens_per_usd",
    label: "tokens/$",
    unit: "tokens per USD",
    quantity: Quantity::TokensPerUsd,
    provenance: Provenance::Quoted,
    direction: Direction::Higher,
    formula: "1e6 / usd_per_million_tokens",
    source: "the reciprocal of usd_per_million_tokens",
    compute: |c| of_throughput(c, tokens_per_second(c)?)?.decreasing(|usd| 1e6 / usd)?.positive(),
};

/// The cost at a throughput, at the context's price; `None` where there is no price or it is no price.
fn of_throughput(c: &Context, throughput: Estimate) -> Option<Estimate> {
    let hour = c.hour?;
    let pricing = Pricing::new(hour, c.price.utilisation).ok()?;
    let at = |t: f64| pricing.of(TokensPerSecond(t));
    // What cannot be priced becomes NaN here, and NaN is no estimate.
    throughput.decreasing(|t| at(t).map_or(f64::NAN, |usd| usd.get()))?.positive()
}

/// Tokens a second over the share of the price that is theirs: of requests to a server, which read and write at the same time.
fn shared(c: &Context, of: fn(&Served, &Own) -> Option<(f64, f64)>) -> Option<Estimate> {
    let each = |s: &Served| of(s, s.own.as_ref()?).filter(|(_, share)| *share > 0.0).map(|(rate, share)| rate / share);
    let rates: Vec<f64> = c.figures()?.served.iter().map(each).collect::<Option<_>>()?;
    of_throughput(c, steps::median(c, &rates)?)
}

fn input(c: &Context) -> Option<Estimate> {
    if let Some(found) = shared(c, |_, own| Some((own.input_tokens_per_second, own.first_token_share))) {
        return Some(found);
    }
    let w = &c.record.cell.trial.workload;
    let tokens = f64::from(w.batch) * f64::from(w.prompt_len);
    let seconds = match w.phase {
        Phase::Prefill => &c.figures()?.step_seconds,
        Phase::Generate => &c.figures()?.first_token_seconds,
        Phase::Train | Phase::Decode => return None,
    };
    of_throughput(c, steps::median(c, seconds)?.decreasing(|s| tokens / s)?)
}

fn output(c: &Context) -> Option<Estimate> {
    if let Some(found) = shared(c, |s, own| Some((s.output_tokens_per_second?, 1.0 - own.first_token_share))) {
        return Some(found);
    }
    let w = &c.record.cell.trial.workload;
    match w.phase {
        Phase::Decode => of_throughput(c, tokens_per_second(c)?),
        Phase::Generate if w.new_tokens > 1 => {
            let tokens = f64::from(w.batch) * f64::from(w.new_tokens);
            of_throughput(c, steps::median(c, &decode_seconds(c)?)?.decreasing(|s| tokens / s)?)
        }
        Phase::Generate | Phase::Train | Phase::Prefill => None,
    }
}
