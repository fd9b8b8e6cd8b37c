//! Where gradients are kept: a buffer for every parameter, or, in training, one layer's buffers that all layers share, each
//! layer's parameters being updated before the next layer's gradients are written. A GPT-2 of 124M then holds 182 MB of
//! gradients instead of 498 MB.

use super::super::backend::{Alloc, Category};
use super::super::error::SessionError;
use super::model::{Index, Linear, Spec};
use std::ops::Range;

/// Gradients by parameter.
#[derive(Debug)]
pub(crate) struct Gradients<T> {
    buffers: Vec<T>,
    /// The buffer of each parameter.
    slots: Vec<usize>,
}

impl<T> Gradients<T> {
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
        let mut all = Self { buffers: Vec::new(), slots: Vec::new() };
        // Of every kind of layer, how many there have been, and where the buffers begin that they take turns with.
        let mut kinds: Vec<(Vec<usize>, usize, Vec<usize>)> = Vec::new();
        all.add(a, &index.specs[..index.of_layers().start])?;
        for layer in 0..index.layers.len() {
            let own = sizes(layer);
            let at = kinds.iter().position(|(sizes, ..)| *sizes == own).unwrap_or(kinds.len());
            if at == kinds.len() {
                kinds.push((own, 0, Vec::new()));
            }
            let (sizes, seen, begins) = &mut kinds[at];
            if begins.len() < kept.max(1) {
                begins.push(all.buffers.len());
                all.add(a, &index.specs[index.of_layer(layer)])?;
            } else {
                let first = begins[*seen % begins.len()];
                all.slots.extend(first..first + sizes.len());
            }
            *seen += 1;
        }
        all.add(a, &index.specs[index.of_layers().end..])?;
        Ok(all)
    }

    /// Buffers of their own for the next parameters.
    fn add<A: Alloc<Buffer = T>>(&mut self, a: &A, specs: &[Spec]) -> Result<(), SessionError> {
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
