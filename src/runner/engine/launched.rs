//! One launch of a program, and what its end says: crashed, out of memory, somebody left behind.

use super::meter::Meter;
use super::output::shown;
use super::program::{Ended, Program};
use crate::runner::memory::oom_kills;
use crate::runner::verdict::exited;
use crate::scenario::engine::{Engine, OUTPUT};
use crate::transformer::error::SessionError;
use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Most bytes that are kept of what a launch prints.
const MOST: usize = 64 << 20;

/// What programs say when there is no memory left: PyTorch, Python, C++, Rust, CUDA.
const OUT_OF_MEMORY: [&str; 6] =
    ["out of memory", "OutOfMemoryError", "MemoryError", "std::bad_alloc", "memory allocation of ", "ENOMEM"];

/// A launch that runs.
pub(super) struct Launched {
    program: Program,
    name: String,
    output: Option<Output>,
    last_line: String,
    kills: u64,
}

/// A file for one launch.
struct Output(PathBuf);

impl Output {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("centime-{}-{n}.json", process::id())))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // A program that writes nothing leaves nothing.
        let _ = fs::remove_file(&self.0);
    }
}

impl Launched {
    /// # Errors
    /// A program that cannot be started.
    pub(crate) fn start(engine: &Engine, meter: &mut Meter) -> Result<Self, SessionError> {
        let output = engine.command.iter().any(|w| w.contains(OUTPUT)).then(Output::new);
        let filled = |word: &String| match &output {
            Some(file) => word.replace(OUTPUT, &file.0.display().to_string()),
            None => word.clone(),
        };
        let command: Vec<String> = engine.command.iter().map(filled).collect();
        let kills = oom_kills();
        let program = Program::start(&command, &engine.env).map_err(|e| {
            let program = engine.command.first().map_or("", String::as_str);
            let remedy = if e.kind() == std::io::ErrorKind::NotFound {
                "; install it, or give its path from the folder in which centime is started"
            } else {
                ""
            };
            SessionError::Invalid(format!("{program} could not be started: {e}{remedy}"))
        })?;
        meter.anew();
        Ok(Self { program, name: engine.name(), output, last_line: String::new(), kills })
    }

    /// The next line that it prints; `None` at the end.
    ///
    /// # Errors
    /// A line that does not end.
    pub(crate) fn line(&mut self) -> Result<Option<String>, SessionError> {
        let line = self.program.line().map_err(|m| SessionError::Invalid(format!("{}: {m}", self.name)))?;
        if let Some(line) = line.as_ref().filter(|l| !l.trim().is_empty()) {
            self.last_line.clone_from(line);
        }
        Ok(line)
    }

    /// The last line that was not empty, for a message.
    pub(crate) fn last_line(&self) -> String {
        if self.last_line.is_empty() { String::new() } else { shown(&self.last_line) }
    }

    /// Reads on until the program has ended well; what it said, in its file where it has one.
    ///
    /// # Errors
    /// A bad end, a process left behind, too much output, a file that cannot be read.
    pub(crate) fn finish(mut self) -> Result<String, SessionError> {
        let mut said = String::new();
        while let Some(line) = self.line()? {
            if said.len() + line.len() >= MOST {
                return Err(SessionError::Invalid(format!("{}: printed more than {MOST} bytes", self.name)));
            }
            said.push_str(&line);
            said.push('\n');
        }
        let Self { program, name, output, kills, .. } = self;
        verdict(&name, &program.ended(), oom_kills() > kills)?;
        match output {
            None => Ok(said),
            Some(file) => fs::read(&file.0).map(|b| String::from_utf8_lossy(&b).into_owned()).map_err(|e| {
                SessionError::Invalid(format!("{name}: its file {OUTPUT} cannot be read ({e}); does it write there?"))
            }),
        }
    }
}

fn verdict(name: &str, ended: &Ended, oom_killed: bool) -> Result<(), SessionError> {
    let exit = ended.exit.filter(|e| !e.success());
    if let Some(exit) = exit {
        let how = format!("{name}: {}", exited(exit, &ended.stderr));
        let told = OUT_OF_MEMORY.iter().any(|words| ended.stderr.contains(words));
        return Err(if told || oom_killed { SessionError::OutOfMemory(how) } else { SessionError::Crashed(how) });
    }
    if ended.left_behind.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = ended.left_behind.iter().map(|m| m.name.as_str()).collect();
    Err(SessionError::Invalid(format!(
        "{name}: ended and left {} running ({}), which would disturb what comes after; they were ended: have the program wait for \
         what it starts",
        if names.len() == 1 { "a process".into() } else { format!("{} processes", names.len()) },
        names.join(", ")
    )))
}
