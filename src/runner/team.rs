//! Sweeps of several processes, each of which starts a child of its own for its part of every trial.
//!
//! Rank 0 leads: it says which trial runs next and where its child waits for the others'; the others ([`Follower`]) run their parts and
//! say how they ended. What happens inside a trial its children settle among themselves. Both sides speak JSON in frames
//! ([`Wire`]), and every few seconds nothing (an empty frame), so that a node that vanished is missed.

use super::measurement::{Measurement, Status};
use super::parent::{Options, Others, Request, run_part};
use super::protocol::{Progress, Team};
use super::watch::Disturbance;
use crate::net::lost::{How, Lost, Peer};
use crate::net::rendezvous::{RendezvousError, gathered, join, listen};
use crate::net::wire::Wire;
use crate::net::world::World;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a process says that it is there, and how long one that does not is waited for.
const BEAT: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(20);

/// How long a trial's other processes may take to end once it is over; their parents end them before that.
const GRACE: Duration = Duration::from_secs(10);
const CHILD_GRACE: Duration = Duration::from_secs(3);

/// What a follower's trial may take beyond the leader's, which decides.
const LATER: f64 = 10.0;

/// Between two looks at whether to go on.
const LOOK: Duration = Duration::from_millis(100);

/// Why processes do not work together, or no longer do.
#[derive(Debug, thiserror::Error)]
pub enum TeamError {
    #[error("the processes of this run did not meet: {0}")]
    Apart(#[from] RendezvousError),
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("{0} said something that is none of this version's messages; start the same program everywhere")]
    Foreign(Peer),
}

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Run { trial_id: String, port: u16 },
    Over,
    End,
}

/// How a follower's part of a trial ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ended {
    status: Status,
    reason: String,
    /// The fault is another process's.
    elsewhere: bool,
    /// Resident bytes at most and before the model, and allocated bytes at most.
    bytes: [u64; 3],
    /// What its process lost.
    disturbance: Option<Disturbance>,
}

/// A connection that is listened to all the time.
#[derive(Debug)]
struct Line {
    wire: Wire,
    speaking: Arc<Mutex<()>>,
    heard: Receiver<Result<Vec<u8>, Lost>>,
}

