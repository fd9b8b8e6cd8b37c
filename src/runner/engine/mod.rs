//! Programs of the user's in the built-in transformer's place: a session whose steps are what a program says of itself.
//!
//! [`program`] starts one and listens, [`reader`] makes samples of what it prints (the readers of known programs beside it), and
//! [`EngineSession`] hands these to the measuring loop one by one. The time of a step is the program's own word, not the clock's. [`serving`] asks a server instead,
//! which [`server`] starts where that is wanted.

mod launched;
mod llama_bench;
mod meter;
mod output;
mod program;
mod reader;
mod sample;
mod server;
pub(super) mod serving;
mod torchrun;
mod vllm;

use crate::scenario::engine::{Each, Engine};
use crate::scenario::trial::Trial;
use crate::transformer::error::SessionError;
use crate::transformer::memory::DeviceMemory;
use crate::transformer::session::{Session, StepOutcome};
use launched::Launched;
use meter::Meter;
use reader::Reader;
use sample::Sample;
use std::collections::VecDeque;

/// A program whose figures are read one after the other.
pub(super) struct EngineSession {
    engine: Engine,
    reader: Reader,
    tokens_per_step: u64,
    /// The program that runs now, where it prints a line a step.
    running: Option<Launched>,
    /// Read and not yet handed out.
    waiting: VecDeque<Sample>,
    last: Option<Sample>,
    memory: Option<u64>,
    meter: Meter,
}

impl EngineSession {
    /// Starts the program and waits for its first figures, so that what it takes to start is not taken for a step.
    ///
    /// # Errors
    /// A program that cannot be started, fails, or prints no figure.
    pub(crate) fn start(engine: &Engine, trial: &Trial) -> Result<Self, SessionError> {
        let mut session = Self {
            engine: engine.clone(),
            reader: Reader::of(&engine.reads, trial).map_err(SessionError::Invalid)?,
            tokens_per_step: trial.workload.tokens_per_step(),
            running: None,
            waiting: VecDeque::new(),
            last: None,
            memory: None,
            meter: Meter::start(),
        };
        if engine.each() == Each::Step {
            session.running = Some(Launched::start(engine, &mut session.meter)?);
        }
        session.fill()?;
        Ok(session)
    }

    /// Samples that warm up, where the scenario leaves that to the program: those of the first launch, which finds no file in memory.
    /// Later launches are processes like it and get no warmer. `None`: until the time of a step is stationary.
    pub(crate) fn warm_up(&self) -> Option<u32> {
        (self.engine.each() == Each::Launch).then(|| u32::try_from(self.waiting.len()).unwrap_or(u32::MAX))
    }

    /// Waits for more figures.
    fn fill(&mut self) -> Result<(), SessionError> {
        match self.engine.each() {
            Each::Launch => {
                let launched = Launched::start(&self.engine, &mut self.meter)?;
                let said = launched.finish()?;
                let samples = self.reader.text(&said).map_err(|m| SessionError::Invalid(says(&self.engine, &m)))?;
                self.waiting.extend(samples);
            }
            Each::Step => self.next_line()?,
        }
        Ok(())
    }

    /// Reads lines until one tells of a step.
    fn next_line(&mut self) -> Result<(), SessionError> {
        let Some(running) = &mut self.running else { return Err(SessionError::Ended) };
        while let Some(line) = running.line()? {
            let sample = self.reader.line(&line).map_err(|m| SessionError::Invalid(says(&self.engine, &m)))?;
            if let Some(sample) = sample {
                self.waiting.push_back(sample);
                return Ok(());
            }
        }
        let nothing_yet = self.last.is_none();
        let last_line = running.last_line();
        if let Some(running) = self.running.take() {
            running.finish()?;
        }
        if nothing_yet {
            let wanted = self.reader.wanted();
            let found = if last_line.is_empty() { "no line".into() } else { format!("as its last line: {last_line}") };
            let what = format!("no line tells of a step: expected {wanted}, found {found}");
            return Err(SessionError::Invalid(says(&self.engine, &what)));
        }
        Err(SessionError::Ended)
    }
}

fn says(engine: &Engine, what: &str) -> String {
    format!("{}: {what}", engine.name())
}

impl Session for EngineSession {
    fn step(&mut self) -> Result<StepOutcome, SessionError> {
        if self.waiting.is_empty() {
            self.fill()?;
        }
        let sample = self.waiting.pop_front().ok_or(SessionError::Ended)?;
        self.memory = self.memory.max(sample.memory_bytes);
        let outcome = StepOutcome {
            tokens: self.tokens_per_step,
            loss: sample.loss.map(|l| l as f32),
            first_token_seconds: sample.first_token_seconds,
        };
        self.last = Some(sample);
        Ok(outcome)
    }

    /// Of what a program computes nothing is known.
    fn checksum(&self) -> u32 {
        0
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        self.memory.map(|bytes| DeviceMemory { peak_allocated_bytes: bytes, peak_reserved_bytes: 0 })
    }

    fn last_seconds(&self) -> Option<f64> {
        self.last.as_ref().map(|s| s.seconds)
    }

    fn elsewhere(&self) -> Option<u64> {
        Some(self.meter.peak_bytes())
    }
}
