//! The parent's end: starts a trial, listens, and says what came of it, whatever that is.

use super::measurement::{Figures, Measurement, Status};
use super::memory;
use super::process::{Pipes, Process};
use super::protocol::{
    CACHE_PROTOCOL, ENGINE_PROTOCOL, EXPERT_PROTOCOL, Fault, LEARNING_PROTOCOL, LEVERS_PROTOCOL, Message,
    PIPELINE_PROTOCOL, PROTOCOL_VERSION, Progress, Team, TrialRequest, WEIGHTS_PROTOCOL,
};
use super::verdict::{Cut, Ending, judge};
use crate::scenario::{Measure, trial::Trial};
use crate::transformer::CacheFormat;
use crate::transformer::memory::MemoryParts;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longest message: a million samples, written out.
const LONGEST_MESSAGE: u64 = 64 << 20;

/// Most bytes of garbage that are kept for the reason.
const GARBAGE_KEPT: usize = 400;

/// How often the parent looks whether it should stop, and tells its own listener that time passes.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// How long a closed pipe may precede the process's end.
const GRACE: Duration = Duration::from_secs(2);

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The trial.
    pub trial: Trial,
    /// How precisely, and for how long.
    pub measure: Measure,
    /// Goes into the measurement as it is.
    pub predicted_memory: MemoryParts,
    /// Seconds for which the trial may stand still until others are done.
    pub patience_seconds: f64,
    /// Whether a trial with weights or a KV cache in few bits also says what these do to the loss.
    pub loss_change: bool,
}

/// How to start a trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The `centime` program; [`super::this_program`].
    pub program: PathBuf,
    /// Variables that the trial sees beside those of this process.
    pub variables: Vec<(OsString, OsString)>,
}

/// Measures one trial in a child process of its own, and waits for it.
///
/// `progress` is called with every message and at least ten times a second in between; `cancel` ends the trial from another
/// thread or a signal handler. The trial's own faults are statuses of the measurement, never errors: one failed cell does
/// not stop the others. To be called from a thread that outlives the trial: the child dies with it.
pub fn run_trial(
    request: &Request,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Measurement {
    run_part(request, options, progress, cancel, None).0
}

/// The other processes of a trial that runs on several, as this one's parent sees them.
pub(super) trait Others {
    /// This process's place among them.
    fn team(&self) -> Team;
    /// The trial of rank 0 waits for the others at this port.
    fn meet_at(&mut self, port: u16);
    /// Called ten times a second: what ends the trial here, if something does.
    fn trouble(&mut self) -> Option<(Status, String)>;
}

/// [`run_trial`] of one process among others; with it, whether the fault, if there is one, is not this process's.
pub(super) fn run_part(
    request: &Request,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
    others: Option<&mut dyn Others>,
) -> (Measurement, bool) {
    let mut elsewhere = false;
    let began = Instant::now();
    let kills = memory::oom_kills();
    let (status, reason, figures) = match Process::start(&options.program, &options.variables) {
        Ok((process, pipes)) => {
            let mut ending = attend(process, pipes, request, progress, cancel, others);
            elsewhere = matches!(ending.cut, Some(Cut::Others(..)))
                || (ending.cut.is_none() && matches!(ending.failed, Some((Fault::Lost, _))));
            ending.oom_killed = memory::oom_kills() > kills;
            judge(ending)
        }
        Err(error) => {
            let program = options.program.display();
            (Status::Invalid, format!("the trial's process could not be started ({program}): {error}"), None)
        }
    };
    let trial_seconds = began.elapsed().as_secs_f64();
    let predicted_memory = request.predicted_memory;
    (Measurement { status, reason, figures, predicted_memory, trial_seconds }, elsewhere)
}

/// What the listening thread hears.
#[derive(Debug)]
enum Heard {
    Message(Box<Message>),
    Garbage(String),
    End,
}

/// What the parent knows of a running trial.
#[derive(Debug)]
struct Attended {
    done: Option<Figures>,
    failed: Option<(Fault, String)>,
    last: Progress,
    meeting: Option<u16>,
}

fn attend(
    mut process: Process,
    pipes: Pipes,
    request: &Request,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
    mut others: Option<&mut dyn Others>,
) -> Ending {
    let began = Instant::now();
    let heard = listen(pipes.stdout);
    ask(pipes.stdin, request, others.as_ref().map(|o| o.team()));
    let mut known = Attended { done: None, failed: None, last: Progress::START, meeting: None };
    let cut = loop {
        if cancel.load(Ordering::Relaxed) {
            break Some(Cut::Cancelled);
        }
        if began.elapsed().as_secs_f64() >= request.measure.timeout_seconds + request.patience_seconds {
            break Some(Cut::Timeout(request.measure.timeout_seconds));
        }
        match heard.recv_timeout(HEARTBEAT) {
            Ok(Heard::Message(message)) => known.take(*message),
            Ok(Heard::Garbage(said)) => break Some(Cut::Garbage(said)),
            Ok(Heard::End) | Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(others) = &mut others {
            known.meeting.take().into_iter().for_each(|port| others.meet_at(port));
            if let Some((status, reason)) = others.trouble() {
                break Some(Cut::Others(status, reason));
            }
        }
        progress(known.last);
    };
    if cut.is_none() {
        wait_for_the_end(&mut process, &heard);
    }
    let exit = process.kill();
    let Attended { done, failed, last, .. } = known;
    Ending { cut, done, failed, exit, stderr: settled_stderr(&process), oom_killed: false, last }
}

impl Attended {
    fn take(&mut self, message: Message) {
        match message {
            Message::Ready { .. } => {}
            Message::Meeting { port } => self.meeting = Some(port),
            Message::Progress(progress) => self.last = progress,
            Message::Done(figures) => self.done = Some(*figures),
            Message::Failed { kind, reason } => self.failed = Some((kind, reason)),
        }
    }
}

/// Hands the request over. A child that died before reading it is found out by how it ended.
fn ask(mut stdin: ChildStdin, request: &Request, team: Option<Team>) {
    let (trial, measure) = (request.trial.clone(), request.measure.clone());
    let patience_seconds = request.patience_seconds;
    let protocol = match (&trial.engine, &trial.workload.weights_from) {
        (None, _) if trial.parallel().pipeline > 1 => PIPELINE_PROTOCOL,
        (None, _) if trial.parallel().expert > 1 => EXPERT_PROTOCOL,
        _ if trial.learning.is_some() => LEARNING_PROTOCOL,
        (Some(_), _) => ENGINE_PROTOCOL,
        _ if !trial.workload.levers.are_plain() => LEVERS_PROTOCOL,
        _ if trial.workload.kv_cache != CacheFormat::Dtype => CACHE_PROTOCOL,
        (None, Some(_)) => WEIGHTS_PROTOCOL,
        (None, None) => PROTOCOL_VERSION,
    };
    let loss_change = request.loss_change;
    let request = TrialRequest { protocol, trial, measure, team, patience_seconds, loss_change };
    // A request is a few kilobytes and fits into the pipe whether or not anybody reads.
    let _ = serde_json::to_vec(&request).map(|text| stdin.write_all(&text));
}

/// Reads messages on a thread of its own, so that a child that says too much never waits and one that says nothing is not
/// waited for. Gives up at the first thing that is no message; the channel is bounded, and so is every line.
fn listen(stdout: ChildStdout) -> Receiver<Heard> {
    let (sender, receiver) = sync_channel(64);
    let read = move || {
        let last = match hear(BufReader::new(stdout), &sender) {
            Some(garbage) => Heard::Garbage(garbage),
            None => Heard::End,
        };
        // A receiver that is gone has heard enough.
        let _ = sender.send(last);
    };
    // Without a thread there is no sender: the receiver is told so at once, and the process is ended.
    let _ = thread::Builder::new().name("trial-stdout".into()).spawn(read);
    receiver
}

/// Passes messages on until the pipe ends; the text that is no message, if one comes.
fn hear(mut from: impl BufRead, to: &SyncSender<Heard>) -> Option<String> {
    let mut line = Vec::new();
    loop {
        line.clear();
        // What does not begin as an object is not worth waiting for its end.
        if from.fill_buf().ok()?.first().is_some_and(|first| *first != b'{') {
            from.by_ref().take(GARBAGE_KEPT as u64).read_until(b'\n', &mut line).ok()?;
            return Some(lossy(&line));
        }
        from.by_ref().take(LONGEST_MESSAGE).read_until(b'\n', &mut line).ok()?;
        if line.is_empty() {
            return None;
        }
        match serde_json::from_slice(&line) {
            Ok(message) => to.send(Heard::Message(Box::new(message))).ok()?,
            // A line without an end is one that its writer did not live to finish: how it ended says more.
            Err(_) if line.last() != Some(&b'\n') && (line.len() as u64) < LONGEST_MESSAGE => return None,
            Err(_) => return Some(lossy(&line)),
        }
    }
}

fn lossy(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(GARBAGE_KEPT)]).into_owned()
}

