//! How ranks share a workload: replicas, each of which takes its part of the batch, of several ranks, each of which takes its part
//! of every layer, or some of the layers.
//!
//! Ranks are numbered replica by replica and there stage by stage, so that those that split a layer (and talk twice a layer) are
//! neighbours, as within a node, and a stage is next to those that it hands on to.

use super::super::BackendKind;
use super::super::error::SessionError;
use super::super::shape::Shape;
use super::super::shape::parts::Positions;
use super::Collective;
use super::alone::Alone;
use super::stage::Stage;
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
    /// Pipeline-parallel ranks of one replica; its layers are divided into so many stages.
    #[serde(default = "Parallel::one", skip_serializing_if = "Parallel::is_one")]
    pub pipeline: u32,
    /// What the replicas keep a part of each.
    pub sharding: Sharding,
}

/// Why a workload cannot be shared so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Indivisible {
    /// The field of a trial at fault, by its path.
    pub field: &'static str,
    pub message: String,
}

impl Parallel {
    /// Whole replicas.
    pub fn replicas(data: u32) -> Self {
        Self { data, tensor: 1, pipeline: 1, sharding: Sharding::None }
    }

    fn one() -> u32 {
        1
    }

    fn is_one(ranks: &u32) -> bool {
        *ranks == 1
    }

    /// All ranks; `None` when they cannot be counted.
    pub fn ranks(&self) -> Option<u32> {
        self.data.checked_mul(self.tensor)?.checked_mul(self.pipeline)
    }

    /// Replica and place in the replica of a rank.
    pub fn place(&self, rank: usize) -> (usize, usize) {
        let replica = self.tensor.max(1) as usize * self.pipeline.max(1) as usize;
        (rank / replica, rank % replica)
    }

    /// The stages of a replica of a model of so many layers.
    pub(crate) fn stages(&self, n_layers: usize) -> impl Iterator<Item = Stage> + use<> {
        let of = self.pipeline.max(1) as usize;
        (0..of).map(move |number| Stage::new(number, of, n_layers))
    }

    /// Share of a step of so many micro-batches for which a stage waits for others, all stages taking as long as one another:
    /// `(P - 1) / (M + P - 1)` (Huang et al. 2019, section 2.3).
    pub(crate) fn bubble(&self, micro_batches: u32) -> f64 {
        let (others, micro_batches) = (f64::from(self.pipeline.max(1) - 1), f64::from(micro_batches.max(1)));
        others / (micro_batches + others)
    }

