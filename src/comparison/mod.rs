//! Comparison of trials and of runs: the cheapest, the Pareto front, scaling, ratios with intervals. Pure.
//!
//! Says "within noise" where intervals overlap. Deliberately absent: verdicts with an error rate, which need runs that were
//! interleaved for the purpose; two runs made at different times are set side by side here, and no more.

pub mod break_even;
pub mod cheapest;
pub mod check;
pub mod decline;
pub mod explain;
pub mod guards;
pub mod judge;
pub mod limits;
pub mod noise;
pub mod pareto;
pub mod projected;
pub mod ratio;
pub mod runs;
pub mod scaling;
pub mod sensitivity;
pub mod timeline;
