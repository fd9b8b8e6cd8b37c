//! An offer of the price book: what somebody asks for an hour of a machine.

use super::date::Date;
use crate::units::UsdPerHour;
use rust_decimal::Decimal;

/// Under which conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Term {
    OnDemand,
    /// May be taken away at any time.
    Spot,
    /// Bound for one year, without payment ahead.
    #[serde(rename = "reserved-1y")]
    Reserved1y,
    #[serde(rename = "reserved-3y")]
    Reserved3y,
    /// Bought, not rented.
    Owned,
}

impl Term {
    pub const ALL: [Self; 5] = [Self::OnDemand, Self::Spot, Self::Reserved1y, Self::Reserved3y, Self::Owned];

    pub fn name(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Spot => "spot",
            Self::Reserved1y => "reserved-1y",
            Self::Reserved3y => "reserved-3y",
            Self::Owned => "owned",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }
}

/// One offer, in force from one date to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub provider: String,
    /// What the provider calls it.
    pub instance: String,
    /// Name of the device in the catalog.
    pub device: Option<String>,
    /// How many of them are in it; they are rented together. 0 for a machine without accelerators.
    pub devices: u32,
    pub vcpus: Option<u32>,
    /// For the whole of it.
    pub usd_per_hour: UsdPerHour,
    pub term: Term,
    pub region: String,
    /// First seen.
    pub from: Date,
    /// Last seen; `None` where it was seen once.
    pub until: Option<Date>,
    /// The source does not date it exactly.
    pub approximate: bool,
    pub source: String,
    pub notes: String,
}

/// A price that has not been seen for this many days is stale.
pub(crate) const STALE_AFTER_DAYS: i64 = 90;

impl Offer {
    /// Of one device; of the whole where it has no accelerator.
    pub fn usd_per_device_hour(&self) -> UsdPerHour {
        match self.devices {
            0 | 1 => self.usd_per_hour,
            n => UsdPerHour((self.usd_per_hour.0 / Decimal::from(n)).round_dp(9)),
        }
    }

    /// When it was last seen.
    pub fn seen(&self) -> Date {
        self.until.unwrap_or(self.from)
    }

    /// How long ago, where that is over [`STALE_AFTER_DAYS`].
    pub fn stale_days(&self, today: Date) -> Option<i64> {
        Some(self.seen().age_in_days(today)).filter(|d| *d > STALE_AFTER_DAYS)
    }

    /// `aws/p5.48xlarge`: how an offer is addressed.
    pub fn address(&self) -> String {
        format!("{}/{}", self.provider, self.instance)
    }

    /// "AWS p5.48xlarge, 8 devices, on-demand, us-east-1, seen 2026-07-20".
    pub fn described(&self) -> String {
        let mut text = format!("{} {}", self.provider, self.instance);
        match self.devices {
            0 => {}
            1 => text += ", 1 device",
            n => text += &format!(", {n} devices"),
        }
        text += &format!(", {}", self.term.name());
        if !self.region.is_empty() {
            text += &format!(", {}", self.region);
        }
        text + &format!(", seen {}{}", self.seen(), if self.approximate { " (approximate)" } else { "" })
    }
}
