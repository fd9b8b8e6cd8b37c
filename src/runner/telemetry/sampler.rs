//! Asks the sensors on a thread of its own, from the moment a trial's session is ready until its last step.

use super::summary::{Steps, summarise};
use super::{Heard, Telemetry};
use crate::hardware::gpu::{Sensors, Trouble, visible};
use crate::runner::clock::{Clock, Monotonic};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Time between two readings.
pub(in crate::runner) const EVERY: Duration = Duration::from_millis(100);

/// A process's memory takes a longer look than all else together: only every so many readings, and at the end.
const PROCESS_EVERY: u32 = 10;

/// A thread that listens to a trial's GPUs.
#[derive(Debug)]
pub(in crate::runner) struct Sampler {
    stop: Sender<()>,
    /// Or why there is none.
    thread: Result<JoinHandle<Vec<Heard>>, String>,
}

impl Sampler {
    /// Listens to the first `devices` GPUs that a CUDA program sees.
    pub(crate) fn start(
        sensors: Result<Box<dyn Sensors>, Trouble>,
        devices: u32,
        clock: Monotonic,
        every: Duration,
    ) -> Self {
        let (stop, stopped) = channel();
        let begun = sensors.and_then(|s| {
            let heard = begin(s.as_ref(), devices)?;
            Ok((s, heard))
        });
        let (sensors, mut heard) = match begun {
            Ok(begun) => begun,
            Err(trouble) => return Self { stop, thread: Err(trouble.to_string()) },
        };
        let listen = move || {
            let mut turn = 0;
            listen(sensors.as_ref(), &mut heard, &clock, turn);
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
                turn += 1;
                listen(sensors.as_ref(), &mut heard, &clock, turn);
            }
            listen(sensors.as_ref(), &mut heard, &clock, 0);
            heard
        };
        let thread = thread::Builder::new().name("telemetry".into()).spawn(listen);
        Self { stop, thread: thread.map_err(|e| format!("no thread for readings: {e}")) }
    }

    /// Reads a last time; what was told while these steps ran.
    pub(crate) fn finish(self, steps: Steps) -> Telemetry {
        drop(self.stop);
        match self.thread.map(JoinHandle::join) {
            Ok(Ok(heard)) => summarise(&heard, steps),
            Ok(Err(_)) => Telemetry::untold("the thread that reads the GPUs ended early"),
            Err(why) => Telemetry::untold(why),
        }
    }
}

/// The GPUs that the trial uses.
fn begin(sensors: &dyn Sensors, devices: u32) -> Result<Vec<Heard>, Trouble> {
    let all = crate::hardware::gpu::all(sensors)?;
    let setting = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let seen = visible(&all, setting.as_deref()).into_iter().take(devices as usize);
    let heard: Vec<Heard> =
        seen.filter_map(|i| all.get(i)).map(|gpu| Heard { gpu: gpu.clone(), ..Heard::default() }).collect();
    if heard.is_empty() { Err(Trouble::NoGpu) } else { Ok(heard) }
}

/// One reading of every GPU that is still there.
fn listen(sensors: &dyn Sensors, heard: &mut [Heard], clock: &Monotonic, turn: u32) {
    for h in heard.iter_mut().filter(|h| h.lost.is_none()) {
        let now = clock.now().as_secs_f64();
        match sensors.read(h.gpu.index) {
            Ok(reading) => h.readings.push((now, reading)),
            Err(trouble) => h.lost = Some((now, trouble.to_string())),
        }
        if turn.is_multiple_of(PROCESS_EVERY) {
            h.process_bytes = h.process_bytes.max(sensors.process_bytes(h.gpu.index).unwrap_or_default());
            h.other_processes = h.other_processes.max(sensors.other_processes(h.gpu.index).unwrap_or_default());
        }
    }
}
