//! A program while it runs: started without a shell, listened to, ended with everything it started.

use crate::runner::family::{self, Member, descendants};
use crate::runner::process::{Tail, die_with_parent, keep_tail};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Longest line that is read.
const LONGEST_LINE: usize = 16 << 20;
/// Lines that wait to be read.
const LINES: usize = 1024;
/// How long processes may outlive the program that started them, and hold its pipe.
const GRACE: Duration = Duration::from_secs(1);
/// Between two looks whether it lives.
const MOMENT: Duration = Duration::from_millis(20);

/// A running program.
pub(super) struct Program {
    child: Child,
    lines: Receiver<Heard>,
    stderr: Arc<Mutex<Tail>>,
    /// The end of what it prints, where nobody reads the lines.
    printed: Option<Arc<Mutex<Tail>>>,
}

/// What the listening thread passes on.
enum Heard {
    Line(String),
    TooLong,
}

/// How it ended.
pub(super) struct Ended {
    pub exit: Option<ExitStatus>,
    pub stderr: String,
    /// Who was still there, and is not any more.
    pub left_behind: Vec<Member>,
}

impl Program {
    /// # Errors
    /// No such program; no more processes, pipes or threads.
    pub(crate) fn start(command: &[String], env: &BTreeMap<String, String>) -> io::Result<Self> {
        let (child, stdout, stderr) = spawn(command, env)?;
        let (sender, lines) = sync_channel(LINES);
        thread::Builder::new().name("program-stdout".into()).spawn(move || listen(stdout, &sender))?;
        Ok(Self { child, lines, stderr: keep_tail(stderr)?, printed: None })
    }

    /// Starts a program whose lines nobody reads; of what it says the end is kept.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn in_background(command: &[String], env: &BTreeMap<String, String>) -> io::Result<Self> {
        let (child, stdout, stderr) = spawn(command, env)?;
        let (_, lines) = sync_channel(1);
        Ok(Self { child, lines, stderr: keep_tail(stderr)?, printed: Some(keep_tail(stdout)?) })
    }

    /// How it ended, if it has.
    pub(crate) fn exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The end of what it said: on stderr, or else on stdout.
    pub(crate) fn last_words(&self) -> String {
        let errors = self.stderr();
        let printed = || self.printed.as_ref().map(|p| p.lock().unwrap_or_else(PoisonError::into_inner).text());
        if errors.trim().is_empty() { printed().unwrap_or_default() } else { errors }
    }

    /// The next line that it prints; `None` at the end.
    ///
    /// # Errors
    /// A line that does not end.
    pub(crate) fn line(&mut self) -> Result<Option<String>, String> {
        let mut over = None;
        loop {
            match self.lines.recv_timeout(MOMENT) {
                Ok(Heard::Line(line)) => return Ok(Some(line)),
                Ok(Heard::TooLong) => return Err(format!("a line of more than {LONGEST_LINE} bytes")),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            // Whoever it left behind may hold the pipe for ever.
            if over.is_none() && self.child.try_wait().is_ok_and(|exit| exit.is_some()) {
                over = Some(Instant::now());
            }
            if over.is_some_and(|since: Instant| since.elapsed() > GRACE) {
                return Ok(None);
            }
        }
    }

    /// Waits until it has ended, and ends whoever it left.
    pub(crate) fn ended(mut self) -> Ended {
        let exit = self.child.wait().ok();
        let began = Instant::now();
        let mut left_behind = descendants(std::process::id());
        while !left_behind.is_empty() && began.elapsed() < GRACE {
            thread::sleep(MOMENT);
            bury_orphans();
            left_behind = descendants(std::process::id());
        }
        end_all();
        Ended { exit, stderr: self.stderr(), left_behind }
    }

    fn stderr(&self) -> String {
        // The thread that reads it may be a moment behind.
        thread::sleep(Duration::from_millis(2));
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).text()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        end_all();
        // One that has been waited for already says so.
        let _ = self.child.kill();
        let _ = self.child.wait();
        bury_orphans();
    }
}

fn spawn(command: &[String], env: &BTreeMap<String, String>) -> io::Result<(Child, ChildStdout, ChildStderr)> {
    let (program, arguments) = command.split_first().ok_or_else(|| io::Error::other("no program is named"))?;
    adopt_orphans();
    let mut command = Command::new(OsStr::new(program));
    command.args(arguments).envs(env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // In this process's group: who ends that ends the program.
    die_with_parent(&mut command);
    let mut child = command.spawn()?;
    match (child.stdout.take(), child.stderr.take()) {
        (Some(stdout), Some(stderr)) => Ok((child, stdout, stderr)),
        _ => Err(io::Error::other("the program has no pipes")),
    }
}

/// Kills everyone below this process: who is killed may just have started another.
fn end_all() {
    for _ in 0..50 {
        let all = descendants(std::process::id());
        if all.is_empty() {
            break;
        }
        family::kill(&all);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Makes this process the parent of what its children leave behind, however they try to get away.
#[cfg(target_os = "linux")]
fn adopt_orphans() {
    // Where the kernel does not know it, the group is ended all the same.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

#[cfg(not(target_os = "linux"))]
fn adopt_orphans() {}

/// Dead processes that fell to this one. Only to be called when no child of its own is waited for.
fn bury_orphans() {
    #[cfg(unix)]
    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
}

/// Passes lines on until the pipe ends or nobody listens.
fn listen(stdout: ChildStdout, to: &SyncSender<Heard>) {
    let mut from = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        match from.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line.last() != Some(&b'\n') && line.len() >= LONGEST_LINE => {
                // Nobody who listens is one that has heard enough.
                let _ = to.send(Heard::TooLong);
                return;
            }
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_string();
        if to.send(Heard::Line(text)).is_err() {
            return;
        }
    }
}
