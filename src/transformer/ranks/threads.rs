//! All ranks of a session: a thread each, stepped together.

use super::super::Workload;
use super::super::backend::Backend;
use super::super::checkpoint::Checkpoint;
use super::super::checkpoint::written::Written;
use super::super::collective::grid::Groups;
use super::super::course::{Course, Part};
use super::super::error::SessionError;
use super::super::loads::Loads;
use super::super::memory::DeviceMemory;
use super::super::session::{Session, SessionOptions, StepOutcome};
use super::super::trace::{self, Event, Track};
use super::exchange::Seat;
use super::feed::Feed;
use super::one::{Rank, RankOutcome};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// What a rank is asked for.
enum Ask {
    Step,
    /// From now on it is taught.
    Enrol(Box<Feed>),
    /// A step at this rate.
    Train(f32),
    /// The loss over so many batches of the validation set.
    Evaluate(u64),
    Waited(Sender<Option<f64>>),
    /// The answer goes where it says.
    Memory(Sender<Option<DeviceMemory>>),
    Loads(Sender<Option<Loads>>),
    /// Writes what it has come to into files of this folder.
    Save(Arc<Path>, Sender<Result<Option<Written>, String>>),
    /// Goes on from what lies there, after so many steps.
    Restore(Arc<Path>, u64),
    /// A step whose spans are kept, their times counted from there.
    Traced(Instant, Sender<Vec<Event>>),
}

struct Worker {
    /// `None` once the session ends, which tells the thread to leave.
    go: Option<Sender<Ask>>,
    done: Receiver<Result<RankOutcome, SessionError>>,
    thread: Option<JoinHandle<()>>,
    /// Of its replica: which sequences of a batch it takes.
    part: Part,
}

/// A session over one or more ranks.
pub(in crate::transformer) struct Ranks {
    workers: Vec<Worker>,
    tokens_per_step: u64,
    checksum: crc32fast::Hasher,
    /// What it is taught, and the step that its batches begin with.
    course: Option<Course>,
    first: u64,
}

impl Ranks {
    /// Starts a thread for each rank and waits until all are ready.
    ///
    /// # Errors
    /// What any rank says while it builds its replica; weights that cannot be read.
    pub(crate) fn start<B: Backend + Clone + Send + Sync + 'static>(
        workload: &Workload,
        options: &SessionOptions,
        groups: Vec<Groups<B::Buffer>>,
        backend: impl Fn(usize) -> Result<B, SessionError>,
    ) -> Result<Self, SessionError>
    where
        B::Buffer: Send + 'static,
    {
        let batch = (workload.batch / options.parallel.data) as usize;
        let stored = Checkpoint::of(workload)?.map(Arc::new);
        let mut workers = Vec::with_capacity(groups.len());
        // Ranks of other processes are not counted here: `rank` is the place among this one's.
        for (rank, groups) in groups.into_iter().enumerate() {
            let stored = stored.clone();
            let seat = Seat { groups, sharding: options.parallel.sharding, seed: options.seed, stored };
            let (replica, replicas) = (seat.replica(), seat.groups.data.size() as u64);
            let part = Part { replica, replicas, sequences: batch, tokens: workload.seq_len as usize };
            workers.push(Worker::start(rank, backend(rank)?, workload.clone(), seat, part)?);
        }
        let (tokens_per_step, checksum) = (workload.tokens_per_step(), crc32fast::Hasher::new());
        let session = Self { workers, tokens_per_step, checksum, course: None, first: 0 };
        session.wait()?;
        Ok(session)
    }

    /// What every rank has to say. A rank that failed takes its group with it: its own reason is told, not that it was missed.
    fn wait(&self) -> Result<Vec<RankOutcome>, SessionError> {
        let (mut outcomes, mut failure) = (Vec::with_capacity(self.workers.len()), None);
        for worker in &self.workers {
            match worker.wait() {
                Ok(outcome) => outcomes.push(outcome),
                Err(e) if failure.as_ref().is_none_or(SessionError::is_consequence) => failure = Some(e),
                Err(_) => {}
            }
        }
        failure.map_or(Ok(outcomes), Err)
    }

    /// One step of this process's ranks: what each found, in their order.
    ///
    /// # Errors
    /// A rank's.
    pub(crate) fn outcomes(&mut self) -> Result<Vec<RankOutcome>, SessionError> {
        self.all(|| Ask::Step)
    }

    /// The same at a learning rate.
    ///
    /// # Errors
    /// A rank's.
    pub(crate) fn outcomes_at(&mut self, rate: f32) -> Result<Vec<RankOutcome>, SessionError> {
        self.all(|| Ask::Train(rate))
    }

    /// The losses of this process's ranks over so many batches of the validation set.
    ///
    /// # Errors
    /// A rank's.
    pub(crate) fn evaluations(&mut self, batches: u64) -> Result<Vec<RankOutcome>, SessionError> {
        self.all(|| Ask::Evaluate(batches))
    }

    /// Asks all ranks for the same, and waits for what they have to say.
    fn all(&self, ask: impl Fn() -> Ask) -> Result<Vec<RankOutcome>, SessionError> {
        for worker in &self.workers {
            if let Some(go) = &worker.go {
                let _ = go.send(ask());
            }
        }
        self.wait()
    }

    /// What a step of all ranks came to.
    pub(crate) fn sum_up(&mut self, outcomes: &[RankOutcome]) -> StepOutcome {
        for outcome in outcomes {
            for word in &outcome.trace {
                self.checksum.update(&word.to_le_bytes());
            }
        }
        let loss = mean_loss(outcomes);
        // The prompt is done when its last sequence is.
        let first_token_seconds = outcomes.iter().filter_map(|o| o.first_token_seconds).reduce(f64::max);
        StepOutcome { tokens: self.tokens_per_step, loss, first_token_seconds }
    }
}

