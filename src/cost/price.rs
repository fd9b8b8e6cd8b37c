//! From USD an hour to USD a token, and back: cost, tokens per USD, break-even, blends. Decimal: what is measured is a
//! floating-point number, and is taken with its fifteen digits.

use crate::scenario::price::UseCase;
use crate::units::{Share, TokensPerSecond, UsdPerHour, UsdPerMillionTokens, decimal, measured};
use rust_decimal::Decimal;

/// An input that no price can be computed from. Each message says what is wrong and the remedy.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum CostError {
    /// A price, in USD an hour.
    #[error(
        "a price of {0} USD an hour cannot be used: it has to be a finite number over 0; leave the price out where it is not \
         known, and costs are shown as n/a"
    )]
    Price(f64),
    /// A throughput, in tokens a second.
    #[error("a throughput of {0} tokens a second has no cost: it has to be a finite number over 0")]
    Throughput(f64),
    /// A utilisation.
    #[error(
        "a utilisation of {0} cannot be used: it is the share of paid time that makes tokens, over 0 and at most 1"
    )]
    Utilisation(f64),
    /// Any other input.
    #[error("{name} of {value} cannot be used: it has to be a finite number, {bound}")]
    Input {
        /// Which one.
        name: &'static str,
        /// What it is.
        value: f64,
        /// Where it has to lie.
        bound: &'static str,
    },
    /// A cost that no decimal number holds.
    #[error("the cost is beyond what a decimal number of 28 digits holds; check price and throughput")]
    OutOfRange,
}

const SECONDS_PER_HOUR: Decimal = Decimal::from_parts(3600, 0, 0, false, 0);
const TOKENS_PER_MILLION: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// Less than this keeps too few of the 28 decimals to be right to a billionth.
const LEAST: Decimal = Decimal::from_parts(1, 0, 0, false, 16);

fn positive(x: Decimal) -> Option<Decimal> {
    (x > Decimal::ZERO).then_some(x)
}

/// Refuses a price that is not over zero.
///
/// # Errors
/// [`CostError::Price`].
pub(crate) fn check_price(price: UsdPerHour) -> Result<Decimal, CostError> {
    positive(price.0).ok_or(CostError::Price(price.get()))
}

fn check_utilisation(utilisation: Share) -> Result<Decimal, CostError> {
    let share = utilisation.get();
    decimal(share).and_then(positive).filter(|u| *u <= Decimal::ONE).ok_or(CostError::Utilisation(share))
}

fn check_throughput(throughput: TokensPerSecond) -> Result<Decimal, CostError> {
    let rate = throughput.get();
    if !(rate.is_finite() && rate > 0.0) {
        return Err(CostError::Throughput(rate));
    }
    measured(rate).ok_or(CostError::OutOfRange)
}

fn check_cost(cost: UsdPerMillionTokens) -> Result<Decimal, CostError> {
    positive(cost.0).ok_or(CostError::Input { name: "a cost per million tokens", value: cost.get(), bound: "over 0" })
}

/// A price and a utilisation, ready to price many throughputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pricing {
    /// USD for 1e6 tokens at one token a second.
    at_one: Decimal,
}

impl Pricing {
    /// # Errors
    /// A price or utilisation that is zero, negative or not a number.
    pub fn new(price: UsdPerHour, utilisation: Share) -> Result<Self, CostError> {
        let used = SECONDS_PER_HOUR * check_utilisation(utilisation)?;
        let price = check_price(price)?;
        if price < LEAST {
            return Err(CostError::OutOfRange);
        }
        let at_one = price.checked_mul(TOKENS_PER_MILLION).and_then(|p| p.checked_div(used));
        at_one.and_then(positive).map(|at_one| Self { at_one }).ok_or(CostError::OutOfRange)
    }

    /// What 1e6 tokens cost at a throughput.
    ///
    /// # Errors
    /// A throughput that is zero, negative or not a number; a quotient out of range.
    pub fn of(&self, throughput: TokensPerSecond) -> Result<UsdPerMillionTokens, CostError> {
        let cost = self.at_one.checked_div(check_throughput(throughput)?);
        cost.filter(|c| *c >= LEAST).map(UsdPerMillionTokens).ok_or(CostError::OutOfRange)
    }
}

