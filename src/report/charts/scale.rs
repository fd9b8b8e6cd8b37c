//! An axis: where values stand, where ticks are, and what they say.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// How an axis places values.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Linear,
    Log,
    /// Names at 0, 1, 2 ...
    Names(Vec<String>),
}

/// One axis.
#[derive(Clone)]
pub(crate) struct Scale {
    kind: Kind,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    label: fn(f64) -> String,
}

/// From this ratio of largest to smallest on, a scale is logarithmic: on a linear one the small values would lie on the axis.
const LOG_FROM: f64 = 6.0;

impl Scale {
    /// A scale for measured values: from zero where they are alike, logarithmic where they span more.
    pub(crate) fn measured(values: &[f64], label: fn(f64) -> String) -> Self {
        let (least, most) = extent(values);
        if least > 0.0 && most / least >= LOG_FROM {
            return Self::log(values, label);
        }
        Self::from_zero(most, nice(most / 5.0), label)
    }

    /// The same for bytes: the steps are powers of two.
    pub(crate) fn measured_bytes(values: &[f64], label: fn(f64) -> String) -> Self {
        let (least, most) = extent(values);
        if least > 0.0 && most / least >= LOG_FROM {
            return Self::bytes(values, label);
        }
        Self::from_zero(most, 2f64.powf((most / 8.0).max(1.0).log2().ceil()), label)
    }

    fn from_zero(most: f64, step: f64, label: fn(f64) -> String) -> Self {
        let count = (most / step).ceil().max(1.0);
        let ticks = (0..=count as usize).map(|i| i as f64 * step).collect();
        Self { kind: Kind::Linear, low: 0.0, high: count * step, ticks, label }
    }

    /// A linear scale that holds zero and the values, on whichever side of it they are.
    pub(crate) fn linear(values: &[f64], label: fn(f64) -> String) -> Self {
        let (least, most) = extent(values);
        Self::stepped(least.min(0.0), most.max(0.0), label)
    }

    /// A linear scale around the values, wherever zero is.
    pub(crate) fn near(values: &[f64], label: fn(f64) -> String) -> Self {
        let (least, most) = extent(values);
        let margin = ((most - least) * 0.08).max(most.abs() * 1e-3);
        Self::stepped(least - margin, most + margin, label)
    }

    fn stepped(low: f64, high: f64, label: fn(f64) -> String) -> Self {
        let high = if high > low { high } else { low + low.abs().max(1.0) };
        let step = nice((high - low) / 6.0);
        let ticks = (low / step).ceil() as i64..=(high / step).floor() as i64;
        Self { kind: Kind::Linear, low, high, ticks: ticks.map(|i| i as f64 * step).collect(), label }
    }

    /// A scale of years: a tick at the beginning of each, or of every other where there are many.
    pub(crate) fn years(values: &[f64]) -> Self {
        let (least, most) = extent(values);
        let (low, high) = (least - 0.2, most + 0.2);
        let every = ((high - low) / 12.0).ceil().max(1.0) as usize;
        let ticks = (low.ceil() as i64..=high.floor() as i64).step_by(every).map(|y| y as f64).collect();
        Self { kind: Kind::Linear, low, high, ticks, label: |x| format!("{x:.0}") }
    }

    /// A logarithmic scale with ticks at 1, 2 and 5 (at powers of ten alone where there are many decades).
    pub(crate) fn log(values: &[f64], label: fn(f64) -> String) -> Self {
        let (least, most) = extent(values);
        let (low, high) = (least / 1.15, most * 1.15);
        let at = |factors: &[f64]| -> Vec<f64> {
            let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
            let all = decades.flat_map(|d| factors.iter().map(move |f| f * 10f64.powi(d)));
            all.filter(|t| (low..=high).contains(t)).collect()
        };
        let [every, some, few] = [vec![1.0, 1.5, 2.0, 3.0, 5.0, 7.0], vec![1.0, 2.0, 5.0], vec![1.0]].map(|f| at(&f));
        let ticks = if some.len() < 3 {
            every
        } else if some.len() <= 8 {
            some
        } else {
            few
        };
        Self { kind: Kind::Log, low, high, ticks, label }
    }

    /// A logarithmic scale of bytes: ticks at powers of two.
    pub(crate) fn bytes(values: &[f64], label: fn(f64) -> String) -> Self {
        let (least, most) = extent(values);
        let (low, high) = (least / 1.2, most * 1.2);
        let exponents = low.log2().ceil() as i32..=high.log2().floor() as i32;
        let every = (exponents.clone().count() / 8 + 1) as i32;
        let ticks = exponents.filter(|e| e % every == 0).map(|e| 2f64.powi(e)).collect();
        Self { kind: Kind::Log, low, high, ticks, label }
    }

    /// A scale for a swept field: a tick at every value, logarithmic where the values grow by factors.
    pub(crate) fn swept(values: &[f64], label: fn(f64) -> String) -> Self {
        let mut ticks = values.to_vec();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        let (least, most) = extent(&ticks);
        let by_factors = least > 0.0 && (most / least >= LOG_FROM || grows_by_factors(&ticks));
        let (kind, low, high) = if by_factors {
            let margin = (most / least).powf(0.06).max(1.02);
            (Kind::Log, least / margin, most * margin)
        } else {
            let margin = ((most - least) * 0.06).max(most.abs() * 0.02).max(1e-9);
            (Kind::Linear, least - margin, most + margin)
        };
        let mut scale = Self { kind, low, high, ticks, label };
        scale.thin();
        scale
    }

