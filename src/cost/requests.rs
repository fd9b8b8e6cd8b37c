//! What a request costs, for kinds of work that read and write so many tokens.

use super::evaluate::Figured;
use super::metric::{Estimate, Metric};
use super::metrics::{USD_PER_MILLION_INPUT, USD_PER_MILLION_OUTPUT};
use super::price::{CostError, blended};
use crate::results::run::Run;
use crate::scenario::price::UseCase;
use crate::units::{Usd, UsdPerMillionTokens, measured};
use rust_decimal::Decimal;

/// Named mixes, to be edited in a scenario (`price.use_cases`). They are conventions to compare by and not statistics of
/// anybody's traffic.
pub(crate) const USE_CASES: [(&str, u64, u64); 7] = [
    ("chat", 1000, 500),
    ("summarisation", 4000, 400),
    ("retrieval", 8000, 500),
    ("translation", 1000, 1000),
    ("classification", 1000, 10),
    ("extraction", 2000, 200),
    ("generation", 200, 2000),
];

/// Those, or the scenario's own.
pub fn use_cases(own: &[UseCase]) -> Vec<UseCase> {
    if !own.is_empty() {
        return own.to_vec();
    }
    let case = |(name, input_tokens, output_tokens): (&str, u64, u64)| UseCase {
        name: name.into(),
        input_tokens,
        output_tokens,
    };
    USE_CASES.map(case).to_vec()
}

/// What one request of a kind costs at the blended price of its tokens: `(input_tokens + output_tokens) * blended / 1e6`, which is
/// `(input_tokens * usd_in + output_tokens * usd_out) / 1e6`.
fn of_tokens(mix: &UseCase, blended: UsdPerMillionTokens) -> Result<Usd, CostError> {
    let tokens = Decimal::from(mix.input_tokens) + Decimal::from(mix.output_tokens);
    let sum = blended.0.checked_mul(tokens).ok_or(CostError::OutOfRange)?;
    Ok(Usd(sum / Decimal::from(1_000_000)))
}

/// A model's cheapest input and output: the records, and USD for 1e6 tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Offered<'a> {
    pub model: &'a str,
    pub input: (usize, Estimate),
    pub output: (usize, Estimate),
}

/// The cheapest input and output of each model that has both: by `prefill` and `decode` trials, or `generate`.
pub(crate) fn by_model<'a>(run: &'a Run, figures: &[Figured]) -> Vec<Offered<'a>> {
    let mut models: Vec<&str> = Vec::new();
    for r in &run.records {
        if !models.contains(&r.cell.trial.model.as_str()) {
            models.push(&r.cell.trial.model);
        }
    }
    let cheapest = |model: &str, metric: &Metric| {
        let of_model = run.records.iter().zip(figures).enumerate().filter(|(_, (r, _))| r.cell.trial.model == model);
        let known = of_model.filter_map(|(i, (_, f))| Some((i, f.get(metric)?)));
        known.min_by(|a, b| a.1.value.total_cmp(&b.1.value))
    };
    let both = |model: &'a str| {
        let (input, output) = (cheapest(model, &USD_PER_MILLION_INPUT)?, cheapest(model, &USD_PER_MILLION_OUTPUT)?);
        Some(Offered { model, input, output })
    };
    models.into_iter().filter_map(both).collect()
}

/// A use case at a measured cost of input and output.
#[derive(Clone, Debug, PartialEq)]
pub struct Priced {
    pub case: UseCase,
    /// USD for one request; its interval puts the ends of both costs together, and so holds at least what they hold.
    pub request: Estimate,
    /// USD for 1e6 of its tokens.
    pub blended: Estimate,
}

/// Prices a use case; `None` where a cost is out of range.
pub fn priced(case: &UseCase, input: &Estimate, output: &Estimate) -> Option<Priced> {
    let at = |i: f64, o: f64| {
        let (i, o) = (UsdPerMillionTokens(measured(i)?), UsdPerMillionTokens(measured(o)?));
        let blended = blended(case, i, o).ok()?;
        Some((of_tokens(case, blended).ok()?.get(), blended.get()))
    };
    let (request, blended) = at(input.value, output.value)?;
    let ends = input.interval().zip(output.interval());
    let ends = ends.and_then(|((il, ih), (ol, oh))| Some((at(il, ol)?, at(ih, oh)?)));
    let estimate = |value: f64, of: fn(&(f64, f64)) -> f64| match &ends {
        Some((low, high)) => Estimate::with_interval(value, of(low), of(high)),
        None => Estimate::exact(value),
    };
    Some(Priced { case: case.clone(), request: estimate(request, |x| x.0)?, blended: estimate(blended, |x| x.1)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn million(usd: f64) -> UsdPerMillionTokens {
        UsdPerMillionTokens::of(usd).unwrap()
    }

    fn request(mix: &UseCase, input: f64, output: f64) -> Usd {
        of_tokens(mix, blended(mix, million(input), million(output)).unwrap()).unwrap()
    }

    #[test]
    fn a_chat_request_costs_its_input_and_its_output() {
        // 1000 tokens at 0.15 USD/M + 500 at 0.60 USD/M: 0.00015 + 0.0003 USD.
        let chat = &use_cases(&[])[0];
        assert_eq!(request(chat, 0.15, 0.6).0.normalize().to_string(), "0.00045");
        let own = [UseCase { name: "ours".into(), input_tokens: 1, output_tokens: 1 }];
        assert_eq!(use_cases(&own), own);
    }

    #[test]
    fn the_interval_is_that_of_both_costs() {
        let case = UseCase { name: "t".into(), input_tokens: 1_000_000, output_tokens: 1_000_000 };
        let cost = |v: f64| Estimate::with_interval(v, v - 0.5, v + 0.5).unwrap();
        let p = priced(&case, &cost(1.0), &cost(3.0)).unwrap();
        assert_eq!((p.request.value, p.request.low, p.request.high), (4.0, Some(3.0), Some(5.0)));
        assert_eq!((p.blended.value, p.blended.low, p.blended.high), (2.0, Some(1.5), Some(2.5)));
    }

    proptest! {
        #[test]
        fn a_request_is_its_tokens_at_the_blended_price(a in 1e-6..1e4f64, b in 1e-6..1e4f64, i in 0u64..1_000_000, o in 1u64..1_000_000) {
            let mix = UseCase { name: "t".into(), input_tokens: i, output_tokens: o };
            let each = request(&mix, a, b).get();
            let by_hand = (i as f64 * a + o as f64 * b) / 1e6;
            prop_assert!((each / by_hand - 1.0).abs() < 1e-12);
        }
    }
}
