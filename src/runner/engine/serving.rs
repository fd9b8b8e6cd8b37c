//! A trial that asks a server: one stretch of load, and what its requests come to.

use super::server::Started;
use crate::load::client::Client;
use crate::load::generator::{self, Job};
use crate::load::metrics::Looks;
use crate::load::record::Record;
use crate::load::search::{Bisection, Search};
use crate::load::served::Served;
use crate::load::spec::Pace;
use crate::load::stretch::{Rules, Stretch};
use crate::load::tokens::Tokens;
use crate::load::trace::{self, Entry};
use crate::load::{sizing, summary};
use crate::runner::measurement::Stop;
use crate::runner::protocol::{Progress, Stage};
use crate::scenario::Measure;
use crate::scenario::engine::Engine;
use crate::scenario::engine::server::Server;
use crate::stats::random::SplitMix64;
use crate::transformer::error::SessionError;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Requests of an open loop that tell that a server answers.
const ANSWERING: u32 = 10;
/// Looks of the generator between two reports of progress.
const REPORT_EVERY: u32 = 10;

/// Of a trial's time-out, the share that a search may take.
const SEARCHED: f64 = 0.9;

/// What came of it.
#[derive(Debug)]
pub(in crate::runner) struct Load {
    pub served: Served,
    /// Requests that were due before those that count.
    pub warmup: u32,
    pub stopped_by: Stop,
    /// Half width of the median E2E's interval, over it.
    pub precision: Option<f64>,
    /// When the window began, in seconds since the call.
    pub began: f64,
    /// Of the server's processes, where Centime started it.
    pub peak_bytes: u64,
}

/// Puts load on the server of a trial.
///
/// # Errors
/// A server that cannot be started or asked, or that answers nothing.
pub(in crate::runner) fn measure(
    engine: &Engine,
    server: &Server,
    settings: &Measure,
    report: &mut dyn FnMut(Progress),
) -> Result<Load, SessionError> {
    let called = SystemTime::now();
    allow_connections();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|e| SessionError::Invalid(format!("no event loop: {e}")))?;
    let client = Client::new(&server.target, key(server)?).map_err(SessionError::Invalid)?;
    runtime.block_on(load(engine, server, settings, Arc::new(client), called, report))
}

/// As many connections as the system lets this process have; shells usually allow 1024.
fn allow_connections() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        // Where it stays as it is, a request too many is one that found no connection.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// The key, from the variable that holds it.
fn key(server: &Server) -> Result<Option<String>, SessionError> {
    let Some(name) = &server.target.api_key_env else { return Ok(None) };
    match std::env::var(name) {
        Ok(key) if !key.trim().is_empty() => Ok(Some(key.trim().to_string())),
        _ => Err(SessionError::Invalid(format!(
            "engine.api_key_env: the variable {name} is not set; set it where centime is started"
        ))),
    }
}

async fn load(
    engine: &Engine,
    server: &Server,
    settings: &Measure,
    client: Arc<Client>,
    called: SystemTime,
    report: &mut dyn FnMut(Progress),
) -> Result<Load, SessionError> {
    let started = match &server.ready {
        Some(ready) => Some(Started::start(engine, ready, &client).await?),
        None => None,
    };
    let traffic = server.traffic.clone();
    let tokens = tokenizer(traffic.tokenizer.as_deref()).map_err(SessionError::Invalid)?;
    let trace = Arc::new(traced(traffic.trace.as_deref(), tokens.as_deref()).map_err(SessionError::Invalid)?);
    let salt = salt(called, settings.seed);
    let patience = Duration::try_from_secs_f64(traffic.timeout_seconds).unwrap_or(Duration::MAX);
    let mean = match trace.len() {
        0 => traffic.prompt.mean(),
        n => (trace.iter().map(|e| u64::from(e.tokens())).sum::<u64>() / n as u64) as u32,
    };
    let learned = sizing::learn(&client, tokens.as_deref(), mean, salt, patience).await;
    let (dialect, sizing) = learned.map_err(SessionError::Invalid)?;
    let job = Job { client, traffic, dialect, sizing, tokens, trace, seed: settings.seed, salt };
    let mut asker = Asker { job, started, settings, called, report };
    let mut load = match asker.job.traffic.search {
        Some(search) => asker.search(search).await?,
        None => asker.stretch().await?.map_err(SessionError::Invalid)?,
    };
    load.peak_bytes = asker.started.as_ref().map_or(0, Started::peak_bytes);
    Ok(load)
}

/// The model's own tokenizer, where one is named.
fn tokenizer(path: Option<&str>) -> Result<Option<Arc<Tokens>>, String> {
    let open = |path| Tokens::open(Path::new(path)).map(Arc::new);
    path.map(open).transpose().map_err(|m| format!("engine.tokenizer: {m}"))
}

/// The requests of a trace; none where there is no file.
fn traced(path: Option<&str>, tokens: Option<&Tokens>) -> Result<Vec<Entry>, String> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(path).map_err(|e| {
        format!("load.trace: {path} cannot be read ({e}); give its path from the folder in which centime is started")
    })?;
    let count = |text: &str| tokens.and_then(|t| t.count(text).ok()).unwrap_or_else(|| trace::about(text));
    trace::read(&text, &count).map_err(|m| format!("load.trace: {path}: {m}"))
}

