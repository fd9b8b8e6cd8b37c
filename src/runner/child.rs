//! The child's end: one trial in this process, from the request on stdin to the figures on stdout.

use super::allocation;
use super::clock::{Clock, Monotonic, Watch};
use super::engine::{EngineSession, serving};
use super::fault::Faults;
use super::learning::{Broken, Start, prepared, study};
use super::measure::{Measured, Onlooker, measure};
use super::measurement::Figures;
use super::measurement::Stop;
use super::memory;
use super::protocol::{
    CACHE_PROTOCOL, ENGINE_PROTOCOL, EXPERT_PROTOCOL, Fault, LEARNING_PROTOCOL, LEVERS_PROTOCOL, Message,
    PIPELINE_PROTOCOL, PROTOCOL_VERSION, Progress, ProtocolError, Team, TrialRequest, WEIGHTS_PROTOCOL, read_request,
    send,
};
use super::telemetry::Telemetry;
use super::telemetry::sampler::{EVERY, Sampler};
use super::telemetry::summary::Steps;
use super::traced::profile;
use super::watch::Disturbance;
use super::watch::watcher::{Seat, Watcher};
use crate::hardware::gpu::nvml;
use crate::net::rendezvous::listen;
use crate::scenario::engine::Engine;
use crate::scenario::engine::server::Server;
use crate::scenario::trial::Trial;
use crate::transformer::collective::net::Net;
use crate::transformer::error::SessionError;
use crate::transformer::loss_change::LossChange;
use crate::transformer::prepare::{prepare, prepare_among};
use crate::transformer::session::{Session, SessionOptions};
use crate::transformer::{BackendKind, CacheFormat, WeightFormat};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// What keeps a trial from having figures.
#[derive(Debug)]
struct Failure {
    kind: Fault,
    reason: String,
}

impl Failure {
    fn invalid(reason: impl Into<String>) -> Self {
        Self { kind: Fault::Invalid, reason: reason.into() }
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let kind = match &error {
            SessionError::OutOfMemory(_) => Fault::Oom,
            SessionError::Crashed(_) => Fault::Device,
            e if e.is_consequence() => Fault::Lost,
            SessionError::Device(_) => Fault::Device,
            _ => Fault::Invalid,
        };
        Self { kind, reason: error.to_string() }
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Session(error) => error.into(),
            Broken::Diverged(reason) => Self { kind: Fault::Diverged, reason },
        }
    }
}

/// Reads a request, runs its trial and says what came of it. A trial that fails is a message, not an error.
///
/// # Errors
/// A request that is none, or a parent that is gone.
pub fn serve(input: impl Read, mut output: impl Write) -> Result<(), ProtocolError> {
    let request = read_request(input)?;
    let last = match figures(&request, &mut output) {
        Ok(figures) => Message::Done(Box::new(figures)),
        Err(failure) => Message::Failed { kind: failure.kind, reason: failure.reason },
    };
    send(&mut output, &last)
}

