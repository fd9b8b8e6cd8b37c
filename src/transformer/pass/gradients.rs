//! Where gradients are kept: a buffer for every parameter, or, in training, one layer's buffers that all layers share, each
//! layer's parameters being updated before the next layer's gradients are written. A GPT-2 of 124M then holds 182 MB of
//! gradients instead of 498 MB.

use super::super::backend::{Alloc, Category};
use super::super::error::SessionError;
use super::model::{Index, Linear};
use std::ops::Range;

/// Gradients by parameter.
#[derive(Debug)]
pub(crate) struct Gradients<T> {
    buffers: Vec<T>,
    /// The parameters of all layers, and how many of them have buffers of their own.
    layers: Range<usize>,
    kept: usize,
}

impl<T> Gradients<T> {
    /// A buffer for every parameter.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn all<A: Alloc<Buffer = T>>(a: &A, index: &Index) -> Result<Self, SessionError> {
        Self::new(a, index, index.layers.len())
    }

    /// The buffers of `kept` layers in turn for all layers: one, or two where the last layer's are still being exchanged with
    /// other ranks while the next layer's are written.
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
        let layers = index.of_layers();
        let kept = (index.of_layer(0).len() * kept).min(layers.len());
        let mut all = Self { buffers: Vec::new(), layers, kept };
        for (parameter, spec) in index.specs.iter().enumerate() {
            if all.slot(parameter) == all.buffers.len() {
                all.buffers.push(a.alloc(spec.len(), Category::Gradients)?);
            }
        }
        Ok(all)
    }

    fn slot(&self, parameter: usize) -> usize {
        let Range { start, end } = self.layers;
        match parameter {
            p if p < start => p,
            p if p < end => start + (p - start) % self.kept,
            p => p - (end - start - self.kept),
        }
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
