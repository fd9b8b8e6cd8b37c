//! Projection: time, memory and cost of hardware that is not here, from first principles and a few fitted constants.
//!
//! Pure. Times are made of single operations ([`kernels`]), put together for a training step ([`training`]) or for inference
//! ([`serving`], [`server`]); [`memory`] counts bytes by category. The constants ([`constants`]) have priors with sources;
//! [`fit`] moves them to published rows ([`published`]), and [`nested`] says how far off rows are whose source took no part in
//! anything: what the error bars ([`bars`]) that users are shown rest on.

pub mod bars;
pub mod baseline;
pub mod calibration;
pub mod constants;
pub mod device;
pub mod engines;
pub mod fit;
pub mod goal;
pub mod kernels;
pub mod memory;
pub mod model;
pub mod nested;
pub mod own;
pub mod plans;
pub mod pooled;
#[cfg(test)]
mod property_tests;
pub mod published;
pub mod search;
pub mod server;
pub mod serving;
pub mod training;
pub mod traits;
pub mod validate;
pub mod workload;