fn figures(request: &TrialRequest, output: &mut impl Write) -> Result<Figures, Failure> {
    let known = [
        PROTOCOL_VERSION,
        ENGINE_PROTOCOL,
        WEIGHTS_PROTOCOL,
        LEVERS_PROTOCOL,
        LEARNING_PROTOCOL,
        PIPELINE_PROTOCOL,
        CACHE_PROTOCOL,
        EXPERT_PROTOCOL,
    ];
    if !known.contains(&request.protocol) {
        let theirs = request.protocol;
        return Err(Failure::invalid(format!(
            "the program was replaced during the run (protocol {theirs}, here {PROTOCOL_VERSION}); start the run again"
        )));
    }
    let began = Instant::now();
    let no_memory_facts = || Failure::invalid("/proc/self/status cannot be read, so memory cannot be measured");
    let baseline = memory::resident().ok_or_else(no_memory_facts)?;
    memory::volunteer_for_the_oom_killer();
    // Processors of a trial on GPUs idle: what others do on them is no measure of it.
    let of_its_own = request.trial.engine.is_some();
    let alone = request.team.is_none() && request.trial.backend == BackendKind::Cpu && !of_its_own;
    let cores = request.trial.devices.saturating_mul(request.trial.cores_per_device);
    let seat = Seat::now(alone, cores, request.measure.disturbed, request.patience_seconds);
    say(output, &Message::Ready { baseline_rss_bytes: baseline.now })?;

    let faults = Faults::of(&request.trial).map_err(|e| Failure::invalid(e.to_string()))?;
    faults.strike();
    let mut settings = request.measure.clone();
    if let Some((engine, server)) = served(&request.trial) {
        return asked(engine, server, request, output);
    }
    // What is wrong with the text is told before a model takes memory.
    let lessons = prepared(request).map_err(Failure::invalid)?;
    let baseline = if lessons.is_some() { with_text(baseline) } else { baseline };
    let mut session = match (faults.session(&request.trial), &request.trial.engine) {
        (Some(session), _) => session,
        (None, Some(engine)) => {
            let session = engine_of(engine, request)?;
            settings.warmup_steps = settings.warmup_steps.or(session.warm_up());
            Box::new(session)
        }
        (None, None) => session_of(request, output)?,
    };
    session = faults.disturbed(session);
    lessons.iter().try_for_each(|lessons| session.enrol(lessons.course()))?;
    let start = lessons.as_ref().map_or_else(|| Ok(Start::default()), |lessons| lessons.start(session.as_mut()))?;
    if request.team.as_ref().is_some_and(|team| team.world.rank > 0) {
        return followed(session, request, baseline.now, seat);
    }
    let (watch, clock) = (Watch::start(), Monotonic::start());
    // What one node tells is not the trial's where there are others.
    let whole = request.team.as_ref().is_none_or(|team| team.world.local_size == team.world.size);
    let sampler = if whole { sampler(&request.trial, &faults, clock) } else { None };
    let (mut lost, mut watcher) = (None, Watcher::start(seat, clock.now().as_secs_f64()));
    let mut report = |progress| tell(output, progress, &mut lost);
    let (measured, learned) = match &lessons {
        None => (measure(session.as_mut(), &settings, &clock, &mut watcher, &mut report)?, None),
        Some(lessons) => {
            let terms = lessons.terms(began.elapsed().as_secs_f64());
            let (measured, learned) = study(session.as_mut(), &terms, start, &clock, &mut watcher, &mut report)?;
            (measured, Some(learned))
        }
    };
    unbroken(lost, &watch)?;
    let peak = memory::resident().ok_or_else(no_memory_facts)?.peak;
    // Of a training that went on, steps before are of another process's clock.
    let before = measured.step_seconds.len().saturating_sub(measured.step_starts.len());
    let steps = Steps { starts: &measured.step_starts, seconds: &measured.step_seconds[before..] };
    let disturbance = watcher.finish(steps.starts, clock.now().as_secs_f64());
    let telemetry = sampler.map(|s| s.finish(steps));
    let on_its_gpus = telemetry.as_ref().and_then(Telemetry::other_processes);
    let disturbance = Disturbance { on_its_gpus, ..disturbance };
    let mut figures = assemble(measured, &request.trial, [baseline.now, peak], &watch, (telemetry, disturbance));
    figures.profile = profile(session.as_mut(), &figures.step_seconds, request.trial.backend);
    let elsewhere = session.elsewhere();
    // Everything is measured, and the memory of one model is free for the next.
    drop(session);
    figures.quantization_loss = loss_change(request);
    figures.learned.extend(learned);
    let figures = elsewhere.into_iter().fold(figures, of_other_processes);
    Ok(Figures { watts: figures.watts.filter(|_| whole), ..figures })
}

/// What the process holds with its text, from where its model begins: a tokenizer that was trained is no part of it.
fn with_text(before: memory::Resident) -> memory::Resident {
    memory::forget_peak();
    allocation::forget_peak();
    memory::resident().unwrap_or(before)
}

/// Tells the parent how far the trial is. One that is gone takes this process with it; should it not, the trial's end will tell.
fn tell(output: &mut impl Write, progress: Progress, lost: &mut Option<Failure>) {
    if lost.is_none() {
        *lost = say(output, &Message::Progress(progress)).err();
    }
}

