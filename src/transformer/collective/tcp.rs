//! Ranks of several processes whose buffers lie in host memory: a star over TCP for each group. The group's first rank, its hub, is
//! sent every rank's elements, adds them in the order of the ranks, and sends the result back: the same bits as
//! [`super::threads`] gives.
//!
//! The hub moves `2 (ranks - 1)` times a buffer's bytes through one connection after another. That is for tests, and for small
//! clusters of CPUs, not for speed.

use super::super::error::SessionError;
use super::grid::{Groups, Of, Parallel, groups};
use super::net::Net;
use super::threads::Exchange;
use super::{Collective, Counts, Job, Reduce, Ticket, share};
use crate::net::lost::{How, Peer};
use crate::net::rendezvous::listen;
use crate::net::wire::Wire;
use std::collections::HashMap;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Elements of a message.
const CHUNK: usize = 1 << 16;

/// Between two looks at who has come.
const LOOK: Duration = Duration::from_millis(1);

/// A rank's place in a group.
#[derive(Debug)]
struct Member {
    rank: usize,
    size: usize,
    /// Of the hub: to every other rank, in their order; of the others: to the hub.
    links: Mutex<Vec<Wire>>,
    /// Why nothing is done any more.
    lost: Mutex<Option<SessionError>>,
}

