//! Which parts of models the kernels have: what they have not is refused before anything is built.

use super::super::backend::{
    AttentionDims, BlockCopy, CacheDims, ExpertDims, Experts, ExpertsBackward, LatentDims, OwnHeads,
    Parts as BackendParts, QkNormDims, Store, Stretch, on_host,
};
use super::super::shape::{Routing, Shape};
use super::super::{CacheFormat, Phase, WeightFormat, Workload};
use super::buffer::Buffer;
use super::cache::Places;
use super::device::{Address, Real};
use super::latent::MOST_RANK;
use super::qk_norm::SavedQkNorm;
use super::route::MOST_EXPERTS;
use super::{Cuda, attention, cache, elementwise, latent, qk_norm, route, sinks, squares};
use std::ops::Range;

/// What a workload needs and the kernels have not, in words.
pub(in crate::transformer) fn lacking(w: &Workload) -> Option<&'static str> {
    let few_bits = w.kv_cache != CacheFormat::Dtype && w.shape.latent.is_some();
    let cached = few_bits.then_some("caches of latents in 8 bits");
    let of_experts = w.phase != Phase::Train && w.weights != WeightFormat::Dtype && w.shape.experts.is_some();
    let of_experts = of_experts.then_some("weights of experts in 8 bits");
    cached.or(of_experts).or_else(|| lacking_for(&w.shape))
}

/// What a model needs and the kernels have not.
pub(crate) fn lacking_for(shape: &Shape) -> Option<&'static str> {
    let all = [
        (shape.latent.is_some_and(|l| l.kv_rank > MOST_RANK), "latents of more than 2048 numbers"),
        (shape.experts.is_some_and(|e| e.count > MOST_EXPERTS), "more than 512 experts a layer"),
    ];
    all.into_iter().find(|(needed, _)| *needed).map(|(_, what)| what)
}

