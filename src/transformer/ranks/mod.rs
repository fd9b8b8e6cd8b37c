//! A trial's ranks: what one does, the threads that they run on, the gradients that replicas exchange, and the processes that
//! they may be spread over.

mod clip;
#[cfg(test)]
mod course_tests;
#[cfg(test)]
mod curve_tests;
mod exchange;
#[cfg(test)]
mod expert_tests;
mod feed;
#[cfg(test)]
mod grid_tests;
#[cfg(test)]
mod lever_tests;
pub(super) mod one;
#[cfg(test)]
mod parts_tests;
mod pipeline;
#[cfg(test)]
mod pipeline_tests;
pub(super) mod processes;
mod schedule;
mod state;
#[cfg(test)]
mod state_tests;
pub(super) mod threads;
pub(super) mod training;
