//! How ranks share a workload: replicas, each of which takes its part of the batch, of several ranks, each of which takes its part
//! of every layer.
//!
//! Ranks are numbered replica by replica, so that those that split a layer (and talk twice a layer) are neighbours, as within a
//! node.

use super::super::BackendKind;
use super::super::shape::Shape;
use super::super::shape::parts::Positions;
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
    /// Tensor-parallel ranks of one replica; heads, feed-forward widths and words are split among them (Shoeybi et al. 2019, section 3). Where
    /// there are more ranks than heads of keys and values, several hold each of these.
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
        if t > shape.vocab_size {
            let message = format!("{t} devices would not have a word of model.vocab_size = {} each", shape.vocab_size);
            return Err(Indivisible { batch: false, message: format!("{message}; use {} or fewer", shape.vocab_size) });
        }
        // Where all layers are of experts nothing is as wide as `d_ff`, unless experts are.
        let dense = shape.experts.is_none_or(|e| e.dense_layers > 0 || e.d_ff.is_none()).then_some(shape.d_ff);
        let of_experts = shape.experts.and_then(|e| e.d_ff);
        let parts = [("n_heads", Some(shape.n_heads)), ("d_ff", dense), ("d_ff_expert", of_experts)];
        let parts = parts.map(|(field, size)| (field, size.unwrap_or(0)));
        // Heads of keys and values divide among the ranks, or the ranks among copies of them.
        let kv_heads = shape.n_kv_heads;
        let fits = |t: u32| t > 0 && (kv_heads.is_multiple_of(t) || t.is_multiple_of(kv_heads));
        let undivided = parts.into_iter().find(|(_, size)| t == 0 || !size.is_multiple_of(t));
        let why = match undivided {
            Some((field, size)) => format!("{t} does not divide model.{field} = {size}"),
            None if fits(t) => return Ok(()),
            None => format!("{t} neither divides model.n_kv_heads = {kv_heads} nor is a multiple of it"),
        };
        let all = parts.into_iter().fold(0, |a, (_, size)| gcd(a, size));
        let works: Vec<String> =
            (1..=all).filter(|d| all.is_multiple_of(*d) && fits(*d)).map(|d| d.to_string()).collect();
        let message = format!("{why}; what divides all of this model: {}", works.join(", "));
        Err(Indivisible { batch: false, message })
    }

    /// The part of a model's layers that one tensor-parallel rank holds, by its place in its replica.
    pub fn part_of(&self, shape: &Shape, place: usize, on: BackendKind) -> Shape {
        shape.part_of(place, self.tensor, on)
    }

    /// Tensor-parallel ranks that hold the same heads of keys and values.
    pub fn kv_copies(&self, shape: &Shape) -> u32 {
        shape.kv_copies(self.tensor)
    }
}

/// The groups that one rank belongs to.
#[derive(Debug)]
pub(crate) struct Groups<T> {
    /// The ranks with the same part of the other replicas; its rank is the replica's.
    pub data: Arc<dyn Collective<T>>,
    /// The ranks of the same replica; its rank is the part's.
    pub tensor: Arc<dyn Collective<T>>,
    /// Those of them that hold the same heads of keys and values.
    pub copies: Arc<dyn Collective<T>>,
}

impl<T> Groups<T> {
    /// Of a rank that has nobody to talk to.
    pub(crate) fn alone() -> Self {
        Self { data: Arc::new(Alone), tensor: Arc::new(Alone), copies: Arc::new(Alone) }
    }
}

/// The groups of a grid of which `copies` neighbours hold the same heads of keys and values: their ranks, and whether they are
/// replicas, in the order in which every process makes them.
fn members(parallel: &Parallel, copies: u32) -> impl Iterator<Item = (Vec<usize>, Of)> {
    let [data, tensor, copies] = [parallel.data, parallel.tensor, copies.max(1)].map(|n| n as usize);
    let replicas = (0..data).map(move |d| ((0..tensor).map(|t| d * tensor + t).collect::<Vec<_>>(), Of::Replica));
    let parts = (0..tensor).map(move |t| ((0..data).map(|d| d * tensor + t).collect::<Vec<_>>(), Of::Replicas));
    let holders = (0..data * tensor / copies).map(move |h| ((h * copies..(h + 1) * copies).collect(), Of::Copies));
    replicas.chain(parts).chain(holders).filter(|(ranks, _)| ranks.len() > 1)
}

/// How many groups of several there are.
pub(crate) fn count_groups(parallel: &Parallel, copies: u32) -> usize {
    members(parallel, copies).count()
}

