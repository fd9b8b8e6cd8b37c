//! What ranks that split a model's layers tell one another: sums of what each has a part of, and of what several have copies of.

use super::super::backend::{Alloc, Backend, Category, Dropout, ROWS_AT_A_TIME, Store, Stretch};
use super::super::collective::{Job, Reduce};
use super::super::error::SessionError;
use super::super::shape::Shape;
use super::super::trace;
use super::gradients::Gradients;
use super::model::{Linear, Model};

/// Room for what is told beside activations and whole gradients.
#[derive(Debug)]
pub(crate) struct Told<T> {
    /// A layer's gradients of keys and values, `[2 KV * D, C]`, and of their bias, where several ranks hold the same heads.
    copies: Option<T>,
    /// Where ranks split the vocabulary, of some rows at a time: their largest logits, and their sums and targets' logits.
    pub(super) of_loss: Option<[T; 2]>,
}

impl<T> Told<T> {
    /// For passes of `n` rows; with gradients, where one back follows.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(super) fn new<A: Alloc<Buffer = T>>(a: &A, s: &Shape, n: usize, gradients: bool) -> Result<Self, SessionError> {
        let part = s.part();
        let copied = gradients && part.copies > 1;
        let width = (s.d_model + u32::from(s.qkv_bias)) as usize;
        let of_layer = 2 * s.d_kv() as usize * width;
        let split = gradients && part.first_word.is_some() && s.has_vocabulary_head();
        let statistics = |each: usize| a.alloc(each * n.min(ROWS_AT_A_TIME), Category::Statistics);
        Ok(Self {
            copies: copied.then(|| a.alloc(of_layer, Category::Gradients)).transpose()?,
            of_loss: split.then(|| Ok::<_, SessionError>([statistics(1)?, statistics(2)?])).transpose()?,
        })
    }
}

impl<B: Backend> Model<B> {
    /// Sums what every rank of the replica has a part of.
    pub(in crate::transformer) fn sum_over_parts(&self, buffer: &mut B::Buffer) {
        let _span = trace::exchange(self.tensor.size(), "parts");
        self.tensor.run(Job::AllReduce(Reduce::Sum), std::slice::from_mut(buffer));
    }

    /// Dropout of what each rank has another part of: masks of their own.
    pub(in crate::transformer) fn of_part(&self, d: Dropout) -> Dropout {
        Dropout { part: self.tensor.rank() as u64, ..d }
    }

    /// Where several ranks hold the same heads of keys and values, each has the gradient that its own queries give them: these are
    /// summed, so that the copies stay the same.
    pub(super) fn sum_copies(&self, qkv: &Linear, gradients: &mut Gradients<B::Buffer>, told: &mut Told<B::Buffer>) {
        let Some(room) = &mut told.copies else { return };
        let [above, rows, width] = [self.shape.d_attn(), 2 * self.shape.d_kv(), self.shape.d_model].map(|x| x as usize);
        let weight = (qkv.weight, Stretch { from: above * width, to: 0, len: rows * width });
        let bias = qkv.bias.map(|bias| (bias, Stretch { from: above, to: rows * width, len: rows }));
        let both = || [Some(weight), bias].into_iter().flatten();
        for (parameter, stretch) in both() {
            self.backend.put(gradients.read(parameter), room, stretch, Store::Overwrite);
        }
        {
            let _span = trace::exchange(self.copies.size(), "copies");
            self.copies.run(Job::AllReduce(Reduce::Sum), std::slice::from_mut(room));
        }
        for (parameter, Stretch { from, to, len }) in both() {
            let back = Stretch { from: to, to: from, len };
            self.backend.put(room, gradients.of(parameter), back, Store::Overwrite);
        }
    }
}
