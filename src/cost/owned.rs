//! What an hour of owned hardware costs.

use super::price::CostError;
use crate::units::UsdPerHour;

/// What owning a machine takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnedHardware {
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

/// `capex / lifetime_hours + watts / 1000 * pue * usd_per_kwh + opex`.
///
/// # Errors
/// [`CostError::Input`] names the figure at fault: all are finite; lifetime is over 0, PUE at least 1, the rest at least 0;
/// and the sum is over 0.
pub fn usd_per_hour(hardware: &OwnedHardware) -> Result<UsdPerHour, CostError> {
    let h = hardware;
    let at_least = |name, value: f64, least: f64, bound| {
        if value.is_finite() && value >= least { Ok(value) } else { Err(CostError::Input { name, value, bound }) }
    };
    if !(h.lifetime_hours.is_finite() && h.lifetime_hours > 0.0) {
        return Err(CostError::Input { name: "a lifetime in hours", value: h.lifetime_hours, bound: "over 0" });
    }
    let purchase = at_least("a purchase price in USD", h.capex_usd, 0.0, "at least 0")? / h.lifetime_hours;
    let energy = at_least("a power draw in watts", h.watts, 0.0, "at least 0")? / 1000.0
        * at_least("a power usage effectiveness", h.pue, 1.0, "at least 1")?
        * at_least("an energy price in USD per kWh", h.usd_per_kwh, 0.0, "at least 0")?;
    let price = purchase + energy + at_least("running costs in USD per hour", h.opex_usd_per_hour, 0.0, "at least 0")?;
    super::price::check_price(UsdPerHour(price)).map(UsdPerHour)
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
        assert!(fault(OwnedHardware { capex_usd: -1.0, ..SERVER }).contains("at least 0"));
    }
}
