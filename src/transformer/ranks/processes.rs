//! A session of several processes: rank 0 leads, and each of its steps is one of all.
//!
//! A step is one message to every other process and one back, which holds what its ranks found; the step has ended when the last one is
//! there. On one machine that round trip takes about 15 microseconds (`wire.rs` has the measurement), beside what waking up costs.

use super::super::checkpoint::written::Written;
use super::super::collective::net::Net;
use super::super::course::Course;
use super::super::error::SessionError;
use super::super::session::{Session, StepOutcome};
use super::one::RankOutcome;
use super::threads::{Ranks, mean_loss};
use crate::net::lost::{How, Lost, Peer};
use std::path::Path;
use std::time::{Duration, Instant};

/// What a message begins with.
const STEP: u8 = 1;
const END: u8 = 2;
const READY: u8 = 3;
const DONE: u8 = 4;
const FAILED: u8 = 5;
const FAILED_FOR_MEMORY: u8 = 6;
const FAILED_BY_OTHERS: u8 = 7;
/// With a learning rate, 4 bytes.
const TRAIN: u8 = 8;
/// With a number of batches, 8 bytes.
const EVALUATE: u8 = 9;
/// With a folder.
const SAVE: u8 = 10;
/// What a process wrote there, or why it could not, in JSON.
const SAVED: u8 = 11;
/// With a number of steps, 8 bytes, and a folder.
const RESTORE: u8 = 12;

/// How long others may take to say why they failed, when it is known that one has.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// This process's ranks among those of all.
pub(in crate::transformer) struct Together {
    ranks: Ranks,
    net: Net,
    failed: bool,
}

impl Together {
    /// Waits until all processes are ready, or one is known not to be.
    ///
    /// # Errors
    /// What keeps this process from it, or else what keeps another, by its rank.
    pub(crate) fn form(made: Result<Ranks, SessionError>, net: Net) -> Result<Self, SessionError> {
        let own = made.as_ref().map(|_| ()).map_err(Clone::clone);
        if !net.leads() {
            let word = own.as_ref().map_or_else(failure, |()| vec![READY]);
            net.wires.iter().try_for_each(|wire| wire.send(&word))?;
            return Ok(Self { ranks: made?, net, failed: false });
        }
        let heard = hear_all(&net, own, |word| (word == [READY]).then_some(()));
        if let Err(e) = heard {
            tell(&net, &failure(&e));
            return Err(e);
        }
        Ok(Self { ranks: made?, net, failed: false })
    }
}

