//! Which parts of models the kernels have: what they have not is refused before anything is built.

use super::super::backend::{AttentionDims, CacheDims, Parts as BackendParts};
use super::super::error::SessionError;
use super::super::shape::parts::{NormKind, Parts, Positions, QkNorm};
use super::super::shape::{Activation, RopeScaling, Shape};
use super::super::{BackendKind, Phase, Workload};
use super::Cuda;
use super::buffer::Buffer;

/// What a workload needs and the kernels have not, in words.
pub(in crate::transformer) fn lacking(w: &Workload) -> Option<&'static str> {
    if w.stretch_of_prompt(BackendKind::Cuda, w.batch as usize) < w.prompt_len as usize && w.phase != Phase::Train {
        return Some("prompts in stretches (prefill_chunk)");
    }
    lacking_for(&w.shape, u64::from(w.longest_sequence()), w.phase == Phase::Train)
}

/// What a model needs and the kernels have not, for sequences up to a length.
pub(crate) fn lacking_for(shape: &Shape, longest: u64, training: bool) -> Option<&'static str> {
    let Shape { rope, window, .. } = shape;
    let parts: &Parts = shape.parts();
    let stretched = matches!(
        rope.scaling,
        Some(RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. }) if attention_factor != 1.0
    );
    let all = [
        (shape.latent.is_some(), "latents of keys and values"),
        (shape.experts.is_some_and(|e| !e.routing.is_plain()), "experts chosen by groups or sigmoids"),
        (shape.experts.is_some_and(|e| e.shared > 0), "shared experts"),
        (shape.experts.is_some_and(|e| e.dense_layers > 0), "layers without experts before others"),
        (shape.experts.is_some(), "experts"),
        (shape.activation == Activation::ClampedSwiGlu, "clamped activations"),
        (parts.sinks, "sinks beside scores"),
        (parts.norm == NormKind::RmsPlusOne, "norms by 1 + w"),
        (parts.qk_norm != QkNorm::None, "norms of queries and keys"),
        (parts.positions == Positions::Alibi, "ALiBi"),
        (parts.position_offset > 0, "positions with an offset"),
        (
            parts.positions == Positions::Rotary && shape.rotary_dim() != shape.head_dim,
            "rotary positions on a part of a head",
        ),
        (parts.positions == Positions::Rotary && stretched, "rotary positions that change the length of queries"),
        (window.is_some_and(|window| longest > u64::from(window)), "sequences longer than the sliding window"),
        (parts.score_scale.is_some(), "scores of another scale"),
        (parts.score_cap.is_some() || parts.logit_cap.is_some(), "soft-caps"),
        (parts.scaled_embedding, "scaled embeddings"),
        (parts.padding_token.is_some() && training, "gradients without those of padding tokens"),
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
}