/// The mean over replicas, of which one rank tells.
pub(super) fn mean_loss(outcomes: &[RankOutcome]) -> Option<f32> {
    let losses: Vec<f32> = outcomes.iter().filter_map(|o| o.loss).collect();
    (!losses.is_empty()).then(|| losses.iter().sum::<f32>() / losses.len() as f32)
}

impl Worker {
    fn start<B: Backend + Clone + Send + Sync + 'static>(
        rank: usize,
        backend: B,
        workload: Workload,
        seat: Seat<B::Buffer>,
        part: Part,
    ) -> Result<Self, SessionError>
    where
        B::Buffer: Send + 'static,
    {
        let (go, start) = channel();
        let (say, done) = channel();
        let name = format!("centime-rank-{rank}");
        let life = move || {
            let place = backend.clone();
            place.enter(move || match Rank::new(backend, &workload, seat, part.sequences) {
                Ok(mut rank) => {
                    // The first word says that the rank is ready; each later one answers a call for a step.
                    let mut listening = say.send(Ok(RankOutcome::nothing())).is_ok();
                    while listening && let Ok(ask) = start.recv() {
                        listening = match ask {
                            Ask::Step => say.send(rank.step()).is_ok(),
                            Ask::Enrol(feed) => say.send(rank.enrol(*feed)).is_ok(),
                            Ask::Train(rate) => say.send(rank.train_at(rate)).is_ok(),
                            Ask::Evaluate(batches) => say.send(rank.evaluate(batches)).is_ok(),
                            Ask::Waited(to) => to.send(rank.waited()).is_ok(),
                            Ask::Save(folder, to) => to.send(rank.save(&folder)).is_ok(),
                            Ask::Restore(folder, step) => say.send(rank.restore(&folder, step)).is_ok(),
                            Ask::Memory(to) => to.send(rank.device_memory()).is_ok(),
                            Ask::Loads(to) => to.send(rank.loads()).is_ok(),
                            Ask::Traced(epoch, to) => {
                                trace::begin(epoch);
                                let outcome = rank.step();
                                // Who asked waits for the outcome as well.
                                to.send(trace::end()).is_ok() && say.send(outcome).is_ok()
                            }
                        };
                    }
                }
                Err(e) => drop(say.send(Err(e))),
            });
        };
        let thread = std::thread::Builder::new().name(name).spawn(life);
        let thread = thread.map_err(|e| SessionError::Invalid(format!("starting a thread: {e}")))?;
        Ok(Self { go: Some(go), done, thread: Some(thread), part })
    }

    fn wait(&self) -> Result<RankOutcome, SessionError> {
        self.done.recv().unwrap_or_else(|_| Err(SessionError::Device("a rank ended unexpectedly".into())))
    }

    /// What the rank answers to a question that says where.
    fn ask<T>(&self, question: impl FnOnce(Sender<Option<T>>) -> Ask) -> Option<T> {
        let (to, answer) = channel();
        self.go.as_ref()?.send(question(to)).ok()?;
        answer.recv().ok()?
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.go = None;
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                // A rank that panicked has already been reported by `wait`.
                let _ = thread.join();
            }
        }
    }
}

