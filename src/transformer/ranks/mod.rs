//! A trial's ranks: what one does, the threads that they run on, the gradients that replicas exchange, and the processes that
//! they may be spread over.

mod clip;
#[cfg(test)]
mod course_tests;
mod exchange;
mod feed;
#[cfg(test)]
mod grid_tests;
#[cfg(test)]
mod lever_tests;
pub(super) mod one;
#[cfg(test)]
mod parts_tests;
pub(super) mod processes;
pub(super) mod threads;
pub(super) mod training;
