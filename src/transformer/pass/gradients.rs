//! Where gradients are kept: a buffer for every parameter, or, in training, one layer's buffers that all layers share, each
//! layer's parameters being updated before the next layer's gradients are written (unless a step needs all of them together). A GPT-2 of 124M then holds 182 MB of
//! gradients instead of 498 MB.

use super::super::backend::{Alloc, Backend, Category, Store, Stretch};
use super::super::collective::share;
use super::super::error::SessionError;
use super::model::{Index, Linear, Spec};
use std::ops::Range;

/// Gradients by parameter.
#[derive(Debug)]
pub(crate) struct Gradients<T> {
    buffers: Vec<T>,
    /// The buffer of each parameter.
    slots: Vec<usize>,
    /// Which share of how many of each is here.
    place: (usize, usize),
}

impl<T> Gradients<T> {
    /// Adds the gradients of some parameters to those that are here.
    pub(crate) fn add<B: Backend<Buffer = T>>(&mut self, backend: &B, index: &Index, of: Range<usize>, more: &Self) {
        for parameter in of {
            backend.add(more.read(parameter), self.of(parameter), index.specs[parameter].len());
        }
    }

    /// Multiplies those of some parameters by a factor.
    pub(crate) fn scale<B: Backend<Buffer = T>>(&mut self, backend: &B, index: &Index, of: Range<usize>, factor: f32) {
        for parameter in of {
            let len = self.own(index, parameter).len();
            backend.scale(self.of(parameter), len, factor);
        }
    }

    /// The `rank`-th share of every parameter's of `of` ranks.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn shares<A: Alloc<Buffer = T>>(
        a: &A,
        index: &Index,
        place: (usize, usize),
    ) -> Result<Self, SessionError> {
        let one = |spec: &Spec| a.alloc(share(spec.len(), place.0, place.1).len(), Category::Gradients);
        let buffers = index.specs.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { slots: (0..buffers.len()).collect(), buffers, place })
    }

    /// What of a parameter's gradient is here, by its place in the whole.
    fn own(&self, index: &Index, parameter: usize) -> Range<usize> {
        share(index.specs[parameter].len(), self.place.0, self.place.1)
    }

    /// Where those elements stand here that are a rank's by its place: all, where no others are here.
    pub(crate) fn at(&self, index: &Index, parameter: usize, (rank, of): (usize, usize)) -> Range<usize> {
        if self.place.1 > 1 {
            return 0..self.own(index, parameter).len();
        }
        share(index.specs[parameter].len(), rank, of)
    }

    /// Takes the shares of some parameters' whole gradients: instead of what is here, or in addition.
    pub(crate) fn take<B: Backend<Buffer = T>>(
        &mut self,
        backend: &B,
        index: &Index,
        of: Range<usize>,
        (whole, into): (&Self, Store),
    ) {
        for parameter in of {
            let part = self.own(index, parameter);
            let stretch = Stretch { from: part.start, to: 0, len: part.len() };
            backend.put(whole.read(parameter), self.of(parameter), stretch, into);
        }
    }

    /// Puts the shares where they stand in the whole.
    pub(crate) fn give<B: Backend<Buffer = T>>(&self, backend: &B, index: &Index, of: Range<usize>, whole: &mut Self) {
        for parameter in of {
            let part = self.own(index, parameter);
            let stretch = Stretch { from: 0, to: part.start, len: part.len() };
            backend.put(self.read(parameter), whole.of(parameter), stretch, Store::Overwrite);
        }
    }

    /// A buffer for every parameter.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn all<A: Alloc<Buffer = T>>(a: &A, index: &Index) -> Result<Self, SessionError> {
        Self::new(a, index, index.layers.len())
    }

    /// The buffers of `kept` layers in turn for all layers of the same sizes: one, or two where the last layer's are still being
    /// exchanged with other ranks while the next layer's are written.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn shared_by_layers<A: Alloc<Buffer = T>>(
        a: &A,
        index: &Index,
        kept: usize,
    ) -> Result<Self, SessionError> {
        Self::new(a, index, kept)
    }

    fn new<A: Alloc<Buffer = T>>(a: &A, index: &Index, kept: usize) -> Result<Self, SessionError> {
        let sizes = |layer: usize| index.specs[index.of_layer(layer)].iter().map(Spec::len).collect::<Vec<_>>();
        let mut all = Self { buffers: Vec::new(), slots: Vec::new(), place: (0, 1) };
        // Of every kind of layer, how many there have been, and where the buffers begin that they take turns with.
        let mut kinds: Vec<(Vec<usize>, usize, Vec<usize>)> = Vec::new();
        all.allocate(a, &index.specs[..index.of_layers().start])?;
        for layer in 0..index.layers.len() {
            let own = sizes(layer);
            let at = kinds.iter().position(|(sizes, ..)| *sizes == own).unwrap_or(kinds.len());
            if at == kinds.len() {
                kinds.push((own, 0, Vec::new()));
            }
            let (sizes, seen, begins) = &mut kinds[at];
            if begins.len() < kept.max(1) {
                begins.push(all.buffers.len());
                all.allocate(a, &index.specs[index.of_layer(layer)])?;
            } else {
                let first = begins[*seen % begins.len()];
                all.slots.extend(first..first + sizes.len());
            }
            *seen += 1;
        }
        all.allocate(a, &index.specs[index.of_layers().end..])?;
        Ok(all)
    }

    /// Buffers of their own for the next parameters.
    fn allocate<A: Alloc<Buffer = T>>(&mut self, a: &A, specs: &[Spec]) -> Result<(), SessionError> {
        for spec in specs {
            self.slots.push(self.buffers.len());
            self.buffers.push(a.alloc(spec.len(), Category::Gradients)?);
        }
        Ok(())
    }

    fn slot(&self, parameter: usize) -> usize {
        self.slots[parameter]
    }

    /// The gradient of one parameter.
    pub(crate) fn of(&mut self, parameter: usize) -> &mut T {
        let slot = self.slot(parameter);
        &mut self.buffers[slot]
    }

    /// The same, to read.
    pub(crate) fn read(&self, parameter: usize) -> &T {
        &self.buffers[self.slot(parameter)]
    }

    /// Two gradients at once; the second parameter stands after the first, as [`Index`] lays them.
    pub(crate) fn weight_and_bias(&mut self, weight: usize, bias: Option<usize>) -> (&mut T, Option<&mut T>) {
        let (weight, bias) = (self.slot(weight), bias.map(|b| self.slot(b)));
        let (head, tail) = self.buffers.split_at_mut(weight + 1);
        (&mut head[weight], bias.map(|b| &mut tail[b - weight - 1]))
    }

    /// Weight and bias of two layers at once, as far as there are any; the second stands after the first, as [`Index`] lays them.
    pub(super) fn four(&mut self, [first, second]: [Linear; 2]) -> [Option<&mut T>; 4] {
        let slots = [Some(first.weight), first.bias, Some(second.weight), second.bias].map(|p| p.map(|p| self.slot(p)));
        let mut rest = self.buffers.iter_mut().enumerate();
        slots.map(|slot| slot.and_then(|slot| rest.find(|(i, _)| *i == slot).map(|(_, buffer)| buffer)))
    }

    /// The gradients of neighbouring parameters, of one layer or of none: a bucket of what ranks exchange.
    pub(crate) fn range(&mut self, parameters: Range<usize>) -> &mut [T] {
        let first = self.slot(parameters.start);
        &mut self.buffers[first..first + parameters.len()]
    }

    /// Every buffer: by parameter, unless layers share them.
    pub(crate) fn buffers(&self) -> &[T] {
        &self.buffers
    }
}
