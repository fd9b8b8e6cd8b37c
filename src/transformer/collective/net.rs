//! The processes of one trial, connected: rank 0 with each of the others.

use super::super::error::SessionError;
use crate::net::lost::Peer;
use crate::net::rendezvous::{RendezvousError, gathered, join};
use crate::net::wire::Wire;
use crate::net::world::World;
use std::net::TcpListener;
use std::ops::Range;
use std::time::Duration;

/// This process's connections.
#[derive(Debug)]
pub(crate) struct Net {
    pub world: World,
    /// The same for all that do the same work.
    pub key: u64,
    /// How long processes wait for one another.
    pub patience: Duration,
    /// Of rank 0: to all others, in the order of their ranks; of the others: to rank 0.
    pub(in super::super) wires: Vec<Wire>,
    /// Addresses of the others as they came; empty but in rank 0.
    pub(super) hosts: Vec<String>,
}

impl Net {
    /// Meets the others of `world`; rank 0 does so at `listener`. Both who does not come and who then says nothing are given up after
    /// `patience`.
    ///
    /// # Errors
    /// [`SessionError::Apart`] with what kept them apart.
    pub(crate) fn meet(
        world: World,
        key: u64,
        listener: Option<&TcpListener>,
        patience: Duration,
    ) -> Result<Self, SessionError> {
        let apart = |e: RendezvousError| SessionError::Apart(e.to_string());
        let streams = match listener {
            Some(listener) => gathered(listener, world.size, key, patience).map_err(apart)?,
            None => vec![join(&world, key, patience).map_err(apart)?],
        };
        let first = usize::from(listener.is_some());
        let mut hosts = Vec::new();
        if listener.is_some() {
            for stream in &streams {
                let peer = stream.peer_addr().map_err(|e| SessionError::Apart(e.to_string()))?.ip();
                // Who comes by loopback is on this node, which others reach by its name.
                hosts.push(if peer.is_loopback() { world.host.clone() } else { peer.to_string() });
            }
        }
        let named = streams.into_iter().zip(first..);
        let wires = named.map(|(stream, rank)| Wire::new(stream, Peer::Rank(rank), patience));
        let wires = wires.collect::<Result<_, _>>()?;
        Ok(Self { world, key, patience, wires, hosts })
    }

    /// Whether this process decides what all do.
    pub(crate) fn leads(&self) -> bool {
        self.world.rank == 0
    }

    /// The ranks of a trial of `all` that are this process's: each has an equal, connected part.
    ///
    /// # Errors
    /// Ranks that do not divide.
    pub(crate) fn part_of(&self, all: usize) -> Result<Range<usize>, SessionError> {
        let World { rank, size, .. } = self.world;
        if all == 0 || !all.is_multiple_of(size) {
            return Err(SessionError::Invalid(does_not_divide(all, size)));
        }
        let here = all / size;
        Ok(rank * here..(rank + 1) * here)
    }

    /// What rank 0 has to say, in every process.
    ///
    /// # Errors
    /// A process that is gone.
    pub(crate) fn told(&self, own: Vec<u8>) -> Result<Vec<u8>, SessionError> {
        if self.leads() {
            self.wires.iter().try_for_each(|wire| wire.send(&own))?;
            return Ok(own);
        }
        let mut heard = Vec::new();
        self.wires.iter().try_for_each(|wire| wire.receive(&mut heard))?;
        Ok(heard)
    }
}

/// "3 devices do not divide among 2 processes; use a multiple of 2".
pub(crate) fn does_not_divide(devices: usize, processes: usize) -> String {
    let (s, verb) = if devices == 1 { ("", "does") } else { ("s", "do") };
    format!("{devices} device{s} {verb} not divide among {processes} processes; use a multiple of {processes}")
}

#[cfg(test)]
#[path = "net_tests.rs"]
pub(crate) mod tests;
