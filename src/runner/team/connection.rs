//! A connection to another process of the sweep that is listened to all the time.

use super::{BEAT, TeamError};
use crate::net::lost::{How, Lost};
use crate::net::wire::Wire;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A connection that is listened to all the time.
#[derive(Debug)]
pub(super) struct Line {
    wire: Wire,
    speaking: Arc<Mutex<()>>,
    heard: Receiver<Result<Vec<u8>, Lost>>,
}

impl Line {
    pub(super) fn new(wire: Wire) -> Result<Self, Lost> {
        let (ear, mouth, speaking) = (wire.twin()?, wire.twin()?, Arc::new(Mutex::new(())));
        let (say, heard) = channel();
        let listen = move || {
            let mut message = Vec::new();
            loop {
                let said = ear.receive(&mut message).map(|()| std::mem::take(&mut message));
                let over = said.is_err();
                if said.as_ref().is_ok_and(Vec::is_empty) {
                    continue;
                }
                if say.send(said).is_err() || over {
                    return;
                }
            }
        };
        let turn = Arc::clone(&speaking);
        let beat = move || {
            loop {
                thread::sleep(BEAT);
                let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                if mouth.send(b"").is_err() {
                    return;
                }
            }
        };
        let failed = |e: std::io::Error| wire.lost(How::Failed(format!("gets no thread: {e}")));
        thread::Builder::new().name("team-listen".into()).spawn(listen).map_err(failed)?;
        thread::Builder::new().name("team-beat".into()).spawn(beat).map_err(failed)?;
        Ok(Self { wire, speaking, heard })
    }

    pub(super) fn say(&self, message: &impl Serialize) -> Result<(), Lost> {
        let text =
            serde_json::to_vec(message).map_err(|e| self.wire.lost(How::Failed(format!("cannot be told: {e}"))))?;
        let _turn = self.speaking.lock().unwrap_or_else(PoisonError::into_inner);
        self.wire.send(&text)
    }

    /// What has been said, within `patience`.
    pub(super) fn hear<T: DeserializeOwned>(&self, patience: Duration) -> Result<Option<T>, TeamError> {
        match self.heard.recv_timeout(patience) {
            Ok(said) => match serde_json::from_slice(&said?) {
                Ok(message) => Ok(Some(message)),
                Err(_) => Err(TeamError::Foreign(self.wire.peer)),
            },
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.wire.lost(How::Gone).into()),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.wire.hang_up();
    }
}