/// Whether the parent heard all of a measurement, and the machine was awake throughout.
fn unbroken(lost: Option<Failure>, watch: &Watch) -> Result<(), Failure> {
    if let Some(failure) = lost {
        return Err(failure);
    }
    match watch.suspended() {
        Some(seconds) => {
            Err(Failure::invalid(format!("the machine was suspended for {seconds:.1} s during the trial")))
        }
        None => Ok(()),
    }
}

/// What a trial's weights and KV cache do to the loss, if they are of few bits and somebody asks: computed on the CPU, wherever the trial
/// runs.
fn loss_change(request: &TrialRequest) -> Option<LossChange> {
    let (trial, w) = (&request.trial, &request.trial.workload);
    let few_bits = w.weights != WeightFormat::Dtype || w.kv_cache != CacheFormat::Dtype;
    let own = trial.engine.is_none() && trial.backend != BackendKind::Naive;
    let asked = few_bits && own && request.loss_change && request.team.is_none();
    asked.then(|| LossChange::of(w, trial.cores_per_device as usize, request.measure.seed))
}

/// Figures of a trial that other processes ran: this one's memory and disturbance are not theirs.
fn of_other_processes(figures: Figures, peak_rss_bytes: u64) -> Figures {
    let mut telemetry = figures.telemetry;
    // Those that compute on the GPUs are the trial's own.
    telemetry.iter_mut().flat_map(|t| &mut t.gpus).for_each(|gpu| gpu.other_processes = None);
    Figures {
        peak_rss_bytes,
        baseline_rss_bytes: 0,
        peak_allocated_bytes: 0,
        first_allocated_bytes: None,
        telemetry,
        disturbance: None,
        ..figures
    }
}

/// The server of a trial that asks one.
fn served(trial: &Trial) -> Option<(&Engine, &Server)> {
    let engine = trial.engine.as_ref()?;
    Some((engine, engine.server.as_ref()?))
}

/// A trial that asks a server: a stretch of load is a launch, whose one step is what is under way at a time, at the stretch's rate of
/// tokens.
fn asked(
    engine: &Engine,
    server: &Server,
    request: &TrialRequest,
    output: &mut impl Write,
) -> Result<Figures, Failure> {
    if request.team.is_some() {
        return Err(Failure::invalid("a server is asked by one process: run centime without a launcher"));
    }
    let (watch, clock) = (Watch::start(), Monotonic::start());
    let faults = Faults::of(&request.trial).map_err(|e| Failure::invalid(e.to_string()))?;
    // Of a server elsewhere this machine's GPUs say nothing.
    let sampler = if server.ready.is_some() { sampler(&request.trial, &faults, clock) } else { None };
    let mut lost = None;
    let load = serving::measure(engine, server, &request.measure, &mut |progress| {
        tell(output, progress, &mut lost);
    })?;
    unbroken(lost, &watch)?;
    let own = load.served.own.as_ref();
    let (seconds, input) = own.map_or((0.0, 0.0), |o| (o.seconds, o.input_tokens_per_second));
    let rate = input + load.served.output_tokens_per_second.unwrap_or(0.0);
    let measured = Measured {
        step_seconds: vec![request.trial.workload.tokens_per_step() as f64 / rate],
        step_starts: vec![load.began],
        first_token_seconds: Vec::new(),
        warmup_steps: load.warmup,
        stopped_by: load.stopped_by,
        precision_reached: load.precision,
        loss: None,
        checksum: 0,
        first_allocated_bytes: 0,
        device_memory: None,
        expert_loads: None,
    };
    let telemetry = sampler.map(|s| s.finish(Steps { starts: &[load.began], seconds: &[seconds] }));
    let figures = assemble(measured, &request.trial, [0, 0], &watch, (telemetry, Disturbance::default()));
    let figures = of_other_processes(figures, load.peak_bytes);
    Ok(Figures { served: vec![load.served], ..figures })
}

fn engine_of(engine: &Engine, request: &TrialRequest) -> Result<EngineSession, Failure> {
    if request.team.is_some() {
        return Err(Failure::invalid(
            "a program is started once: run centime without a launcher, and have the command start the others (torchrun in its command)",
        ));
    }
    Ok(EngineSession::start(engine, &request.trial)?)
}

impl Onlooker for Watcher {
    fn look(&mut self, now: Duration) -> bool {
        Self::look(self, now.as_secs_f64())
    }

