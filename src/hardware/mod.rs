//! Hardware: this machine's facts and probed limits, and the catalog of devices.

pub mod disturbance;
pub mod machine;
pub mod probe;
