//! Money: decimal, so that 0.1 is 0.1 and sums of prices are what an invoice would say.

use super::significant;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The decimal number that a person would write for this one (0.1 for the `f64` nearest to 0.1); `None` beyond about 1e27
/// and for what is not a number. Digits after the 28th decimal are rounded away.
pub(crate) fn decimal(x: f64) -> Option<Decimal> {
    if !x.is_finite() || x.abs() > 1e27 {
        return None;
    }
    // The shortest digits that give the same number back.
    Decimal::from_scientific(&format!("{x:e}")).ok().or_else(|| (x.abs() < 1e-27).then_some(Decimal::ZERO))
}

/// A measured number over 0 with fifteen digits, as many as it has; `None` beyond what a decimal holds.
pub(crate) fn measured(x: f64) -> Option<Decimal> {
    let over_zero = |x: &Decimal| *x > Decimal::ZERO;
    let scale = 14 - x.log10().floor() as i32;
    if !(-12..=28).contains(&scale) {
        return Decimal::from_f64_retain(x).filter(over_zero);
    }
    let digits = (x * 10f64.powi(scale)).round() as i64;
    match u32::try_from(scale) {
        Ok(scale) => Decimal::try_new(digits, scale).ok().filter(over_zero),
        Err(_) => Decimal::from(digits).checked_mul(Decimal::from(10i64.pow(scale.unsigned_abs()))).filter(over_zero),
    }
}

macro_rules! money {
    ($(#[$doc:meta])* $name:ident, $print:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Eq, Ord)]
        pub struct $name(pub Decimal);

        impl $name {
            /// From a number as it is written; `None` where it is not finite or beyond what money is counted in.
            pub fn of(amount: f64) -> Option<Self> {
                decimal(amount).map(Self)
            }

            /// The nearest floating-point number, for statistics and pictures.
            pub fn get(self) -> f64 {
                self.0.to_f64().unwrap_or(f64::NAN)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let print: fn(f64) -> String = $print;
                f.pad(&print(self.get()))
            }
        }

        /// As a number, as in the files of every version.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_f64(self.get())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let amount = f64::deserialize(d)?;
                Self::of(amount).ok_or_else(|| serde::de::Error::custom(format!("{amount} is no amount of money")))
            }
        }
    };
}

money!(
    /// An amount.
    Usd,
    amount
);
money!(
    /// Price of everything a trial occupies, for an hour.
    UsdPerHour,
    |x| format!("${}/h", significant(x, 4))
);
money!(
    /// Price of 1e6 tokens.
    UsdPerMillionTokens,
    |x| format!("${}/M tok", significant(x, 3))
);

/// Dollars as people write them: cents from a dollar up, three digits below.
fn amount(x: f64) -> String {
    if x.abs() >= 1e6 {
        format!("${} M", significant(x / 1e6, 4))
    } else if x.abs() >= 1000.0 {
        format!("${}", super::grouped(x.round().max(0.0) as u64))
    } else if x.abs() >= 1.0 {
        format!("${x:.2}")
    } else {
        format!("${}", significant(x, 3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenths_add_up() {
        let tenth = Usd::of(0.1).unwrap().0;
        assert_eq!(tenth + tenth + tenth, Usd::of(0.3).unwrap().0);
        assert_eq!(Usd::of(98.32).unwrap().0.to_string(), "98.32");
        assert_eq!(Usd::of(1e-9).unwrap().0.to_string(), "0.000000001");
        assert_eq!(Usd::of(0.0), Some(Usd(Decimal::ZERO)));
    }

    #[test]
    fn a_measured_number_keeps_its_digits() {
        for x in [1_234.567_890_123_4, 1e-9, 0.1, 5e15, 9.99e20, 3.0, f64::from_bits(0x3FD5_5555_5555_5555)] {
            let back = measured(x).unwrap().to_f64().unwrap();
            assert!((back / x - 1.0).abs() < 1e-14, "{x} {back}");
        }
        for x in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 1e-300] {
            assert_eq!(measured(x), None, "{x}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e28] {
            assert_eq!(Usd::of(x), None, "{x}");
        }
        // Below what can be counted it is nothing.
        assert_eq!(Usd::of(1e-300).map(|u| u.get()), Some(0.0));
    }

    #[test]
    fn amounts_read_as_people_write_them() {
        let shown = |x: f64| Usd::of(x).unwrap().to_string();
        assert_eq!(shown(12.3456), "$12.35");
        assert_eq!(shown(0.001234), "$0.00123");
        assert_eq!(shown(12_345.6), "$12,346");
        assert_eq!(shown(4_600_000.0), "$4.600 M");
        assert_eq!(UsdPerHour::of(0.0856).unwrap().to_string(), "$0.08560/h");
    }

    #[test]
    fn files_hold_numbers_and_give_the_same_amount_back() {
        for x in [0.0856, 98.32, 21.957642, 0.41056] {
            let price = UsdPerHour::of(x).unwrap();
            let json = serde_json::to_string(&price).unwrap();
            assert_eq!(json, x.to_string());
            assert_eq!(serde_json::from_str::<UsdPerHour>(&json).unwrap(), price);
        }
        assert!(serde_json::from_str::<UsdPerHour>("1e300").is_err());
    }
}
