//! What ranks say to one another: one trait, whose implementations are the threads of one process ([`threads`]), TCP ([`tcp`]) and
//! NCCL (`cuda::nccl`); [`alone`] is the rank that has nobody to talk to. Processes find one another and
//! stay connected by the module `net` at the bottom of the house; [`net`] here is what a trial makes of it.
//!
//! Every rank of a group asks for the same jobs in the same order, with buffers of the same lengths. Sums are taken in the order of
//! the ranks where the implementation can (threads, TCP), so that every rank holds the same bits and a run repeats.
//!
//! Beside jobs, in which all ranks have buffers of the same lengths, there is the exchange in which each has something else for every
//! other ([`Collective::all_to_all`]).

pub(crate) mod alone;
mod divided;
pub(crate) mod grid;
pub(crate) mod net;
pub(crate) mod stage;
pub(crate) mod tcp;
pub(crate) mod threads;

use super::error::SessionError;
use std::fmt::Debug;
use std::ops::Range;

/// How the ranks' elements become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduce {
    Sum,
    Mean,
    Max,
}

/// What is done to a bucket of buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Every element becomes the sum, mean or largest over the ranks.
    AllReduce(Reduce),
    /// The same of the rank's own share ([`share`]) of every buffer; what the others then hold of it is undefined.
    ReduceScatter(Reduce),
    /// Every rank's own share of every buffer goes to all.
    AllGather,
    /// The buffers of one rank go to all.
    Broadcast { root: usize },
}

/// A job that was started; to be handed back to [`Collective::finish`].
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ticket(pub u64);

/// How many numbers go to each rank of a group and come from it, in the order of the ranks: what one sends another is what that one
/// receives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts<'a> {
    pub sent: &'a [usize],
    pub received: &'a [usize],
}

/// One rank's place in a group.
pub(crate) trait Collective<T>: Debug + Send + Sync {
    /// From 0.
    fn rank(&self) -> usize;
    fn size(&self) -> usize;

    /// Whether a job that was started runs beside what the backend does next. Where it does not, `start` is the whole job.
    fn overlaps(&self) -> bool {
        false
    }

    /// Starts a job on whole buffers, after all that the backend was asked for before. The buffers are left alone until
    /// [`Collective::finish`].
    fn start(&self, job: Job, buffers: &mut [T]) -> Ticket;

    /// Lets what the backend is asked for next see the job's result.
    fn finish(&self, job: Ticket);

    /// What `from` holds for each rank, one's after the other's, goes there, and what the ranks hold for this one comes to stand in `to`
    /// in the same way. Any of the counts may be 0. It is done when this returns; `from` is undefined then.
    fn all_to_all(&self, from: &mut T, to: &mut T, counts: Counts<'_>);

    /// What has gone wrong since the group met. A group that lost a rank does nothing any more.
    ///
    /// # Errors
    /// [`SessionError`], which names what was lost.
    fn check(&self) -> Result<(), SessionError>;

    /// A whole job.
    fn run(&self, job: Job, buffers: &mut [T]) {
        if self.size() > 1 {
            let ticket = self.start(job, buffers);
            self.finish(ticket);
        }
    }
}

/// Shares start at multiples of so many elements: a cache line of f32, and whole vectors on every device.
const GRAIN: usize = 16;

/// The elements of a buffer of `len` that belong to a rank of `of`: equal stretches in the order of the ranks, the last ones shorter
/// or empty where the length does not divide.
pub(crate) fn share(len: usize, rank: usize, of: usize) -> Range<usize> {
    let each = len.div_ceil(of.max(1)).next_multiple_of(GRAIN);
    (rank * each).min(len)..((rank + 1) * each).min(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_a_buffer_once_in_the_order_of_the_ranks() {
        for len in [0, 1, 15, 16, 17, 100, 768, 50257 * 3] {
            for of in [1, 2, 3, 4, 7] {
                let all: Vec<Range<usize>> = (0..of).map(|r| share(len, r, of)).collect();
                assert_eq!((all[0].start, all[of - 1].end), (0, len));
                assert!(all.windows(2).all(|w| w[0].end == w[1].start));
                assert!(all.iter().all(|s| s.start.is_multiple_of(GRAIN) || s.is_empty()));
            }
        }
    }
}
