//! Hardware: this machine's facts and probed limits; the catalog of devices and the price book, ours and a user's.
//!
//! [`book::Book`] holds both: what devices can do, what providers ask for an hour of them, what APIs ask for a token. Every
//! entry has its source and date. Deliberately absent: what a token costs (`cost`), and the clock: dates are arguments.

pub mod api;
pub mod book;
pub mod date;
pub mod device;
pub mod disturbance;
pub mod energy;
pub mod gpu;
pub mod kind;
pub mod machine;
pub mod matching;
pub mod offer;
pub mod owned;
pub mod probe;
pub mod read;
pub mod saving;
pub mod schema;

/// Fields that price books and scenarios write alike.
pub mod price_fields {
    pub use super::read::{date, hourly, owned};
}
