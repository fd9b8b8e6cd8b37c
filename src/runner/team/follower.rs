//! Every other rank of a sweep of several processes: it runs its parts of the trials that rank 0 names.

use super::connection::Line;
use super::{CHILD_GRACE, Ended, LOOK, Order, SILENCE, TeamError, trial_key};
use crate::net::lost::Peer;
use crate::net::rendezvous::join;
use crate::net::wire::Wire;
use crate::net::world::World;
use crate::runner::measurement::{Figures, Measurement, Status};
use crate::runner::parent::{Options, Others, Request, run_part};
use crate::runner::protocol::Team;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a follower's trial may take beyond the leader's, which decides.
const LATER: f64 = 10.0;

/// What a follower does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Run {
        trial_id: String,
        port: u16,
        seed: u64,
    },
    /// The sweep is over.
    End,
    Interrupted,
}

/// Every other rank.
#[derive(Debug)]
pub(crate) struct Follower {
    world: World,
    key: u64,
    line: Line,
}

impl Follower {
    /// Meets rank 0.
    ///
    /// # Errors
    /// A rank 0 that is not there, or does not want this process.
    pub(crate) fn join(world: World, key: u64, patience: Duration) -> Result<Self, TeamError> {
        let stream = join(&world, key, patience)?;
        let line = Line::new(Wire::new(stream, Peer::Rank(0), SILENCE)?)?;
        Ok(Self { world, key, line })
    }

    /// Waits for an order.
    ///
    /// # Errors
    /// A rank 0 that is gone.
    pub(crate) fn next(&self, interrupted: &AtomicBool) -> Result<Next, TeamError> {
        loop {
            if interrupted.load(Ordering::Relaxed) {
                return Ok(Next::Interrupted);
            }
            match self.line.hear(LOOK)? {
                Some(Order::Run { trial_id, port, seed }) => return Ok(Next::Run { trial_id, port, seed }),
                Some(Order::End) => return Ok(Next::End),
                Some(Order::Over) | None => {}
            }
        }
    }

    /// Runs this process's part of a trial and tells how it ended.
    ///
    /// # Errors
    /// A rank 0 that is gone.
    pub(crate) fn run(
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
        let of = |f: &Figures| [f.peak_rss_bytes, f.baseline_rss_bytes, f.peak_allocated_bytes];
        let bytes = m.figures.as_ref().map_or([0; 3], of);
        let disturbance = m.figures.as_ref().and_then(|f| f.disturbance.clone());
        self.line.say(&Ended { status: m.status, reason: m.reason.clone(), elsewhere, bytes, disturbance })?;
        Ok(m)
    }

    /// Says that it cannot run what it was told to.
    ///
    /// # Errors
    /// A rank 0 that is gone.
    pub(crate) fn refuse(&self, reason: String) -> Result<(), TeamError> {
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