impl Line {
    fn new(wire: Wire) -> Result<Self, Lost> {
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

    fn say(&self, message: &impl Serialize) -> Result<(), Lost> {
        let text =
            serde_json::to_vec(message).map_err(|e| self.wire.lost(How::Failed(format!("cannot be told: {e}"))))?;
        let _turn = self.speaking.lock().unwrap_or_else(PoisonError::into_inner);
        self.wire.send(&text)
    }

    /// What has been said, within `patience`.
    fn hear<T: DeserializeOwned>(&self, patience: Duration) -> Result<Option<T>, TeamError> {
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

/// The key of one trial of a sweep.
fn trial_key(sweep: u64, trial_id: &str) -> u64 {
    sweep ^ u64::from_str_radix(trial_id, 16).unwrap_or_default().rotate_left(16)
}

/// Where rank 0 will be met; taken early, so that a port that is not free is known at once.
///
/// # Errors
/// A host that is none, a port that is taken.
pub fn listen_at(world: &World) -> Result<TcpListener, TeamError> {
    Ok(listen(&world.host, world.port)?)
}

/// Rank 0.
#[derive(Debug)]
pub struct Leader {
    world: World,
    key: u64,
    lines: Vec<Line>,
    broken: Option<String>,
}

impl Leader {
    /// Meets the others; `key` is the same for all that run the same sweep with the same program.
    ///
    /// # Errors
    /// Processes that do not come, or do not belong here.
    pub fn meet(world: World, listener: &TcpListener, key: u64, patience: Duration) -> Result<Self, TeamError> {
        let streams = gathered(listener, world.size, key, patience)?;
        let lines =
            streams.into_iter().zip(1..).map(|(stream, rank)| Line::new(Wire::new(stream, Peer::Rank(rank), SILENCE)?));
        Ok(Self { lines: lines.collect::<Result<_, Lost>>()?, world, key, broken: None })
    }

    /// Why no further trial can run, if so.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// [`super::run_trial`] of all processes. Memory is that of all of them.
    pub fn run(
        &mut self,
        trial_id: &str,
        request: &Request,
        options: &Options,
        progress: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Measurement {
        if let Some(why) = &self.broken {
            let reason = format!("not started: {why}");
            return Measurement::without_figures(Status::Cancelled, reason, request.predicted_memory);
        }
        let ended = self.lines.iter().map(|_| None).collect();
        let mut led = Led { leader: self, trial_id, started: false, ended };
        let (measurement, elsewhere) = run_part(request, options, progress, cancel, Some(&mut led));
        led.settle();
        let ended = std::mem::take(&mut led.ended);
        judged(measurement, elsewhere, &ended)
    }

    /// Tells the others that the sweep is over, and waits a moment for them to have heard it.
    pub fn end(self) {
        let deadline = Instant::now() + CHILD_GRACE;
        for line in &self.lines {
            let _ = line.say(&Order::End);
        }
        for line in &self.lines {
            while Instant::now() < deadline && line.hear::<Ended>(LOOK).is_ok() {}
        }
    }
}

/// One trial, as its leader's parent sees the others.
struct Led<'a> {
    leader: &'a mut Leader,
    trial_id: &'a str,
    started: bool,
    ended: Vec<Option<Ended>>,
}

impl Led<'_> {
    fn say(&mut self, order: &Order) {
        for line in &self.leader.lines {
            if let Err(e) = line.say(order) {
                self.leader.broken.get_or_insert(e.to_string());
            }
        }
    }

    /// Listens for `patience` to each that has not ended yet.
    fn listen(&mut self, patience: Duration) {
        for (line, ended) in self.leader.lines.iter().zip(&mut self.ended).filter(|(_, ended)| ended.is_none()) {
            match line.hear(patience) {
                Ok(heard) => *ended = heard,
                Err(e) => {
                    let reason = e.to_string();
                    self.leader.broken.get_or_insert(reason.clone());
                    *ended = Some(Ended {
                        status: Status::Crashed,
                        reason,
                        elsewhere: false,
                        bytes: [0; 3],
                        disturbance: None,
                    });
                }
            }
        }
    }

    /// Waits until the others have ended as well.
    fn settle(&mut self) {
        if !self.started {
            return;
        }
        self.say(&Order::Over);
        let deadline = Instant::now() + GRACE;
        while self.ended.iter().any(Option::is_none) && Instant::now() < deadline {
            self.listen(Duration::from_millis(10));
        }
        if let Some(rank) = self.ended.iter().position(Option::is_none) {
            let why = format!("rank {} did not end its part within {} s", rank + 1, GRACE.as_secs());
            self.leader.broken.get_or_insert(why);
        }
    }
}

impl Others for Led<'_> {
    fn team(&self) -> Team {
        Team { world: self.leader.world.clone(), key: trial_key(self.leader.key, self.trial_id) }
    }

    fn meet_at(&mut self, port: u16) {
        self.started = true;
        self.say(&Order::Run { trial_id: self.trial_id.into(), port });
    }

    fn trouble(&mut self) -> Option<(Status, String)> {
        if self.started {
            self.listen(Duration::ZERO);
        }
        fault_of(&self.ended)
    }
}

/// The first fault that a follower has of its own.
fn fault_of(ended: &[Option<Ended>]) -> Option<(Status, String)> {
    let own = |e: &Ended| e.status != Status::Ok && !e.elsewhere;
    let (e, rank) = ended.iter().zip(1..).find_map(|(e, rank)| Some((e.as_ref().filter(|e| own(e))?, rank)))?;
    let named = e.reason.starts_with(&format!("rank {rank} "));
    Some((e.status, if named { e.reason.clone() } else { format!("rank {rank}: {}", e.reason) }))
}

/// What the trial came to, all processes considered.
fn judged(leader: Measurement, elsewhere: bool, ended: &[Option<Ended>]) -> Measurement {
    let mut m = leader;
    if (m.status == Status::Ok || elsewhere)
        && let Some((status, reason)) = fault_of(ended)
    {
        (m.status, m.reason, m.figures) = (status, reason, None);
    }
    if let Some(figures) = &mut m.figures {
        for [peak, baseline, allocated] in ended.iter().flatten().map(|e| e.bytes) {
            figures.peak_rss_bytes = figures.peak_rss_bytes.saturating_add(peak);
            figures.baseline_rss_bytes = figures.baseline_rss_bytes.saturating_add(baseline);
            figures.peak_allocated_bytes = figures.peak_allocated_bytes.saturating_add(allocated);
        }
        if let Some(mine) = &mut figures.disturbance {
            ended.iter().flatten().filter_map(|e| e.disturbance.as_ref()).for_each(|theirs| mine.or_worse(theirs));
        }
    }
    m
}

/// What a follower does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Run {
        trial_id: String,
        port: u16,
    },
    /// The sweep is over.
    End,
    Interrupted,
}

