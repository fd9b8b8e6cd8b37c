//! What it takes to train a model: days and USD for N parameters on D tokens.

use super::price::{CostError, check_price};
use crate::units::{Usd, UsdPerHour};
use rust_decimal::Decimal;

/// A training run on paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TrainingRun {
    pub parameters: f64,
    pub tokens: f64,
    pub devices: u32,
    /// FLOP/s of one device.
    pub peak: f64,
    /// Share of the peak that model FLOPs reach.
    pub mfu: f64,
    /// For an hour of all the devices.
    pub usd_per_hour: Option<UsdPerHour>,
}

/// What it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Effort {
    pub flops: f64,
    pub tokens_per_second: f64,
    pub days: f64,
    pub device_hours: f64,
    pub usd: Option<Usd>,
}

const SECONDS_PER_DAY: f64 = 86_400.0;

/// FLOPs of a training token: 6 for each parameter (2 forward, 4 backward).
///
/// Source: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1; Hoffmann et al. 2022 (arXiv 2203.15556), appendix F. Attention
/// over long contexts is not in it.
pub(crate) const FLOPS_PER_PARAMETER: f64 = 6.0;

/// `days = 6 N D / (devices * peak * mfu) / 86400`; `usd = usd_per_hour * 24 * days`.
///
/// # Errors
/// [`CostError::Input`] names the figure at fault; [`CostError::OutOfRange`].
pub(crate) fn effort(run: &TrainingRun) -> Result<Effort, CostError> {
    let over_zero = |name, value: f64| {
        if value.is_finite() && value > 0.0 {
            Ok(value)
        } else {
            Err(CostError::Input { name, value, bound: "over 0" })
        }
    };
    let per_token = FLOPS_PER_PARAMETER * over_zero("a number of parameters", run.parameters)?;
    let flops = per_token * over_zero("a number of tokens", run.tokens)?;
    let share = over_zero("a model FLOPs utilisation", run.mfu)?;
    if share > 1.0 {
        return Err(CostError::Input { name: "a model FLOPs utilisation", value: share, bound: "at most 1" });
    }
    let devices = over_zero("a number of devices", f64::from(run.devices))?;
    let rate = devices * over_zero("a peak rate in FLOP/s", run.peak)? * share;
    let seconds = flops / rate;
    if !seconds.is_finite() || seconds <= 0.0 {
        return Err(CostError::OutOfRange);
    }
    let usd = run.usd_per_hour.map(|price| paid(price, seconds / 3600.0)).transpose()?;
    Ok(Effort {
        flops,
        tokens_per_second: rate / per_token,
        days: seconds / SECONDS_PER_DAY,
        device_hours: devices * seconds / 3600.0,
        usd,
    })
}

/// USD for so many hours.
fn paid(price: UsdPerHour, hours: f64) -> Result<Usd, CostError> {
    let hours = Decimal::from_f64_retain(hours).ok_or(CostError::OutOfRange)?;
    check_price(price)?.checked_mul(hours).map(|usd| Usd(usd.round_dp(6))).ok_or(CostError::OutOfRange)
}

/// What D tokens cost at a measured throughput: `tokens / tokens_per_second / utilisation` hours at the price. Days and USD.
///
/// # Errors
/// As [`effort`].
pub(crate) fn at_throughput(tokens: f64, tokens_per_second: f64, price: UsdPerHour) -> Result<(f64, Usd), CostError> {
    if !(tokens_per_second.is_finite() && tokens_per_second > 0.0) {
        return Err(CostError::Throughput(tokens_per_second));
    }
    let seconds = tokens / tokens_per_second;
    Ok((seconds / SECONDS_PER_DAY, paid(price, seconds / 3600.0)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GPT3: TrainingRun =
        TrainingRun { parameters: 175e9, tokens: 300e9, devices: 1024, peak: 312e12, mfu: 0.4487, usd_per_hour: None };

    #[test]
    fn gpt_3_on_1024_a100_takes_a_month() {
        // 6 * 175e9 * 300e9 = 3.15e23 FLOP; 1024 * 312e12 * 0.4487 = 1.4336e17 FLOP/s; 2.1973e6 s are 25.43 days. (The 34 days
        // of Narayanan et al. 2021 count 8 FLOPs a parameter, for recomputation, at 140 TFLOP/s.)
        let e = effort(&GPT3).unwrap();
        assert!((e.flops - 3.15e23).abs() < 1e10);
        assert!((e.days - 25.43).abs() < 0.01, "{}", e.days);
        let narayanan = TrainingRun { mfu: 140.0 / 312.0 * 6.0 / 8.0, ..GPT3 };
        assert!((effort(&narayanan).unwrap().days - 33.9).abs() < 0.1);
    }

    #[test]
    fn the_bill_is_hours_times_price() {
        // 7e9 parameters, 140e9 tokens: 5.88e21 FLOP; one device of 1e15 FLOP/s at 0.5: 1.176e7 s = 3266.67 h, at 2 USD.
        let run = TrainingRun {
            parameters: 7e9,
            tokens: 140e9,
            devices: 1,
            peak: 1e15,
            mfu: 0.5,
            usd_per_hour: UsdPerHour::of(2.0),
        };
        let e = effort(&run).unwrap();
        assert!((e.usd.unwrap().get() - 6533.333333).abs() < 1e-5);
        assert!((e.device_hours - 3_266.666_666).abs() < 1e-3);
        let (days, usd) = at_throughput(140e9, e.tokens_per_second, UsdPerHour::of(2.0).unwrap()).unwrap();
        assert!((days / e.days - 1.0).abs() < 1e-12 && (usd.get() / 6533.333333 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn impossible_figures_are_named() {
        for (run, name) in [
            (TrainingRun { parameters: 0.0, ..GPT3 }, "a number of parameters"),
            (TrainingRun { tokens: f64::NAN, ..GPT3 }, "a number of tokens"),
            (TrainingRun { devices: 0, ..GPT3 }, "a number of devices"),
            (TrainingRun { mfu: 1.5, ..GPT3 }, "a model FLOPs utilisation"),
            (TrainingRun { peak: f64::INFINITY, ..GPT3 }, "a peak rate"),
        ] {
            assert!(effort(&run).unwrap_err().to_string().starts_with(name));
        }
    }

    proptest! {
        #[test]
        fn more_devices_take_less_time_and_the_same_device_hours(n in 1u32..10_000, p in 1e6..1e13f64, d in 1e6..1e15f64) {
            let run = |devices| TrainingRun { parameters: p, tokens: d, devices, ..GPT3 };
            let (one, many) = (effort(&run(n)).unwrap(), effort(&run(2 * n)).unwrap());
            prop_assert!((many.days * 2.0 / one.days - 1.0).abs() < 1e-12);
            prop_assert!((many.device_hours / one.device_hours - 1.0).abs() < 1e-12);
        }
    }
}
