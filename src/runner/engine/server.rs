//! A server for as long as it is asked: one that is there already, or one that is started, waited for and ended.

use super::meter::Meter;
use super::program::Program;
use crate::load::client::Client;
use crate::runner::memory::oom_kills;
use crate::runner::verdict::exited;
use crate::scenario::engine::Engine;
use crate::transformer::error::SessionError;
use std::time::Duration;

/// Between two looks whether it is ready, and how long one look may take.
const LOOK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A server that Centime started.
pub(super) struct Started {
    program: Program,
    name: String,
    meter: Meter,
    kills: u64,
}

impl Started {
    /// Starts the program, and waits until the server answers at `ready`. How long that may take is the trial's time-out's business.
    ///
    /// # Errors
    /// A program that cannot be started, or ends.
    pub(crate) async fn start(engine: &Engine, ready: &str, client: &Client) -> Result<Self, SessionError> {
        let name = engine.name();
        let kills = oom_kills();
        let program = Program::in_background(&engine.command, &engine.env).map_err(|e| {
            SessionError::Invalid(format!("{name} could not be started: {e}; give its path in engine.start"))
        })?;
        let meter = Meter::start();
        meter.anew();
        let mut started = Self { program, name, meter, kills };
        loop {
            started.check()?;
            if let Ok((200, _)) = client.page(ready, LOOK.1).await {
                return Ok(started);
            }
            tokio::time::sleep(LOOK.0).await;
        }
    }

    /// # Errors
    /// It has ended.
    pub(crate) fn check(&mut self) -> Result<(), SessionError> {
        let Some(exit) = self.program.exit() else { return Ok(()) };
        let how = format!("the server {}: {}", self.name, exited(exit, &self.program.last_words()));
        let how = if exit.success() { format!("{how} (it has to stay in the foreground)") } else { how };
        Err(if oom_kills() > self.kills { SessionError::OutOfMemory(how) } else { SessionError::Crashed(how) })
    }

    /// The most resident bytes that its processes have held together.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.meter.peak_bytes()
    }
}
