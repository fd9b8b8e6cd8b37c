//! The group of one.

use super::super::error::SessionError;
use super::{Collective, Counts, Job, Ticket};

/// A rank that has nobody to talk to: what it holds is the sum, the mean and the whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alone;

impl<T> Collective<T> for Alone {
    fn rank(&self) -> usize {
        0
    }
    fn size(&self) -> usize {
        1
    }
    fn start(&self, _: Job, _: &mut [T]) -> Ticket {
        Ticket(0)
    }
    fn finish(&self, _: Ticket) {}
    fn all_to_all(&self, from: &mut T, to: &mut T, _: Counts<'_>) {
        std::mem::swap(from, to);
    }
    fn check(&self) -> Result<(), SessionError> {
        Ok(())
    }
}
