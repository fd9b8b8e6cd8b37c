//! Ranks that are threads of one process: each works on its share of every buffer over all ranks, in the order of the ranks, so
//! that all hold the same bits afterwards. A job is done when it is started.

use super::super::error::SessionError;
use super::{Collective, Counts, Job, Reduce, Ticket, share};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// One buffer of one rank, lent to the others between two meetings.
#[derive(Clone, Copy, Debug)]
struct Lent {
    start: *mut f32,
    len: usize,
}

// SAFETY: the pointer is only followed between the meetings of `Seat::start`, where shares are disjoint, and of `Seat::all_to_all`, where
// what is lent is only read.
unsafe impl Send for Lent {}

/// The meeting point of some threads.
#[derive(Debug)]
pub(crate) struct Exchange {
    meeting: Meeting,
    lent: Vec<Mutex<Vec<Lent>>>,
}

impl Exchange {
    /// A seat for each of `ranks` threads.
    pub(crate) fn seats(ranks: usize) -> Vec<Seat> {
        let lent = (0..ranks).map(|_| Mutex::default()).collect();
        let exchange = Arc::new(Self { meeting: Meeting::new(ranks), lent });
        let seat = |rank| Seat { rank, exchange: Arc::clone(&exchange), missed: AtomicBool::new(false) };
        (0..ranks).map(seat).collect()
    }
}

/// One thread's place. A seat that is given up ends its group: the others no longer wait for it.
#[derive(Debug)]
pub(crate) struct Seat {
    rank: usize,
    exchange: Arc<Exchange>,
    /// Whether a job was left undone because another rank is gone.
    missed: AtomicBool,
}

impl Seat {
    /// Waits for the others; `false` when one of them is gone.
    fn meet(&self) -> bool {
        let all = self.exchange.meeting.wait();
        if !all {
            self.missed.store(true, Ordering::Relaxed);
        }
        all
    }