/// What all others say to rank 0, understood by `read`. A reason of its own goes before one that is only a consequence.
fn hear_all<T>(
    net: &Net,
    own: Result<(), SessionError>,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, SessionError> {
    let (mut all, mut failure, mut word) = (Vec::new(), own.err(), Vec::new());
    for wire in &net.wires {
        if failure.as_ref().is_some_and(|f| !f.is_consequence()) {
            break;
        }
        if failure.is_some() {
            let _ = wire.wait_at_most(LAST_WORDS);
        }
        let said = match wire.receive(&mut word) {
            Ok(()) => match read(&word) {
                Some(understood) => Ok(understood),
                None => Err(said_failure(wire.peer, &word)),
            },
            Err(e) => Err(e.into()),
        };
        match said {
            Ok(understood) => all.push(understood),
            // To be missed by a process that is still there says less than to be gone.
            Err(e) if failure.is_none() || !e.is_consequence() => failure = Some(e),
            Err(SessionError::Lost(gone @ Lost { how: How::Gone, .. })) => failure = Some(gone.into()),
            Err(_) => {}
        }
    }
    failure.map_or(Ok(all), Err)
}

fn tell(net: &Net, word: &[u8]) {
    // Who is gone need not be told.
    net.wires.iter().for_each(|wire| drop(wire.send(word)));
}

fn failure(e: &SessionError) -> Vec<u8> {
    let (kind, text) = match e {
        SessionError::OutOfMemory(why) => (FAILED_FOR_MEMORY, why.clone()),
        e if e.is_consequence() => (FAILED_BY_OTHERS, e.to_string()),
        e => (FAILED, e.to_string()),
    };
    let mut word = vec![kind];
    word.extend(text.bytes().take(4000));
    word
}

fn said_failure(peer: Peer, word: &[u8]) -> SessionError {
    let wrong = |what: &str| Lost { peer, how: How::Wrong(what.into()) }.into();
    let Some((kind, text)) = word.split_first() else { return wrong("said nothing") };
    let text = String::from_utf8_lossy(text).into_owned();
    match *kind {
        FAILED_FOR_MEMORY => SessionError::OutOfMemory(format!("{peer}: {text}")),
        FAILED => SessionError::Invalid(format!("{peer}: {text}")),
        FAILED_BY_OTHERS => Lost { peer, how: How::Told(text) }.into(),
        _ => wrong("said something out of turn"),
    }
}

fn done(outcomes: &[RankOutcome]) -> Vec<u8> {
    let mut word = vec![DONE];
    for o in outcomes {
        word.push(u8::from(o.loss.is_some()));
        word.extend(o.loss.unwrap_or(0.0).to_le_bytes());
        word.push(u8::from(o.first_token_seconds.is_some()));
        word.extend(o.first_token_seconds.unwrap_or(0.0).to_le_bytes());
        word.extend((o.trace.len() as u32).to_le_bytes());
        o.trace.iter().for_each(|t| word.extend(t.to_le_bytes()));
    }
    word
}

fn read_done(word: &[u8]) -> Option<Vec<RankOutcome>> {
    fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
        let (first, more) = rest.split_first_chunk::<N>()?;
        *rest = more;
        Some(*first)
    }
    let mut rest = word.strip_prefix(&[DONE])?;
    let mut outcomes = Vec::new();
    while !rest.is_empty() {
        let [has_loss] = take(&mut rest)?;
        let loss = f32::from_le_bytes(take(&mut rest)?);
        let [has_first] = take(&mut rest)?;
        let first = f64::from_le_bytes(take(&mut rest)?);
        let words = u32::from_le_bytes(take(&mut rest)?) as usize;
        let mut trace = Vec::with_capacity(words.min(word.len()));
        for _ in 0..words {
            trace.push(u32::from_le_bytes(take(&mut rest)?));
        }
        let (loss, first_token_seconds) = ((has_loss == 1).then_some(loss), (has_first == 1).then_some(first));
        outcomes.push(RankOutcome { loss, first_token_seconds, trace });
    }
    Some(outcomes)
}

/// What this process's ranks do when they are told `word`; `None` where that is nothing that ranks do.
fn obeyed(ranks: &mut Ranks, word: &[u8]) -> Option<Result<Vec<RankOutcome>, SessionError>> {
    match word {
        [STEP] => Some(ranks.outcomes()),
        [TRAIN, rate @ ..] => Some(ranks.outcomes_at(f32::from_le_bytes(rate.try_into().ok()?))),
        [RESTORE, rest @ ..] => {
            let (step, folder) = rest.split_first_chunk()?;
            let folder = Path::new(std::str::from_utf8(folder).ok()?);
            Some(ranks.restore(folder, u64::from_le_bytes(*step)).map(|()| Vec::new()))
        }
        [EVALUATE, batches @ ..] => Some(ranks.evaluations(u64::from_le_bytes(batches.try_into().ok()?))),
        _ => None,
    }
}

impl Together {
    /// Has all ranks of all processes do the same: what each found.
    fn all(&mut self, word: &[u8]) -> Result<Vec<RankOutcome>, SessionError> {
        tell(&self.net, word);
        let (mut outcomes, own) = match obeyed(&mut self.ranks, word) {
            Some(Ok(outcomes)) => (outcomes, Ok(())),
            Some(Err(e)) => (Vec::new(), Err(e)),
            None => (Vec::new(), Err(SessionError::Invalid("ranks were told what they do not know".into()))),
        };
        match hear_all(&self.net, own, read_done) {
            Ok(others) => outcomes.extend(others.into_iter().flatten()),
            Err(e) => {
                self.failed = true;
                tell(&self.net, &failure(&e));
                return Err(e);
            }
        }
        Ok(outcomes)
    }
}

