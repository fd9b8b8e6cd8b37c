//! Weights of other frameworks: what their tensors are called, and where these stand in our parameters.

pub(in crate::transformer) mod names;
pub(in crate::transformer) mod place;