/// What 1e6 tokens cost: `usd_per_hour / (3600 * tokens_per_second * utilisation) * 1e6`.
///
/// # Errors
/// A price, throughput or utilisation that is zero, negative or not a number; a quotient out of range.
pub fn usd_per_million_tokens(
    price: UsdPerHour,
    throughput: TokensPerSecond,
    utilisation: Share,
) -> Result<UsdPerMillionTokens, CostError> {
    Pricing::new(price, utilisation)?.of(throughput)
}

/// The utilisation from which an own machine is cheaper than an API that asks `target`; `None` when it is dearer even if it
/// never idles.
///
/// # Errors
/// An argument that is zero, negative or not a number.
pub(crate) fn break_even_utilisation(
    price: UsdPerHour,
    throughput: TokensPerSecond,
    target: UsdPerMillionTokens,
) -> Result<Option<Share>, CostError> {
    let at_full = usd_per_million_tokens(price, throughput, Share(1.0))?;
    let share = at_full.get() / UsdPerMillionTokens(check_cost(target)?).get();
    Ok((share <= 1.0).then_some(Share(share)))
}

/// The price of a mix: `(input_tokens * usd_in + output_tokens * usd_out) / (input_tokens + output_tokens)`.
///
/// # Errors
/// A cost that is zero, negative or not a number; a mix of no tokens at all.
pub(crate) fn blended(
    mix: &UseCase,
    input: UsdPerMillionTokens,
    output: UsdPerMillionTokens,
) -> Result<UsdPerMillionTokens, CostError> {
    let (n_in, n_out) = (Decimal::from(mix.input_tokens), Decimal::from(mix.output_tokens));
    if (n_in + n_out).is_zero() {
        return Err(CostError::Input { name: "a mix", value: 0.0, bound: "over 0 tokens" });
    }
    let part = |n: Decimal, cost| n.checked_mul(check_cost(cost)?).ok_or(CostError::OutOfRange);
    let sum = part(n_in, input)?.checked_add(part(n_out, output)?);
    sum.and_then(|s| s.checked_div(n_in + n_out))
        .and_then(positive)
        .map(UsdPerMillionTokens)
        .ok_or(CostError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hour(usd: f64) -> UsdPerHour {
        UsdPerHour::of(usd).unwrap()
    }

    fn million(usd: f64) -> UsdPerMillionTokens {
        UsdPerMillionTokens::of(usd).unwrap()
    }

    fn cost(price: f64, throughput: f64, utilisation: f64) -> Result<f64, CostError> {
        let price = UsdPerHour::of(price).ok_or(CostError::OutOfRange)?;
        usd_per_million_tokens(price, TokensPerSecond(throughput), Share(utilisation)).map(|c| c.get())
    }

    #[test]
    fn a_dollar_an_hour_at_a_thousand_tokens_a_second_is_28_cents_a_million() {
        // 3.6e6 tokens an hour for 3.60 USD is 1 USD a million.
        assert_eq!(cost(3.6, 1000.0, 1.0), Ok(1.0));
        assert!((cost(1.0, 1000.0, 1.0).unwrap() - 0.277_777_777_777_777_8).abs() < 1e-15);
        // Half the paid time idle doubles it.
        assert_eq!(cost(3.6, 1000.0, 0.5), Ok(2.0));
        // The quickstart's two vCPUs: 0.0856 / (3600 * 5000) * 1e6.
        assert!((cost(0.0856, 5000.0, 1.0).unwrap() - 0.004_755_555_555_555_556).abs() < 1e-17);
    }

    #[test]
    fn prices_and_rates_that_are_no_positive_numbers_are_refused() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(cost(bad, 1.0, 1.0).is_err(), "price {bad}");
            assert!(matches!(cost(1.0, bad, 1.0), Err(CostError::Throughput(_))), "throughput {bad}");
            assert!(matches!(cost(1.0, 1.0, bad), Err(CostError::Utilisation(_))), "utilisation {bad}");
        }
        assert_eq!(cost(1.0, 1.0, 1.5), Err(CostError::Utilisation(1.5)));
        assert_eq!(cost(f64::MAX, f64::MIN_POSITIVE, 1.0), Err(CostError::OutOfRange));
        assert_eq!(cost(1e-20, 1.0, 1.0), Err(CostError::OutOfRange));
        // Less than can be counted is nothing, and nothing is no price.
        assert_eq!(cost(f64::MIN_POSITIVE, 1.0, 1.0), Err(CostError::Price(0.0)));
        assert_eq!(cost(1.0, f64::MAX, 1.0), Err(CostError::OutOfRange));
    }

    #[test]
    fn break_even_utilisation_is_where_the_own_machine_asks_what_the_api_asks() {
        // 3.60 USD an hour at 1000 tok/s is 1 USD/M at full use, so an API at 4 USD/M is met at a quarter.
        let share = break_even_utilisation(hour(3.6), TokensPerSecond(1000.0), million(4.0));
        assert_eq!(share, Ok(Some(Share(0.25))));
        let never = break_even_utilisation(hour(3.6), TokensPerSecond(1000.0), million(0.5));
        assert_eq!(never, Ok(None));
    }

    #[test]
    fn a_blend_weighs_by_tokens() {
        let mix = UseCase { name: "t".into(), input_tokens: 300, output_tokens: 100 };
        assert_eq!(blended(&mix, million(1.0), million(5.0)), Ok(million(2.0)));
        let nothing = UseCase { name: "t".into(), input_tokens: 0, output_tokens: 0 };
        assert!(blended(&nothing, million(1.0), million(5.0)).is_err());
    }

    /// Any number that the machine has, extreme ones often.
    fn any_number() -> impl Strategy<Value = f64> {
        let odd =
            [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, f64::MAX, 5e-324, 1e-28, 1e28];
        prop_oneof![any::<f64>(), proptest::sample::select(odd.to_vec()), (-40.0..40.0f64).prop_map(|e| 10f64.powf(e))]
    }

    proptest! {
        #[test]
        fn whatever_goes_in_a_cost_over_zero_or_a_message_comes_out(p in any_number(), t in any_number(), u in any_number()) {
            match cost(p, t, u) {
                Ok(usd) => prop_assert!(usd.is_finite() && usd > 0.0 && p > 0.0 && t > 0.0 && u > 0.0 && u <= 1.0),
                Err(e) => prop_assert!(!e.to_string().is_empty()),
            }
            let (price, rate) = (UsdPerHour::of(p), TokensPerSecond(t));
            if let (Some(price), Some(target)) = (price, UsdPerMillionTokens::of(u))
                && let Ok(Some(share)) = break_even_utilisation(price, rate, target)
            {
                prop_assert!(share.get() >= 0.0 && share.get() <= 1.0);
                // At the break-even utilisation the machine asks what the API asks.
                if share.get() > 1e-9 && let Ok(at) = usd_per_million_tokens(price, rate, share) {
                    prop_assert!((at.get() / target.get() - 1.0).abs() < 1e-9, "{at:?} {target:?}");
                }
            }
            let mix = UseCase { name: "t".into(), input_tokens: u64::MAX, output_tokens: u64::MAX };
            if let (Some(a), Some(b)) = (UsdPerMillionTokens::of(p), UsdPerMillionTokens::of(t)) {
                let _ = blended(&mix, a, b);
            }
        }

        #[test]
        fn cost_falls_as_throughput_rises(price in 1e-3..1e3f64, tps in 1e-2..1e9f64, more in 1.001..1e3f64, u in 0.01..1.0f64) {
            prop_assert!(cost(price, tps * more, u).unwrap() < cost(price, tps, u).unwrap());
        }

        #[test]
        fn a_blend_lies_between_its_parts(a in 1e-3..1e3f64, b in 1e-3..1e3f64, i in 0u64..10_000, o in 1u64..10_000) {
            let mix = UseCase { name: "t".into(), input_tokens: i, output_tokens: o };
            let c = blended(&mix, million(a), million(b)).unwrap().get();
            prop_assert!(c >= a.min(b) * (1.0 - 4.0 * f64::EPSILON) && c <= a.max(b) * (1.0 + 4.0 * f64::EPSILON));
        }
    }
}
