//! Whether a workload can run at all, on whatever backend: said once, for scenarios (which know where a field is written) and for
//! whoever prepares a session.

use super::collective::grid::{Parallel, Sharding};
use super::shape::RopeScaling;
use super::shape::parts::Positions;
use super::{Phase, Workload};

/// Why a workload cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct WorkloadFault {
    /// The field of a trial at fault, by its path.
    pub field: &'static str,
    /// What is wrong with it, and the remedy.
    pub message: String,
}

impl Workload {
    /// Whether it can run on ranks that share it so.
    ///
    /// # Errors
    /// The field at fault and the remedy.
    pub fn check(&self, parallel: &Parallel) -> Result<(), WorkloadFault> {
        let fault = |field: &'static str, message: String| Err(WorkloadFault { field, message });
        if let Err(e) = parallel.check(&self.shape, self.batch) {
            return fault(e.field, e.message);
        }
        if let Some(message) = self.unstaged(parallel) {
            return fault("parallel.pipeline", message);
        }
        if let Some(message) = self.unspread(parallel) {
            return fault("parallel.expert", message);
        }
        if let Some(message) = self.undivided(parallel) {
            return fault("accumulate", message);
        }
        let makes_tokens = matches!(self.phase, Phase::Decode | Phase::Generate);
        if !self.shape.has_vocabulary_head() && makes_tokens {
            return fault("phase", format!("family block has no tokens to {}; use train or prefill", self.phase));
        }
        let length =
            if self.phase == Phase::Train { ("seq_len", self.seq_len) } else { ("prompt_len", self.prompt_len) };
        if length.1 == 0 {
            return fault(length.0, "a sequence of 0 tokens has nothing to compute; use 1 or more".into());
        }
        if makes_tokens && self.new_tokens == 0 {
            return fault("new_tokens", format!("{} makes no token with 0; use 1 or more", self.phase));
        }
        let (longest, context) = (self.longest_sequence(), self.shape.context);
        if self.shape.parts().positions == Positions::Learned && longest > context {
            let with = if makes_tokens { format!(" (with new_tokens = {})", self.new_tokens) } else { String::new() };
            let message = format!(
                "{longest} tokens{with} exceed the {context} learned positions; shorten, or raise model.context"
            );
            return fault(length.0, message);
        }
        if let Some(RopeScaling::LongRope { original_context, .. }) = &self.shape.rope.scaling
            && longest > *original_context
        {
            let message = format!(
                "{longest} tokens exceed the {original_context} that this model's rotary positions are for unstretched; longrope's long \
                 factors are not built in; shorten"
            );
            return fault(length.0, message);
        }
        Ok(())
    }

    /// Why it cannot go through stages, if there are several and it cannot.
    fn unstaged(&self, parallel: &Parallel) -> Option<String> {
        let Parallel { pipeline, tensor, sharding, .. } = *parallel;
        if pipeline == 1 {
            return None;
        }
        let stages = format!("{pipeline} stages");
        if self.phase != Phase::Train {
            return Some(format!(
                "{stages} are for phase train, found {}; use parallel.pipeline: 1, or phase: train",
                self.phase
            ));
        }
        if tensor > 1 {
            let message =
                "are not built in where ranks split the layers; use parallel.tensor: 1, or parallel.pipeline: 1";
            return Some(format!("{stages} {message}"));
        }
        sharding.of_gradients().then(|| {
            format!("{stages} are not built in with parallel.sharding: {sharding}; use none or optimizer, or parallel.pipeline: 1")
        })
    }

    /// Why its experts cannot be spread over replicas, if they are to be and cannot.
    fn unspread(&self, parallel: &Parallel) -> Option<String> {
        let Parallel { expert, tensor, pipeline, sharding, .. } = *parallel;
        let others = [
            (tensor > 1, "ranks split the layers; use parallel.tensor: 1"),
            (pipeline > 1, "layers are divided into stages; use parallel.pipeline: 1"),
            (
                self.phase == Phase::Train && sharding != Sharding::None,
                "replicas keep shares of what they have; use parallel.sharding: none",
            ),
        ];
        let (_, why) = others.into_iter().find(|(there, _)| expert > 1 && *there)?;
        Some(format!("experts spread over {expert} ranks are not built in where {why}, or parallel.expert: 1"))
    }

    /// Why a replica's sequences make no micro-batches of one size, if so.
    fn undivided(&self, parallel: &Parallel) -> Option<String> {
        let (each, parts) = (self.batch / parallel.data.max(1), self.levers.accumulate);
        if self.phase != Phase::Train || (parts > 0 && each.is_multiple_of(parts)) {
            return None;
        }
        let fewer = (1..parts).rev().find(|p| each.is_multiple_of(*p)).unwrap_or(1);
        let more = u64::from(each.div_ceil(parts.max(1))) * u64::from(parts.max(1)) * u64::from(parallel.data);
        let sequences = if each == 1 { "sequence of a replica does" } else { "sequences of a replica do" };
        Some(format!(
            "{each} {sequences} not divide into {parts} micro-batches of one size; use {fewer}, or batch: {more}"
        ))
    }
}
