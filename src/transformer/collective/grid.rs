//! How ranks share a workload: replicas, each of which takes its part of the batch, of several ranks, each of which takes its part
//! of every layer.
//!
//! Ranks are numbered replica by replica, so that those that split a layer (and talk twice a layer) are neighbours, as within a
//! node.

use super::super::shape::Shape;
use super::super::shape::parts::{Positions, QkNorm};
use super::Collective;
use super::alone::Alone;
use super::threads::Exchange;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// What data-parallel ranks keep a part of each, instead of all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharding {
    /// Nothing: every rank keeps all.
    #[default]
    None,
    /// The optimizer's moments: stage 1 of ZeRO (Rajbhandari et al. 2020, section 5.1). Gradients are reduced and scattered, each
    /// rank updates its share of the parameters, and the parameters are gathered.
    Optimizer,
    /// And gradients, where those of all layers are kept until the update: stage 2.
    Gradients,
    /// And the layers' parameters, which are gathered before each use: stage 3.
    Parameters,
}

crate::transformer::names!(Sharding {
    None => "none", Optimizer => "optimizer", Gradients => "gradients", Parameters => "parameters",
});

impl Sharding {
    /// What a replica keeps of the optimizer's moments: which share of how many.
    pub(crate) fn of_optimizer(self, replica: usize, replicas: usize) -> (usize, usize) {
        if self == Self::None { (0, 1) } else { (replica, replicas) }
    }

    /// Whether a replica keeps its share of what gradients add up to.
    pub(crate) fn of_gradients(self) -> bool {
        self >= Self::Gradients
    }
}

/// A grid of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Parallel {
    /// Replicas of the model; the batch is split among them.
    pub data: u32,
    /// Tensor-parallel ranks of one replica; heads and feed-forward widths are split among them (Shoeybi et al. 2019, section 3).
    pub tensor: u32,
    /// What the replicas keep a part of each.
    pub sharding: Sharding,
}

/// Why a workload cannot be shared so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Indivisible {
    /// Whether the batch is at fault, or else the number of tensor-parallel ranks.
    pub batch: bool,
    pub message: String,
}

impl Parallel {
    /// Whole replicas.
    pub fn replicas(data: u32) -> Self {
        Self { data, tensor: 1, sharding: Sharding::None }
    }

    /// All ranks; `None` when they cannot be counted.
    pub fn ranks(&self) -> Option<u32> {
        self.data.checked_mul(self.tensor)
    }

    /// Replica and place in the replica of a rank.
    pub fn place(&self, rank: usize) -> (usize, usize) {
        let tensor = self.tensor.max(1) as usize;
        (rank / tensor, rank % tensor)
    }

    /// Whether the batch divides among the replicas, and every layer among the ranks of one.
    ///
    /// # Errors
    /// What does not divide, and values that work.
    pub fn check(&self, shape: &Shape, batch: u32) -> Result<(), Indivisible> {
        let replicas = self.data;
        if batch == 0 || replicas == 0 || !batch.is_multiple_of(replicas) {
            let up = u64::from(batch.div_ceil(replicas.max(1)).max(1)) * u64::from(replicas.max(1));
            let among = if self.tensor == 1 { "devices" } else { "parallel.data" };
            let message =
                format!("{batch} sequences do not divide among {among} = {replicas}; use {up}, or exclude the pair");
            return Err(Indivisible { batch: true, message });
        }
        let t = self.tensor;
        if let Some(what) = split_by_nobody(shape).filter(|_| t > 1) {
            let message = format!("{what} are not built in where ranks split the layers; use parallel.tensor: 1");
            return Err(Indivisible { batch: false, message });
        }
        let parts = [("n_heads", shape.n_heads), ("n_kv_heads", shape.n_kv_heads), ("d_ff", shape.d_ff)];
        // Heads of keys and values are not copied: each belongs to one rank.
        let Some((field, size)) = parts.into_iter().find(|(_, size)| t == 0 || !size.is_multiple_of(t)) else {
            return Ok(());
        };
        let all = parts.into_iter().fold(0, |a, (_, size)| gcd(a, size));
        let works: Vec<String> = (1..=all).filter(|d| all.is_multiple_of(*d)).map(|d| d.to_string()).collect();
        let message =
            format!("{t} does not divide model.{field} = {size}; what divides all of this model: {}", works.join(", "));
        Err(Indivisible { batch: false, message })
    }

    /// The part of a model's layers that one tensor-parallel rank holds.
    pub fn part_of(&self, shape: &Shape) -> Shape {
        let t = self.tensor.max(1);
        Shape { n_heads: shape.n_heads / t, n_kv_heads: shape.n_kv_heads / t, d_ff: shape.d_ff / t, ..shape.clone() }
    }
}

/// The groups that one rank belongs to.
#[derive(Debug)]
pub(crate) struct Groups<T> {
    /// The ranks with the same part of the other replicas; its rank is the replica's.
    pub data: Arc<dyn Collective<T>>,
    /// The ranks of the same replica; its rank is the part's.
    pub tensor: Arc<dyn Collective<T>>,
}