/// What the ranks of a group are to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Those of one replica.
    Replica,
    /// Those with the same part of each replica.
    Replicas,
    /// Those of one replica with the same heads of keys and values.
    Copies,
}

/// The groups of every rank of `local`, in the order of the ranks. `group` makes places in one of all its ranks, for those of them
/// that are local. It is called for every group of several, in the same order by every process.
///
/// # Errors
/// Those of `group`.
pub(crate) fn groups<T, E>(
    parallel: &Parallel,
    copies: u32,
    local: Range<usize>,
    mut group: impl FnMut(&[usize], &[usize], Of) -> Result<Vec<Arc<dyn Collective<T>>>, E>,
) -> Result<Vec<Groups<T>>, E> {
    let all = parallel.data as usize * parallel.tensor as usize;
    let mut places: Vec<Groups<T>> = (0..all).map(|_| Groups::alone()).collect();
    for (ranks, of) in members(parallel, copies) {
        let own: Vec<usize> = ranks.iter().copied().filter(|r| local.contains(r)).collect();
        for (rank, place) in own.iter().zip(group(&ranks, &own, of)?) {
            let groups = &mut places[*rank];
            match of {
                Of::Replica => groups.tensor = place,
                Of::Replicas => groups.data = place,
                Of::Copies => groups.copies = place,
            }
        }
    }
    Ok(places.into_iter().skip(local.start).take(local.len()).collect())
}

/// The groups of threads of this process.
pub(crate) fn of_threads<T: AsMut<[f32]>>(parallel: &Parallel, copies: u32) -> Vec<Groups<T>> {
    let seats = |ranks: &[usize], _: &[usize], _: Of| {
        let seats = Exchange::seats(ranks.len()).into_iter();
        Ok::<_, std::convert::Infallible>(seats.map(|s| Arc::new(s) as Arc<dyn Collective<T>>).collect())
    };
    let all = parallel.ranks().unwrap_or(0) as usize;
    groups(parallel, copies, 0..all, seats).unwrap_or_else(|never| match never {})
}

/// What a model has whose gradients, or whose meaning, would be of all heads together.
fn split_by_nobody(shape: &Shape) -> Option<&'static str> {
    let parts = shape.parts();
    if shape.latent.is_some() {
        return Some("latents of keys and values");
    }
    (parts.positions == Positions::Alibi).then_some("slopes of scores by head (ALiBi)")
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
        assert_eq!(check(1, 8, 1), Ok(()), "two ranks hold each head of keys and values");
        assert_eq!(
            check(1, 16, 1).unwrap_err().message,
            "16 does not divide model.n_heads = 8; what divides all of this model: 1, 2, 4, 8"
        );
        let odd = ShapeSpec { n_heads: Some(6), n_kv_heads: Some(2), head_dim: Some(8), ..spec };
        let odd = Shape::new(Family::Llama, &odd).unwrap();
        assert_eq!(
            Parallel { tensor: 3, ..Parallel::replicas(1) }.check(&odd, 1).unwrap_err().message,
            "3 neither divides model.n_kv_heads = 2 nor is a multiple of it; what divides all of this model: 1, 2, 6"
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
            let places = groups::<Vec<f32>, ()>(&grid, 2, local, |ranks, own, of| {
                seen.push((ranks.to_vec(), own.to_vec(), of));
                Ok(own.iter().map(|_| Arc::new(Alone) as Arc<dyn Collective<Vec<f32>>>).collect())
            });
            (seen, places.unwrap().len())
        };
        let (seen, places) = made(2..4);
        assert_eq!(places, 2);
        assert_eq!(
            seen,
            [
                (vec![0, 1], vec![], Of::Replica),
                (vec![2, 3], vec![2, 3], Of::Replica),
                (vec![0, 2], vec![2], Of::Replicas),
                (vec![1, 3], vec![3], Of::Replicas),
                (vec![0, 1], vec![], Of::Copies),
                (vec![2, 3], vec![2, 3], Of::Copies),
            ]
        );
        assert_eq!((made(0..4).0.len(), count_groups(&grid, 2), count_groups(&grid, 1)), (6, 6, 4));
    }

    #[test]
    fn ranks_of_a_replica_are_neighbours() {
        let grid = Parallel { data: 2, tensor: 3, sharding: Sharding::None };
        let places: Vec<(usize, usize)> = (0..6).map(|r| grid.place(r)).collect();
        assert_eq!(places, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    }
}
