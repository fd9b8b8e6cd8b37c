//! Checkpoints of a launch: made while it learns, and gone on from by the process after one that was ended.
//!
//! A checkpoint has what the session holds, in safetensors files (`transformer/ranks/state.rs`), and the [`Notes`] of the loop, in a
//! manifest that says whose they are. `store.rs` puts both on the disk; `track.rs` knows how far a launch was when it was ended. What
//! cannot be written is said in the launch's figures, and the training goes on.

mod manifest;
mod store;
mod track;

use super::super::protocol::TrialRequest;
use super::learned::Checkpoints;
use super::notes::Notes;
use crate::scenario::learning::{Every, Progress};
use crate::transformer::error::SessionError;
use crate::transformer::session::Session;
use manifest::{Identity, Unusable};
use std::path::{Path, PathBuf};
use store::Store;
use track::{Reached, Track};

/// The variable that holds the folder of a launch's checkpoints; honoured by the trial's process only.
pub(crate) const VARIABLE: &str = "CENTIME_CHECKPOINTS";

/// The file beside the checkpoints that says how far the launch is.
const TRACK: &str = "track";

/// The step of the last checkpoint in a launch's folder, if it has any.
pub(crate) fn last_step(folder: &Path) -> Option<u64> {
    Store { folder: folder.into() }.all().first().map(|(step, _)| *step)
}

/// Who keeps a launch's checkpoints.
#[derive(Debug)]
pub(in crate::runner) struct Keeper {
    every: Every,
    store: Store,
    identity: Identity,
    /// Where the last one was made, or attempted.
    last: Progress,
    track: Option<Track>,
    reached: Reached,
    /// Why the first one of those that failed did.
    failure: Option<String>,
}

impl Keeper {
    /// Of a trial that is to have checkpoints, where there is a place for them.
    pub(in crate::runner) fn of(request: &TrialRequest) -> Option<Self> {
        let every = request.trial.learning.as_ref()?.checkpoint?;
        // Of several processes the first keeps them, and tells the others.
        let leads = request.team.as_ref().is_none_or(|team| team.world.rank == 0);
        let folder = std::env::var_os(VARIABLE).filter(|v| leads && !v.is_empty())?;
        Some(Self::new(every, folder.into(), Identity::of(request)))
    }

    /// Of a launch with this seed of some trial.
    #[cfg(test)]
    pub(super) fn of_test(every: Every, folder: &Path, seed: u64) -> Self {
        Self::new(every, folder.into(), Identity::of_test(seed))
    }

    fn new(every: Every, folder: PathBuf, identity: Identity) -> Self {
        let (last, reached) = (Progress::default(), Reached::default());
        Self { every, store: Store { folder }, identity, last, track: None, reached, failure: None }
    }

    /// Has the session go on from the last checkpoint that is whole, if a process before left any: what it had come to.
    ///
    /// # Errors
    /// A checkpoint of another trial or launch; one that cannot be read although it is whole.
    pub(in crate::runner) fn resume(&mut self, session: &mut dyn Session) -> Result<Notes, SessionError> {
        if let Err(why) = self.store.prepare() {
            // Each checkpoint will try again.
            self.failure = Some(why);
        }
        let (mut found, mut damaged) = (None, Vec::new());
        for (step, path) in self.store.all() {
            match Store::read::<Notes>(&path, &self.identity) {
                Ok(manifest) => {
                    session.restore(&path, manifest.notes.at.step)?;
                    found = Some(manifest.notes);
                    break;
                }
                Err(Unusable::Foreign(why)) => {
                    return Err(SessionError::Invalid(format!(
                        "{}: a checkpoint of another trial or launch: {why}; move the folder away, or start with --fresh",
                        path.display()
                    )));
                }
                Err(Unusable::Damaged(why)) => {
                    Store::put_aside(&path);
                    damaged.push(format!("the checkpoint of step {step} was damaged ({why})"));
                }
            }
        }
        let notes = found.unwrap_or_default();
        self.begin(&notes, damaged);
        Ok(notes)
    }

    /// Counts what a process before has done and this one does again.
    fn begin(&mut self, notes: &Notes, damaged: Vec<String>) {
        self.last = notes.at;
        let opened = Track::open(&self.store.folder.join(TRACK)).ok();
        let (track, before) = opened.map_or((None, None), |(track, before)| (Some(track), before));
        self.track = track;
        let launch = self.identity.digest();
        let before = before.filter(|before| before.launch == launch);
        let known = before.is_some();
        let Reached { at, mut sum, .. } = before.unwrap_or_default();
        if at.step > 0 || notes.at.step > 0 {
            sum.resumed += 1;
            sum.lost_steps += at.step.saturating_sub(notes.at.step);
            sum.lost_seconds += (at.seconds - notes.at.seconds).max(0.0);
            if !known {
                sum.said.push("how many steps were done again is not known".into());
            }
        }
        let instead = match notes.at.step {
            0 => "it began anew".to_string(),
            step => format!("it went on from step {step}"),
        };
        sum.said.extend(damaged.into_iter().map(|what| format!("{what}: {instead}")));
        self.reached = Reached { launch, at: notes.at, sum };
        self.told();
    }

    /// A step has been done.
    pub(super) fn reached(&mut self, at: Progress) {
        self.reached.at = at;
        self.told();
    }

    fn told(&mut self) {
        // Without it the next process does not know what it lost, and nothing else.
        let bare =
            Reached { sum: Checkpoints { said: Vec::new(), ..self.reached.sum.clone() }, ..self.reached.clone() };
        let _ = self.track.as_mut().map(|track| track.write(&bare));
    }

    /// Whether a checkpoint is to be made now.
    pub(super) fn is_due(&self) -> bool {
        let (at, last) = (self.reached.at, self.last);
        match self.every {
            Every::Steps(steps) => at.step - last.step >= steps,
            Every::Seconds(seconds) => at.seconds - last.seconds >= seconds,
        }
    }

    /// Makes one. That it cannot be made is counted, and told at the end.
    pub(super) fn make(&mut self, session: &mut dyn Session, notes: &Notes) {
        self.last = notes.at;
        let made = self.store.make(notes.at.step, (&self.identity, notes), |folder| session.save(folder));
        let sum = &mut self.reached.sum;
        match made {
            Ok(bytes) => (sum.made, sum.bytes) = (sum.made + 1, bytes),
            Err(why) => {
                sum.failed += 1;
                self.failure.get_or_insert(why);
            }
        }
    }

    /// The last one took so long.
    pub(super) fn took(&mut self, seconds: f64) {
        self.reached.sum.seconds += seconds;
        self.told();
    }

    /// What became of all of them.
    pub(super) fn finish(self) -> Checkpoints {
        let mut sum = self.reached.sum;
        if sum.failed > 0 {
            let all = sum.made + sum.failed;
            let why = self.failure.map_or(String::new(), |why| format!(" ({why})"));
            sum.said.push(format!("{} of {all} checkpoints could not be written{why}", sum.failed));
        }
        sum
    }
}