/// Whoever puts load on the server, stretch by stretch.
struct Asker<'a> {
    job: Job,
    started: Option<Started>,
    settings: &'a Measure,
    called: SystemTime,
    report: &'a mut dyn FnMut(Progress),
}

/// A stretch's figures, or why it has none.
type Figured = Result<Load, String>;

impl Asker<'_> {
    fn elapsed(&self) -> f64 {
        self.called.elapsed().unwrap_or_default().as_secs_f64()
    }

    /// One stretch of load.
    async fn stretch(&mut self) -> Result<Figured, SessionError> {
        let before = self.elapsed();
        // A server's cache would know the prompts of the stretch before.
        self.job.salt = SplitMix64::new(self.job.salt).draw();
        let mut stretch = Stretch::new(rules(self.settings, &self.job.traffic.pace));
        let looks = Looks::start(Arc::clone(&self.job.client), Instant::now());
        let (mut count, mut ended) = (0u32, Ok(()));
        let (started, report) = (&mut self.started, &mut *self.report);
        let mut go_on = |stretch: &Stretch, now: f64| {
            count = count.wrapping_add(1);
            if count.is_multiple_of(REPORT_EVERY) {
                report(progress(stretch, now));
            }
            ended = started.as_mut().map_or(Ok(()), Started::check);
            ended.is_ok()
        };
        let records = generator::run(&self.job, &mut stretch, &mut go_on).await.map_err(SessionError::Invalid)?;
        ended?;
        let window = stretch.window().ok_or(SessionError::Ended)?;
        let Some(mut served) = summary::served(&records, window, &self.job.traffic.slo) else {
            return Ok(Err(nothing(&records, window, &self.job.traffic.pace)));
        };
        if let Some(own) = &mut served.own {
            own.server = looks.told(window);
        }
        let early = window.1 - window.0 < self.settings.max_seconds;
        Ok(Ok(Load {
            served,
            warmup: u32::try_from(records.iter().filter(|r| r.due < window.0).count()).unwrap_or(u32::MAX),
            stopped_by: if early { Stop::Precision } else { Stop::MaxSeconds },
            precision: stretch.precision(),
            began: before + window.0,
            peak_bytes: 0,
        }))
    }

    /// The stretch at the largest load that holds, found by trying.
    async fn search(&mut self, search: Search) -> Result<Load, SessionError> {
        let start = self.job.traffic.pace;
        let mut bounds = Bisection::new(search, start.load().unwrap_or(1.0), start.concurrency().is_some());
        let (mut best, mut last) = (None::<(f64, Load)>, String::new());
        while let Some(load) = bounds.next() {
            let began = self.elapsed();
            self.job.traffic.pace = start.at(load);
            let found = self.stretch().await?;
            let share = found.as_ref().ok().and_then(|f| f.served.own.as_ref()?.slo_share);
            let holds = share.is_some_and(|s| s >= self.job.traffic.slo.share);
            bounds.note(load, holds);
            match found {
                Ok(found) if holds && best.as_ref().is_none_or(|(at, _)| *at < load) => best = Some((load, found)),
                Ok(_) => {
                    last = format!("at {load:.3} {:.1} % of the requests kept to it", share.unwrap_or(0.0) * 100.0)
                }
                Err(why) => last = why,
            }
            // What is known when the time is up is better than nothing.
            let another = self.elapsed() - began;
            if self.elapsed() + another > self.settings.timeout_seconds * SEARCHED {
                break;
            }
        }
        let Some((held, mut load)) = best else {
            return Err(SessionError::Invalid(format!("no load that was tried holds the SLO: {last}")));
        };
        if let Some(own) = &mut load.served.own {
            own.largest = Some((held, bounds.bounds().1));
        }
        Ok(load)
    }
}

/// Another one for every launch.
fn salt(now: SystemTime, seed: u64) -> u64 {
    let nanoseconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    SplitMix64::new(nanoseconds ^ seed.rotate_left(32) ^ u64::from(std::process::id())).draw()
}

fn rules(settings: &Measure, pace: &Pace) -> Rules {
    Rules {
        warm_up: settings.warmup_steps,
        at_a_time: pace.concurrency().unwrap_or(ANSWERING),
        min_seconds: settings.min_seconds,
        max_seconds: settings.max_seconds,
        precision: settings.precision,
    }
}

fn progress(stretch: &Stretch, now: f64) -> Progress {
    let (stage, steps, precision) = match stretch.answered() {
        Some(answered) => (Stage::Measuring, answered as u64, stretch.precision()),
        None => (Stage::WarmUp, stretch.ended().into(), None),
    };
    Progress { stage, steps, seconds: now, tokens_per_second: None, precision }
}

/// Why there are no figures.
fn nothing(records: &[Record], window: (f64, f64), pace: &Pace) -> String {
    let failed: Vec<&Record> = records.iter().filter(|r| !r.is_answered() && !r.reason.is_empty()).collect();
    let seconds = window.1 - window.0;
    match failed.last() {
        Some(last) => format!(
            "no request of {seconds:.1} s of load was answered, and {} failed ({}): {}",
            failed.len(),
            last.outcome.in_words(),
            last.reason
        ),
        None if pace.concurrency().is_some() => {
            format!("no request began within {seconds:.1} s of load: one takes longer; raise measure.max_seconds")
        }
        None => format!("no request was due within {seconds:.1} s of load; raise load.rate or measure.max_seconds"),
    }
}
