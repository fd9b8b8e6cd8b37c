//! Sends requests on their schedule and collects what becomes of them. One thread runs all connections; another says when it is time.

use super::client::Client;
use super::counted::{Dialect, Sizing};
use super::prompt::{Prompts, body};
use super::record::{Outcome, Record};
use super::request;
use super::schedule::{Moment, Schedule, Ticker};
use super::spec::Traffic;
use super::stretch::Stretch;
use super::tokens::Tokens;
use super::trace::{Entry, times};
use crate::stats::random::SplitMix64;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// Requests of an open loop that may be under way at a time; one that is due beyond them is recorded as one that could not be sent.
const MOST: usize = 8192;
/// How long a client of a closed loop waits after a failure, at first and at most: a server that refuses is not asked without pause.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What to send.
#[derive(Clone, Debug)]
pub struct Job {
    /// Whom to ask.
    pub client: Arc<Client>,
    /// What is sent, and how often.
    pub traffic: Traffic,
    /// How the server wants to be asked.
    pub dialect: Dialect,
    /// What it counts.
    pub sizing: Sizing,
    /// The model's own tokenizer, where there is one.
    pub tokens: Option<Arc<Tokens>>,
    /// The requests of a trace, over and over, where there is one.
    pub trace: Arc<Vec<Entry>>,
    /// Of lengths: the same for all launches.
    pub seed: u64,
    /// Of words and arrivals: another for every launch, so that launches differ as hours do.
    pub salt: u64,
}

enum Event {
    Moment(Moment),
    Over(u64, Box<Record>),
}

/// Keeps the load up until `stretch` is over or `go_on` says no, which is asked fifty times a second; a record of every request that
/// was due.
///
/// # Errors
/// There is no thread to be had; a trace is to say when, and does not.
pub async fn run(
    job: &Job,
    stretch: &mut Stretch,
    go_on: &mut dyn FnMut(&Stretch, f64) -> bool,
) -> Result<Vec<Record>, String> {
    let origin = Instant::now();
    let (sender, mut events) = unbounded_channel();
    let schedule = Schedule::of(job.traffic.pace, times(&job.trace), job.salt)?;
    let told = sender.clone();
    let ticker = Ticker::start(schedule, origin, move |moment| told.send(Event::Moment(moment)).is_ok());
    let _ticker = ticker.map_err(|e| format!("a thread: {e}"))?;
    let mut flight = Flight::new(job, origin, sender);
    for _ in 0..job.traffic.pace.concurrency().unwrap_or(0) {
        flight.send(None, Duration::ZERO);
    }
    while let Some(event) = events.recv().await {
        match event {
            Event::Moment(Moment::Due(at)) => flight.send(Some(at), Duration::ZERO),
            Event::Moment(Moment::Tick) => {
                let now = origin.elapsed().as_secs_f64();
                if stretch.look(now, flight.oldest()) || !go_on(stretch, now) {
                    break;
                }
            }
            Event::Over(id, record) => {
                stretch.note(&record);
                flight.land(id, *record);
            }
        }
    }
    Ok(flight.all())
}

/// Requests that are under way.
struct Flight<'a> {
    job: &'a Job,
    origin: Instant,
    sender: UnboundedSender<Event>,
    tasks: JoinSet<()>,
    prompts: Prompts,
    lengths: SplitMix64,
    /// When each was due, in the order in which they were.
    under_way: BTreeMap<u64, f64>,
    next: u64,
    failures: u32,
    records: Vec<Record>,
}

impl<'a> Flight<'a> {
    fn new(job: &'a Job, origin: Instant, sender: UnboundedSender<Event>) -> Self {
        Self {
            job,
            origin,
            sender,
            tasks: JoinSet::new(),
            prompts: Prompts::new(job.salt, job.sizing, job.tokens.clone(), job.traffic.prefix),
            // Drawn from another stream than the arrivals.
            lengths: SplitMix64::new(job.seed ^ 0x6c65_6e67_7468_7321),
            under_way: BTreeMap::new(),
            next: 0,
            failures: 0,
            records: Vec::new(),
        }
    }

    /// Sends one that was due at this time; of a closed loop after a pause.
    fn send(&mut self, due: Option<f64>, pause: Duration) {
        let now = self.origin.elapsed().as_secs_f64();
        let due = due.unwrap_or(now + pause.as_secs_f64());
        let traffic = &self.job.traffic;
        if self.under_way.len() >= MOST {
            let reason = format!("{MOST} requests were under way already");
            self.records.push(Record { outcome: Outcome::Unreachable, reason, over: now, ..Record::due(due, now) });
            return;
        }
        let entry = self.job.trace.get(self.next as usize % self.job.trace.len().max(1));
        let (prompt, answer) = match entry {
            Some(entry) => (self.prompts.asked(&entry.ask), entry.answer),
            None => {
                let tokens = traffic.prompt.draw(&mut self.lengths);
                (self.prompts.next(tokens), traffic.answer.draw(&mut self.lengths))
            }
        };
        let record = Record { prefixed: prompt.prefixed, ..Record::due(due, now) };
        let client = Arc::clone(&self.job.client);
        let body = body(client.api(), client.model(), &prompt.text, answer, self.job.dialect);
        let patience = Duration::try_from_secs_f64(traffic.timeout_seconds).unwrap_or(Duration::MAX);
        let (id, origin, sender) = (self.next, self.origin, self.sender.clone());
        self.next += 1;
        self.under_way.insert(id, due);
        self.tasks.spawn(async move {
            let mut record = record;
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
                record.due = origin.elapsed().as_secs_f64();
            }
            let record = request::ask(&client, body, origin, patience, record).await;
            // Nobody listens when the load is over.
            let _ = sender.send(Event::Over(id, Box::new(record)));
        });
    }

    /// One is over; in a closed loop the next takes its place.
    fn land(&mut self, id: u64, record: Record) {
        self.under_way.remove(&id);
        while self.tasks.try_join_next().is_some() {}
        self.failures = if record.is_answered() { 0 } else { self.failures.saturating_add(1) };
        self.records.push(record);
        if let Some(concurrency) = self.job.traffic.pace.concurrency() {
            let pause = match self.failures / concurrency.max(1) {
                _ if self.failures == 0 => Duration::ZERO,
                rounds => (PAUSE.0 * 2u32.saturating_pow(rounds.min(10))).min(PAUSE.1),
            };
            self.send(None, pause);
        }
    }

    /// When the one that has been under way for longest was due.
    fn oldest(&self) -> Option<f64> {
        self.under_way.values().copied().reduce(f64::min)
    }

    /// Ends what is under way; all records in the order in which requests were due.
    fn all(mut self) -> Vec<Record> {
        let now = self.origin.elapsed().as_secs_f64();
        // Whoever paused has not been sent.
        let sent = self.under_way.values().filter(|due| **due <= now);
        let abandoned = sent.map(|due| Record { over: now, ..Record::due(*due, *due) });
        self.records.extend(abandoned);
        self.records.sort_by(|a, b| a.due.total_cmp(&b.due));
        self.records
    }
}
