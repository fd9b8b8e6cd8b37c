//! Money: the one room that knows it. Pure.

pub mod metric;
