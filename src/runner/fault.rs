//! Faults on demand: what tests put into a trial's process to see that the sweep survives it.
//!
//! The variable `CENTIME_FAULT` is honoured by the hidden child process only. It holds directives separated by `;`, each of
//! them `[batch=N/]NAME[:ARGUMENT]`; with `batch=N/` it holds for trials of that batch alone:
//!
//! | directive | what the child does |
//! |---|---|
//! | `synthetic:MS` | steps are busy loops of MS milliseconds instead of a transformer |
//! | `slow:PERCENT` | every step takes that much longer than it does, by waiting busily |
//! | `lost:N` | the N-th step fails as on a GPU that is gone |
//! | `full:N` | from the N-th checkpoint on the disk is full in the middle of it |
//! | `sleep_ms:N` | sleeps N milliseconds before it prepares |
//! | `gpu:NAME` | its GPUs tell what [`super::telemetry`]'s script of that name says, on any backend |
//! | `hang` | never answers again |
//! | `segfault`, `abort`, `sigkill` | ends by that signal |
//! | `exit:N` | exits with code N |
//! | `oom:MIB` | limits its address space to MIB more than it has, and allocates until that fails |
//! | `flood:MIB` | writes MIB of text to stderr, and goes on |
//! | `garbage` | says something on stdout that is no message |
//! | `endless` | writes to stdout for ever without ending a line |
//!
//! Figures made under a fault are not measurements: `centime run` warns, and its journal's key holds the directives, so that
//! no later run takes them for its own.

use super::telemetry::scripted::Script;
use crate::scenario::trial::Trial;
use crate::transformer::checkpoint::written::Written;
use crate::transformer::course::Course;
use crate::transformer::error::SessionError;
use crate::transformer::loads::Loads;
use crate::transformer::memory::DeviceMemory;
use crate::transformer::session::{Session, StepOutcome};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, process, thread};

/// The variable's name.
pub(crate) const VARIABLE: &str = "CENTIME_FAULT";

/// The directives in force, if any.
pub(crate) fn requested() -> Option<OsString> {
    std::env::var_os(VARIABLE).filter(|v| !v.is_empty())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Synthetic(Duration),
    Slow(f64),
    Lost(u32),
    Full(u32),
    Sleep(Duration),
    Gpu(Script),
    Hang,
    Segfault,
    Abort,
    Sigkill,
    Exit(u8),
    Oom { mib: u64 },
    Flood { mib: u64 },
    Garbage,
    Endless,
}

/// The faults of one trial.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Faults(Vec<Fault>);

/// A directive that is none.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("CENTIME_FAULT: `{0}` is no directive; unset the variable, or see the documentation of runner::fault")]
pub(super) struct FaultError(String);

impl Faults {
    /// The directives of the environment that concern `trial`.
    ///
    /// # Errors
    /// A directive that is not understood.
    pub(super) fn of(trial: &Trial) -> Result<Self, FaultError> {
        let Some(text) = requested() else { return Ok(Self::default()) };
        let text = text.into_string().map_err(|t| FaultError(t.to_string_lossy().into_owned()))?;
        Self::parse(&text, trial.workload.batch)
    }

    fn parse(text: &str, batch: u32) -> Result<Self, FaultError> {
        let mut faults = Vec::new();
        for directive in text.split(';').filter(|d| !d.is_empty()) {
            let refused = || FaultError(directive.to_string());
            let fault = match directive.split_once('/') {
                None => directive,
                Some((condition, fault)) => {
                    let wanted: u32 =
                        condition.strip_prefix("batch=").and_then(|n| n.parse().ok()).ok_or_else(refused)?;
                    if wanted != batch {
                        continue;
                    }
                    fault
                }
            };
            faults.push(parse_fault(fault).ok_or_else(refused)?);
        }
        Ok(Self(faults))
    }

    /// The session that stands in for the transformer, if one is asked for.
    pub(super) fn session(&self, trial: &Trial) -> Option<Box<dyn Session>> {
        let tokens = trial.workload.tokens_per_step();
        self.0.iter().find_map(|f| match f {
            Fault::Synthetic(step) => Some(Box::new(Synthetic { step: *step, tokens, steps: 0 }) as Box<dyn Session>),
            _ => None,
        })
    }

    /// What stands in for the driver's library, if that is asked for.
    pub(super) fn gpus(&self) -> Option<&Script> {
        self.0.iter().find_map(|f| if let Fault::Gpu(script) = f { Some(script) } else { None })
    }

