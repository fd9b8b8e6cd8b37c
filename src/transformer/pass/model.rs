//! A model: its parameters, and how they start.

use super::super::BackendKind;
use super::super::backend::{Backend, Category, Frequencies};
use super::super::collective::Collective;
use super::super::collective::grid::Groups;
use super::super::collective::stage::Stage;
use super::super::error::SessionError;
use super::super::random::Stream;
use super::super::shape::Shape;
use super::super::shape::parts::Positions;
pub(crate) use super::index::Index;
use super::shares::Shares;
pub(crate) use super::spec::{LatentIndex, LayerIndex, Linear, Norm, Spec, Split, Start};
use std::sync::{Arc, Mutex, PoisonError};

impl Index {
    /// Parameters as they start, from a seed; the same for every backend, and of a rank's part those of the whole.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn initialise<B: Backend>(
        &self,
        backend: &B,
        seed: u64,
        purpose: Purpose,
    ) -> Result<Vec<B::Buffer>, SessionError> {
        let one = |(i, spec): (usize, &Spec)| {
            if let Some(matrices) = self.matrices(i).filter(|_| purpose == Purpose::Inference) {
                return backend.normal_weights(matrices, &spec.numbers(Stream::new(seed, i as u64)));
            }
            let mut buffer = backend.alloc(spec.len(), purpose.category(spec))?;
            // What is allocated is zero.
            if spec.start != Start::Zero {
                self.write(backend, Origin::Seed(seed), i, &mut buffer)?;
            }
            Ok(buffer)
        };
        self.specs.iter().enumerate().map(one).collect()
    }

    /// Writes a parameter as it starts into a buffer of training.
    fn write<B: Backend>(
        &self,
        backend: &B,
        origin: Origin,
        i: usize,
        buffer: &mut B::Buffer,
    ) -> Result<(), SessionError> {
        let spec = &self.specs[i];
        // Another stage's.
        if spec.len() == 0 {
            return Ok(());
        }
        match (origin, spec.start) {
            (Origin::Read(numbers), _) => {
                let mut host = vec![0.0; spec.len()];
                numbers.rows(i, spec, 0, &mut host)?;
                backend.upload(&host, buffer);
            }
            (Origin::Seed(_), Start::Zero) => backend.fill(buffer, 0.0),
            (Origin::Seed(_), Start::One) => backend.fill(buffer, 1.0),
            (Origin::Seed(seed), Start::Normal) => {
                backend.fill_normal(buffer, &spec.numbers(Stream::new(seed, i as u64)));
            }
        }
        Ok(())
    }

    /// Parameters that are read, of the whole or of a rank's part; one after the other, so that beside what a backend keeps there is at
    /// most one more.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`]; what keeps them from being read.
    pub(crate) fn read<B: Backend>(
        &self,
        backend: &B,
        numbers: &dyn Numbers,
        purpose: Purpose,
    ) -> Result<Vec<B::Buffer>, SessionError> {
        let one = |(i, spec): (usize, &Spec)| {
            let Some(matrices) = self.matrices(i).filter(|_| purpose == Purpose::Inference) else {
                let mut buffer = backend.alloc(spec.len(), purpose.category(spec))?;
                self.write(backend, Origin::Read(numbers), i, &mut buffer)?;
                return Ok(buffer);
            };
            let (mut row, mut failure) = (0, None);
            let mut next = |out: &mut [f32]| {
                if failure.is_none() {
                    failure = numbers.rows(i, spec, row, out).err();
                }
                row += out.len() / spec.columns.max(1);
            };
            let buffer = backend.weights(matrices, spec.rows / matrices, spec.columns, &mut next)?;
            failure.map_or(Ok(buffer), Err)
        };
        self.specs.iter().enumerate().map(one).collect()
    }
}

/// Parameters that are there already, and are read instead of made.
pub(crate) trait Numbers: std::fmt::Debug + Send + Sync {
    /// Rows of a parameter, or of what `spec` says is a rank's, from the `first`-th on, as many as `out` holds.
    ///
    /// # Errors
    /// What keeps them from being read.
    fn rows(&self, parameter: usize, spec: &Spec, first: usize, out: &mut [f32]) -> Result<(), SessionError>;
}

