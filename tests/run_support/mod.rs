//! A sweep of eight synthetic trials of about a tenth of a second, run by the real program in a folder of its own.

use centime::Record;
use centime::internal::results::read_journal;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Cells of the sweep.
pub(crate) const CELLS: usize = 8;

/// A scenario, a run's folder, and a runtime folder, so that tests do not wait for each other's machine lock.
pub(crate) struct Sweep {
    folder: TempDir,
    fault: String,
}

impl Sweep {
    /// Every trial takes busy loops of 2 ms, and whatever else `fault` says.
    pub(crate) fn new(fault: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = "version: 1\nname: synthetic\n\
            trial: { model: { n_layers: 1, d_model: 32, n_heads: 2, vocab_size: 64 }, seq_len: 16 }\n\
            sweep: { matrix: { batch: 1..8 } }\n\
            measure: { min_seconds: 0.05, max_seconds: 0.2, precision: 0.2, warmup: 2, rounds: 1, order: file }\n";
        std::fs::write(folder.path().join("s.yaml"), text).unwrap();
        Self { folder, fault: format!("synthetic:2;{fault}") }
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// `centime run` on the scenario, with more arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.probing_command();
        command.arg("--no-probe").arg("--out").arg(self.out()).args(arguments);
        command
    }

    /// `centime run` on the scenario, without a folder and with the probe.
    pub(crate) fn probing_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
        command.args(["run", "s.yaml"]).current_dir(self.folder.path());
        command.env("XDG_RUNTIME_DIR", self.folder.path()).env("CENTIME_FAULT", &self.fault).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn start(&self) -> Child {
        self.command(&[]).spawn().unwrap()
    }

    /// The journal's records so far.
    pub(crate) fn journal(&self) -> Vec<Record> {
        read_journal(&self.out()).unwrap().map_or(vec![], |c| c.records)
    }
}

/// The processes that `parent` has started and that are not dead.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| status_of(*pid).is_some_and(|(ppid, state)| ppid == parent && state != 'Z')).collect()
}

/// Parent and state of a process, as /proc/PID/stat has them after the name.
pub(crate) fn status_of(pid: u32) -> Option<(u32, char)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // One that has just ended by itself is as good.
    let _ = rustix::process::kill_process(pid, signal);
}

/// Waits until `condition` holds; fails when it does not within ten seconds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The trial ids of records, in order.
pub(crate) fn ids(records: &[Record]) -> Vec<&str> {
    records.iter().map(|r| r.trial_id.as_str()).collect()
}

/// Fails unless every cell has exactly one record.
#[track_caller]
pub(crate) fn assert_complete(records: &[Record]) {
    let mut cells: Vec<u32> = records.iter().map(|r| r.cell_index).collect();
    cells.sort_unstable();
    assert_eq!(cells, (0..CELLS as u32).collect::<Vec<_>>(), "every cell has exactly one row");
}
