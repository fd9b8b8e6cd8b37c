//! What the backend itself keeps on a device: what differs from step to step, tokens on their way, and scratch memory that one
//! operation after the other uses.

use super::super::backend::Frequencies;
use super::super::error::SessionError;
use super::buffer::{Memory, words};
use super::device::{Address, Device};
use super::rope::Angles;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Scratch starts and grows by whole such pieces.
const PIECE: usize = 1 << 20;

/// Memory of one purpose, which grows to what was asked for most.
#[derive(Debug, Default)]
struct Growing {
    now: Option<Memory>,
    /// Outgrown, and still in graphs.
    kept: Vec<Memory>,
}

/// What operations read that differs from step to step, a place of the device each; [`Slot::BYTES`] apart. An operation is given
/// the place and not the value, so that a captured step goes on with what is there when it is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    /// Where a pass starts: an `int`.
    Position,
    /// The row of the table of learned positions that it starts with: an `int`.
    PositionRow,
    /// The last loss, an f32.
    Loss,
    /// What a mean over targets multiplies by, an f32.
    Scale,
    /// Seed of a step's dropout: 64 bits.
    Dropout,
    /// Constants of a step of the optimizer.
    Update,
}

impl Slot {
    const BYTES: usize = 256;
    const COUNT: usize = 6;
}

#[derive(Debug, Default)]
struct Inner {
    /// What was written to a place last.
    told: HashMap<Slot, Vec<u8>>,
    capturing: bool,
    /// Whether anything has been captured: its addresses must last.
    captured: bool,
    scratch: Growing,
    tokens: Growing,
    counts: Growing,
    expanded: Growing,
    /// A model has one set of them.
    angles: Vec<(Frequencies, Memory)>,
    lasting: HashMap<Vec<u8>, Memory>,
    failure: Option<SessionError>,
}

/// The backend's own memory on a device.
#[derive(Debug)]
pub(super) struct State {
    device: Arc<dyn Device>,
    /// All places.
    places: Memory,
    inner: Mutex<Inner>,
}

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Scratch,
    Tokens,
    Counts,
    Expanded,
}

impl State {
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(super) fn new(device: &Arc<dyn Device>) -> Result<Self, SessionError> {
        let places = Memory::new(device, Slot::COUNT * Slot::BYTES)?;
        Ok(Self { device: Arc::clone(device), places, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where this lies.
    pub(super) fn at(&self, place: Slot) -> Address {
        self.places.at + (place as usize * Slot::BYTES) as Address
    }

    /// The place that holds these bytes, written if it holds others.
    pub(super) fn tell(&self, place: Slot, bytes: &[u8]) -> Address {
        let mut inner = self.lock();
        if inner.told.get(&place).is_none_or(|told| told != bytes) {
            if inner.capturing {
                let what = format!("a captured step has two of what differs by step alone ({place:?})");
                inner.failure.get_or_insert(SessionError::Device(what));
            } else {
                self.device.write(bytes, self.at(place));
                inner.told.insert(place, bytes.to_vec());
            }
        }
        self.at(place)
    }

    /// The word that holds `position`.
    pub(super) fn position(&self, position: usize) -> Address {
        self.number(Slot::Position, position)
    }

    /// The word that holds the row of the table of learned positions.
    pub(super) fn position_row(&self, row: usize) -> Address {
        self.number(Slot::PositionRow, row)
    }

    fn number(&self, place: Slot, number: usize) -> Address {
        self.tell(place, &i32::try_from(number).unwrap_or(i32::MAX).to_ne_bytes())
    }

    /// The word that holds the seed of a step's dropout.
    pub(super) fn dropout(&self, seed: u64) -> Address {
        self.tell(Slot::Dropout, &seed.to_ne_bytes())
    }

    /// Bytes that stay as long as the device's memory does: written once, and found again by their content. For lists of addresses,
    /// which are the same in every step.
    pub(super) fn lasting(&self, bytes: Vec<u8>) -> Option<Address> {
        let mut inner = self.lock();
        if let Some(memory) = inner.lasting.get(&bytes) {
            return Some(memory.at);
        }
        let made = if inner.capturing {
            Err(SessionError::Device("a captured step has a list that the step before had not".into()))
        } else {
            Memory::new(&self.device, bytes.len())
        };
        match made {
            Ok(memory) => {
                let at = memory.at;
                self.device.write(&bytes, at);
                inner.lasting.insert(bytes, memory);
                Some(at)
            }
            Err(e) => {
                inner.failure.get_or_insert(e);
                None
            }
        }
    }

    /// Scratch memory for one operation; the next may have the same. `None` where there is no more, which [`State::failure`] tells.
    pub(super) fn scratch(&self, bytes: usize) -> Option<Address> {
        self.grown(Purpose::Scratch, bytes)
    }

    /// These angles on the device.
    pub(super) fn angles(&self, of: &Frequencies) -> Option<Angles> {
        let mut inner = self.lock();
        let angles = |frequencies| Angles { frequencies, pairs: of.radians.len(), longer: of.factor };
        if let Some((_, memory)) = inner.angles.iter().find(|(known, _)| known == of) {
            return Some(angles(memory.at));
        }
        match Memory::new(&self.device, 4 * of.radians.len()) {
            Ok(memory) => {
                let at = memory.at;
                self.device.write(&words(of.radians.iter().map(|x| x.to_ne_bytes())), at);
                inner.angles.push((of.clone(), memory));
                Some(angles(at))
            }
            Err(e) => {
                inner.failure.get_or_insert(e);
                None
            }
        }
    }

    /// Words of nobody but the operation that counts in them: zero at first, and again after each run of it.
    pub(super) fn counts(&self, bytes: usize) -> Option<Address> {
        self.grown(Purpose::Counts, bytes)
    }

    /// Room for rows of a weight that are expanded for a product, beside its scratch; the next may have the same.
    pub(super) fn expanded(&self, bytes: usize) -> Option<Address> {
        self.grown(Purpose::Expanded, bytes)
    }

    /// Puts words where they stay until the next are put there.
    pub(super) fn put(&self, list: &[u32]) -> Option<Address> {
        let place = self.grown(Purpose::Tokens, 4 * list.len())?;
        self.device.write(&words(list.iter().map(|w| w.to_ne_bytes())), place);
        Some(place)
    }

    fn grown(&self, purpose: Purpose, bytes: usize) -> Option<Address> {
        let mut inner = self.lock();
        let keep = inner.captured;
        let growing = match purpose {
            Purpose::Scratch => &mut inner.scratch,
            Purpose::Tokens => &mut inner.tokens,
            Purpose::Counts => &mut inner.counts,
            Purpose::Expanded => &mut inner.expanded,
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
    pub(super) fn set_capturing(&self, on: bool) {
        let mut inner = self.lock();
        inner.capturing = on;
        inner.captured |= on;
    }

    /// Remembers a failure of the backend's own, unless there has been one.
    pub(super) fn fail(&self, failure: SessionError) {
        self.lock().failure.get_or_insert(failure);
    }

    /// Bytes that it holds.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let inner = self.lock();
        let grown = [&inner.scratch, &inner.tokens, &inner.counts, &inner.expanded]
            .into_iter()
            .flat_map(|g| g.now.iter().chain(&g.kept));
        let kept = inner.angles.iter().map(|(_, memory)| memory).chain(inner.lasting.values());
        let all = grown.chain(kept).chain([&self.places]);
        all.map(|m| m.bytes).sum()
    }

    /// The first failure of the backend's own since the last call.
    pub(super) fn failure(&self) -> Result<(), SessionError> {
        self.lock().failure.take().map_or(Ok(()), Err)
    }
}