/// Where a model's numbers come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    /// They are made from a seed.
    Seed(u64),
    Read(&'a dyn Numbers),
}

/// What a model's parameters are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// They are read and written one by one.
    Training,
    /// Matrices are in the form that the backend multiplies by fastest, and are not written any more.
    Inference,
}

impl Purpose {
    /// What a parameter is allocated as.
    pub(in crate::transformer) fn category(self, spec: &Spec) -> Category {
        if self == Self::Training || spec.fixed { spec.category() } else { Category::FixedWeights }
    }
}

/// A model on a device, or one rank's part of it.
#[derive(Debug)]
pub(crate) struct Model<B: Backend> {
    pub backend: B,
    /// Of what is on this device: heads, widths and words are the rank's.
    pub shape: Shape,
    pub index: Index,
    pub parameters: Vec<B::Buffer>,
    /// Of the rotary positions, where the model has them: of layers that see all before, and of those with a window.
    frequencies: Option<[Frequencies; 2]>,
    /// The ranks that hold the other parts of its layers.
    pub tensor: Arc<dyn Collective<B::Buffer>>,
    /// Those of them that hold the same heads of keys and values.
    pub copies: Arc<dyn Collective<B::Buffer>>,
    /// Where experts are spread over ranks, the ranks that have the others.
    pub spread: Option<Arc<dyn Collective<B::Buffer>>>,
    /// Memory that was not there in the middle of a pass.
    pub(super) lacking: Mutex<Option<SessionError>>,
}

impl<B: Backend> Model<B> {
    /// A whole model with its parameters as they start.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn new(backend: B, shape: &Shape, seed: u64, purpose: Purpose) -> Result<Self, SessionError> {
        Self::part(backend, shape, Origin::Seed(seed), purpose, &Groups::alone())
    }

    /// One rank's part of a model, whose numbers are those of the whole; `shape` is of the whole, and divides among the ranks.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`]; what keeps parameters from being read.
    pub(crate) fn part(
        backend: B,
        shape: &Shape,
        origin: Origin,
        purpose: Purpose,
        groups: &Groups<B::Buffer>,
    ) -> Result<Self, SessionError> {
        let shape = part_of(shape, groups, backend.kind());
        let index = Index::new(&shape);
        Self::made((backend, shape, index), origin, purpose, groups)
    }

    /// One stage of a model for training, whose numbers are those of the whole.
    ///
    /// # Errors
    /// As of [`Model::part`].
    pub(crate) fn stage(backend: B, shape: &Shape, origin: Origin, stage: Stage) -> Result<Self, SessionError> {
        let index = Index::of_stage(shape, stage);
        Self::made((backend, shape.clone(), index), origin, Purpose::Training, &Groups::alone())
    }

    fn made(
        (backend, shape, index): (B, Shape, Index),
        origin: Origin,
        purpose: Purpose,
        groups: &Groups<B::Buffer>,
    ) -> Result<Self, SessionError> {
        let parameters = match origin {
            Origin::Seed(seed) => index.initialise(&backend, seed, purpose)?,
            Origin::Read(numbers) => index.read(&backend, numbers, purpose)?,
        };
        Ok(Self::of_parameters(backend, shape, index, parameters, groups))
    }

    /// The same for training, of whose layers this replica, one of several, keeps a share of each parameter.
    ///
    /// # Errors
    /// As of [`Model::part`].
    pub(crate) fn sharded(
        backend: B,
        shape: &Shape,
        origin: Origin,
        groups: &Groups<B::Buffer>,
    ) -> Result<(Self, Shares<B::Buffer>), SessionError> {
        let shape = part_of(shape, groups, backend.kind());
        let index = Index::new(&shape);
        let replica = (groups.data.rank(), groups.data.size());
        let (mut parameters, mut shares) = Shares::allocate(&backend, &index, replica)?;
        for layer in 0..index.layers.len() {
            shares.turn(&mut parameters, &index, layer);
            for i in index.of_layer(layer) {
                index.write(&backend, origin, i, &mut parameters[i])?;
            }
            shares.take(&backend, &parameters, &index, layer);
        }
        let layers = index.of_layers();
        for i in (0..layers.start).chain(layers.end..index.specs.len()) {
            index.write(&backend, origin, i, &mut parameters[i])?;
        }
        Ok((Self::of_parameters(backend, shape, index, parameters, groups), shares))
    }

    fn of_parameters(
        backend: B,
        shape: Shape,
        index: Index,
        parameters: Vec<B::Buffer>,
        groups: &Groups<B::Buffer>,
    ) -> Self {
        let rotary = shape.parts().positions == Positions::Rotary;
        let frequencies = rotary.then(|| {
            [shape.rope.clone(), shape.local_rope()].map(|r| Frequencies::new(&r, shape.rotary_dim() as usize))
        });
        let (tensor, copies) = (Arc::clone(&groups.tensor), Arc::clone(&groups.copies));
        let spread = groups.experts.as_ref().map(|spread| Arc::clone(&spread.ranks));
        let lacking = Mutex::default();
        Self { backend, shape, index, parameters, frequencies, tensor, copies, spread, lacking }
    }

    /// What has gone wrong and is only told now. What was computed since means nothing.
    ///
    /// # Errors
    /// The backend's first failure; memory that was not there.
    pub(in crate::transformer) fn check(&self) -> Result<(), SessionError> {
        self.backend.check()?;
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    /// Of a layer's rotary positions.
    pub(in crate::transformer) fn frequencies(&self, layer: usize) -> Option<&Frequencies> {
        self.frequencies
            .as_ref()
            .map(|[whole, local]| if self.shape.window_of(layer).is_some() { local } else { whole })
    }
}

