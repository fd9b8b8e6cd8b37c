//! What only some models are made of, on the fast backend.

use super::super::backend::{
    AttentionDims, BlockCopy, CacheDims, ExpertDims, Experts, ExpertsBackward, LatentDims, LinearDims, Loss, OwnHeads,
    OwnWords, Parts, QkNormDims, Store, Stretch,
};
use super::super::shape::Routing;
use super::attention::Latents;
use super::buffer::Buffer;
use super::cached::{KeysAndValues, LatentRows, of_element};
use super::head::Head;
use super::pool::{reading, writing};
use super::qk_norm::OverRanks;
use super::routes::Rule;
use super::{Cpu, activation, attention, experts, latent, qk_norm, routes, rows, spans, update, words};
use std::ops::Range;

impl Parts for Cpu {
    fn attention_after(
        &self,
        qkv: &Buffer,
        cache: &Buffer,
        out: &mut Buffer,
        lse: &mut Buffer,
        position: usize,
        d: AttentionDims,
        c: CacheDims,
    ) {
        let _span = spans::attention_cached("attention_after", position + d.tokens, d, c);
        let (qkv, cache, out, lse) = (qkv.plain(), cache.plain(), out.plain_mut(), lse.plain_mut());
        of_element!(c.element, T => {
            let chunk = attention::Chunk { qkv, cache: KeysAndValues::<T>::of(cache, c), position, d, c };
            attention::after_cache(&self.pool, self.precision, chunk, out, lse);
        });
    }

    fn route(&self, logits: &Buffer, chosen: &mut Buffer, weights: &mut Buffer, d: ExpertDims) {
        let _span = spans::elements("route", 1, d.n * d.experts);
        let (chosen, weights) = (chosen.plain_mut(), weights.plain_mut());
        routes::route(&self.pool, logits.plain(), chosen, weights, d, Rule::PLAIN);
    }
    fn route_backward(&self, logits: &Buffer, chosen: &Buffer, dweights: &Buffer, dlogits: &mut Buffer, d: ExpertDims) {
        let _span = spans::elements("route_backward", 2, d.n * d.experts);
        let from = [logits.plain(), chosen.plain(), dweights.plain()];
        routes::route_backward(&self.pool, from, dlogits.plain_mut(), d, Routing::PLAIN);
    }
    fn route_by(
        &self,
        logits: &Buffer,
        correction: Option<&Buffer>,
        chosen: &mut Buffer,
        weights: &mut Buffer,
        (d, by): (ExpertDims, Routing),
    ) {
        let _span = spans::elements("route", 1, d.n * d.experts);
        let (chosen, weights) = (chosen.plain_mut(), weights.plain_mut());
        let rule = Rule { by, correction: correction.map(Buffer::plain) };
        routes::route(&self.pool, logits.plain(), chosen, weights, d, rule);
    }
    fn route_by_backward(
        &self,
        logits: &Buffer,
        chosen: &Buffer,
        dweights: &Buffer,
        dlogits: &mut Buffer,
        (d, by): (ExpertDims, Routing),
    ) {
        let _span = spans::elements("route_backward", 2, d.n * d.experts);
        let from = [logits.plain(), chosen.plain(), dweights.plain()];
        routes::route_backward(&self.pool, from, dlogits.plain_mut(), d, by);
    }
    fn sinks(&self, sinks: &Buffer, out: &mut Buffer, lse: &mut Buffer, d: AttentionDims) {
        let _span = spans::elements("sinks", 2, d.rows() * d.out_width());
        routes::sinks(&self.pool, sinks.plain(), out.plain_mut(), lse.plain_mut(), d);
    }
    fn sinks_backward(
        &self,
        sinks: &Buffer,
        out: &Buffer,
        dout: &Buffer,
        lse: &Buffer,
        dsinks: &mut Buffer,
        d: AttentionDims,
    ) {
        let _span = spans::elements("sinks_backward", 3, d.rows() * d.out_width());
        let from = [sinks.plain(), out.plain(), dout.plain(), lse.plain()];
        routes::sinks_backward(&self.pool, from, dsinks.plain_mut(), d);
    }
    fn experts(&self, x: &Buffer, of: &Experts<'_, Buffer>, pre: &mut Buffer, act: &mut Buffer, out: &mut Buffer) {
        let _span = spans::experts("experts", 1.0, of.d);
        let to = [pre.plain_mut(), act.plain_mut(), out.plain_mut()];
        experts::forward(&self.pool, self.precision, x.plain(), experts::parts(of), to, of.d);
    }
    fn experts_backward(&self, x: &Buffer, of: &Experts<'_, Buffer>, dout: &Buffer, to: ExpertsBackward<'_, Buffer>) {
        let _span = spans::experts("experts_backward", 2.0, of.d);
        let saved = experts::SavedExperts { x: x.plain(), of: experts::parts(of), dout: dout.plain() };
        experts::backward(&self.pool, self.precision, saved, experts::gradients(to), of.d);
    }
    fn cross_entropy_split(
        &self,
        x: &Buffer,
        w: &Buffer,
        targets: &[u32],
        gradients: Option<(&mut Buffer, &mut Buffer)>,
        cap: Option<f32>,
        d: LinearDims,
        own: OwnWords<'_, Buffer>,
    ) -> Loss {
        let gradients = gradients.map(|(dx, dw)| (dx.plain_mut(), dw.plain_mut()));
        let head = Head { pool: &self.pool, precision: self.precision, x: x.plain(), w: w.plain(), d };
        Loss::Known(words::cross_entropy(head, targets, gradients, cap, own))
    }

