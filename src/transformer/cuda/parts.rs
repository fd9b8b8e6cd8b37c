//! Which parts of models the kernels have: what they have not is refused before anything is built.

use super::super::backend::{
    AttentionDims, CacheDims, ExpertDims, Experts, ExpertsBackward, Parts as BackendParts, QkNormDims,
};
use super::super::error::SessionError;
use super::super::shape::Shape;
use super::super::shape::parts::{Parts, Positions};
use super::super::{BackendKind, Phase, Workload};
use super::buffer::Buffer;
use super::qk_norm::SavedQkNorm;
use super::route::MOST_EXPERTS;
use super::{Cuda, elementwise, qk_norm, route};

/// What a workload needs and the kernels have not, in words.
pub(in crate::transformer) fn lacking(w: &Workload) -> Option<&'static str> {
    if w.stretch_of_prompt(BackendKind::Cuda, w.batch as usize) < w.prompt_len as usize && w.phase != Phase::Train {
        return Some("prompts in stretches (prefill_chunk)");
    }
    lacking_for(&w.shape, u64::from(w.longest_sequence()))
}

/// What a model needs and the kernels have not, for sequences up to a length.
pub(crate) fn lacking_for(shape: &Shape, longest: u64) -> Option<&'static str> {
    let parts: &Parts = shape.parts();
    let all = [
        (shape.latent.is_some(), "latents of keys and values"),
        (shape.experts.is_some_and(|e| !e.routing.is_plain()), "experts chosen by groups or sigmoids"),
        (shape.experts.is_some_and(|e| e.shared > 0), "shared experts"),
        (shape.experts.is_some_and(|e| e.dense_layers > 0), "layers without experts before others"),
        (shape.experts.is_some_and(|e| e.count > MOST_EXPERTS), "more than 512 experts a layer"),
        (parts.sinks, "sinks beside scores"),
        (parts.positions == Positions::Alibi, "ALiBi"),
        (shape.window.is_some_and(|window| longest > u64::from(window)), "sequences longer than the sliding window"),
        (parts.score_scale.is_some(), "scores of another scale"),
        (parts.score_cap.is_some(), "soft-caps of scores"),
    ];
    all.into_iter().find(|(needed, _)| *needed).map(|(_, what)| what)
}

impl BackendParts for Cuda {
    fn attention_after(
        &self,
        _: &Buffer,
        _: &Buffer,
        _: &mut Buffer,
        _: &mut Buffer,
        _: usize,
        _: AttentionDims,
        _: CacheDims,
    ) {
        self.state.fail(SessionError::Invalid("prompts in stretches are not built into backend cuda".into()));
    }
    fn qk_norm(&self, qkv: &mut Buffer, gains: [&Buffer; 2], kept: Option<(&mut Buffer, &mut Buffer)>, d: QkNormDims) {
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
    ) {
        let real = dqkv.format();
        let Some(partial) = self.state.scratch(4 * qk_norm::partial_len(self.on(), real, d)) else { return };
        let saved = SavedQkNorm { x: x.at(), stats: stats.wide(), gains: gains.map(Buffer::at) };
        let to = (dqkv.at(), dgains.map(|g| g.wide()), partial);
        qk_norm::qk_norm_backward(self.on(), real, saved, to, d);
    }

    fn scale(&self, x: &mut Buffer, len: usize, factor: f32) {
        elementwise::scale(self.on(), x.format(), x.at(), factor, len);
    }
    fn soft_cap(&self, x: &mut Buffer, len: usize, cap: f32) {
        elementwise::soft_cap(self.on(), x.format(), x.at(), cap, len);
    }

    fn route(&self, logits: &Buffer, chosen: &mut Buffer, weights: &mut Buffer, d: ExpertDims) {
        route::route(self.on(), logits.wide(), chosen.wide(), weights.wide(), d);
    }
    fn route_backward(&self, logits: &Buffer, chosen: &Buffer, dweights: &Buffer, dlogits: &mut Buffer, d: ExpertDims) {
        route::route_backward(self.on(), [logits.wide(), chosen.wide(), dweights.wide()], dlogits.wide(), d);
    }
    fn experts(&self, x: &Buffer, of: &Experts<'_, Buffer>, pre: &mut Buffer, act: &mut Buffer, out: &mut Buffer) {
        self.experts_forward(x, of, pre, act, out);
    }
    fn experts_backward(&self, x: &Buffer, of: &Experts<'_, Buffer>, dout: &Buffer, to: ExpertsBackward<'_, Buffer>) {
        self.experts_gradients(x, of, dout, &to);
    }
}
