//! Exchange between data-parallel ranks: what one of them computed becomes the mean of all.

pub mod threads;
