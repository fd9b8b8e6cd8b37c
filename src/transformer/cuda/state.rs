//! What the backend itself keeps on a device: the position that a pass starts at, tokens on their way, the loss, and scratch
//! memory that one operation after the other uses.

use super::super::backend::Frequencies;
use super::super::error::SessionError;
use super::buffer::{Memory, words};
use super::device::{Address, Device};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Scratch starts and grows by whole such pieces.
const PIECE: usize = 1 << 20;

/// Memory of one purpose, which grows to what was asked for most.
#[derive(Debug, Default)]
struct Growing {
    now: Option<Memory>,
    /// Outgrown, and still in recordings.
    kept: Vec<Memory>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What is in the position's word, where that is known.
    position: Option<usize>,
    recording: bool,
    /// Whether anything has been recorded: its addresses must last.
    recorded: bool,
    scratch: Growing,
    tokens: Growing,
    counts: Growing,
    /// A model has one set of them.
    angles: Vec<Angles>,
    failure: Option<SessionError>,
}

/// Angles of rotary positions, on the device.
#[derive(Debug)]
struct Angles {
    of: Frequencies,
    memory: Memory,
}

/// The backend's own memory on a device.
#[derive(Debug)]
pub(super) struct State {
    device: Arc<dyn Device>,
    /// Position, then loss: a word each, 256 bytes apart.
    words: Memory,
    inner: Mutex<Inner>,
}

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Scratch,
    Tokens,
    Counts,
}

impl State {
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub fn new(device: &Arc<dyn Device>) -> Result<Self, SessionError> {
        let words = Memory::new(device, 512)?;
        Ok(Self { device: Arc::clone(device), words, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The word that holds `position`, written if it holds another.
    pub fn position(&self, position: usize) -> Address {
        let mut inner = self.lock();
        if inner.position != Some(position) {
            if inner.recording {
                let what = "a recorded step starts at two positions".to_string();
                inner.failure.get_or_insert(SessionError::Device(what));
            } else {
                self.device.write(&i32::try_from(position).unwrap_or(i32::MAX).to_ne_bytes(), self.words.at);
                inner.position = Some(position);
            }
        }
        self.words.at
    }

    /// The word of the last loss.
    pub fn loss(&self) -> Address {
        self.words.at + 256
    }

    /// Scratch memory for one operation; the next may have the same. `None` where there is no more, which [`State::failure`] tells.
    pub fn scratch(&self, bytes: usize) -> Option<Address> {
        self.grown(Purpose::Scratch, bytes)
    }

    /// Where these angles lie.
    pub fn angles(&self, of: &Frequencies) -> Option<Address> {
        let mut inner = self.lock();
        if let Some(known) = inner.angles.iter().find(|a| a.of == *of) {
            return Some(known.memory.at);
        }
        match Memory::new(&self.device, 4 * of.0.len()) {
            Ok(memory) => {
                let at = memory.at;
                self.device.write(&words(of.0.iter().map(|x| x.to_ne_bytes())), at);
                inner.angles.push(Angles { of: of.clone(), memory });
                Some(at)
            }
            Err(e) => {
                inner.failure.get_or_insert(e);
                None
            }
        }
    }

    /// Words of nobody but the operation that counts in them: zero at first, and again after each run of it.
    pub fn counts(&self, bytes: usize) -> Option<Address> {
        self.grown(Purpose::Counts, bytes)
    }

    /// Puts lists of words where they stay until the next are put there.
    pub fn put<const N: usize>(&self, lists: [&[u32]; N]) -> Option<[Address; N]> {
        let bytes = lists.map(|l| words(l.iter().map(|w| w.to_ne_bytes())));
        self.put_bytes(bytes.each_ref().map(Vec::as_slice))
    }

    /// The same of bytes.
    pub fn put_bytes<const N: usize>(&self, lists: [&[u8]; N]) -> Option<[Address; N]> {
        let sizes = lists.map(|l| l.len().next_multiple_of(256));
        let mut next = self.grown(Purpose::Tokens, sizes.iter().sum())?;
        let mut places = [0; N];
        for ((place, list), size) in places.iter_mut().zip(lists).zip(sizes) {
            self.device.write(list, next);
            *place = next;
            next += size as Address;
        }
        Some(places)
    }

    fn grown(&self, purpose: Purpose, bytes: usize) -> Option<Address> {
        let mut inner = self.lock();
        let keep = inner.recorded;
        let growing = match purpose {
            Purpose::Scratch => &mut inner.scratch,
            Purpose::Tokens => &mut inner.tokens,
            Purpose::Counts => &mut inner.counts,
        };
        if let Some(m) = growing.now.as_ref().filter(|m| m.bytes >= bytes) {
            return Some(m.at);
        }
        let old = growing.now.take();
        growing.kept.extend(old.filter(|_| keep));
        match Memory::new(&self.device, bytes.next_multiple_of(PIECE)) {
            Ok(memory) => Some(growing.now.insert(memory).at),
            Err(e) => {
                inner.failure.get_or_insert(e);
                None
            }
        }
    }

    /// Whether operations are being written down.
    pub fn set_recording(&self, on: bool) {
        let mut inner = self.lock();
        inner.recording = on;
        inner.recorded |= on;
    }

    /// Remembers a failure of the backend's own, unless there has been one.
    pub fn fail(&self, failure: SessionError) {
        self.lock().failure.get_or_insert(failure);
    }

    /// Bytes that it holds.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let inner = self.lock();
        let grown =
            [&inner.scratch, &inner.tokens, &inner.counts].into_iter().flat_map(|g| g.now.iter().chain(&g.kept));
        let all = grown.chain(inner.angles.iter().map(|a| &a.memory)).chain([&self.words]);
        all.map(|m| m.bytes).sum()
    }

    /// The first failure of the backend's own since the last call.
    pub fn failure(&self) -> Result<(), SessionError> {
        self.lock().failure.take().map_or(Ok(()), Err)
    }
}
