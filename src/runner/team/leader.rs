//! Rank 0 of a sweep of several processes: it says what runs, and hears how the others' parts ended.

use super::connection::Line;
use super::{CHILD_GRACE, Ended, GRACE, LOOK, Order, SILENCE, TeamError, trial_key};
use crate::net::lost::{Lost, Peer};
use crate::net::rendezvous::gathered;
use crate::net::wire::Wire;
use crate::net::world::World;
use crate::runner::measurement::{Measurement, Status};
use crate::runner::parent::{Options, Others, Request, run_part};
use crate::runner::protocol::{Progress, Team};
use std::net::TcpListener;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Rank 0.
#[derive(Debug)]
pub(crate) struct Leader {
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
    pub(crate) fn meet(world: World, listener: &TcpListener, key: u64, patience: Duration) -> Result<Self, TeamError> {
        let streams = gathered(listener, world.size, key, patience)?;
        let lines =
            streams.into_iter().zip(1..).map(|(stream, rank)| Line::new(Wire::new(stream, Peer::Rank(rank), SILENCE)?));
        Ok(Self { lines: lines.collect::<Result<_, Lost>>()?, world, key, broken: None })
    }

    /// Why no further trial can run, if so.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// [`crate::runner::run_trial`] of all processes. Memory is that of all of them.
    pub(crate) fn run(
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
        let parts = self.lines.iter().map(|_| None).collect();
        let mut led = Led { leader: self, trial_id, seed: request.measure.seed, started: false, parts };
        let (measurement, elsewhere) = run_part(request, options, progress, cancel, Some(&mut led));
        led.settle();
        let parts = std::mem::take(&mut led.parts);
        judged(measurement, elsewhere, &parts)
    }

    /// Tells the others that the sweep is over, and waits a moment for them to have heard it.
    pub(crate) fn end(self) {
        let deadline = Instant::now() + CHILD_GRACE;
        for line in &self.lines {
            let _ = line.say(&Order::End);
        }
        for line in &self.lines {
            while Instant::now() < deadline && line.hear::<Ended>(LOOK).is_ok() {}
        }
    }
}

/// What became of another process's part of a trial.
#[derive(Debug)]
enum Part {
    Ended(Box<Ended>),
    Lost(TeamError),
}

/// One trial, as its leader's parent sees the others.
struct Led<'a> {
    leader: &'a mut Leader,
    trial_id: &'a str,
    seed: u64,
    started: bool,
    parts: Vec<Option<Part>>,
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
        for (line, part) in self.leader.lines.iter().zip(&mut self.parts).filter(|(_, part)| part.is_none()) {
            match line.hear(patience) {
                Ok(heard) => *part = heard.map(|ended| Part::Ended(Box::new(ended))),
                Err(e) => {
                    self.leader.broken.get_or_insert(e.to_string());
                    *part = Some(Part::Lost(e));
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
        while self.parts.iter().any(Option::is_none) && Instant::now() < deadline {
            self.listen(Duration::from_millis(10));
        }
        if let Some(rank) = self.parts.iter().position(Option::is_none) {
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
        self.say(&Order::Run { trial_id: self.trial_id.into(), port, seed: self.seed });
    }

    fn trouble(&mut self) -> Option<(Status, String)> {
        if self.started {
            self.listen(Duration::ZERO);
        }
        fault_of(&self.parts)
    }
}

/// The first fault that a follower has of its own.
fn fault_of(parts: &[Option<Part>]) -> Option<(Status, String)> {
    parts.iter().zip(1..).find_map(|(part, rank)| match part.as_ref()? {
        Part::Ended(e) if e.status != Status::Ok && !e.elsewhere => {
            Some((e.status, format!("{}: {}", Peer::Rank(rank), e.reason)))
        }
        Part::Ended(_) => None,
        // It names the rank itself.
        Part::Lost(e) => Some((Status::Crashed, e.to_string())),
    })
}

/// What the trial came to, all processes considered.
fn judged(leader: Measurement, elsewhere: bool, parts: &[Option<Part>]) -> Measurement {
    let mut m = leader;
    if (m.status == Status::Ok || elsewhere)
        && let Some((status, reason)) = fault_of(parts)
    {
        (m.status, m.reason, m.figures) = (status, reason, None);
    }
    if let Some(figures) = &mut m.figures {
        let ended = parts.iter().flatten().filter_map(|part| match part {
            Part::Ended(e) => Some(e.as_ref()),
            Part::Lost(_) => None,
        });
        for Ended { bytes: [peak, baseline, allocated], disturbance, .. } in ended {
            if let (Some(mine), Some(theirs)) = (&mut figures.disturbance, disturbance) {
                mine.or_worse(theirs);
            }
            figures.peak_rss_bytes = figures.peak_rss_bytes.saturating_add(*peak);
            figures.baseline_rss_bytes = figures.baseline_rss_bytes.saturating_add(*baseline);
            figures.peak_allocated_bytes = figures.peak_allocated_bytes.saturating_add(*allocated);
        }
    }
    m
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
