//! The quantities that Centime speaks of, each a type of its own: FLOP is not FLOP/s, and USD an hour is not USD a token.
//!
//! Counts ([`Bytes`], [`Flops`]) are whole numbers and are combined with checked arithmetic by their makers; rates are
//! `f64`, money is decimal ([`Usd`] and the prices made of it). Every unit knows how it is printed; nothing else in the program formats a quantity.
//!
//! Deliberately absent: arithmetic between any two units. A formula that mixes units is a named function beside its source.

mod money;

pub use money::{Usd, UsdPerHour, UsdPerMillionTokens};
pub(crate) use money::{decimal, measured};
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
        impl $name {
            /// The bare number, for a formula or a column whose name carries the unit.
            pub fn get(self) -> $inner { self.0 }
        }
    };
}

quantity!(/// Wall time.
    Seconds(f64));
quantity!(/// A number of bytes; printed as GiB, MiB or KiB (powers of 1024).
    Bytes(u64));
quantity!(/// A number of floating-point operations (a multiply-add counts two).
    Flops(u64));
quantity!(/// Floating-point operations a second.
    FlopsPerSecond(f64));
quantity!(/// Bytes a second; printed as GB/s (powers of 1000), as memory vendors do.
    BytesPerSecond(f64));
quantity!(/// Tokens processed by all devices together, per second of wall time.
    TokensPerSecond(f64));
quantity!(/// A share in 0..=1, printed as a percentage.
    Share(f64));

/// Three significant digits, without an exponent between 0.001 and 1e6.
pub(crate) fn significant(x: f64, digits: usize) -> String {
    if x == 0.0 {
        return "0".into();
    }
    if !x.is_finite() {
        return "n/a".into();
    }
    let magnitude = x.abs().log10().floor() as i32;
    if !(-4..7).contains(&magnitude) {
        return format!("{x:.*e}", digits.saturating_sub(1));
    }
    let decimals = (digits as i32 - 1 - magnitude).max(0) as usize;
    // 9.999 rounds up into another decade: take one decimal less, so that the digits stay as many.
    let text = format!("{x:.decimals$}");
    let rounded: f64 = text.parse().unwrap_or(x);
    if decimals > 0 && rounded != 0.0 && rounded.abs().log10().floor() as i32 > magnitude {
        format!("{x:.*}", decimals - 1)
    } else {
        text
    }
}

/// 1234567 -> 1,234,567.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

fn scaled(x: f64, step: f64, units: &[&str]) -> String {
    let mut value = x;
    let mut unit = 0;
    while value.abs() >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    format!("{} {}", significant(value, 3), units[unit])
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0;
        let text = if !s.is_finite() {
            "n/a".into()
        } else if s >= 5400.0 {
            format!("{} h", significant(s / 3600.0, 3))
        } else if s >= 120.0 {
            format!("{} min", significant(s / 60.0, 3))
        } else if s >= 1.0 || s == 0.0 {
            format!("{} s", significant(s, 3))
        } else if s >= 1e-3 {
            format!("{} ms", significant(s * 1e3, 3))
        } else {
            format!("{} us", significant(s * 1e6, 3))
        };
        f.pad(&text)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&scaled(self.0 as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]))
    }
}

impl fmt::Display for Flops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&scaled(self.0 as f64, 1e3, &["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"]))
    }
}

impl fmt::Display for FlopsPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&scaled(self.0, 1e3, &["FLOP/s", "kFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s"]))
    }
}

impl fmt::Display for BytesPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&scaled(self.0, 1e3, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"]))
    }
}

impl fmt::Display for TokensPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            if self.0 >= 1000.0 && self.0 < 1e15 { grouped(self.0.round() as u64) } else { significant(self.0, 3) };
        f.pad(&format!("{text} tok/s"))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1} %", self.0 * 100.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_the_field_writes_them() {
        assert_eq!(Bytes(3_942_645_759).to_string(), "3.67 GiB");
        assert_eq!(Bytes(512).to_string(), "512 B");
        assert_eq!(FlopsPerSecond(232e9).to_string(), "232 GFLOP/s");
        assert_eq!(BytesPerSecond(50e9).to_string(), "50.0 GB/s");
        assert_eq!(TokensPerSecond(12345.6).to_string(), "12,346 tok/s");
        assert_eq!(UsdPerMillionTokens::of(0.0421).unwrap().to_string(), "$0.0421/M tok");
        assert_eq!(Seconds(0.01234).to_string(), "12.3 ms");
        assert_eq!(Share(0.4567).to_string(), "45.7 %");
    }

    #[test]
    fn significant_digits_survive_a_carry() {
        assert_eq!(significant(9.999, 3), "10.0");
        assert_eq!(significant(0.09996, 3), "0.100");
        assert_eq!(significant(1234.0, 3), "1234");
        assert_eq!(significant(f64::NAN, 3), "n/a");
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(124_439_808), "124,439,808");
    }
}