    /// A scale of names.
    pub(crate) fn names(names: Vec<String>) -> Self {
        let high = names.len() as f64 - 0.5;
        let ticks = (0..names.len()).map(|i| i as f64).collect();
        Self { kind: Kind::Names(names), low: -0.5, high, ticks, label: |x| x.to_string() }
    }

    /// Leaves out ticks that would stand on each other.
    fn thin(&mut self) {
        let mut kept: Vec<f64> = Vec::new();
        for &t in &self.ticks {
            if kept.last().is_none_or(|&last| self.share(t) - self.share(last) > 0.045) {
                kept.push(t);
            }
        }
        self.ticks = kept;
    }

    /// Place between the ends, 0 to 1.
    pub(crate) fn share(&self, x: f64) -> f64 {
        match self.kind {
            Kind::Log => (x.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln(),
            _ => (x - self.low) / (self.high - self.low),
        }
    }

    /// The values at its ends.
    pub(crate) fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    pub(crate) fn is_log(&self) -> bool {
        self.kind == Kind::Log
    }

    pub(crate) fn ticks(&self) -> &[f64] {
        &self.ticks
    }

    /// What stands at a tick.
    pub(crate) fn tick_label(&self, x: f64) -> String {
        match &self.kind {
            Kind::Names(names) => names.get(x.round().max(0.0) as usize).cloned().unwrap_or_default(),
            _ => (self.label)(x),
        }
    }
}

/// Whether neighbours differ by like factors, as 128, 256, 512 do.
fn grows_by_factors(sorted: &[f64]) -> bool {
    let factors: Vec<f64> = sorted.windows(2).map(|w| w[1] / w[0]).collect();
    factors.len() >= 2 && factors.iter().all(|f| *f >= 1.4 && (f / factors[0] - 1.0).abs() < 0.1)
}

fn extent(values: &[f64]) -> (f64, f64) {
    let finite = values.iter().copied().filter(|v| v.is_finite());
    let (least, most) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if least <= most { (least, most) } else { (1.0, 1.0) }
}

/// The least of 1, 2, 2.5, 5 times a power of ten that is not below `x`.
fn nice(x: f64) -> f64 {
    if !(x.is_finite() && x > 0.0) {
        return 1.0;
    }
    let decade = 10f64.powf(x.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|f| f * decade).find(|t| *t >= x * (1.0 - 1e-9)).unwrap_or(10.0 * decade)
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = self.share(*value).clamp(-0.1, 1.1);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Light grid lines would be at the same places.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, value: &f64) -> String {
        self.tick_label(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(x: f64) -> String {
        x.to_string()
    }

    #[test]
    fn like_values_start_at_zero_and_unlike_ones_are_logarithmic() {
        let linear = Scale::measured(&[70.0, 95.0], plain);
        assert_eq!((linear.is_log(), linear.ticks()), (false, &[0.0, 20.0, 40.0, 60.0, 80.0, 100.0][..]));
        let log = Scale::measured(&[3.0, 450.0], plain);
        assert!(log.is_log());
        assert_eq!(log.ticks(), [5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]);
    }

    #[test]
    fn bytes_are_counted_in_powers_of_two() {
        let scale = Scale::measured_bytes(&[20e6, 27e6], plain);
        assert_eq!(
            scale.ticks(),
            [0.0, 4194304.0, 8388608.0, 12582912.0, 16777216.0, 20971520.0, 25165824.0, 29360128.0]
        );
        assert!(Scale::measured_bytes(&[1e6, 27e6], plain).is_log());
        assert_eq!(Scale::measured_bytes(&[0.0], plain).ticks(), [0.0, 1.0]);
    }

    #[test]
    fn a_narrow_logarithmic_scale_still_has_ticks() {
        for (least, most) in [(1.1, 1.4), (0.011, 0.019), (900.0, 1100.0)] {
            assert!(Scale::log(&[least, most], plain).ticks().len() >= 2 || most / least < 1.5, "{least} {most}");
        }
    }

    #[test]
    fn swept_values_have_their_own_ticks() {
        let doubled = Scale::swept(&[4.0, 1.0, 2.0, 8.0], plain);
        assert_eq!((doubled.is_log(), doubled.ticks()), (true, &[1.0, 2.0, 4.0, 8.0][..]));
        let even = Scale::swept(&[2.0, 3.0, 4.0], plain);
        assert_eq!((even.is_log(), even.ticks()), (false, &[2.0, 3.0, 4.0][..]));
        // One value alone stands in the middle.
        let one = Scale::swept(&[8.0], plain);
        assert!((one.share(8.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn equal_and_odd_values_give_a_scale_all_the_same() {
        for values in [&[][..], &[0.0], &[5.0, 5.0], &[f64::NAN, 2.0]] {
            let s = Scale::measured(values, plain);
            assert!(!s.ticks().is_empty() && s.high > s.low, "{values:?}");
        }
    }
}
