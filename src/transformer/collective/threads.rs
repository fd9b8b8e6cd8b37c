//! Ranks that are threads of one process: each reduces its share of every gradient over all ranks, in the order of the ranks,
//! so that all hold the same bits afterwards.

use std::sync::{Barrier, Mutex, PoisonError};

/// One gradient of one rank, lent to the others between two barriers.
#[derive(Clone, Copy, Debug)]
struct Lent {
    start: *mut f32,
    len: usize,
}

// SAFETY: the pointer is only followed between the barriers of `all_reduce_mean`, where shares are disjoint.
unsafe impl Send for Lent {}

/// The meeting point of `ranks` threads.
#[derive(Debug)]
pub struct Exchange {
    barrier: Barrier,
    lent: Vec<Mutex<Vec<Lent>>>,
}

impl Exchange {
    /// A meeting point.
    pub fn new(ranks: usize) -> Self {
        Self { barrier: Barrier::new(ranks), lent: (0..ranks).map(|_| Mutex::default()).collect() }
    }

    /// Replaces every number by its mean over the ranks. Every rank calls it with lists of the same lengths; returns when all
    /// have the result.
    pub fn all_reduce_mean<'a>(&self, rank: usize, gradients: impl Iterator<Item = &'a mut [f32]>) {
        let ranks = self.lent.len();
        if ranks == 1 {
            return;
        }
        let mine = gradients.map(|g| Lent { start: g.as_mut_ptr(), len: g.len() }).collect();
        *self.lent[rank].lock().unwrap_or_else(PoisonError::into_inner) = mine;
        self.barrier.wait();
        let all: Vec<Vec<Lent>> =
            self.lent.iter().map(|l| l.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect();
        let factor = 1.0 / ranks as f32;
        for tensor in 0..all[0].len() {
            let len = all.iter().map(|lists| lists[tensor].len).min().unwrap_or(0);
            let share = len.div_ceil(ranks);
            let (from, to) = ((rank * share).min(len), ((rank + 1) * share).min(len));
            let mut slices: Vec<&mut [f32]> = all
                .iter()
                .map(|lists| {
                    // SAFETY: the gradients outlive the call (every rank waits at the barrier below before it goes on), and
                    // elements from..to of them are touched by this rank alone.
                    unsafe { std::slice::from_raw_parts_mut(lists[tensor].start.add(from), to - from) }
                })
                .collect();
            reduce(&mut slices, factor);
        }
        self.barrier.wait();
    }
}

/// Every slice becomes the mean of all, by blocks that stay in cache.
fn reduce(slices: &mut [&mut [f32]], factor: f32) {
    let len = slices.first().map_or(0, |s| s.len());
    for start in (0..len).step_by(4096) {
        let end = (start + 4096).min(len);
        let Some((first, rest)) = slices.split_first_mut() else { return };
        let sum = &mut first[start..end];
        for other in rest.iter() {
            sum.iter_mut().zip(&other[start..end]).for_each(|(s, o)| *s += o);
        }
        sum.iter_mut().for_each(|s| *s *= factor);
        for other in rest.iter_mut() {
            other[start..end].copy_from_slice(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_holds_the_mean_at_odd_lengths() {
        for ranks in [1, 2, 3, 5] {
            let exchange = Exchange::new(ranks);
            let results: Vec<Vec<Vec<f32>>> = std::thread::scope(|scope| {
                let handles: Vec<_> = (0..ranks)
                    .map(|rank| {
                        let exchange = &exchange;
                        scope.spawn(move || {
                            let mut g: Vec<Vec<f32>> = [1, 7, 10_001]
                                .iter()
                                .map(|&n| (0..n).map(|i| (i * (rank + 1)) as f32).collect())
                                .collect();
                            for _ in 0..2 {
                                exchange.all_reduce_mean(rank, g.iter_mut().map(Vec::as_mut_slice));
                            }
                            g
                        })
                    })
                    .collect();
                handles.into_iter().map(|h| h.join().unwrap()).collect()
            });
            let mean = (1..=ranks).sum::<usize>() as f32 / ranks as f32;
            for g in &results {
                for (i, x) in g[2].iter().enumerate() {
                    assert!((x - i as f32 * mean).abs() <= i as f32 * 1e-6, "{ranks} ranks, element {i}: {x}");
                }
                assert_eq!(g, &results[0]);
            }
        }
    }
}
