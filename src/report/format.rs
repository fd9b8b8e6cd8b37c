//! Figures as text. The unit stands in a column's heading where it is the same for all its values, else with each value.

use crate::cost::metric::{Estimate, Metric, Quantity};
use crate::units::{Bytes, FlopsPerSecond, Seconds, Share, TokensPerSecond, UsdPerMillionTokens, grouped, significant};

/// What is shown where there is no figure.
pub(super) const ABSENT: &str = "n/a";

/// A value with its unit.
pub(super) fn with_unit(quantity: Quantity, x: f64) -> String {
    match quantity {
        Quantity::Seconds => Seconds(x).to_string(),
        Quantity::Bytes => Bytes(x.max(0.0) as u64).to_string(),
        Quantity::FlopsPerSecond => FlopsPerSecond(x).to_string(),
        Quantity::TokensPerSecond => TokensPerSecond(x).to_string(),
        Quantity::UsdPerMillionTokens => UsdPerMillionTokens::of(x).map_or(ABSENT.into(), |usd| usd.to_string()),
        Quantity::Usd => fixed_usd(x),
        Quantity::Loss => format!("{x:.4}"),
        Quantity::Joules => format!("{} J", significant(x, 3)),
        Quantity::Watts => format!("{} W", significant(x, 3)),
        Quantity::Megahertz => format!("{} MHz", grouped(x.max(0.0).round() as u64)),
        Quantity::TokensPerUsd => format!("{} tok/$", bare(quantity, x)),
        Quantity::Share => Share(x).to_string(),
        Quantity::Count => bare(quantity, x),
    }
}

/// A value whose unit stands elsewhere, such as in a table's heading.
pub(super) fn bare(quantity: Quantity, x: f64) -> String {
    match quantity {
        Quantity::TokensPerSecond | Quantity::TokensPerUsd | Quantity::Count if (1000.0..1e15).contains(&x) => {
            grouped(x.round() as u64)
        }
        Quantity::Count => format!("{x}"),
        Quantity::TokensPerSecond | Quantity::TokensPerUsd | Quantity::UsdPerMillionTokens => significant(x, 3),
        _ => with_unit(quantity, x),
    }
}

/// A metric's value in its column, or [`ABSENT`].
pub(super) fn shown(metric: &Metric, e: Option<Estimate>) -> String {
    e.map_or(ABSENT.into(), |e| bare(metric.quantity, e.value))
}

/// "±0.8 %", or nothing where there is no interval.
pub(super) fn plus_minus(e: Option<Estimate>) -> String {
    match e.and_then(|e| e.relative_half_width()) {
        Some(half) => format!("±{} %", digits_of_share(half)),
        None => ABSENT.into(),
    }
}

fn digits_of_share(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 10.0 { format!("{percent:.0}") } else { format!("{percent:.1}") }
}

/// "1.72x", for ratios; with its interval where it has one.
pub(super) fn times(e: &Estimate) -> String {
    match e.interval() {
        Some((low, high)) => {
            format!("{}x ({} .. {})", significant(e.value, 3), significant(low, 3), significant(high, 3))
        }
        None => format!("{}x", significant(e.value, 3)),
    }
}

/// An amount with its sign, never with an exponent: "-$0.0000125".
pub(super) fn signed_usd(usd: f64) -> String {
    if usd == 0.0 || !usd.is_finite() {
        return "0".into();
    }
    format!("{}{}", if usd < 0.0 { "-" } else { "+" }, fixed_usd(usd.abs()))
}

/// An amount with three digits and without an exponent: "$0.00000167".
pub(crate) fn fixed_usd(usd: f64) -> String {
    if usd == 0.0 || !usd.is_finite() {
        return if usd == 0.0 { "$0".into() } else { ABSENT.into() };
    }
    let decimals = (2 - usd.abs().log10().floor() as i32).clamp(0, 15) as usize;
    format!("${usd:.decimals$}")
}

/// A change as people say it: "+3.4 %", with its interval.
pub(super) fn percent_change(ratio: &Estimate) -> String {
    let percent = |r: f64| {
        let p = (r - 1.0) * 100.0;
        // Small enough to be printed as zero is zero, without a sign.
        if p.abs() < 0.05 { "0.0".to_string() } else { format!("{p:+.1}") }
    };
    match ratio.interval() {
        Some((low, high)) => format!("{} % ({} .. {})", percent(ratio.value), percent(low), percent(high)),
        None => format!("{} %", percent(ratio.value)),
    }
}

/// "1 trial", "3 trials".
pub(super) fn counted(n: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(n as u64), if n == 1 { "" } else { "s" })
}

/// "a, b and c".
pub(super) fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_the_field_writes_them() {
        assert_eq!(bare(Quantity::TokensPerSecond, 12345.6), "12,346");
        assert_eq!(bare(Quantity::UsdPerMillionTokens, 0.011_61), "0.0116");
        assert_eq!(bare(Quantity::TokensPerUsd, 86_132_450.0), "86,132,450");
        let e = Estimate::with_interval(0.0116, 0.0115, 0.0118).unwrap();
        assert_eq!(plus_minus(Some(e)), "±1.3 %");
        assert_eq!(plus_minus(Estimate::exact(1.0)), "n/a");
        assert_eq!(percent_change(&Estimate::with_interval(0.966, 0.959, 0.974).unwrap()), "-3.4 % (-4.1 .. -2.6)");
        assert_eq!(percent_change(&Estimate::exact(1.0001).unwrap()), "0.0 %");
    }

    #[test]
    fn lists_are_said_as_a_sentence_says_them() {
        let of = |n: usize| listed(&["a", "b", "c"][..n].iter().map(|s| s.to_string()).collect::<Vec<_>>());
        assert_eq!([of(0), of(1), of(2), of(3)], ["", "a", "a and b", "a, b and c"]);
        assert_eq!(counted(1, "trial") + &counted(2000, "trial"), "1 trial2,000 trials");
    }
}