    /// Whether the batch divides among the replicas, and every layer among the ranks of one.
    ///
    /// # Errors
    /// What does not divide, and values that work.
    pub fn check(&self, shape: &Shape, batch: u32) -> Result<(), Indivisible> {
        let replicas = self.data;
        if batch == 0 || replicas == 0 || !batch.is_multiple_of(replicas) {
            let up = u64::from(batch.div_ceil(replicas.max(1)).max(1)) * u64::from(replicas.max(1));
            let among = if self.tensor == 1 && self.pipeline == 1 { "devices" } else { "parallel.data" };
            let message =
                format!("{batch} sequences do not divide among {among} = {replicas}; use {up}, or exclude the pair");
            return Err(Indivisible { field: "batch", message });
        }
        let (stages, layers) = (self.pipeline, shape.n_layers);
        if stages == 0 || stages > layers {
            let message = format!(
                "expected 1 to {layers} stages, as model.n_layers = {layers}, found {stages}; use {layers} or fewer"
            );
            return Err(Indivisible { field: "parallel.pipeline", message });
        }
        let t = self.tensor;
        if let Some(what) = split_by_nobody(shape).filter(|_| t > 1) {
            let message = format!("{what} are not built in where ranks split the layers; use parallel.tensor: 1");
            return Err(Indivisible { field: "parallel.tensor", message });
        }
        if t > shape.vocab_size {
            let message = format!("{t} devices would not have a word of model.vocab_size = {} each", shape.vocab_size);
            let message = format!("{message}; use {} or fewer", shape.vocab_size);
            return Err(Indivisible { field: "parallel.tensor", message });
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
        Err(Indivisible { field: "parallel.tensor", message })
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
    /// The ranks of the same replica that split its layers; its rank is the part's.
    pub tensor: Arc<dyn Collective<T>>,
    /// Those of them that hold the same heads of keys and values.
    pub copies: Arc<dyn Collective<T>>,
    /// Those that have other layers of it.
    pub stages: Stages<T>,
}

/// The groups of a rank that has some of a replica's layers; of one that has all, each is itself alone.
#[derive(Debug)]
pub(crate) struct Stages<T> {
    /// The replica's stages; its rank is the stage's.
    pub all: Arc<dyn Collective<T>>,
    /// The stage before and this one, in this order.
    pub before: Arc<dyn Collective<T>>,
    /// This stage and the next.
    pub after: Arc<dyn Collective<T>>,
    /// The first stage and the last.
    pub ends: Arc<dyn Collective<T>>,
}

impl<T> Groups<T> {
    /// Of a rank that has nobody to talk to.
    pub(crate) fn alone() -> Self {
        let alone = || Arc::new(Alone) as Arc<dyn Collective<T>>;
        let stages = Stages { all: alone(), before: alone(), after: alone(), ends: alone() };
        Self { data: alone(), tensor: alone(), copies: alone(), stages }
    }

    /// What has gone wrong in any of them.
    ///
    /// # Errors
    /// That of the first that says so.
    pub(crate) fn check(&self) -> Result<(), SessionError> {
        let Self { data, tensor, copies, stages: Stages { all, before, after, ends } } = self;
        [data, tensor, copies, all, before, after, ends].into_iter().try_for_each(|group| group.check())
    }

    /// Its place in one of them.
    fn put(&mut self, of: Of, place: Arc<dyn Collective<T>>) {
        match of {
            Of::Replica => self.tensor = place,
            Of::Replicas => self.data = place,
            Of::Copies => self.copies = place,
            Of::Stages => self.stages.all = place,
            Of::Ends => self.stages.ends = place,
            Of::Neighbours if place.rank() == 0 => self.stages.after = place,
            Of::Neighbours => self.stages.before = place,
        }
    }
}

/// The groups of a grid of which `copies` neighbours hold the same heads of keys and values: their ranks, and what these are to one
/// another, in the order in which every process makes them.
fn members(parallel: &Parallel, copies: u32) -> impl Iterator<Item = (Vec<usize>, Of)> {
    let [data, stages, tensor] = [parallel.data, parallel.pipeline, parallel.tensor].map(|n| n as usize);
    let copies = copies.max(1) as usize;
    let at = move |d: usize, s: usize, t: usize| (d * stages + s) * tensor + t;
    let pairs = |a: usize, b: usize| (0..a).flat_map(move |i| (0..b).map(move |j| (i, j)));
    let replicas = pairs(data, stages).map(move |(d, s)| ((0..tensor).map(|t| at(d, s, t)).collect(), Of::Replica));
    let parts = pairs(stages, tensor).map(move |(s, t)| ((0..data).map(|d| at(d, s, t)).collect(), Of::Replicas));
    let holders =
        (0..data * stages * tensor / copies).map(move |h| ((h * copies..(h + 1) * copies).collect(), Of::Copies));
    let staged = pairs(data, tensor).filter(move |_| stages > 1).flat_map(move |(d, t)| {
        let all = ((0..stages).map(|s| at(d, s, t)).collect(), Of::Stages);
        let ends = (vec![at(d, 0, t), at(d, stages - 1, t)], Of::Ends);
        let neighbours = (1..stages).map(move |s| (vec![at(d, s - 1, t), at(d, s, t)], Of::Neighbours));
        [all, ends].into_iter().chain(neighbours)
    });
    replicas.chain(parts).chain(holders).chain(staged).filter(|(ranks, _): &(Vec<usize>, Of)| ranks.len() > 1)
}

/// How many groups of several there are.
pub(crate) fn count_groups(parallel: &Parallel, copies: u32) -> usize {
    members(parallel, copies).count()
}

/// What the ranks of a group are to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Those of one replica that split its layers.
    Replica,
    /// Those with the same part of each replica.
    Replicas,
    /// Those of one replica with the same heads of keys and values.
    Copies,
    /// Those of one replica that have other layers each.
    Stages,
    /// The first of these and the last.
    Ends,
    /// One of these and the next.
    Neighbours,
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
    let all = parallel.ranks().unwrap_or(0) as usize;
    let mut places: Vec<Groups<T>> = (0..all).map(|_| Groups::alone()).collect();
    for (ranks, of) in members(parallel, copies) {
        let own: Vec<usize> = ranks.iter().copied().filter(|r| local.contains(r)).collect();
        for (rank, place) in own.iter().zip(group(&ranks, &own, of)?) {
            places[*rank].put(of, place);
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
        let grid = Parallel { tensor: 2, ..Parallel::replicas(2) };
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
        let grid = Parallel { tensor: 3, ..Parallel::replicas(2) };
        let places: Vec<(usize, usize)> = (0..6).map(|r| grid.place(r)).collect();
        assert_eq!(places, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    }

    #[test]
    fn stages_are_linked_with_their_neighbours_and_their_ends_with_one_another() {
        let grid = Parallel { pipeline: 3, ..Parallel::replicas(2) };
        let (mut of_replicas, mut others) = (Vec::new(), Vec::new());
        groups::<Vec<f32>, ()>(&grid, 1, 0..6, |ranks, own, of| {
            if of == Of::Replicas {
                of_replicas.push(ranks.to_vec())
            } else {
                others.push(ranks.to_vec())
            }
            Ok(own.iter().map(|_| Arc::new(Alone) as Arc<dyn Collective<Vec<f32>>>).collect())
        })
        .unwrap();
        assert_eq!(of_replicas, [[0, 3], [1, 4], [2, 5]]);
        let of_first = [vec![0, 1, 2], vec![0, 2], vec![0, 1], vec![1, 2]];
        assert_eq!(others[..4], of_first);
        assert_eq!(others[4..], of_first.map(|ranks| ranks.iter().map(|r| r + 3).collect::<Vec<_>>()));
        let places = of_threads::<Vec<f32>>(&grid, 1);
        for (rank, groups) in places.iter().enumerate() {
            let (replica, stage) = grid.place(rank);
            let Stages { all, before, after, ends } = &groups.stages;
            assert_eq!((groups.data.rank(), groups.data.size(), groups.tensor.size()), (replica, 2, 1));
            assert_eq!((all.rank(), all.size()), (stage, 3));
            assert_eq!((before.rank(), before.size()), if stage > 0 { (1, 2) } else { (0, 1) });
            assert_eq!((after.rank(), after.size()), if stage < 2 { (0, 2) } else { (0, 1) });
            assert_eq!((ends.rank(), ends.size()), [(0, 2), (0, 1), (1, 2)][stage]);
        }
    }

    #[test]
    fn more_stages_than_layers_are_refused_and_their_bubble_is_known() {
        let spec = ShapeSpec { n_layers: Some(3), ..ShapeSpec::default() };
        let shape = Shape::new(Family::Gpt2, &spec).unwrap();
        let of = |pipeline| Parallel { pipeline, ..Parallel::replicas(1) };
        assert_eq!(of(3).check(&shape, 1), Ok(()));
        let refused = of(4).check(&shape, 1).unwrap_err();
        assert_eq!(refused.field, "parallel.pipeline");
        assert_eq!(refused.message, "expected 1 to 3 stages, as model.n_layers = 3, found 4; use 3 or fewer");
        assert!(of(0).check(&shape, 1).is_err());
        assert_eq!([of(1).bubble(8), of(2).bubble(1), of(4).bubble(8)], [0.0, 0.5, 3.0 / 11.0]);
        // What is not there is not written: trials keep their ids.
        assert!(!serde_json::to_string(&of(1)).unwrap().contains("pipeline"));
        assert_eq!(serde_json::from_str::<Parallel>(&serde_json::to_string(&of(2)).unwrap()).unwrap(), of(2));
    }
}
