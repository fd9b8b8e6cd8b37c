//! Comparison of trials and of runs: the cheapest, the Pareto front, scaling, ratios with intervals. Pure.
//!
//! Says "within noise" where intervals overlap. Deliberately absent: verdicts with an error rate, which need runs that were
//! interleaved for the purpose; two runs made at different times are set side by side here, and no more.

pub(crate) mod break_even;
pub(crate) mod cheapest;
pub(crate) mod check;
pub(crate) mod decline;
pub(crate) mod explain;
pub(crate) mod guards;
pub(crate) mod judge;
pub(crate) mod learning;
pub(crate) mod levers;
pub(crate) mod limits;
pub(crate) mod noise;
pub(crate) mod pareto;
pub(crate) mod projected;
pub(crate) mod ratio;
pub(crate) mod runs;
pub(crate) mod scaling;
pub(crate) mod sensitivity;
pub(crate) mod timeline;
