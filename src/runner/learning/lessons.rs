//! A trial's text as the transformer takes it.

use super::super::protocol::TrialRequest;
use super::checkpoints::Keeper;
use super::learned::Text;
use super::study::{Start, Terms};
use crate::data::{Cut, Prepared, Split, cache_folder, prepare};
use crate::scenario::learning::Learning;
use crate::transformer::course::{Batches, Course, Pair, Part};
use crate::transformer::error::SessionError;
use crate::transformer::session::Session;
use std::sync::Arc;
use std::time::Instant;

/// Batches of a text that is ready.
#[derive(Debug)]
struct Read {
    text: Prepared,
    /// Of the order in which it is read.
    seed: u64,
}

impl Read {
    fn batch(&self, split: Split, index: u64, part: Part) -> Pair {
        let [batch, seq_len] = [part.sequences, part.tokens].map(|n| n as u32);
        let [replica, of] = [part.replica, part.replicas].map(|n| n as u32);
        let batch = self.text.batch(split, &Cut { batch, seq_len, seed: self.seed, replica, of }, index);
        (batch.ids, batch.targets)
    }
}

impl Batches for Read {
    fn training(&self, step: u64, part: Part) -> Pair {
        self.batch(Split::Train, step, part)
    }

    fn validation(&self, batch: u64, part: Part) -> Pair {
        self.batch(Split::Validation, batch, part)
    }
}

/// All that a trial is taught by.
#[derive(Debug)]
pub(in crate::runner) struct Lessons<'a> {
    request: &'a TrialRequest,
    learning: &'a Learning,
    read: Arc<Read>,
    text: Text,
    /// Whole batches of the validation text.
    available: u64,
}

/// The text of a trial that is to learn something, made ready or found in the cache.
///
/// # Errors
/// What is wrong with the text; too little of it; a target that nothing can reach.
pub(in crate::runner) fn prepared(request: &TrialRequest) -> Result<Option<Lessons<'_>>, String> {
    let Some(learning) = &request.trial.learning else { return Ok(None) };
    let (begun, w) = (Instant::now(), &request.trial.workload);
    let text = prepare(&learning.data, cache_folder().as_deref(), &mut |_| {}).map_err(|e| e.to_string())?;
    text.check(w.seq_len).map_err(|e| e.to_string())?;
    let available = text.sequences(Split::Validation, w.seq_len) / u64::from(w.batch.max(1));
    if available == 0 {
        let there = text.tokens(Split::Validation);
        return Err(format!(
            "data: expected a batch of {} sequences of {} tokens for validation, found {there} tokens; give more text, a smaller batch or \
             a shorter seq_len",
            w.batch, w.seq_len
        ));
    }
    let facts = text.facts();
    let found = Text {
        train_tokens: text.tokens(Split::Train),
        validation_tokens: text.tokens(Split::Validation),
        bytes_per_token: facts.bytes_a_token(),
        entropy: facts.floor(w.seq_len),
        preparation_seconds: begun.elapsed().as_secs_f64(),
    };
    if let Some((target, least)) =
        learning.until.validation_loss.zip(found.entropy).filter(|(target, least)| target < least)
    {
        return Err(format!(
            "until.validation_loss: {target} is below the entropy of the language, {least:.4} nats a token, which no model gets under"
        ));
    }
    let read = Arc::new(Read { text, seed: request.measure.seed });
    Ok(Some(Lessons { request, learning, read, text: found, available }))
}

impl Lessons<'_> {
    /// What a session is taught by.
    pub(in crate::runner) fn course(&self) -> Course {
        Course { batches: self.read.clone(), weight_decay: self.learning.schedule.weight_decay }
    }

    /// Where a session that is taught begins: at its first step, or where a process before was ended.
    ///
    /// # Errors
    /// A checkpoint that is there and of something else.
    pub(in crate::runner) fn start(&self, session: &mut dyn Session) -> Result<Start, SessionError> {
        let Some(mut keeper) = Keeper::of(self.request) else { return Ok(Start::default()) };
        Ok(Start { notes: keeper.resume(session)?, keeper: Some(keeper) })
    }

    /// What is to be done, when so many seconds have gone.
    pub(in crate::runner) fn terms(&self, gone_seconds: f64) -> Terms<'_> {
        let tokens_per_step = self.request.trial.workload.tokens_per_step();
        Terms {
            learning: self.learning,
            text: self.text,
            seed: self.request.measure.seed,
            tokens_per_step,
            batches: self.learning.evaluation_batches(tokens_per_step, self.available),
            timeout_seconds: self.request.measure.timeout_seconds,
            gone_seconds,
        }
    }
}