    /// The session, slowed down or with a device that will be lost or a disk that will be full, if that is asked for.
    pub(super) fn disturbed(&self, session: Box<dyn Session>) -> Box<dyn Session> {
        self.0.iter().fold(session, |session, fault| match fault {
            Fault::Slow(share) => Box::new(Slowed { session, share: *share }),
            Fault::Lost(step) => Box::new(Losing { session, left: *step }),
            Fault::Full(checkpoint) => Box::new(Filling { session, left: *checkpoint }),
            _ => session,
        })
    }

    /// Does to this process what was asked.
    pub(super) fn strike(&self) {
        self.0.iter().for_each(|f| strike(*f));
    }
}

fn parse_fault(text: &str) -> Option<Fault> {
    let (name, argument) = text.split_once(':').map_or((text, None), |(n, a)| (n, Some(a)));
    let millis =
        || argument?.parse().ok().filter(|ms| (0.0..1e9).contains(ms)).map(|ms: f64| Duration::from_secs_f64(ms / 1e3));
    let mib = |usual| argument.map_or(Some(usual), |a| a.parse::<u64>().ok().filter(|m| *m < 1 << 30));
    Some(match name {
        "synthetic" => Fault::Synthetic(millis()?),
        "slow" => Fault::Slow(argument?.parse().ok().filter(|p| (0.0..=1000.0).contains(p)).map(|p: f64| p / 100.0)?),
        "lost" => Fault::Lost(argument?.parse().ok()?),
        "full" => Fault::Full(argument?.parse().ok()?),
        "sleep_ms" => Fault::Sleep(millis()?),
        "gpu" => Fault::Gpu(Script::named(argument?)?),
        "exit" => Fault::Exit(argument?.parse().ok()?),
        "oom" => Fault::Oom { mib: mib(256)? },
        "flood" => Fault::Flood { mib: mib(16)? },
        _ if argument.is_some() => return None,
        "hang" => Fault::Hang,
        "segfault" => Fault::Segfault,
        "abort" => Fault::Abort,
        "sigkill" => Fault::Sigkill,
        "garbage" => Fault::Garbage,
        "endless" => Fault::Endless,
        _ => return None,
    })
}

fn strike(fault: Fault) {
    match fault {
        Fault::Synthetic(_) | Fault::Slow(_) | Fault::Lost(_) | Fault::Full(_) | Fault::Gpu(_) => {}
        Fault::Sleep(time) => thread::sleep(time),
        Fault::Hang => loop {
            thread::sleep(Duration::from_secs(3600));
        },
        Fault::Segfault => die_by(rustix::process::Signal::SEGV),
        Fault::Sigkill => die_by(rustix::process::Signal::KILL),
        Fault::Abort => process::abort(),
        Fault::Exit(code) => process::exit(i32::from(code)),
        Fault::Oom { mib } => exhaust(mib),
        Fault::Flood { mib } => {
            flood(&mut io::stderr(), mib.saturating_mul(1 << 20), b"flooding the gates of stderr\n")
        }
        Fault::Garbage => flood(&mut io::stdout(), 1, b"this is no message\n"),
        Fault::Endless => flood(&mut io::stdout(), u64::MAX, b"no line ends here "),
    }
}

/// Sends itself the signal until it is dead: the first one may only undo a handler.
fn die_by(signal: rustix::process::Signal) {
    loop {
        if rustix::process::kill_process(rustix::process::getpid(), signal).is_err() {
            process::abort();
        }
    }
}

fn flood(to: &mut impl Write, bytes: u64, with: &[u8]) {
    let mut written = 0u64;
    while written < bytes && to.write_all(with).is_ok() {
        written = written.saturating_add(with.len() as u64);
    }
    // A reader that is gone has had enough.
    let _ = to.flush();
}

/// Allocates until there is no more, under a limit of its own: the machine must not suffer.
fn exhaust(mib: u64) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = status.lines().find_map(|l| l.strip_prefix("VmSize:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let limit = (size.unwrap_or(0) << 10).saturating_add(mib << 20);
    if setrlimit(Resource::As, Rlimit { current: Some(limit), maximum: Some(limit) }).is_err() {
        process::abort();
    }
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(vec![1; 16 << 20]);
    }
}

/// Steps of a known length that compute nothing.
#[derive(Debug)]
struct Synthetic {
    step: Duration,
    tokens: u64,
    steps: u32,
}

impl Session for Synthetic {
    fn step(&mut self) -> Result<StepOutcome, SessionError> {
        let start = Instant::now();
        while start.elapsed() < self.step {
            std::hint::spin_loop();
        }
        self.steps += 1;
        Ok(StepOutcome { tokens: self.tokens, loss: None, first_token_seconds: None })
    }

    fn checksum(&self) -> u32 {
        self.steps
    }
}

/// A session whose steps take a share longer.
struct Slowed {
    session: Box<dyn Session>,
    share: f64,
}

