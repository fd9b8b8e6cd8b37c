//! The ends of the model, which are of the whole vocabulary: the embedding, the head with its loss, and the choice of a token.
//!
//! Where ranks split the vocabulary (Shoeybi et al. 2019, section 3), each looks up the tokens that are its own, and what they find is
//! summed; each computes its own logits, of which they tell one another the largest, the sums of exponentials, and the targets'. On a
//! device that keeps the table whole nothing of it is told.

use super::super::backend::{Backend, IGNORED_TOKEN, LinearDims, Loss, OwnWords, Tokens};
use super::super::collective::{Job, Reduce};
use super::super::trace;
use super::activations::{Activations, BeforeNorm, Extent};
use super::among::Told;
use super::forward::{Place, StepDropout};
use super::generate::Inference;
use super::gradients::Gradients;
use super::model::Model;
use super::scratch::Scratch;

impl<B: Backend> Model<B> {
    /// The tokens by the rank's rows of the table, those of other ranks being [`IGNORED_TOKEN`]; `None` where it has all rows.
    fn own_tokens(&self, ids: Tokens<'_, B::Buffer>, n: usize) -> Option<Vec<u32>> {
        let first = self.shape.part().first_word?;
        let mut ids = self.on_host(ids, n);
        let place = |word| OwnWords::<B::Buffer>::place(first, self.shape.vocab_size as usize, word);
        ids.iter_mut().for_each(|id| *id = place(*id).map_or(IGNORED_TOKEN, |place| place as u32));
        Some(ids)
    }

    fn on_host(&self, tokens: Tokens<'_, B::Buffer>, n: usize) -> Vec<u32> {
        match tokens {
            Tokens::Host(tokens) => tokens.to_vec(),
            Tokens::Placed(b) => self.backend.tokens(b, n),
        }
    }

    /// The stream before the first layer.
    pub(super) fn embed(
        &self,
        ids: Tokens<'_, B::Buffer>,
        first: usize,
        a: &mut Activations<B::Buffer>,
        dropout: Option<StepDropout>,
    ) {
        let (n, c, parts) = (a.extent.rows(), self.shape.d_model as usize, self.shape.parts());
        let stream = &mut a.residual[0];
        match (&self.index.embedding_norm, &mut a.embedding) {
            (Some(norm), Some(BeforeNorm { x, stats })) => {
                self.look_up(ids, a.extent, first, x);
                self.norm(norm, x, stream, stats, n);
            }
            _ => self.look_up(ids, a.extent, first, stream),
        }
        if parts.scaled_embedding {
            self.backend.scale(stream, n * c, self.embedding_scale());
        }
        if let (Some(d), true) = (dropout, self.residual()) {
            self.backend.dropout(stream, n * c, d.at(Place::Embedding));
        }
    }

    /// Rows of the table, with those of positions from `first` on, where they are learned; one rank adds these.
    fn look_up(&self, ids: Tokens<'_, B::Buffer>, extent: Extent, first: usize, to: &mut B::Buffer) {
        let (own, n) = (self.own_tokens(ids, extent.rows()), extent.rows());
        let adds = own.is_none() || self.tensor.rank() == 0;
        let positions = self.index.positions.filter(|_| adds).map(|i| &self.parameters[i]);
        let (table, first) = (&self.parameters[self.index.table], self.position_row(first));
        let c = self.shape.d_model as usize;
        let ids = own.as_deref().map_or(ids, Tokens::Host);
        self.backend.embed_tokens(ids, n, extent.tokens, first, table, positions, to, c);
        if own.is_some() {
            self.sum_over_parts(to);
        }
    }

    pub(super) fn embedding_backward(
        &self,
        ids: Tokens<'_, B::Buffer>,
        extent: Extent,
        s: &Scratch<B::Buffer>,
        gradients: &mut Gradients<B::Buffer>,
    ) {
        if !self.index.tied() {
            self.backend.fill(gradients.of(self.index.table), 0.0);
        }
        let (c, n, first) = (self.shape.d_model as usize, extent.rows(), self.position_row(0));
        let own = self.own_tokens(ids, n);
        let padding = self.shape.parts().padding_token;
        let padding = match self.shape.part().first_word {
            Some(first) => padding.and_then(|word| word.checked_sub(first)),
            None => padding,
        };
        let ids = own.as_deref().map_or(ids, Tokens::Host);
        let (table, positions) = gradients.weight_and_bias(self.index.table, self.index.positions);
        self.backend.embed_backward_tokens(ids, n, extent.tokens, first, padding, &s.stream, table, positions, c);
    }