/// Both groups of every rank of `local`, in the order of the ranks. `group` makes places in one of all its ranks, for those of them
/// that are local; it is also told whether the group is one of replicas. It is called for every group of several, in the same order
/// by every process.
///
/// # Errors
/// Those of `group`.
pub(crate) fn groups<T, E>(
    parallel: &Parallel,
    local: Range<usize>,
    mut group: impl FnMut(&[usize], &[usize], bool) -> Result<Vec<Arc<dyn Collective<T>>>, E>,
) -> Result<Vec<Groups<T>>, E> {
    let (data, tensor) = (parallel.data as usize, parallel.tensor as usize);
    let alone = || (0..data * tensor).map(|_| Arc::new(Alone) as Arc<dyn Collective<T>>).collect::<Vec<_>>();
    let (mut of_data, mut of_tensor) = (alone(), alone());
    let replicas = (0..data).map(|d| ((0..tensor).map(|t| d * tensor + t).collect::<Vec<_>>(), false));
    let parts = (0..tensor).map(|t| ((0..data).map(|d| d * tensor + t).collect::<Vec<_>>(), true));
    for (ranks, of_replicas) in replicas.chain(parts).filter(|(ranks, _)| ranks.len() > 1) {
        let own: Vec<usize> = ranks.iter().copied().filter(|r| local.contains(r)).collect();
        let places = if of_replicas { &mut of_data } else { &mut of_tensor };
        own.iter().zip(group(&ranks, &own, of_replicas)?).for_each(|(rank, place)| places[*rank] = place);
    }
    let both = of_data.into_iter().zip(of_tensor).map(|(data, tensor)| Groups { data, tensor });
    Ok(both.skip(local.start).take(local.len()).collect())
}

/// The groups of threads of this process.
pub(crate) fn of_threads<T: AsMut<[f32]>>(parallel: &Parallel) -> Vec<Groups<T>> {
    let seats = |ranks: &[usize], _: &[usize], _| {
        let seats = Exchange::seats(ranks.len()).into_iter();
        Ok::<_, std::convert::Infallible>(seats.map(|s| Arc::new(s) as Arc<dyn Collective<T>>).collect())
    };
    let all = parallel.ranks().unwrap_or(0) as usize;
    groups(parallel, 0..all, seats).unwrap_or_else(|never| match never {})
}

/// What a model has whose gradients, or whose meaning, would be of all heads together.
fn split_by_nobody(shape: &Shape) -> Option<&'static str> {
    let parts = shape.parts();
    if shape.experts.is_some() {
        return Some("experts");
    }
    if shape.latent.is_some() {
        return Some("latents of keys and values");
    }
    match (parts.qk_norm, parts.positions) {
        (QkNorm::Head | QkNorm::Whole, _) => Some("norms of queries and keys"),
        (QkNorm::None, Positions::Alibi) => Some("slopes of scores by head (ALiBi)"),
        _ => None,
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::super::super::shape::{Family, ShapeSpec};
    use super::*;

    #[test]
    fn what_does_not_divide_is_refused_with_what_does() {
        let spec = ShapeSpec {
            d_model: Some(64),
            n_heads: Some(8),
            n_kv_heads: Some(4),
            d_ff: Some(96),
            ..ShapeSpec::default()
        };
        let shape = Shape::new(Family::Llama, &spec).unwrap();
        let check = |data, tensor, batch| Parallel { data, tensor, ..Parallel::replicas(1) }.check(&shape, batch);
        assert_eq!(check(2, 4, 6), Ok(()));
        assert_eq!(
            check(1, 8, 1).unwrap_err().message,
            "8 does not divide model.n_kv_heads = 4; what divides all of this model: 1, 2, 4"
        );
        assert_eq!(
            check(4, 2, 6).unwrap_err().message,
            "6 sequences do not divide among parallel.data = 4; use 8, or exclude the pair"
        );
        assert!(check(0, 1, 6).is_err() && check(1, 0, 6).is_err());
    }

    #[test]
    fn every_process_makes_the_same_groups_and_takes_its_own_places() {
        let grid = Parallel { data: 2, tensor: 2, sharding: Sharding::None };
        let made = |local: Range<usize>| {
            let mut seen = Vec::new();
            let places = groups::<Vec<f32>, ()>(&grid, local, |ranks, own, of_replicas| {
                seen.push((ranks.to_vec(), own.to_vec(), of_replicas));
                Ok(own.iter().map(|_| Arc::new(Alone) as Arc<dyn Collective<Vec<f32>>>).collect())
            });
            (seen, places.unwrap().len())
        };
        let (seen, places) = made(2..4);
        assert_eq!(places, 2);
        assert_eq!(
            seen,
            [
                (vec![0, 1], vec![], false),
                (vec![2, 3], vec![2, 3], false),
                (vec![0, 2], vec![2], true),
                (vec![1, 3], vec![3], true)
            ]
        );
        assert_eq!(made(0..4).0.len(), 4);
    }

    #[test]
    fn ranks_of_a_replica_are_neighbours() {
        let grid = Parallel { data: 2, tensor: 3, sharding: Sharding::None };
        let places: Vec<(usize, usize)> = (0..6).map(|r| grid.place(r)).collect();
        assert_eq!(places, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    }
}
