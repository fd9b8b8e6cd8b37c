//! Money: the one room that knows it. Pure: prices, seeds and rates are arguments.
//!
//! [`price`] turns an hourly price and a throughput into a price per token and back (break-even, owned hardware, blends);
//! [`decomposition`] says why a cost changed; [`metrics::METRICS`] is the table of everything that is said of a trial, and
//! [`evaluate`] computes it for every record of a run.
//!
//! Deliberately absent: input and output, formatting, and any default price. Where no price is known, there is no cost.

pub(crate) mod decomposition;
mod estimate;
pub(crate) mod evaluate;
pub(crate) mod factors;
mod largest;
pub(crate) mod law;
pub(crate) mod learning;
pub(crate) mod metric;
pub(crate) mod metrics;
pub(crate) mod peaks;
pub(crate) mod price;
pub(crate) mod profile;
pub(crate) mod requests;
pub(crate) mod scalars;
pub(crate) mod steps;
pub(crate) mod to_loss;
pub(crate) mod training;