    /// Lends this rank's buffers and waits for the others'.
    fn lend(&self, mine: Vec<Lent>) -> Option<Vec<Vec<Lent>>> {
        let lent = &self.exchange.lent;
        *lent[self.rank].lock().unwrap_or_else(PoisonError::into_inner) = mine;
        self.meet().then(|| lent.iter().map(|l| l.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.exchange.meeting.leave();
    }
}

impl<T: AsMut<[f32]>> Collective<T> for Seat {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.exchange.lent.len()
    }

    fn start(&self, job: Job, buffers: &mut [T]) -> Ticket {
        let ranks = self.exchange.lent.len();
        let lent = |b: &mut [f32]| Lent { start: b.as_mut_ptr(), len: b.len() };
        let mine = buffers.iter_mut().map(|b| lent(b.as_mut())).collect();
        let Some(all) = self.lend(mine) else { return Ticket(0) };
        for buffer in 0..buffers.len() {
            let len = all.iter().filter_map(|lists| lists.get(buffer)).map(|l| l.len).min().unwrap_or(0);
            // A broadcast is shared out as well: each rank takes its share of the root's elements to all.
            let own = share(len, self.rank, ranks);
            if own.is_empty() {
                continue;
            }
            let mut slices: Vec<&mut [f32]> = all
                .iter()
                .filter_map(|lists| lists.get(buffer))
                .map(|lent| {
                    // SAFETY: `own` is a part of the buffer.
                    let start = unsafe { lent.start.add(own.start) };
                    // SAFETY: the buffers outlive the call (every rank waits at the meeting below before it goes on), and the
                    // elements of `own` are touched by this rank alone.
                    unsafe { std::slice::from_raw_parts_mut(start, own.len()) }
                })
                .collect();
            let from = match job {
                Job::AllReduce(how) => {
                    reduce(&mut slices, how, true, self.rank);
                    continue;
                }
                Job::ReduceScatter(how) => {
                    reduce(&mut slices, how, false, self.rank);
                    continue;
                }
                Job::AllGather => self.rank,
                Job::Broadcast { root } => root,
            };
            if from < slices.len() {
                let source = slices.swap_remove(from);
                slices.iter_mut().for_each(|to| to.copy_from_slice(source));
            }
        }
        self.meet();
        Ticket(0)
    }

    fn finish(&self, _: Ticket) {}

    fn all_to_all(&self, from: &mut T, to: &mut T, counts: Counts<'_>) {
        let from = from.as_mut();
        let (base, whole, mut next) = (from.as_mut_ptr(), from.len(), 0usize);
        let for_rank = |n: &usize| {
            let start = next.min(whole);
            next = start.saturating_add(*n).min(whole);
            Lent { start: base.wrapping_add(start), len: next - start }
        };
        let mine = counts.sent.iter().map(for_rank).collect();
        let Some(all) = self.lend(mine) else { return };
        let mut rest = to.as_mut();
        for (theirs, expected) in all.iter().zip(counts.received) {
            let sent = theirs.get(self.rank).map_or(&[][..], |lent| {
                // SAFETY: a part of the sender's buffer, which outlives the call and which nobody writes to before the meeting below.
                unsafe { std::slice::from_raw_parts(lent.start, lent.len) }
            });
            let (own, more) = rest.split_at_mut((*expected).min(rest.len()));
            if own.len() == sent.len() {
                own.copy_from_slice(sent);
            } else {
                // Who sends something else than was agreed upon has failed, and says why.
                self.missed.store(true, Ordering::Relaxed);
            }
            rest = more;
        }
        self.meet();
    }

    fn check(&self) -> Result<(), SessionError> {
        if self.missed.load(Ordering::Relaxed) { Err(SessionError::LostRank) } else { Ok(()) }
    }
}

/// The rank's slice, or every one, becomes the sum, mean or largest of all, by blocks that stay in cache.
fn reduce(slices: &mut [&mut [f32]], how: Reduce, to_all: bool, own: usize) {
    const BLOCK: usize = 1024;
    let (len, ranks) = (slices.first().map_or(0, |s| s.len()), slices.len());
    let factor = 1.0 / ranks as f32;
    let mut sum = [0.0; BLOCK];
    for start in (0..len).step_by(BLOCK) {
        let block = start..(start + BLOCK).min(len);
        let sum = &mut sum[..block.len()];
        for (rank, slice) in slices.iter().enumerate() {
            let from = &slice[block.clone()];
            match rank {
                0 => sum.copy_from_slice(from),
                _ if how == Reduce::Max => sum.iter_mut().zip(from).for_each(|(s, f)| *s = s.max(*f)),
                _ => sum.iter_mut().zip(from).for_each(|(s, f)| *s += f),
            }
        }
        if how == Reduce::Mean {
            sum.iter_mut().for_each(|s| *s *= factor);
        }
        for (rank, slice) in slices.iter_mut().enumerate() {
            if to_all || rank == own {
                slice[block.clone()].copy_from_slice(sum);
            }
        }
    }
}

/// A barrier whose threads spin for a while before they sleep, as ranks meet often and at nearly the same time, and which a thread
/// that leaves for good opens for ever.
#[derive(Debug)]
struct Meeting {
    ranks: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    broken: AtomicBool,
    sleepers: Mutex<()>,
    woken: Condvar,
}

/// Looks at the round before a thread sleeps: about a tenth of a millisecond. It does not yield: that would give a slice of time for
/// every look to whoever competes for its core.
const SPINS: usize = 4096;

impl Meeting {
    fn new(ranks: usize) -> Self {
        Self {
            ranks,
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            sleepers: Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    /// Returns when all have come, or `false` when one never will.
    fn wait(&self) -> bool {
        let round = self.round.load(Ordering::Acquire);
        if self.broken.load(Ordering::Acquire) {
            return false;
        }
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.ranks {
            self.arrived.store(0, Ordering::Relaxed);
            self.open(|| {
                self.round.fetch_add(1, Ordering::AcqRel);
            });
            return true;
        }
        let come = || self.round.load(Ordering::Acquire) != round;
        let over = || come() || self.broken.load(Ordering::Acquire);
        for _ in 0..SPINS {
            if over() {
                return come();
            }
            std::hint::spin_loop();
        }
        let mut guard = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        while !over() {
            guard = self.woken.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        come()
    }

    fn leave(&self) {
        self.open(|| self.broken.store(true, Ordering::Release));
    }

    /// Lets the sleepers see a change.
    fn open(&self, change: impl FnOnce()) {
        let guard = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        change();
        drop(guard);
        self.woken.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every rank's buffers hold after `jobs`; rank r starts with `(i + 1) * (r + 1)` at i.
    fn after(ranks: usize, lens: &[usize], jobs: &[Job]) -> Vec<Vec<Vec<f32>>> {
        std::thread::scope(|scope| {
            let started: Vec<_> = Exchange::seats(ranks)
                .into_iter()
                .enumerate()
                .map(|(rank, seat)| {
                    scope.spawn(move || {
                        let numbers = |n: usize| (0..n).map(|i| ((i + 1) * (rank + 1)) as f32).collect();
                        let mut buffers: Vec<Vec<f32>> = lens.iter().map(|n| numbers(*n)).collect();
                        jobs.iter().for_each(|job| seat.run(*job, &mut buffers));
                        (seat, buffers)
                    })
                })
                .collect();
            let ended: Vec<_> = started.into_iter().map(|h| h.join().unwrap()).collect();
            ended.into_iter().map(|(_, buffers)| buffers).collect()
        })
    }

    const LENS: &[usize] = &[1, 7, 16, 33, 10_001];

    #[test]
    fn every_rank_holds_the_same_sums_and_means_at_odd_lengths() {
        for ranks in [1, 2, 3, 4, 5] {
            let total = (1..=ranks).sum::<usize>() as f32;
            let largest = (Reduce::Max, ranks as f32);
            for (how, factor) in [(Reduce::Sum, total), (Reduce::Mean, total / ranks as f32), largest] {
                let results = after(ranks, LENS, &[Job::AllReduce(how)]);
                for buffers in &results {
                    assert_eq!(buffers, &results[0]);
                    for (i, x) in buffers.iter().flat_map(|b| b.iter().enumerate()) {
                        let expected = (i + 1) as f32 * factor;
                        assert!((x - expected).abs() <= expected * 1e-6, "{ranks} ranks, element {i}: {x}");
                    }
                }
            }
        }
    }

    #[test]
    fn scattering_and_gathering_is_reducing_for_all() {
        for ranks in [1, 2, 3, 4] {
            for how in [Reduce::Sum, Reduce::Mean, Reduce::Max] {
                let whole = after(ranks, LENS, &[Job::AllReduce(how)]);
                assert_eq!(after(ranks, LENS, &[Job::ReduceScatter(how), Job::AllGather]), whole);
            }
        }
        let scattered = after(3, &[100], &[Job::ReduceScatter(Reduce::Sum)]);
        for (rank, buffers) in scattered.iter().enumerate() {
            for (i, x) in buffers[0].iter().enumerate() {
                let own = share(100, rank, 3).contains(&i);
                let expected = if own { 6 } else { rank + 1 };
                assert_eq!(*x, (expected * (i + 1)) as f32, "rank {rank}, element {i}");
            }
        }
    }

    #[test]
    fn one_rank_tells_all() {
        for root in 0..3 {
            for buffers in after(3, LENS, &[Job::Broadcast { root }]) {
                assert!(buffers.iter().all(|b| b.iter().enumerate().all(|(i, x)| *x == ((i + 1) * (root + 1)) as f32)));
            }
        }
    }

    /// Rank r sends rank s so many numbers: of some pairs none, and of none the same both ways.
    fn between(r: usize, s: usize) -> usize {
        [0, 3, 17, 0, 1, 40, 5][(3 * r + 5 * s) % 7]
    }

    #[test]
    fn every_rank_gets_what_the_others_have_for_it_in_their_order() {
        for ranks in [1, 2, 3, 4, 7] {
            let number = |r: usize, s: usize, i: usize| (r * 10_000 + s * 100 + i) as f32;
            std::thread::scope(|scope| {
                for seat in Exchange::seats(ranks) {
                    scope.spawn(move || {
                        let me = Collective::<Vec<f32>>::rank(&seat);
                        // The same again, the other way round, and nothing at all.
                        for turn in 0..3 {
                            let count = |r: usize, s: usize| [between(r, s), between(s, r), 0][turn];
                            let sent: Vec<usize> = (0..ranks).map(|s| count(me, s)).collect();
                            let received: Vec<usize> = (0..ranks).map(|r| count(r, me)).collect();
                            let of = |s: usize| (0..sent[s]).map(move |i| number(me, s, i));
                            // More room than there are numbers, which stays as it is.
                            let mut from: Vec<f32> = (0..ranks).flat_map(of).chain([f32::NAN; 5]).collect();
                            let mut to = vec![-1.0; received.iter().sum::<usize>() + 3];
                            seat.all_to_all(&mut from, &mut to, Counts { sent: &sent, received: &received });
                            let theirs = |r: usize| (0..received[r]).map(move |i| number(r, me, i));
                            let expected: Vec<f32> = (0..ranks).flat_map(theirs).chain([-1.0; 3]).collect();
                            assert_eq!(to, expected, "rank {me} of {ranks}, turn {turn}");
                        }
                        Collective::<Vec<f32>>::check(&seat).unwrap();
                    });
                }
            });
        }
    }

    #[test]
    fn who_sends_something_else_than_was_agreed_upon_is_missed() {
        let found: Vec<bool> = std::thread::scope(|scope| {
            let one = |seat: Seat| {
                let me = Collective::<Vec<f32>>::rank(&seat);
                let (mut from, mut to) = (vec![1.0; 8], vec![0.0; 8]);
                // Rank 0 sends 3 where rank 1 waits for 4.
                let counts = [([2, 3], [2, 4]), ([4, 4], [4, 4])][me];
                seat.all_to_all(&mut from, &mut to, Counts { sent: &counts.0, received: &counts.1 });
                Collective::<Vec<f32>>::check(&seat).is_err()
            };
            let started: Vec<_> = Exchange::seats(2).into_iter().map(|s| scope.spawn(move || one(s))).collect();
            started.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(found, [false, true]);
    }

    #[test]
    fn a_rank_that_leaves_is_not_waited_for() {
        let mut seats = Exchange::seats(3);
        let left = seats.pop().unwrap();
        std::thread::scope(|scope| {
            let waiting: Vec<_> = seats
                .into_iter()
                .map(|seat| {
                    scope.spawn(move || {
                        let mut buffers = vec![vec![1.0f32; 10]];
                        let (mut from, mut to) = (vec![1.0f32; 3], vec![0.0; 3]);
                        for _ in 0..3 {
                            seat.run(Job::AllReduce(Reduce::Sum), &mut buffers);
                            seat.all_to_all(&mut from, &mut to, Counts { sent: &[1; 3], received: &[1; 3] });
                        }
                        Collective::<Vec<f32>>::check(&seat).unwrap_err().to_string()
                    })
                })
                .collect();
            std::thread::sleep(std::time::Duration::from_millis(30));
            drop(left);
            for w in waiting {
                assert!(w.join().unwrap().contains("a rank ended before the others"));
            }
        });
    }
}