/// What of a model is one rank's.
fn part_of<T>(shape: &Shape, groups: &Groups<T>, on: BackendKind) -> Shape {
    let part = shape.part_of(groups.tensor.rank(), u32::try_from(groups.tensor.size()).unwrap_or(u32::MAX), on);
    match &groups.experts {
        Some(spread) => part.spread(spread.ranks.rank(), spread.ranks.size()),
        None => part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transformer::shape::{Family, ShapeSpec, count};

    #[test]
    fn the_list_holds_as_many_numbers_as_the_count_says() {
        for family in Family::ALL.iter().copied() {
            // Latents are products without biases.
            let biased = Shape::new(family, &ShapeSpec::default()).unwrap().latent.is_none();
            for spec in [
                ShapeSpec::default(),
                ShapeSpec { tied_embeddings: Some(true), n_layers: Some(3), ..ShapeSpec::default() },
                ShapeSpec { qkv_bias: Some(biased), mlp_bias: Some(true), d_ff: Some(100), ..ShapeSpec::default() },
            ] {
                let shape = Shape::new(family, &spec).unwrap();
                let listed: usize = Index::new(&shape).specs.iter().map(Spec::len).sum();
                assert_eq!(Ok(listed as u64), count::parameters(&shape), "{shape:?}");
            }
        }
    }

    #[test]
    fn stages_have_every_parameter_once_and_a_tied_table_twice() {
        for family in Family::ALL.iter().copied() {
            for tied in [false, true] {
                let spec = ShapeSpec { tied_embeddings: Some(tied), n_layers: Some(5), ..ShapeSpec::default() };
                let shape = Shape::new(family, &spec).unwrap();
                let whole = Index::new(&shape);
                assert_eq!(Index::of_stage(&shape, Stage::whole(5)), whole);
                for of in [2, 3, 5] {
                    let stages = (0..of).map(|number| Index::of_stage(&shape, Stage::new(number, of, 5)));
                    let stages: Vec<Index> = stages.collect();
                    for (i, spec) in whole.specs.iter().enumerate() {
                        let held = stages.iter().filter(|s| s.specs[i].len() > 0);
                        assert!(held.clone().all(|s| s.specs[i] == *spec));
                        let twice = whole.head == Some(i) && whole.tied();
                        assert_eq!(held.count(), if twice { 2 } else { 1 }, "{family:?} {}", spec.name);
                    }
                    let shared = stages.iter().filter(|s| s.shares_table()).count();
                    assert_eq!(shared, if whole.tied() { 2 } else { 0 });
                    // Buckets are what a stage has, each once.
                    for s in &stages {
                        let listed: usize = s.buckets().flat_map(|b| s.specs[b].iter().map(Spec::len)).sum();
                        assert_eq!(listed, s.specs.iter().map(Spec::len).sum::<usize>());
                    }
                }
            }
        }
    }
}