/// Every other rank.
#[derive(Debug)]
pub struct Follower {
    world: World,
    key: u64,
    line: Line,
}

impl Follower {
    /// Meets rank 0.
    ///
    /// # Errors
    /// A rank 0 that is not there, or does not want this process.
    pub fn join(world: World, key: u64, patience: Duration) -> Result<Self, TeamError> {
        let stream = join(&world, key, patience)?;
        let line = Line::new(Wire::new(stream, Peer::Rank(0), SILENCE)?)?;
        Ok(Self { world, key, line })
    }

    /// Waits for an order.
    ///
    /// # Errors
    /// A rank 0 that is gone.
    pub fn next(&self, interrupted: &AtomicBool) -> Result<Next, TeamError> {
        loop {
            if interrupted.load(Ordering::Relaxed) {
                return Ok(Next::Interrupted);
            }
            match self.line.hear(LOOK)? {
                Some(Order::Run { trial_id, port }) => return Ok(Next::Run { trial_id, port }),
                Some(Order::End) => return Ok(Next::End),
                Some(Order::Over) | None => {}
            }
        }
    }

    /// Runs this process's part of a trial and tells how it ended.
    ///
    /// # Errors
    /// A rank 0 that is gone.
    pub fn run(
        &self,
        (trial_id, port): (&str, u16),
        mut request: Request,
        options: &Options,
        interrupted: &AtomicBool,
    ) -> Result<Measurement, TeamError> {
        request.measure.timeout_seconds += LATER;
        let world = World { port, ..self.world.clone() };
        let team = Team { world, key: trial_key(self.key, trial_id) };
        let mut part = Part { line: &self.line, team, over: None };
        let (m, elsewhere) = run_part(&request, options, &mut |_| {}, interrupted, Some(&mut part));
        let of = |f: &super::measurement::Figures| [f.peak_rss_bytes, f.baseline_rss_bytes, f.peak_allocated_bytes];
        let bytes = m.figures.as_ref().map_or([0; 3], of);
        let disturbance = m.figures.as_ref().and_then(|f| f.disturbance.clone());
        self.line.say(&Ended { status: m.status, reason: m.reason.clone(), elsewhere, bytes, disturbance })?;
        Ok(m)
    }

    /// Says that it cannot run what it was told to.
    ///
    /// # Errors
    /// A rank 0 that is gone.
    pub fn refuse(&self, reason: String) -> Result<(), TeamError> {
        let status = Status::Invalid;
        Ok(self.line.say(&Ended { status, reason, elsewhere: false, bytes: [0; 3], disturbance: None })?)
    }
}

/// One trial, as a follower's parent sees the leader.
struct Part<'a> {
    line: &'a Line,
    team: Team,
    /// When the leader's part ended.
    over: Option<Instant>,
}

impl Others for Part<'_> {
    fn team(&self) -> Team {
        self.team.clone()
    }

    fn meet_at(&mut self, _: u16) {}

    fn trouble(&mut self) -> Option<(Status, String)> {
        match self.line.hear::<Order>(Duration::ZERO) {
            Ok(Some(_)) => drop(self.over.get_or_insert_with(Instant::now)),
            Ok(None) => {}
            Err(e) => return Some((Status::Crashed, e.to_string())),
        }
        let late = self.over.is_some_and(|since| since.elapsed() > CHILD_GRACE);
        late.then(|| (Status::Crashed, "rank 0's part of the trial ended before".into()))
    }
}

#[cfg(test)]
#[path = "team_tests.rs"]
mod tests;