impl Slowed {
    fn slowly(
        &mut self,
        step: impl FnOnce(&mut dyn Session) -> Result<StepOutcome, SessionError>,
    ) -> Result<StepOutcome, SessionError> {
        let start = Instant::now();
        let outcome = step(self.session.as_mut())?;
        let until = start.elapsed().mul_f64(1.0 + self.share);
        while start.elapsed() < until {
            std::hint::spin_loop();
        }
        let first_token_seconds = outcome.first_token_seconds.map(|s| s * (1.0 + self.share));
        Ok(StepOutcome { first_token_seconds, ..outcome })
    }
}

impl Session for Slowed {
    fn step(&mut self) -> Result<StepOutcome, SessionError> {
        self.slowly(|session| session.step())
    }

    fn enrol(&mut self, course: Course) -> Result<(), SessionError> {
        self.session.enrol(course)
    }

    fn train(&mut self, rate: f32) -> Result<StepOutcome, SessionError> {
        self.slowly(|session| session.train(rate))
    }

    fn evaluate(&mut self, batches: u64) -> Result<f64, SessionError> {
        self.session.evaluate(batches)
    }

    fn save(&mut self, folder: &Path) -> Result<Vec<Written>, String> {
        self.session.save(folder)
    }

    fn restore(&mut self, folder: &Path, step: u64) -> Result<(), SessionError> {
        self.session.restore(folder, step)
    }

    fn checksum(&self) -> u32 {
        self.session.checksum()
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        self.session.device_memory()
    }

    fn loads(&self) -> Option<Loads> {
        self.session.loads()
    }
}

/// A session that finds the disk full after some checkpoints.
struct Filling {
    session: Box<dyn Session>,
    left: u32,
}

impl Session for Filling {
    fn step(&mut self) -> Result<StepOutcome, SessionError> {
        self.session.step()
    }

    fn enrol(&mut self, course: Course) -> Result<(), SessionError> {
        self.session.enrol(course)
    }

    fn train(&mut self, rate: f32) -> Result<StepOutcome, SessionError> {
        self.session.train(rate)
    }

    fn evaluate(&mut self, batches: u64) -> Result<f64, SessionError> {
        self.session.evaluate(batches)
    }

    fn save(&mut self, folder: &Path) -> Result<Vec<Written>, String> {
        let written = self.session.save(folder)?;
        self.left = self.left.saturating_sub(1);
        let Some(Written { file, bytes, .. }) = written.first().filter(|_| self.left == 0) else { return Ok(written) };
        let path = folder.join(file);
        let cut = std::fs::File::options().write(true).open(&path).and_then(|f| f.set_len(bytes / 2));
        let full = cut.err().unwrap_or_else(|| io::ErrorKind::StorageFull.into());
        Err(format!("{}: {full}", path.display()))
    }

    fn restore(&mut self, folder: &Path, step: u64) -> Result<(), SessionError> {
        self.session.restore(folder, step)
    }

    fn checksum(&self) -> u32 {
        self.session.checksum()
    }
}

/// A session whose device is gone after some steps.
struct Losing {
    session: Box<dyn Session>,
    left: u32,
}

impl Session for Losing {
    fn step(&mut self) -> Result<StepOutcome, SessionError> {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            let gone = "a GPU of this test: waiting: cuStreamSynchronize: CUDA_ERROR_DEVICE_UNAVAILABLE";
            return Err(SessionError::Device(gone.into()));
        }
        self.session.step()
    }

    fn checksum(&self) -> u32 {
        self.session.checksum()
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        self.session.device_memory()
    }

    fn loads(&self) -> Option<Loads> {
        self.session.loads()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_hold_for_all_trials_or_for_one_batch() {
        let text = "synthetic:0.5;batch=8/exit:9;batch=4/oom:64";
        let step = Duration::from_micros(500);
        assert_eq!(Faults::parse(text, 8), Ok(Faults(vec![Fault::Synthetic(step), Fault::Exit(9)])));
        assert_eq!(Faults::parse(text, 4), Ok(Faults(vec![Fault::Synthetic(step), Fault::Oom { mib: 64 }])));
        assert_eq!(Faults::parse("", 4), Ok(Faults::default()));
        assert_eq!(Faults::parse("gpu:slow", 1).unwrap().gpus(), Script::named("slow").as_ref());
    }

    #[test]
    fn what_is_no_directive_is_refused_by_name() {
        for text in
            ["segfalt", "gpu:warm", "exit", "exit:900", "hang:1", "lost", "seq=8/hang", "synthetic:-1", "synthetic:nan"]
        {
            assert_eq!(Faults::parse(text, 1), Err(FaultError(text.into())));
        }
    }
}
