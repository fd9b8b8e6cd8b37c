//! The trial's process: started in a group of its own, bound to its parent's life, killed as a group, reaped always.

use super::family::{self, descendants};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Bytes of stderr that are kept: the last ones, where the reason is.
const STDERR_KEPT: usize = 8 << 10;

/// The program to start trials with: this one, even when its file has been replaced or deleted meanwhile.
///
/// # Errors
/// A system that cannot tell.
pub fn this_program() -> io::Result<PathBuf> {
    // The link names the running image itself; `current_exe` would name a path where another program may lie by now.
    let image = Path::new("/proc/self/exe");
    if image.exists() { Ok(image.to_path_buf()) } else { std::env::current_exe() }
}

/// A running trial.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    reaped: Option<ExitStatus>,
    stderr: Arc<Mutex<Tail>>,
}

/// The trial's ends of the conversation.
#[derive(Debug)]
pub(super) struct Pipes {
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
}

impl Process {
    /// Starts `program trial`, with `variables` beside those of this process.
    pub(super) fn start(program: &Path, variables: &[(OsString, OsString)]) -> io::Result<(Self, Pipes)> {
        let mut command = Command::new(program);
        command.arg("trial").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        scrub(&mut command, std::env::vars_os().map(|(name, _)| name));
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        bind_to_parent(&mut command);
        let mut child = command.spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut process = Self { child, reaped: None, stderr: Arc::default() };
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            process.kill();
            return Err(io::Error::other("the trial's process has no pipes"));
        };
        process.stderr = keep_tail(stderr)?;
        Ok((process, Pipes { stdin, stdout }))
    }

    /// The last of what the trial wrote to stderr so far.
    pub(super) fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    /// How the process ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        if self.reaped.is_none() {
            self.reaped = self.child.try_wait().ok().flatten();
        }
        self.reaped
    }

    /// Kills the whole group and everyone whom it started, and waits for the process; how it ended.
    pub(super) fn kill(&mut self) -> Option<ExitStatus> {
        if self.reaped.is_none() {
            // A program under the trial may have left the group.
            let below = descendants(self.child.id());
            // The group exists as long as its leader is not reaped; one that has ended by itself is no error.
            #[cfg(unix)]
            if let Some(group) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = self.child.kill();
            family::kill(&below);
            self.reaped = self.child.wait().ok();
        }
        self.reaped
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads a stream on a thread of its own and keeps the end of it.
pub(super) fn keep_tail(mut stream: impl Read + Send + 'static) -> io::Result<Arc<Mutex<Tail>>> {
    let kept: Arc<Mutex<Tail>> = Arc::default();
    let tail = Arc::clone(&kept);
    let read = move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            tail.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..n]);
        }
    };
    thread::Builder::new().name("last-words".into()).spawn(read).map(|_| kept)
}

/// Takes away what would change how many threads a trial computes with: the scenario alone says that.
fn scrub(command: &mut Command, names: impl Iterator<Item = OsString>) {
    for name in names.filter(|n| decides_threads(n)) {
        command.env_remove(name);
    }
}

fn decides_threads(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.ends_with("_NUM_THREADS")
        || ["RAYON_RS_NUM_CPUS", "OMP_THREAD_LIMIT", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"].contains(&&*name)
}

/// Puts the child into a group of its own, and has the kernel kill it when the thread that started it ends.
fn bind_to_parent(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    die_with_parent(command);
}

/// Has the kernel kill the child when the thread that started it ends.
#[cfg(target_os = "linux")]
pub(super) fn die_with_parent(command: &mut Command) {
    use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt;
    let parent = getpid();
    let bind = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that died before the line above would never send the signal.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(bind) };
}

#[cfg(not(target_os = "linux"))]
pub(super) fn die_with_parent(_: &mut Command) {}

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    fn push(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
        // Cut only now and then: the cost of moving stays small beside that of reading.
        if self.bytes.len() > 2 * STDERR_KEPT {
            let surplus = self.bytes.len() - STDERR_KEPT;
            self.bytes.drain(..surplus);
        }
    }

    pub(crate) fn text(&self) -> String {
        let from = self.bytes.len().saturating_sub(STDERR_KEPT);
        String::from_utf8_lossy(&self.bytes[from..]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_flood_is_kept() {
        let mut tail = Tail::default();
        for i in 0..100_000u32 {
            tail.push(format!("line {i}\n").as_bytes());
            assert!(tail.bytes.len() <= 2 * STDERR_KEPT + 16);
        }
        assert!(tail.text().len() <= STDERR_KEPT);
        assert!(tail.text().ends_with("line 99999\n"));
    }

    #[test]
    fn variables_that_set_thread_counts_are_taken_away_and_others_left() {
        for name in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "POLARS_NUM_THREADS", "RAYON_RS_NUM_CPUS"] {
            assert!(decides_threads(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "HOME", "NUM_THREADS_OF_NOBODY", super::super::fault::VARIABLE] {
            assert!(!decides_threads(OsStr::new(name)), "{name}");
        }
    }
}
