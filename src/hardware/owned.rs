//! What an hour of owned hardware costs.

use crate::units::{UsdPerHour, decimal};
use rust_decimal::Decimal;

/// What owning a machine takes.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct OwnedHardware {
    /// Purchase, USD.
    pub capex_usd: f64,
    /// Hours over which the purchase is written off; 4 years are 35,064.
    pub lifetime_hours: f64,
    /// Mean power draw at the machine, watts.
    pub watts: f64,
    /// Power usage effectiveness of the site: facility power over machine power, at least 1.
    pub pue: f64,
    pub usd_per_kwh: f64,
    /// Space, staff, network, repairs: USD an hour.
    pub opex_usd_per_hour: f64,
}

/// A figure that no price can be computed from.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{name} of {value} cannot be used: it has to be a number {bound}")]
pub(crate) struct OwnedError {
    pub name: &'static str,
    pub value: f64,
    pub bound: &'static str,
}

/// `capex / lifetime_hours + watts / 1000 * pue * usd_per_kwh + opex`.
///
/// # Errors
/// [`OwnedError`] names the figure at fault: lifetime is over 0, PUE at least 1, the rest at least 0, none absurdly large; and
/// the sum is over 0.
pub(crate) fn usd_per_hour(hardware: &OwnedHardware) -> Result<UsdPerHour, OwnedError> {
    let h = hardware;
    let hours = checked("a lifetime in hours", h.lifetime_hours, 1e-3, MOST, "over 0 and at most 1e12")?;
    let purchase = checked("a purchase price in USD", h.capex_usd, 0.0, MOST, FROM_ZERO)? / hours;
    let energy = checked("a power draw in watts", h.watts, 0.0, MOST, FROM_ZERO)? / Decimal::ONE_THOUSAND
        * checked("a power usage effectiveness", h.pue, 1.0, 100.0, "from 1 to 100")?
        * checked("an energy price in USD per kWh", h.usd_per_kwh, 0.0, 1000.0, "from 0 to 1000")?;
    let price =
        purchase + energy + checked("running costs in USD per hour", h.opex_usd_per_hour, 0.0, MOST, FROM_ZERO)?;
    if price.is_zero() {
        return Err(OwnedError { name: "an hour's price in USD", value: 0.0, bound: "over 0" });
    }
    Ok(UsdPerHour(price.round_dp(12)))
}

const MOST: f64 = 1e12;
const FROM_ZERO: &str = "from 0 to 1e12";

fn checked(name: &'static str, value: f64, least: f64, most: f64, bound: &'static str) -> Result<Decimal, OwnedError> {
    let within = value.is_finite() && (least..=most).contains(&value);
    decimal(value).filter(|_| within).ok_or(OwnedError { name, value, bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: OwnedHardware = OwnedHardware {
        capex_usd: 35_064.0,
        lifetime_hours: 35_064.0,
        watts: 700.0,
        pue: 1.25,
        usd_per_kwh: 0.16,
        opex_usd_per_hour: 0.06,
    };

    #[test]
    fn an_owned_server_costs_its_share_of_the_purchase_and_its_power() {
        // 1.00 for the purchase + 0.7 kW * 1.25 * 0.16 = 0.14 for energy + 0.06.
        assert!((usd_per_hour(&SERVER).unwrap().get() - 1.20).abs() < 1e-12);
    }

    #[test]
    fn impossible_figures_are_named() {
        let fault = |h: OwnedHardware| usd_per_hour(&h).unwrap_err().to_string();
        assert!(fault(OwnedHardware { lifetime_hours: 0.0, ..SERVER }).starts_with("a lifetime in hours of 0"));
        assert!(fault(OwnedHardware { pue: 0.9, ..SERVER }).starts_with("a power usage effectiveness of 0.9"));
        assert!(fault(OwnedHardware { watts: f64::NAN, ..SERVER }).starts_with("a power draw in watts of NaN"));
        assert!(fault(OwnedHardware { capex_usd: -1.0, ..SERVER }).contains("from 0"));
    }
}