    pub(in crate::transformer) fn head_dims(&self, n: usize) -> LinearDims {
        LinearDims { n, k: self.shape.d_model as usize, m: self.shape.vocab_size as usize }
    }

    /// The loss of the head's product of `output`; with `gradients`, those of `output` and of the head.
    pub(super) fn token_loss(
        &self,
        (output, told): (&B::Buffer, &mut Told<B::Buffer>),
        targets: Tokens<'_, B::Buffer>,
        gradients: Option<(&mut B::Buffer, &mut B::Buffer)>,
        n: usize,
    ) -> Loss {
        let w = &self.parameters[self.index.head.unwrap_or(self.index.table)];
        let (cap, d) = (self.shape.parts().logit_cap, self.head_dims(n));
        let Some((first, [largest, sums])) = self.shape.part().first_word.zip(told.of_loss.as_mut()) else {
            return self.backend.cross_entropy_tokens(output, w, targets, gradients, cap, d);
        };
        let targets = self.on_host(targets, n);
        let over = |how: Reduce, room: &mut B::Buffer| {
            let _span = trace::exchange(self.tensor.size(), "logits");
            self.tensor.run(Job::AllReduce(how), std::slice::from_mut(room));
        };
        let (over_largest, over_sums) =
            (|b: &mut B::Buffer| over(Reduce::Max, b), |b: &mut B::Buffer| over(Reduce::Sum, b));
        let own = OwnWords { first, largest, sums, over_largest: &over_largest, over_sums: &over_sums };
        let Some((dx, dw)) = gradients else {
            return self.backend.cross_entropy_split(output, w, &targets, None, cap, d, own);
        };
        let loss = self.backend.cross_entropy_split(output, w, &targets, Some((&mut *dx, dw)), cap, d, own);
        self.sum_over_parts(dx);
        loss
    }

    /// Chooses the likeliest token of every sequence as the one that [`Model::decode_chosen`] goes on with.
    pub(crate) fn argmax(&self, inference: &mut Inference<B::Buffer>) {
        let Inference { logits, chosen, prompt, told, .. } = inference;
        self.choose(logits, prompt.extent.batch, told.as_mut(), chosen);
    }

    /// The tokens that were chosen last.
    pub(crate) fn chosen(&self, inference: &Inference<B::Buffer>) -> Vec<u32> {
        self.backend.tokens(&inference.chosen, inference.prompt.extent.batch)
    }

    /// The likeliest next token of every sequence.
    pub(crate) fn greedy(&self, inference: &mut Inference<B::Buffer>) -> Vec<u32> {
        let Inference { logits, prompt, told, .. } = inference;
        self.likeliest(logits, prompt.extent.batch, told.as_mut())
    }

    /// The likeliest token of every row of logits, where the next pass finds it.
    pub(super) fn choose(
        &self,
        logits: &B::Buffer,
        batch: usize,
        told: Option<&mut B::Buffer>,
        chosen: &mut B::Buffer,
    ) {
        match told {
            None => self.backend.argmax_into(logits, batch, self.shape.vocab_size as usize, chosen),
            told => self.backend.put_tokens(&self.likeliest(logits, batch, told), chosen),
        }
    }

    /// The same on the host. Ranks that have some words each tell one another, in a place of its own, of their likeliest.
    fn likeliest(&self, logits: &B::Buffer, batch: usize, told: Option<&mut B::Buffer>) -> Vec<u32> {
        let words = self.shape.vocab_size as usize;
        let own = self.backend.argmax(logits, batch, words);
        let part = self.shape.part();
        let Some((first, told)) = part.first_word.zip(told) else { return own };
        let place = |rank: usize, row: usize| 2 * (rank * batch + row);
        let mut all = vec![0.0; 2 * part.of * batch];
        for (row, word) in own.into_iter().enumerate() {
            let at = place(part.rank, row);
            self.backend.download(logits, row * words + word as usize, &mut all[at..=at]);
            // A vocabulary has fewer words than f32 has whole numbers one after the other (`MAX_DIMENSION`).
            all[at + 1] = (first + word) as f32;
        }
        self.backend.upload(&all, told);
        self.sum_over_parts(told);
        self.backend.download(told, 0, &mut all);
        let of_row = |row: usize| {
            let of_rank = |rank: usize| (all[place(rank, row)], all[place(rank, row) + 1]);
            // The first of equals, as in one row.
            let better = |best: (f32, f32), other: (f32, f32)| if other.0 > best.0 { other } else { best };
            (1..part.of).map(of_rank).fold(of_rank(0), better).1 as u32
        };
        (0..batch).map(of_row).collect()
    }
}
