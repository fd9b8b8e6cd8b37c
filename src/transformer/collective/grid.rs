//! How ranks share a workload: replicas, each of which takes its part of the batch, of several ranks, each of which takes its part
//! of every layer, or some of the layers.
//!
//! Ranks are numbered replica by replica and there stage by stage, so that those that split a layer (and talk twice a layer) are
//! neighbours, as within a node, and a stage is next to those that it hands on to.

use super::super::BackendKind;
use super::super::error::SessionError;
use super::super::shape::Shape;
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
    /// Replicas that every layer's experts are spread over, each having some of them; for all else they are replicas as any other
    /// (Lepikhin et al. 2020, section 3.2). `data` is a multiple of it.
    #[serde(default = "Parallel::one", skip_serializing_if = "Parallel::is_one")]
    pub expert: u32,
    /// What the replicas keep a part of each.
    pub sharding: Sharding,
}

impl Parallel {
    /// Whole replicas.
    pub fn replicas(data: u32) -> Self {
        Self { data, tensor: 1, pipeline: 1, expert: 1, sharding: Sharding::None }
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

    /// The part of a model that a rank holds, by its place in its replica: of tensor-parallel ranks one of their parts of the layers, of
    /// replicas that experts are spread over the first's, which are as large as any other's.
    pub fn part_of(&self, shape: &Shape, place: usize, on: BackendKind) -> Shape {
        shape.part_of(place, self.tensor, on).spread(0, self.expert.max(1) as usize)
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
    /// Where experts are spread over replicas.
    pub experts: Option<Spread<T>>,
    /// The ranks of the same replica that split its layers; its rank is the part's.
    pub tensor: Arc<dyn Collective<T>>,
    /// Those of them that hold the same heads of keys and values.
    pub copies: Arc<dyn Collective<T>>,
    /// Those that have other layers of it.
    pub stages: Stages<T>,
}

/// The groups of a rank that has some of the experts.
#[derive(Debug)]
pub(crate) struct Spread<T> {
    /// The replicas that have all of them together; its rank says which are here.
    pub ranks: Arc<dyn Collective<T>>,
    /// The replicas with the same ones.
    pub holders: Arc<dyn Collective<T>>,
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
        Self { data: alone(), experts: None, tensor: alone(), copies: alone(), stages }
    }

    /// What has gone wrong in any of them.
    ///
    /// # Errors
    /// That of the first that says so.
    pub(crate) fn check(&self) -> Result<(), SessionError> {
        let Self { data, experts, tensor, copies, stages: Stages { all, before, after, ends } } = self;
        let of_experts = experts.iter().flat_map(|e| [&e.ranks, &e.holders]);
        let others = [data, tensor, copies, all, before, after, ends];
        others.into_iter().chain(of_experts).try_for_each(|group| group.check())
    }

    fn spread(&mut self) -> &mut Spread<T> {
        let alone = || Arc::new(Alone) as Arc<dyn Collective<T>>;
        self.experts.get_or_insert_with(|| Spread { ranks: alone(), holders: alone() })
    }

    /// Its place in one of them.
    fn put(&mut self, of: Of, place: Arc<dyn Collective<T>>) {
        match of {
            Of::Replica => self.tensor = place,
            Of::Replicas => self.data = place,
            Of::Copies => self.copies = place,
            Of::Stages => self.stages.all = place,
            Of::Experts => self.spread().ranks = place,
            Of::Holders => self.spread().holders = place,
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
    // Replicas are one rank each where experts are spread over some.
    let (spread, groups) = (parallel.expert.max(1) as usize, (parallel.data / parallel.expert.max(1)) as usize);
    let experts = (0..groups).map(move |g| ((0..spread).map(|e| g * spread + e).collect(), Of::Experts));
    let same = (0..spread).map(move |e| ((0..groups).map(|g| g * spread + e).collect(), Of::Holders));
    let spread = experts.chain(same).filter(move |_| spread > 1);
    let all = replicas.chain(parts).chain(holders).chain(staged).chain(spread);
    all.filter(|(ranks, _): &(Vec<usize>, Of)| ranks.len() > 1)
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
    /// Replicas with other experts each, all of them together.
    Experts,
    /// Replicas with the same experts.
    Holders,
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

#[cfg(test)]
mod tests {
    use super::super::super::shape::{Family, ShapeSpec};
    use super::*;

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
    fn experts_are_spread_over_neighbours_and_the_same_ones_meet() {
        let grid = Parallel { expert: 2, ..Parallel::replicas(6) };
        let mut of_experts = Vec::new();
        let places = groups::<Vec<f32>, ()>(&grid, 1, 0..6, |ranks, own, of| {
            of_experts.extend((of != Of::Replicas).then(|| (ranks.to_vec(), of)));
            Ok(own.iter().map(|_| Arc::new(Alone) as Arc<dyn Collective<Vec<f32>>>).collect())
        });
        let pairs = [[0, 1], [2, 3], [4, 5]].map(|pair| (pair.to_vec(), Of::Experts));
        let same = [[0, 2, 4], [1, 3, 5]].map(|same| (same.to_vec(), Of::Holders));
        assert_eq!(of_experts, [pairs.to_vec(), same.to_vec()].concat());
        assert!(places.unwrap().iter().all(|groups| groups.experts.is_some()));
        for (rank, groups) in of_threads::<Vec<f32>>(&grid, 1).iter().enumerate() {
            let spread = groups.experts.as_ref().unwrap();
            assert_eq!((groups.data.rank(), groups.data.size()), (rank, 6));
            assert_eq!((spread.ranks.rank(), spread.ranks.size()), (rank % 2, 2));
            assert_eq!((spread.holders.rank(), spread.holders.size()), (rank / 2, 3));
        }
        let all = Parallel { expert: 3, ..Parallel::replicas(3) };
        let places = of_threads::<Vec<f32>>(&all, 1);
        assert!(
            places.iter().all(|g| g.experts.as_ref().is_some_and(|s| s.holders.size() == 1 && s.ranks.size() == 3))
        );
        // What is not there is not written: trials keep their ids.
        assert!(!serde_json::to_string(&Parallel::replicas(3)).unwrap().contains("expert"));
        assert_eq!(serde_json::from_str::<Parallel>(&serde_json::to_string(&all).unwrap()).unwrap(), all);
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
