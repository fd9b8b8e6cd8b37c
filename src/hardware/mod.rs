//! Hardware: this machine's facts and probed limits; the catalog of devices and the price book, ours and a user's.
//!
//! [`book::Book`] holds both: what devices can do, what providers ask for an hour of them, what APIs ask for a token. Every
//! entry has its source and date. Deliberately absent: what a token costs (`cost`), and the clock: dates are arguments.

pub(crate) mod api;
pub(crate) mod book;
pub(crate) mod canary;
pub(crate) mod date;
pub(crate) mod device;
pub(crate) mod disturbance;
pub(crate) mod energy;
pub(crate) mod gpu;
pub(crate) mod kind;
pub(crate) mod machine;
pub(crate) mod matching;
pub(crate) mod offer;
pub(crate) mod owned;
pub(crate) mod probe;
pub(crate) mod read;
pub(crate) mod saving;
pub(crate) mod schema;

/// Fields that price books and scenarios write alike.
pub(crate) mod price_fields {
    pub(crate) use super::read::{date, hourly, owned};
}