    fn pause(&mut self, clock: &dyn Clock) -> bool {
        Self::pause(self, &|| clock.now().as_secs_f64())
    }
}

/// Listens to the GPUs of a trial that runs on some; no other loads a library or starts a thread for it.
fn sampler(trial: &Trial, faults: &Faults, clock: Monotonic) -> Option<Sampler> {
    let sensors = match faults.gpus() {
        Some(script) => script.sensors(trial.devices),
        None if trial.backend == BackendKind::Cuda => nvml::open(),
        None => return None,
    };
    Some(Sampler::start(sensors, trial.devices, clock, EVERY))
}

fn say(output: &mut impl Write, message: &Message) -> Result<(), Failure> {
    send(output, message).map_err(|e| Failure::invalid(e.to_string()))
}

fn session_of(request: &TrialRequest, output: &mut impl Write) -> Result<Box<dyn Session>, Failure> {
    let (trial, seed) = (&request.trial, request.measure.seed);
    let (parallel, threads_per_rank) = (trial.parallel(), trial.cores_per_device);
    let options = SessionOptions { backend: trial.backend, parallel, threads_per_rank, seed };
    let Some(Team { world, key }) = &request.team else { return Ok(prepare(&trial.workload, &options)?) };
    // Whoever is waited for longer than the trial may take is not waited for by its parent either.
    let patience = Duration::try_from_secs_f64(request.measure.timeout_seconds).unwrap_or(Duration::MAX);
    let listener = match world.rank {
        0 => {
            let listener = listen(&world.host, 0).map_err(|e| Failure::invalid(e.to_string()))?;
            let port = listener.local_addr().map_err(|e| Failure::invalid(format!("a port: {e}")))?.port();
            say(output, &Message::Meeting { port })?;
            Some(listener)
        }
        _ => None,
    };
    let net = Net::meet(world.clone(), *key, listener.as_ref(), patience)?;
    Ok(prepare_among(&trial.workload, &options, net)?)
}

/// The part of a process that does not lead. Its figures tell of its memory, and of its own steps only for the eye.
fn followed(
    mut session: Box<dyn Session>,
    request: &TrialRequest,
    baseline: u64,
    seat: Seat,
) -> Result<Figures, Failure> {
    let (watch, clock) = (Watch::start(), Monotonic::start());
    let watcher = Watcher::start(seat, 0.0);
    let step_seconds = session.follow()?;
    let measured = Measured {
        step_starts: Vec::new(),
        step_seconds,
        first_token_seconds: Vec::new(),
        warmup_steps: 0,
        stopped_by: Stop::MaxSeconds,
        precision_reached: None,
        loss: None,
        checksum: session.checksum(),
        first_allocated_bytes: allocation::peak_bytes(),
        // Of the pools of several processes nothing is told.
        device_memory: None,
        expert_loads: None,
    };
    let peak = memory::resident().map_or(0, |r| r.peak);
    let disturbance = watcher.finish(&[], clock.now().as_secs_f64());
    Ok(assemble(measured, &request.trial, [baseline, peak], &watch, (None, disturbance)))
}

fn assemble(
    m: Measured,
    trial: &Trial,
    [baseline, peak]: [u64; 2],
    watch: &Watch,
    (telemetry, disturbance): (Option<Telemetry>, Disturbance),
) -> Figures {
    Figures {
        step_seconds: m.step_seconds,
        first_token_seconds: m.first_token_seconds,
        launches: vec![],
        warmup_steps: m.warmup_steps,
        tokens_per_step: trial.workload.tokens_per_step(),
        stopped_by: m.stopped_by,
        precision_reached: m.precision_reached,
        peak_rss_bytes: peak,
        baseline_rss_bytes: baseline,
        peak_allocated_bytes: allocation::peak_bytes(),
        first_allocated_bytes: Some(m.first_allocated_bytes),
        device_memory: m.device_memory,
        expert_loads: m.expert_loads,
        loss: m.loss,
        checksum: m.checksum,
        quantization_loss: None,
        steal_share: watch.steal_share(),
        watts: watch.watts(),
        telemetry,
        machine_rates: Vec::new(),
        disturbance: Some(disturbance),
        served: vec![],
        profile: None,
        learned: vec![],
    }
}
