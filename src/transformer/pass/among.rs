//! What ranks that split a model's layers tell one another: sums of what each has a part of, and of what several have copies of.

use super::super::backend::{Alloc, Backend, Category, Dropout, OwnHeads, QkNormDims, ROWS_AT_A_TIME, Store, Stretch};
use super::super::collective::{Job, Reduce};
use super::super::error::SessionError;
use super::super::shape::Shape;
use super::super::shape::parts::QkNorm;
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
    /// Where norms are of all heads of queries, and of keys, together: sums of each row, `[N, 2]`.
    of_heads: Option<T>,
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
        let of_all_heads = part.of > 1 && s.parts().qk_norm == QkNorm::Whole;
        Ok(Self {
            of_heads: of_all_heads.then(|| a.alloc(2 * n, Category::Statistics)).transpose()?,
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

    /// Norms queries and keys in place, by all heads together or by each.
    pub(super) fn norm_heads(
        &self,
        qkv: &mut B::Buffer,
        gains: [usize; 2],
        kept: Option<(&mut B::Buffer, &mut B::Buffer)>,
        told: &mut Told<B::Buffer>,
        d: QkNormDims,
    ) {
        let gains = gains.map(|g| &self.parameters[g]);
        let over_sums = |sums: &mut B::Buffer| self.sum_over_parts(sums);
        let ranks = self.tensor.size();
        let own = told.of_heads.as_mut().map(|sums| OwnHeads { ranks, sums, over_sums: &over_sums });
        self.backend.qk_norm(qkv, gains, kept, d, own);
    }

    /// Back through them: `dqkv` becomes the gradient of what was normed. Ranks add up what their heads give a gain that they share.
    pub(super) fn norm_heads_backward(
        &self,
        (x, stats): (&B::Buffer, &B::Buffer),
        [q, k]: [usize; 2],
        dqkv: &mut B::Buffer,
        (gradients, told): (&mut Gradients<B::Buffer>, &mut Told<B::Buffer>),
        d: QkNormDims,
    ) {
        let (of_q, of_k) = gradients.weight_and_bias(q, Some(k));
        let Some(of_k) = of_k else { return };
        let (gains, dgains) = ([q, k].map(|g| &self.parameters[g]), [of_q, of_k]);
        let over_sums = |sums: &mut B::Buffer| self.sum_over_parts(sums);
        let ranks = self.tensor.size();
        let own = told.of_heads.as_mut().map(|sums| OwnHeads { ranks, sums, over_sums: &over_sums });
        self.backend.qk_norm_backward(x, gains, stats, dqkv, dgains, d, own);
        let (group, shared) = if d.whole { (&self.copies, k..k + 1) } else { (&self.tensor, q..k + 1) };
        let _span = trace::exchange(group.size(), "gains");
        group.run(Job::AllReduce(Reduce::Sum), gradients.range(shared));
    }
}