/// The pipe ended: so will the process, or it is made to.
fn wait_for_the_end(process: &mut Process, heard: &Receiver<Heard>) {
    let deadline = Instant::now() + GRACE;
    while process.ended().is_none() && Instant::now() < deadline {
        // Nothing more is heard: this only passes the time.
        let _ = heard.recv_timeout(Duration::from_millis(2));
        thread::sleep(Duration::from_millis(1));
    }
}

/// The end of stderr, once the thread that reads it has had a moment to catch up with a process that is gone.
fn settled_stderr(process: &Process) -> String {
    let mut text = process.stderr();
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(2));
        let later = process.stderr();
        if later == text {
            break;
        }
        text = later;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(text: &[u8]) -> (usize, Option<String>) {
        let (sender, receiver) = sync_channel(64);
        let garbage = hear(text, &sender);
        drop(sender);
        (receiver.iter().count(), garbage)
    }

    #[test]
    fn messages_are_passed_on_until_the_pipe_ends() {
        let ready = "{\"message\":\"ready\",\"baseline_rss_bytes\":1}\n";
        assert_eq!(heard(b""), (0, None));
        assert_eq!(heard(ready.repeat(3).as_bytes()), (3, None));
        let torn = format!("{ready}{{\"message\":\"re");
        assert_eq!(heard(torn.as_bytes()), (1, None), "a torn last line is not garbage");
    }

    #[test]
    fn the_first_thing_that_is_no_message_ends_the_listening() {
        let ready = "{\"message\":\"ready\",\"baseline_rss_bytes\":1}\n";
        let text = format!("{ready}hello\n{ready}");
        assert_eq!(heard(text.as_bytes()), (1, Some("hello\n".into())));
        assert_eq!(heard(b"{\"message\":\"unheard of\"}\n").1.unwrap(), "{\"message\":\"unheard of\"}\n");
        let endless = vec![b'x'; 10 << 20];
        assert_eq!(heard(&endless).1.unwrap().len(), GARBAGE_KEPT);
    }
}
