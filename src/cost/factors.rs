//! What a measured cost per token is made of, factor by factor, and what each had in a change.
//!
//! `usd_per_million = price * 1e6 / (3600 * devices * utilisation * peak * mfu / flops_per_token)`: the price of a unit that is
//! paid for, the devices that work for each paid unit, the share of paid time in use, the peak rate of a device, the share of
//! it that is reached, and the work in a token. Their logarithms add up to that of the cost.

use super::decomposition::{Factor, Part, Role, decompose};
use super::metric::Context;
use super::metrics::{PEAK_FLOPS, TOKENS_PER_SECOND};
use super::price::CostError;
use crate::transformer::shape::count;

/// The factors of one trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// USD an hour of a paid unit: an instance, or whatever the trial occupies.
    pub price: f64,
    /// Devices that work for each paid unit.
    pub devices: f64,
    /// Share of the paid time that makes tokens, in (0, 1].
    pub utilisation: f64,
    /// Model FLOPs of a token.
    pub flops_per_token: f64,
    /// What a device reaches.
    pub speed: Speed,
}

/// FLOP/s of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// The peak is known, and so is the share of it that is reached.
    Split {
        /// FLOP/s that the device could reach.
        peak: f64,
        /// The share of them that it does.
        mfu: f64,
    },
    /// Only what was reached is known.
    Reached(f64),
    /// Tokens a second of a device: the work in a token is not known, and counts as 1.
    Tokens(f64),
}

impl Factors {
    /// Of a trial that was measured and has a price.
    pub fn of(c: &Context) -> Option<Self> {
        let trial = &c.record.cell.trial;
        let devices = f64::from(trial.devices);
        let throughput = (TOKENS_PER_SECOND.compute)(c)?.value;
        let tokens = c.figures()?.tokens_per_step as f64;
        let work = match trial.states_model() {
            true => Some(count::flops_per_step(&trial.workload).ok()?.get() as f64 / tokens),
            false => None,
        };
        let flops_per_token = work.unwrap_or(1.0);
        let reached = throughput * flops_per_token / devices;
        let speed = match (PEAK_FLOPS.compute)(c) {
            _ if work.is_none() => Speed::Tokens(reached),
            Some(peak) => Speed::Split { peak: peak.value / devices, mfu: reached * devices / peak.value },
            None => Speed::Reached(reached),
        };
        let units = f64::from(c.price.units(trial.devices));
        Some(Self {
            price: c.price.usd_per_hour?.get(),
            devices: devices / units,
            utilisation: c.price.utilisation.get(),
            flops_per_token,
            speed,
        })
    }

    /// FLOP/s of a device.
    pub fn reached(&self) -> f64 {
        match self.speed {
            Speed::Split { peak, mfu } => peak * mfu,
            Speed::Reached(rate) | Speed::Tokens(rate) => rate,
        }
    }

    /// The same without the work in a token, as a program's are whose model is not known.
    pub(crate) fn in_tokens(&self) -> Self {
        Self { flops_per_token: 1.0, speed: Speed::Tokens(self.reached() / self.flops_per_token), ..*self }
    }

    /// USD for 1e6 tokens.
    pub fn cost(&self) -> f64 {
        SCALE * self.price * self.flops_per_token / (self.devices * self.utilisation * self.reached())
    }
}

/// USD for 1e6 tokens of a USD an hour and a token a second.
pub(crate) const SCALE: f64 = 1e6 / 3600.0;

/// The factors of a change, each before and after; peak and MFU apart where both sides know them.
pub(crate) fn between(a: &Factors, b: &Factors) -> Vec<Factor> {
    let factor = |name, role, before, after| Factor { name, role, before, after };
    let mut all = vec![
        factor("price", Role::Multiplies, a.price, b.price),
        factor("utilisation", Role::Divides, a.utilisation, b.utilisation),
        factor("devices", Role::Divides, a.devices, b.devices),
    ];
    if matches!((a.speed, b.speed), (Speed::Tokens(_), _) | (_, Speed::Tokens(_))) {
        let [a, b] = [a, b].map(|f| f.in_tokens().reached());
        all.push(factor("tokens/s of a device", Role::Divides, a, b));
        return all;
    }
    all.push(factor("FLOPs per token", Role::Multiplies, a.flops_per_token, b.flops_per_token));
    match (a.speed, b.speed) {
        (Speed::Split { peak: p, mfu: m }, Speed::Split { peak: q, mfu: n }) => {
            all.push(factor("peak rate", Role::Divides, p, q));
            all.push(factor("MFU", Role::Divides, m, n));
        }
        _ => all.push(factor("FLOP/s reached", Role::Divides, a.reached(), b.reached())),
    }
    all
}