    fn qk_norm(
        &self,
        qkv: &mut Buffer,
        gains: [&Buffer; 2],
        kept: Option<(&mut Buffer, &mut Buffer)>,
        d: QkNormDims,
        own: Option<OwnHeads<'_, Buffer>>,
    ) {
        let (pool, numbers) = (&self.pool, d.of.rows() * d.width());
        let over = own.map(|OwnHeads { ranks, sums, over_sums }| {
            {
                let _span = spans::norm("qk_norm", 1, numbers);
                qk_norm::squares(pool, qkv.plain(), sums.plain_mut(), d);
            }
            over_sums(sums);
            OverRanks { sums: sums.plain(), ranks }
        });
        let _span = spans::norm("qk_norm", 2, numbers);
        let kept = kept.map(|(x, stats)| (x.plain_mut(), stats.plain_mut()));
        qk_norm::forward(pool, qkv.plain_mut(), gains.map(Buffer::plain), kept, d, over);
    }
    fn qk_norm_backward(
        &self,
        x: &Buffer,
        gains: [&Buffer; 2],
        stats: &Buffer,
        dqkv: &mut Buffer,
        dgains: [&mut Buffer; 2],
        d: QkNormDims,
        own: Option<OwnHeads<'_, Buffer>>,
    ) {
        let (pool, numbers) = (&self.pool, d.of.rows() * d.width());
        let saved = qk_norm::SavedQkNorm { x: x.plain(), stats: stats.plain(), gains: gains.map(Buffer::plain) };
        let over = own.map(|OwnHeads { ranks, sums, over_sums }| {
            {
                let _span = spans::norm("qk_norm_backward", 2, numbers);
                qk_norm::along(pool, saved, dqkv.plain(), sums.plain_mut(), d);
            }
            over_sums(sums);
            OverRanks { sums: sums.plain(), ranks }
        });
        let _span = spans::norm("qk_norm_backward", 3, numbers);
        qk_norm::backward(pool, saved, dqkv.plain_mut(), dgains.map(Buffer::plain_mut), d, over);
    }
    fn scale(&self, x: &mut Buffer, len: usize, factor: f32) {
        let _span = spans::elements("scale", 2, len);
        let share = self.pool.share(len, 1 << 14);
        self.pool.over(writing(&mut x.plain_mut()[..len], share), |_, x| x.iter_mut().for_each(|x| *x *= factor));
    }
    fn put(&self, from: &Buffer, to: &mut Buffer, d: Stretch, into: Store) {
        let _span = spans::elements("put", if into == Store::Overwrite { 2 } else { 3 }, d.len);
        let share = self.pool.share(d.len, 1 << 14);
        let from = reading(&from.plain()[d.from..d.from + d.len], share);
        let parts = (writing(&mut to.plain_mut()[d.to..d.to + d.len], share), from);
        match into {
            Store::Overwrite => self.pool.over(parts, |_, (t, f)| t.copy_from_slice(f)),
            Store::Accumulate => self.pool.over(parts, |_, (t, f)| t.iter_mut().zip(f).for_each(|(t, f)| *t += f)),
        }
    }
    fn squares(&self, of: &[(&Buffer, Range<usize>)], to: &mut Buffer) {
        let _span = spans::elements("squares", 1, of.iter().map(|(_, part)| part.len()).sum());
        let one = |(x, part): &(&Buffer, Range<usize>)| update::squares(&self.pool, &x.plain()[part.clone()]);
        to.plain_mut()[0] = of.iter().map(one).sum::<f64>() as f32;
    }
    fn soft_cap(&self, x: &mut Buffer, len: usize, cap: f32) {
        let _span = spans::elements("soft_cap", 2, len);
        activation::soft_cap(&self.pool, &mut x.plain_mut()[..len], cap);
    }

    fn numbers(&self, buffer: &Buffer) -> usize {
        buffer.plain().len()
    }
    fn take_rows(&self, from: &Buffer, to: &mut Buffer, of: &[usize], width: usize) {
        let _span = spans::elements("take_rows", 2, of.len() * width);
        rows::take(&self.pool, from.plain(), to.plain_mut(), (of.len(), width), |row| of[row]);
    }
    fn sum_rows(&self, from: &Buffer, to: &mut Buffer, of: &[usize], (each, width): (usize, usize)) {
        let _span = spans::elements("sum_rows", 1, (of.len() + of.len() / each) * width);
        rows::sum(&self.pool, from.plain(), to.plain_mut(), of, (each, width), |_| 1.0);
    }

    fn copy_blocks(&self, from: &Buffer, to: &mut Buffer, d: BlockCopy) {
        let _span = spans::elements("copy_blocks", 2, d.n * d.heads * d.len);
        latent::copy_blocks(&self.pool, from.plain(), to.plain_mut(), d);
    }
    fn latent_append(&self, latent: &Buffer, rotated: &Buffer, cache: &mut Buffer, position: usize, d: LatentDims) {
        let _span = spans::elements("latent_append", 2, latent.plain().len() + rotated.plain().len());
        let (rows, cache) = ([latent.plain(), rotated.plain()], cache.plain_mut());
        of_element!(d.element, T => latent::append::<T>(rows, cache, position, d));
    }
    fn latent_attention(
        &self,
        queries: &Buffer,
        w: &Buffer,
        cache: &Buffer,
        out: &mut Buffer,
        position: usize,
        d: LatentDims,
    ) {
        let _span = spans::latent_attention(position, d);
        let (queries, w, cache, out) = (queries.plain(), w.plain(), cache.plain(), out.plain_mut());
        of_element!(d.element, T => {
            let of = Latents { queries, w, cache: LatentRows::<T>::of(cache, d), position, d };
            latent::attention(&self.pool, self.precision, of, out);
        });
    }
}
