//! Projection: time, memory and cost of hardware that is not here, from first principles and a few fitted constants.
//!
//! Pure. Times are made of single operations ([`kernels`]), put together for a training step ([`training`], with what devices exchange in [`exchange`]) or for inference
//! ([`serving`], [`server`]); [`memory`] counts bytes by category. The constants ([`constants`]) have priors with sources;
//! [`fit`] moves them to published rows ([`published`]), and [`nested`] says how far off rows are whose source took no part in
//! anything: what the error bars ([`bars`]) that users are shown rest on.

pub(crate) mod bars;
pub(crate) mod baseline;
pub(crate) mod calibration;
pub(crate) mod constants;
pub(crate) mod device;
pub(crate) mod engines;
mod exchange;
pub(crate) mod fit;
pub(crate) mod goal;
pub(crate) mod kernels;
pub(crate) mod law;
pub(crate) mod memory;
pub(crate) mod model;
pub(crate) mod nested;
pub(crate) mod own;
pub(crate) mod plans;
pub(crate) mod pooled;
#[cfg(test)]
mod property_tests;
pub(crate) mod published;
pub(crate) mod search;
pub(crate) mod server;
pub(crate) mod serving;
pub(crate) mod training;
pub(crate) mod traits;
pub(crate) mod validate;
pub(crate) mod workload;
