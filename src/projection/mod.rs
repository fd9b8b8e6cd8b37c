//! Projection: time, memory and cost of hardware that is not here, from first principles and a few fitted constants.
//!
//! Pure. Times are made of single operations ([`kernels`]), put together for a training step ([`training`]) or for inference
//! ([`serving`]); [`memory`] counts bytes by category. The constants ([`constants`]) have priors with sources; [`fit`] moves
//! them to published rows ([`published`]), and [`validate`] says how far off rows are whose source the fit has not seen:
//! the error bars that users are shown.

pub mod calibration;
pub mod constants;
pub mod device;
pub mod fit;
pub mod goal;
pub mod kernels;
pub mod memory;
pub mod model;
pub mod own;
#[cfg(test)]
mod property_tests;
pub mod published;
mod published_serving;
pub mod published_training;
pub mod search;
pub mod serving;
pub mod training;
pub mod validate;
pub mod workload;