impl BackendParts for Cuda {
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
        let real = qkv.format();
        let stretch = cache::Stretch { qkv: qkv.at(), cache: Places::of(cache.wide(), c), position };
        let Some(room) = self.state.scratch(stretch.bytes(real, &d)) else { return };
        let context = cache::context(self.on(), real, stretch, room, &d);
        attention::attention_over(self.on(), real, [qkv.at(), out.at(), lse.wide()], context, &d);
    }

    fn sinks(&self, sinks: &Buffer, out: &mut Buffer, lse: &mut Buffer, d: AttentionDims) {
        sinks::sinks(self.on(), out.format(), (sinks.at(), out.at(), lse.wide()), &d);
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
        let Some(partial) = self.state.scratch(4 * sinks::partial_len(self.on(), &d)) else { return };
        let operands = sinks::Backward {
            logits: sinks.at(),
            out: out.at(),
            dout: dout.at(),
            lse: lse.wide(),
            partial,
            dlogits: dsinks.wide(),
        };
        sinks::sinks_backward(self.on(), out.format(), operands, &d);
    }

    fn qk_norm(
        &self,
        qkv: &mut Buffer,
        gains: [&Buffer; 2],
        kept: Option<(&mut Buffer, &mut Buffer)>,
        d: QkNormDims,
        own: Option<OwnHeads<'_, Buffer>>,
    ) {
        if own.is_some() {
            return on_host::qk_norm(self, qkv, gains, kept, d, own);
        }
        let kept = kept.map(|(x, stats)| (x.at(), stats.wide()));
        qk_norm::qk_norm(self.on(), qkv.format(), qkv.at(), gains.map(Buffer::at), kept, d);
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
        if own.is_some() {
            return on_host::qk_norm_backward(self, (x, stats), gains, dqkv, dgains, (d, own));
        }
        let real = dqkv.format();
        let Some(partial) = self.state.scratch(4 * qk_norm::partial_len(self.on(), real, d)) else { return };
        let saved = SavedQkNorm { x: x.at(), stats: stats.wide(), gains: gains.map(Buffer::at) };
        let to = (dqkv.at(), dgains.map(|g| g.wide()), partial);
        qk_norm::qk_norm_backward(self.on(), real, saved, to, d);
    }

    fn scale(&self, x: &mut Buffer, len: usize, factor: f32) {
        elementwise::scale(self.on(), x.format(), x.at(), factor, len);
    }
    fn squares(&self, of: &[(&Buffer, Range<usize>)], to: &mut Buffer) {
        let place = |(x, part): &(&Buffer, Range<usize>)| (x.wide() + (4 * part.start) as Address, part.len());
        let table = squares::Table::of(of.iter().map(place));
        let partial = self.state.scratch(table.partial_bytes(self.on()));
        let Some((at, partial)) = self.state.lasting(table.bytes.clone()).zip(partial) else { return };
        squares::squares(self.on(), (at, &table), partial, to.wide());
    }
    fn soft_cap(&self, x: &mut Buffer, len: usize, cap: f32) {
        elementwise::soft_cap(self.on(), x.format(), x.at(), cap, len);
    }

    fn route(&self, logits: &Buffer, chosen: &mut Buffer, weights: &mut Buffer, d: ExpertDims) {
        route::route(self.on(), logits.wide(), chosen.wide(), weights.wide(), d);
    }
    fn route_backward(&self, logits: &Buffer, chosen: &Buffer, dweights: &Buffer, dlogits: &mut Buffer, d: ExpertDims) {
        self.route_by_backward(logits, chosen, dweights, dlogits, (d, Routing::PLAIN));
    }
    fn route_by(
        &self,
        logits: &Buffer,
        correction: Option<&Buffer>,
        chosen: &mut Buffer,
        weights: &mut Buffer,
        rule: (ExpertDims, Routing),
    ) {
        let operands = [logits.wide(), chosen.wide(), weights.wide()];
        route::route_by(self.on(), operands, correction.map(Buffer::wide), rule);
    }
    fn route_by_backward(
        &self,
        logits: &Buffer,
        chosen: &Buffer,
        dweights: &Buffer,
        dlogits: &mut Buffer,
        rule: (ExpertDims, Routing),
    ) {
        route::route_backward(self.on(), [logits.wide(), chosen.wide(), dweights.wide()], dlogits.wide(), rule);
    }
    fn experts(&self, x: &Buffer, of: &Experts<'_, Buffer>, pre: &mut Buffer, act: &mut Buffer, out: &mut Buffer) {
        self.experts_forward(x, of, pre, act, out);
    }
    fn experts_backward(&self, x: &Buffer, of: &Experts<'_, Buffer>, dout: &Buffer, to: ExpertsBackward<'_, Buffer>) {
        self.experts_gradients(x, of, dout, &to);
    }

    fn numbers(&self, buffer: &Buffer) -> usize {
        buffer.len
    }

    fn put(&self, from: &Buffer, to: &mut Buffer, d: Stretch, into: Store) {
        // Of small parameters the last ranks' shares are empty.
        if d.len == 0 {
            return;
        }
        let further = |at: Address, by: usize, real: Real| at + (by * real.size()) as Address;
        let put = |real: Real, from: Address, to: Address| {
            let (from, to) = (further(from, d.from, real), further(to, d.to, real));
            match into {
                Store::Overwrite => self.on().copy(from, to, d.len * real.size()),
                Store::Accumulate => elementwise::add(self.on(), real, from, to, d.len),
            }
        };
        match (from.each(), to.each()) {
            ((Some(wide), _), (Some(own), narrow)) => {
                put(Real::F32, wide, own);
                if let Some(narrow) = narrow {
                    let (own, narrow) = (further(own, d.to, Real::F32), further(narrow, d.to, Real::Bf16));
                    elementwise::narrow(self.on(), Real::Bf16, own, narrow, d.len);
                }
            }
            ((_, Some(half)), (None, Some(own))) => put(Real::Bf16, half, own),
            _ => debug_assert!(false, "a stretch goes between buffers of one format"),
        }
    }
    fn copy_blocks(&self, from: &Buffer, to: &mut Buffer, d: BlockCopy) {
        latent::copy_blocks(self.on(), from.format(), from.at(), to.at(), d);
    }
    fn latent_append(&self, latent: &Buffer, rotated: &Buffer, cache: &mut Buffer, position: usize, d: LatentDims) {
        let operands = [latent.at(), rotated.at(), cache.wide(), self.state.position(position)];
        latent::append(self.on(), latent.format(), operands, d);
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
        self.attend_latents(queries, w, cache, out, position, d);
    }
}