impl Member {
    fn attempt(&self, job: impl FnOnce(&[Wire]) -> Result<(), SessionError>) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.is_none() {
            let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(e) = job(&links) {
                // The others are not left waiting.
                links.iter().for_each(Wire::hang_up);
                *lost = Some(e);
            }
        }
    }

    fn whole(&self, job: Job, buffers: &mut [&mut [f32]], links: &[Wire]) -> Result<(), SessionError> {
        let (mut scratch, own) = (Vec::new(), |len: usize, rank: usize| share(len, rank, self.size));
        match links {
            [hub] if self.rank > 0 => {
                for b in buffers.iter() {
                    match job {
                        Job::AllReduce(_) | Job::ReduceScatter(_) => send(hub, b, &mut scratch)?,
                        Job::AllGather => send(hub, &b[own(b.len(), self.rank)], &mut scratch)?,
                        Job::Broadcast { root } if root == self.rank => send(hub, b, &mut scratch)?,
                        Job::Broadcast { .. } => {}
                    }
                }
                for b in buffers.iter_mut() {
                    match job {
                        Job::AllReduce(_) | Job::AllGather => take(hub, b, &mut scratch)?,
                        Job::ReduceScatter(_) => {
                            let own = own(b.len(), self.rank);
                            take(hub, &mut b[own], &mut scratch)?;
                        }
                        Job::Broadcast { root } if root == self.rank => {}
                        Job::Broadcast { .. } => take(hub, b, &mut scratch)?,
                    }
                }
            }
            _ => {
                for (link, rank) in links.iter().zip(1..) {
                    for b in buffers.iter_mut() {
                        match job {
                            Job::AllReduce(how) | Job::ReduceScatter(how) => join(link, b, how, &mut scratch)?,
                            Job::AllGather => {
                                let own = own(b.len(), rank);
                                take(link, &mut b[own], &mut scratch)?;
                            }
                            Job::Broadcast { root } if root == rank => take(link, b, &mut scratch)?,
                            Job::Broadcast { .. } => {}
                        }
                    }
                }
                if let Job::AllReduce(Reduce::Mean) | Job::ReduceScatter(Reduce::Mean) = job {
                    let factor = 1.0 / self.size as f32;
                    buffers.iter_mut().for_each(|b| b.iter_mut().for_each(|x| *x *= factor));
                }
                for (link, rank) in links.iter().zip(1..) {
                    for b in buffers.iter() {
                        match job {
                            Job::AllReduce(_) | Job::AllGather => send(link, b, &mut scratch)?,
                            Job::ReduceScatter(_) => send(link, &b[own(b.len(), rank)], &mut scratch)?,
                            Job::Broadcast { root } if root == rank => {}
                            Job::Broadcast { .. } => send(link, b, &mut scratch)?,
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The hub is sent what each rank has for all, how much for each before it, and hands each what all have for it.
    fn exchanged(&self, from: &[f32], to: &mut [f32], counts: Counts<'_>, links: &[Wire]) -> Result<(), SessionError> {
        let mut scratch = Vec::new();
        let [leaving, arriving] = [counts.sent, counts.received].map(|counts| counts.iter().sum::<usize>());
        if let ([hub], true) = (links, self.rank > 0) {
            scratch.extend(counts.sent.iter().flat_map(|n| (*n as u64).to_le_bytes()));
            hub.send(&scratch)?;
            send(hub, &from[..leaving], &mut scratch)?;
            return take(hub, &mut to[..arriving], &mut scratch);
        }
        let mut for_each = vec![Vec::new(); self.size];
        let mut sort = |mut from: &[f32], sent: &[usize]| {
            for (to, n) in for_each.iter_mut().zip(sent) {
                let (own, rest) = from.split_at((*n).min(from.len()));
                to.extend_from_slice(own);
                from = rest;
            }
        };
        sort(from, counts.sent);
        let mut held = Vec::new();
        for link in links {
            link.receive(&mut scratch)?;
            let sent: Vec<usize> = match scratch.as_chunks::<8>() {
                (sent, []) if sent.len() == self.size => sent.iter().map(|n| u64::from_le_bytes(*n) as usize).collect(),
                _ => return Err(link.lost(How::Wrong("did not say how much it sends".into())).into()),
            };
            let all = sent.iter().try_fold(0usize, |all, n| all.checked_add(*n)).unwrap_or(usize::MAX);
            held.clear();
            held.try_reserve_exact(all)
                .map_err(|_| SessionError::OutOfMemory(format!("{all} numbers that ranks exchange")))?;
            held.resize(all, 0.0);
            take(link, &mut held, &mut scratch)?;
            sort(&held, &sent);
        }
        let mut for_each = for_each.into_iter();
        let own = for_each.next().unwrap_or_default();
        if own.len() != arriving {
            let found = own.len();
            return Err(SessionError::Apart(format!("expected {arriving} numbers of all ranks, found {found}")));
        }
        to[..arriving].copy_from_slice(&own);
        links.iter().zip(for_each).try_for_each(|(link, of_rank)| send(link, &of_rank, &mut scratch))
    }
}

fn send(link: &Wire, elements: &[f32], scratch: &mut Vec<u8>) -> Result<(), SessionError> {
    for chunk in elements.chunks(CHUNK) {
        scratch.clear();
        scratch.extend(chunk.iter().flat_map(|x| x.to_le_bytes()));
        link.send(scratch)?;
    }
    Ok(())
}

fn take(link: &Wire, to: &mut [f32], scratch: &mut Vec<u8>) -> Result<(), SessionError> {
    with(link, to, scratch, |x, new| *x = new)
}

fn join(link: &Wire, to: &mut [f32], how: Reduce, scratch: &mut Vec<u8>) -> Result<(), SessionError> {
    match how {
        Reduce::Sum | Reduce::Mean => with(link, to, scratch, |x, new| *x += new),
        Reduce::Max => with(link, to, scratch, |x, new| *x = x.max(new)),
    }
}

fn with(link: &Wire, to: &mut [f32], scratch: &mut Vec<u8>, each: impl Fn(&mut f32, f32)) -> Result<(), SessionError> {
    for chunk in to.chunks_mut(CHUNK) {
        link.receive(scratch)?;
        match scratch.as_chunks::<4>() {
            (elements, []) if elements.len() == chunk.len() => {
                chunk.iter_mut().zip(elements).for_each(|(x, new)| each(x, f32::from_le_bytes(*new)));
            }
            _ => return Err(link.lost(How::Wrong("sent another buffer than was expected".into())).into()),
        }
    }
    Ok(())
}

impl<T: AsMut<[f32]>> Collective<T> for Member {
    fn rank(&self) -> usize {
        self.rank
    }
    fn size(&self) -> usize {
        self.size
    }
    fn start(&self, job: Job, buffers: &mut [T]) -> Ticket {
        let mut buffers: Vec<&mut [f32]> = buffers.iter_mut().map(AsMut::as_mut).collect();
        self.attempt(|links| self.whole(job, &mut buffers, links));
        Ticket(0)
    }
    fn finish(&self, _: Ticket) {}
    fn all_to_all(&self, from: &mut T, to: &mut T, counts: Counts<'_>) {
        let (from, to) = (from.as_mut(), to.as_mut());
        self.attempt(|links| self.exchanged(from, to, counts, links));
    }
    fn check(&self) -> Result<(), SessionError> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}

/// Where hubs are met: an address for each process, the same list in all of them, and this one's own.
struct Lobby<'a> {
    net: &'a Net,
    listener: TcpListener,
    book: Vec<(String, u16)>,
    /// Who has come for another group than the one that was waited for.
    early: HashMap<(u32, u32), TcpStream>,
}

impl<'a> Lobby<'a> {
    fn open(net: &'a Net) -> Result<Self, SessionError> {
        let apart = SessionError::Apart;
        let listener = listen(&net.world.host, 0).map_err(|e| apart(e.to_string()))?;
        let port = listener.local_addr().map_err(|e| apart(e.to_string()))?.port();
        let mut book = Vec::new();
        if net.leads() {
            book.push((net.world.host.clone(), port));
            for (wire, host) in net.wires.iter().zip(&net.hosts) {
                let mut said = Vec::new();
                wire.receive(&mut said)?;
                let port = <[u8; 2]>::try_from(&said[..]).map_err(|_| wire.lost(How::Wrong("told no port".into())))?;
                book.push((host.clone(), u16::from_le_bytes(port)));
            }
        } else {
            net.wires.iter().try_for_each(|wire| wire.send(&port.to_le_bytes()))?;
        }
        let told = net.told(serde_json::to_vec(&book).map_err(|e| apart(e.to_string()))?)?;
        let book = serde_json::from_slice(&told).map_err(|e| apart(format!("rank 0 told no addresses: {e}")))?;
        Ok(Self { net, listener, book, early: HashMap::new() })
    }

    /// The way to the hub of a group, for the rank at `place` in it.
    fn visit(&self, process: usize, group: u32, place: u32) -> Result<Wire, SessionError> {
        let (host, port) = self.book.get(process).ok_or_else(|| SessionError::Apart(format!("no rank {process}")))?;
        let apart = |e: std::io::Error| SessionError::Apart(format!("rank {process} at {host}:{port}: {e}"));
        let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
        for at in (host.as_str(), *port).to_socket_addrs().map_err(apart)? {
            match TcpStream::connect_timeout(&at, self.net.patience) {
                Ok(stream) => {
                    let wire = Wire::new(stream, Peer::Rank(process), self.net.patience)?;
                    let key = self.net.key.to_le_bytes();
                    wire.send(&[&key[..], &group.to_le_bytes(), &place.to_le_bytes()].concat())?;
                    return Ok(wire);
                }
                Err(e) => last = e,
            }
        }
        Err(apart(last))
    }

    /// The rank at `place` of a group, whose hub is here; it is of `process`.
    fn receive(&mut self, process: usize, group: u32, place: u32) -> Result<Wire, SessionError> {
        let apart = SessionError::Apart;
        let deadline = Instant::now() + self.net.patience;
        self.listener.set_nonblocking(true).map_err(|e| apart(e.to_string()))?;
        let peer = Peer::Rank(process);
        loop {
            if let Some(stream) = self.early.remove(&(group, place)) {
                return Ok(Wire::new(stream, peer, self.net.patience)?);
            }
            match self.listener.accept() {
                Ok((stream, address)) => {
                    let wire = Wire::new(stream, Peer::At(address), self.net.patience)?;
                    let mut said = Vec::new();
                    wire.receive(&mut said)?;
                    let at = said.strip_prefix(&self.net.key.to_le_bytes()).map(<[u8]>::as_chunks::<4>);
                    let Some(([group, place], [])) = at else {
                        return Err(wire.lost(How::Wrong("does not belong here".into())).into());
                    };
                    self.early.insert((u32::from_le_bytes(*group), u32::from_le_bytes(*place)), wire.into_stream());
                }
                Err(_) if Instant::now() < deadline => std::thread::sleep(LOOK),
                Err(_) => return Err(apart(format!("{peer} did not come to its group"))),
            }
        }
    }
}

/// The groups of this process's ranks. Groups that lie in it whole are [`super::threads`]'s.
///
/// # Errors
/// Ranks that do not divide among the processes; processes that do not meet.
pub(in super::super) fn open<T: AsMut<[f32]>>(
    parallel: &Parallel,
    copies: u32,
    net: &Net,
) -> Result<Vec<Groups<T>>, SessionError> {
    let local = net.part_of(parallel.ranks().unwrap_or(0) as usize)?;
    let (here, mut lobby, mut number) = (local.len(), Lobby::open(net)?, 0);
    let group = |ranks: &[usize], own: &[usize], _: Of| -> Result<Vec<Arc<dyn Collective<T>>>, SessionError> {
        number += 1;
        if own.len() == ranks.len() {
            let seats = Exchange::seats(ranks.len()).into_iter();
            return Ok(seats.map(|s| Arc::new(s) as Arc<dyn Collective<T>>).collect());
        }
        let (hub, size) = (ranks[0], ranks.len());
        let place = |rank: usize| ranks.iter().position(|r| *r == rank).unwrap_or(0);
        let mut members = Vec::new();
        // Ways are there once they are asked for: those within this process as well.
        for rank in own {
            let links = match rank {
                rank if *rank == hub => Vec::new(),
                rank => vec![lobby.visit(hub / here, number, place(*rank) as u32)?],
            };
            members.push((place(*rank), links));
        }
        for (_, links) in members.iter_mut().filter(|(place, _)| *place == 0) {
            for (place, rank) in ranks.iter().enumerate().skip(1) {
                links.push(lobby.receive(rank / here, number, place as u32)?);
            }
        }
        let member = |(rank, links)| Member { rank, size, links: Mutex::new(links), lost: Mutex::new(None) };
        Ok(members.into_iter().map(|m| Arc::new(member(m)) as Arc<dyn Collective<T>>).collect())
    };
    groups(parallel, copies, local, group)
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