impl Session for Ranks {
    fn step(&mut self) -> Result<StepOutcome, SessionError> {
        let outcomes = self.outcomes()?;
        Ok(self.sum_up(&outcomes))
    }

    fn enrol(&mut self, course: Course) -> Result<(), SessionError> {
        let of_part = |w: &Worker| Feed::start(course.clone(), w.part, self.first);
        // All of them before any is sent: ranks wait for one another.
        let feeds = self.workers.iter().map(of_part).collect::<Result<Vec<_>, _>>()?;
        for (worker, feed) in self.workers.iter().zip(feeds) {
            if let Some(go) = &worker.go {
                let _ = go.send(Ask::Enrol(Box::new(feed)));
            }
        }
        self.wait()?;
        self.course = Some(course);
        Ok(())
    }

    fn save(&mut self, folder: &Path) -> Result<Vec<Written>, String> {
        let folder: Arc<Path> = folder.into();
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (to, answer) = channel();
            if let Some(go) = &worker.go {
                let _ = go.send(Ask::Save(Arc::clone(&folder), to));
            }
            answers.push(answer);
        }
        let of_rank = |answer: Receiver<Result<Option<Written>, String>>| {
            answer.recv().unwrap_or_else(|_| Err("a rank ended unexpectedly".into()))
        };
        // All are waited for, whatever the first says: nobody writes there any more.
        let all: Vec<_> = answers.into_iter().map(of_rank).collect();
        Ok(all.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    fn restore(&mut self, folder: &Path, step: u64) -> Result<(), SessionError> {
        let folder: Arc<Path> = folder.into();
        self.all(|| Ask::Restore(Arc::clone(&folder), step))?;
        self.first = step;
        self.course.take().map_or(Ok(()), |course| self.enrol(course))
    }

    fn train(&mut self, rate: f32) -> Result<StepOutcome, SessionError> {
        let outcomes = self.outcomes_at(rate)?;
        Ok(self.sum_up(&outcomes))
    }

    fn evaluate(&mut self, batches: u64) -> Result<f64, SessionError> {
        mean_loss(&self.evaluations(batches)?)
            .map(f64::from)
            .ok_or_else(|| SessionError::Invalid("no rank told of a loss".into()))
    }

    fn waited(&self) -> Option<f64> {
        self.workers.iter().filter_map(|w| w.ask(Ask::Waited)).reduce(f64::max)
    }

    fn checksum(&self) -> u32 {
        self.checksum.clone().finalize()
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        DeviceMemory::sum(self.workers.iter().map(|w| w.ask(Ask::Memory)))
    }

    fn loads(&self) -> Option<Loads> {
        Loads::mean(self.workers.iter().filter_map(|w| w.ask(Ask::Loads)))
    }

    fn traced_step(&mut self, epoch: Instant) -> Result<Vec<Track>, SessionError> {
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (to, answer) = channel();
            if let Some(go) = &worker.go {
                let _ = go.send(Ask::Traced(epoch, to));
            }
            answers.push(answer);
        }
        self.wait()?;
        let events = |answer: Receiver<Vec<Event>>| answer.recv().unwrap_or_default();
        let all = answers.into_iter().map(events).enumerate();
        Ok(all.map(|(rank, events)| Track { rank, events }).collect())
    }
}
