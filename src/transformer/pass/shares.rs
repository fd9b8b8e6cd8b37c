//! Parameters that ranks keep a share of each (stage 3 of ZeRO: Rajbhandari et al. 2020, section 5.3): a layer's are whole while it is at
//! work, in buffers that layers of the same sizes take turns with. What stands before and after the layers, every rank has whole.

use super::super::backend::{Alloc, Backend, Category, Store, Stretch};
use super::super::collective::share;
use super::super::error::SessionError;
use super::index::Index;
use super::spec::Spec;
use std::ops::Range;

/// A rank's shares of the layers' parameters.
#[derive(Debug)]
pub(crate) struct Shares<T> {
    own: Vec<T>,
    /// The first layer's first parameter: that of the first share.
    first: usize,
    /// Of each layer, which turns it takes.
    kinds: Vec<usize>,
    turns: Vec<Turn>,
    /// Which rank of how many.
    place: (usize, usize),
}

/// Buffers that layers of the same sizes take turns with.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// The layer that has them.
    layer: usize,
    /// Whether they hold its parameters as all ranks have them by now.
    gathered: bool,
}

impl<T> Shares<T> {
    /// Parameters of a model that is kept so, one after the other, and the shares; all still to be written. A layer's are empty unless
    /// it is the first of its sizes.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn allocate<A: Alloc<Buffer = T>>(
        a: &A,
        index: &Index,
        place: (usize, usize),
    ) -> Result<(Vec<T>, Self), SessionError> {
        let new = |spec: &Spec, here: bool| a.alloc(if here { spec.len() } else { 0 }, spec.category());
        let layers = index.of_layers();
        let mut parameters = index.specs[..layers.start].iter().map(|s| new(s, true)).collect::<Result<Vec<_>, _>>()?;
        let (mut sizes, mut kinds, mut turns) = (Vec::<Vec<usize>>::new(), Vec::new(), Vec::new());
        let mut own = Vec::new();
        for layer in 0..index.layers.len() {
            let specs = &index.specs[index.of_layer(layer)];
            let of_layer: Vec<usize> = specs.iter().map(Spec::len).collect();
            let kind = sizes.iter().position(|sizes| *sizes == of_layer);
            for spec in specs {
                parameters.push(new(spec, kind.is_none())?);
                own.push(a.alloc(share(spec.len(), place.0, place.1).len(), Category::ExactWeights)?);
            }
            kinds.push(kind.unwrap_or(sizes.len()));
            if kind.is_none() {
                sizes.push(of_layer);
                turns.push(Turn { layer, gathered: false });
            }
        }
        for spec in &index.specs[layers.end..] {
            parameters.push(new(spec, true)?);
        }
        Ok((parameters, Self { own, first: layers.start, kinds, turns, place }))
    }

    /// This rank's share of a parameter; `None` of those that every rank has whole.
    pub(crate) fn own(&self, parameter: usize) -> Option<&T> {
        self.own.get(parameter.checked_sub(self.first)?)
    }

    /// The same, to be written; what layers hold whole is to be [forgotten](Shares::forget) then.
    pub(crate) fn own_mut(&mut self, parameter: usize) -> Option<&mut T> {
        self.own.get_mut(parameter.checked_sub(self.first)?)
    }

    /// No layer is whole any more.
    pub(crate) fn forget(&mut self) {
        self.turns.iter_mut().for_each(|turn| turn.gathered = false);
    }

    /// Gives a layer the buffers that its parameters are whole in; what they hold is of another one.
    pub(super) fn turn(&mut self, parameters: &mut [T], index: &Index, layer: usize) {
        let turn = &mut self.turns[self.kinds[layer]];
        if turn.layer != layer {
            index.of_layer(turn.layer).zip(index.of_layer(layer)).for_each(|(from, to)| parameters.swap(from, to));
            *turn = Turn { layer, gathered: false };
        }
    }

    /// Where a parameter's share begins in the whole, and how long it is.
    fn part(&self, index: &Index, parameter: usize) -> Range<usize> {
        share(index.specs[parameter].len(), self.place.0, self.place.1)
    }

    /// Keeps this rank's shares of a layer that is whole.
    pub(crate) fn take<B: Backend<Buffer = T>>(&mut self, backend: &B, parameters: &[T], index: &Index, layer: usize) {
        for parameter in index.of_layer(layer) {
            let part = self.part(index, parameter);
            let stretch = Stretch { from: part.start, to: 0, len: part.len() };
            backend.put(&parameters[parameter], &mut self.own[parameter - self.first], stretch, Store::Overwrite);
        }
        self.turns[self.kinds[layer]].gathered = false;
    }

    /// Puts them where the layer will be whole.
    fn give<B: Backend<Buffer = T>>(&self, backend: &B, parameters: &mut [T], index: &Index, layer: usize) {
        for parameter in index.of_layer(layer) {
            let part = self.part(index, parameter);
            let stretch = Stretch { from: 0, to: part.start, len: part.len() };
            backend.put(&self.own[parameter - self.first], &mut parameters[parameter], stretch, Store::Overwrite);
        }
    }

    /// Has a layer's own shares where the layer will be whole, the rest being still to come; `false` where all is there already.
    pub(crate) fn lay<B: Backend<Buffer = T>>(
        &mut self,
        backend: &B,
        parameters: &mut [T],
        index: &Index,
        layer: usize,
    ) -> bool {
        self.turn(parameters, index, layer);
        let turn = &mut self.turns[self.kinds[layer]];
        if turn.gathered {
            return false;
        }
        self.give(backend, parameters, index, layer);
        true
    }

    /// All ranks' shares of a layer have come.
    pub(crate) fn gathered(&mut self, layer: usize) {
        self.turns[self.kinds[layer]].gathered = true;
    }
}