/// What each factor had in the change from `a` to `b`. USD for 1e6 tokens; the parts add up to `b.cost() - a.cost()`.
///
/// # Errors
/// A factor that is not a number over 0.
pub fn change(a: &Factors, b: &Factors) -> Result<Vec<Part>, CostError> {
    decompose(SCALE, &between(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::metrics::USD_PER_MILLION;
    use crate::fixture;
    use proptest::prelude::*;

    #[test]
    fn the_factors_of_a_trial_make_up_its_cost() {
        let run = fixture::sweep();
        for record in run.records.iter().filter(|r| r.measurement.figures.is_some()) {
            let c = Context::of(&run, record, fixture::book());
            let (factors, cost) = (Factors::of(&c).unwrap(), (USD_PER_MILLION.compute)(&c).unwrap().value);
            assert!((factors.cost() / cost - 1.0).abs() < 1e-12, "{factors:?} {cost}");
        }
    }

    #[test]
    fn a_second_device_under_the_same_price_shows_as_devices() {
        let one = Factors {
            price: 3.6,
            devices: 1.0,
            utilisation: 1.0,
            flops_per_token: 1e9,
            speed: Speed::Split { peak: 2e12, mfu: 0.5 },
        };
        // 1e12 / 1e9 = 1000 tokens/s for 3.60 USD: 1 USD a million. Two devices at 80 % of the efficiency: 1 / 1.6.
        assert!((one.cost() - 1.0).abs() < 1e-12);
        let two = Factors { devices: 2.0, speed: Speed::Split { peak: 2e12, mfu: 0.4 }, ..one };
        let parts = change(&one, &two).unwrap();
        let of = |name: &str| parts.iter().find(|p| p.name == name).unwrap().change;
        // L(0.625, 1) = 0.375 / ln 1.6 = 0.797866; times ln 2 and ln 1.25.
        assert!((of("devices") + 0.797_866 * 2f64.ln()).abs() < 1e-6);
        assert!((of("MFU") - 0.797_866 * 1.25f64.ln()).abs() < 1e-6);
        assert_eq!(of("price").abs() + of("peak rate").abs(), 0.0);
    }

    fn any() -> impl Strategy<Value = Factors> {
        let exponent = |low: f64, high: f64| (low..high).prop_map(|e| 10f64.powf(e));
        (exponent(-6.0, 6.0), exponent(0.0, 5.0), 1e-3..1.0f64, exponent(3.0, 15.0), exponent(6.0, 18.0), 1e-4..1.0f64)
            .prop_map(|(price, devices, utilisation, flops_per_token, peak, mfu)| Factors {
                price,
                devices,
                utilisation,
                flops_per_token,
                speed: Speed::Split { peak, mfu },
            })
    }

    proptest! {
        #[test]
        fn extreme_factors_give_a_message_or_finite_parts(x in proptest::prelude::any::<[f64; 6]>(), y in proptest::prelude::any::<[f64; 6]>()) {
            let of = |v: [f64; 6]| Factors {
                price: v[0],
                devices: v[1],
                utilisation: v[2],
                flops_per_token: v[3],
                speed: Speed::Split { peak: v[4], mfu: v[5] },
            };
            if let Ok(parts) = change(&of(x), &of(y)) {
                prop_assert!(parts.iter().all(|p| !p.change.is_nan()));
            }
        }

        #[test]
        fn the_parts_add_up_to_the_change(a in any(), b in any()) {
            let parts = change(&a, &b).unwrap();
            let sum: f64 = parts.iter().map(|p| p.change).sum();
            let scale = parts.iter().map(|p| p.change.abs()).sum::<f64>().max(a.cost()).max(b.cost());
            prop_assert!((sum - (b.cost() - a.cost())).abs() <= 1e-12 * scale, "{sum} {a:?} {b:?}");
        }

        #[test]
        fn what_does_not_change_has_no_part(a in any(), price in 1e-3..1e3f64) {
            let b = Factors { price, ..a };
            for part in change(&a, &b).unwrap().iter().filter(|p| p.name != "price") {
                prop_assert_eq!(part.change.abs(), 0.0);
            }
        }
    }
}