/// A folder in a message.
fn named(folder: &Path) -> Result<&str, String> {
    let not_text = || format!("{}: expected a folder whose path is UTF-8", folder.display());
    folder.to_str().ok_or_else(not_text)
}

/// What this process's ranks answer to [`SAVE`] with a folder.
fn saved(ranks: &mut Ranks, folder: &[u8]) -> Vec<u8> {
    let folder = std::str::from_utf8(folder).map_err(|e| e.to_string());
    let written: Result<Vec<Written>, String> = folder.and_then(|folder| ranks.save(Path::new(folder)));
    let mut word = vec![SAVED];
    word.extend(serde_json::to_vec(&written).unwrap_or_default());
    word
}

fn read_saved(word: &[u8]) -> Option<Result<Vec<Written>, String>> {
    serde_json::from_slice(word.strip_prefix(&[SAVED])?).ok()
}

impl Session for Together {
    fn step(&mut self) -> Result<StepOutcome, SessionError> {
        let outcomes = self.all(&[STEP])?;
        Ok(self.ranks.sum_up(&outcomes))
    }

    fn enrol(&mut self, course: Course) -> Result<(), SessionError> {
        self.ranks.enrol(course)
    }

    fn train(&mut self, rate: f32) -> Result<StepOutcome, SessionError> {
        let outcomes = self.all(&[&[TRAIN][..], &rate.to_le_bytes()].concat())?;
        Ok(self.ranks.sum_up(&outcomes))
    }

    fn evaluate(&mut self, batches: u64) -> Result<f64, SessionError> {
        let outcomes = self.all(&[&[EVALUATE][..], &batches.to_le_bytes()].concat())?;
        mean_loss(&outcomes).map(f64::from).ok_or_else(|| SessionError::Invalid("no rank told of a loss".into()))
    }

    fn save(&mut self, folder: &Path) -> Result<Vec<Written>, String> {
        tell(&self.net, &[&[SAVE][..], named(folder)?.as_bytes()].concat());
        let own = self.ranks.save(folder);
        let others = hear_all(&self.net, Ok(()), read_saved).map_err(|e| {
            self.failed = true;
            tell(&self.net, &failure(&e));
            e.to_string()
        })?;
        let mut all = own?;
        for written in others {
            all.extend(written?);
        }
        let here = |w: &&Written| folder.join(&w.file).metadata().is_ok_and(|m| m.len() == w.bytes);
        match all.iter().find(|w| !here(w)) {
            Some(Written { file, .. }) => {
                let folder = folder.display();
                Err(format!(
                    "{folder}: another process has written {file}, and it is not there; use a folder that all processes share"
                ))
            }
            None => Ok(all),
        }
    }

    fn restore(&mut self, folder: &Path, step: u64) -> Result<(), SessionError> {
        let folder = named(folder).map_err(SessionError::Invalid)?;
        self.all(&[&[RESTORE][..], &step.to_le_bytes(), folder.as_bytes()].concat()).map(drop)
    }

    fn waited(&self) -> Option<f64> {
        self.ranks.waited()
    }

    fn checksum(&self) -> u32 {
        self.ranks.checksum()
    }

    fn follow(&mut self) -> Result<Vec<f64>, SessionError> {
        let (mut seconds, mut word) = (Vec::new(), Vec::new());
        let Some(leader) = self.net.wires.first().filter(|_| !self.net.leads()) else { return Ok(seconds) };
        loop {
            leader.receive(&mut word)?;
            if word == [END] {
                return Ok(seconds);
            }
            if let [SAVE, folder @ ..] = word.as_slice() {
                leader.send(&saved(&mut self.ranks, folder))?;
                continue;
            }
            let begun = Instant::now();
            let Some(outcomes) = obeyed(&mut self.ranks, &word) else {
                return Err(match said_failure(leader.peer, &word) {
                    why if why.is_consequence() => why,
                    // That rank 0 failed is all that it means here.
                    why => SessionError::Apart(why.to_string()),
                });
            };
            leader.send(&outcomes.as_ref().map_or_else(failure, |o| done(o)))?;
            outcomes?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        if self.net.leads() && !self.failed {
            tell(&self.net, &[END]);
        }
    }
}

#[cfg(test)]
#[path = "processes_tests.rs"]
mod tests;
