//! `centime run` started as several processes on loopback, as a launcher would: one result, whoever dies.
#![cfg(target_os = "linux")]

#[allow(dead_code)]
mod run_support;

use centime::internal::results::read_journal;
use centime::{Record, Status};
use run_support::{children_of, eventually, signal};
use rustix::process::Signal;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No process of these tests takes longer.
const LONGEST: Duration = Duration::from_secs(30);

struct Run {
    folder: TempDir,
}

/// A process that does not outlive its test.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guarded {
    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Exit code and stderr; fails when it does not end.
    #[track_caller]
    fn end(mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < LONGEST, "a process hangs");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.0.wait().unwrap().code(), said)
    }
}

impl Run {
    fn new(seconds: f64, sweep: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "version: 1\nname: together\n\
             trial: {{ model: {{ n_layers: 2, d_model: 32, n_heads: 4, vocab_size: 64 }}, seq_len: 8, batch: 6, \
             prompt_len: 4, new_tokens: 3, backend: naive }}\nsweep: {{ matrix: {sweep} }}\n\
             measure: {{ min_seconds: {seconds}, max_seconds: {seconds}, precision: 0.5, warmup: 1, rounds: 1, order: file, \
             timeout_seconds: 15, ignore_memory: true }}\n"
        );
        std::fs::write(folder.path().join("s.yaml"), text).unwrap();
        Self { folder }
    }

    /// `centime run` alone, or as `(rank, size, port)`.
    fn start(&self, place: Option<(usize, usize, u16)>, out: &str, more: &[&str]) -> Guarded {
        let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
        command.args(["run", "s.yaml", "--once", "--no-probe", "--format", "csv", "--out", out]).args(more);
        command.current_dir(self.folder.path()).env("XDG_RUNTIME_DIR", self.folder.path()).env("NO_COLOR", "1");
        if let Some((rank, size, port)) = place {
            let (rank, size, port) = (rank.to_string(), size.to_string(), port.to_string());
            command.env("RANK", &rank).env("LOCAL_RANK", "0").env("LOCAL_WORLD_SIZE", "1");
            command.env("WORLD_SIZE", size).env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Guarded(command.spawn().unwrap())
    }

    /// All processes of a run, rank 0 first.
    fn together(&self, size: usize) -> Vec<Guarded> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Followers are told of another folder, in which nothing may appear.
        let start = |rank| self.start(Some((rank, size, port)), if rank == 0 { "out" } else { "nothing" }, &[]);
        (0..size).map(start).collect()
    }

    fn records(&self, out: &str) -> Vec<Record> {
        read_journal(&self.folder.path().join(out)).unwrap().map_or(vec![], |c| c.records)
    }
}

fn measured(records: &[Record]) -> Vec<(Status, Option<u32>)> {
    records.iter().map(|r| (r.measurement.status, r.measurement.figures.as_ref().map(|f| f.checksum))).collect()
}

/// Waits until a process's trial is running.
fn child_of(process: &Guarded) -> u32 {
    let mut found = None;
    eventually("no trial starts", || {
        found = children_of(process.pid()).first().copied();
        found.is_some()
    });
    std::thread::sleep(Duration::from_millis(200));
    found.unwrap()
}

#[test]
fn two_and_three_processes_compute_what_one_does() {
    let sweep = "{ phase: [train, prefill, decode, generate], devices: [1, 2, 3] }";
    let run = Run::new(0.02, sweep);
    assert_eq!(run.start(None, "alone", &[]).end().0, Some(0));
    for size in [2, 3] {
        let mut processes = run.together(size);
        let followers = processes.split_off(1);
        let (code, said) = processes.remove(0).end();
        assert_eq!(code, Some(0), "{said}");
        for follower in followers {
            let (code, said) = follower.end();
            assert_eq!(code, Some(0), "{said}");
            assert!(said.contains("its part of 4 trials is done"), "{said}");
        }
        assert!(!run.folder.path().join("nothing").exists(), "only rank 0 writes");
        let (alone, together) = (run.records("alone"), run.records("out"));
        assert_eq!(together.len(), 12);
        for (one, several) in alone.iter().zip(&together) {
            let devices = one.cell.trial.devices;
            let m = &several.measurement;
            if devices as usize == size && one.measurement.status == Status::Ok {
                assert_eq!(
                    measured(std::slice::from_ref(one)),
                    measured(std::slice::from_ref(several)),
                    "{}",
                    m.reason
                );
            } else if devices as usize == size {
                assert_eq!(m.status, Status::Ok, "{}", m.reason);
            } else {
                assert_eq!(m.status, Status::Skipped);
                assert!(m.reason.contains(&format!("not divide among {size} processes")), "{}", m.reason);
            }
        }
        std::fs::remove_dir_all(run.folder.path().join("out")).unwrap();
    }
}

#[test]
fn a_part_that_dies_is_a_row_that_names_its_rank_and_the_sweep_goes_on() {
    let run = Run::new(0.8, "{ batch: [2, 4], devices: [2] }");
    let mut processes = run.together(2);
    let follower = processes.pop().unwrap();
    signal(child_of(&follower), Signal::KILL);
    let (code, said) = processes.remove(0).end();
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(follower.end().0, Some(0));
    let records = run.records("out");
    assert_eq!(measured(&records)[0], (Status::Crashed, None));
    assert_eq!(records[0].measurement.reason, "rank 1: killed by signal 9 (SIGKILL)");
    assert_eq!(records[1].measurement.status, Status::Ok);
}

#[test]
fn a_rank_that_dies_ends_the_run_which_goes_on_when_it_is_started_again() {
    let run = Run::new(0.5, "{ batch: [2, 4, 6], devices: [2] }");
    let mut processes = run.together(2);
    let follower = processes.pop().unwrap();
    child_of(&follower);
    drop(follower);
    let (code, said) = processes.remove(0).end();
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains("rank 1 is gone; 1 of 3 trials are kept"), "{said}");
    let before = run.records("out");
    assert_eq!((before.len(), before[0].measurement.status), (1, Status::Crashed));
    assert!(before[0].measurement.reason.contains("rank 1"), "{}", before[0].measurement.reason);

    // Now rank 0 dies, in the third trial.
    let mut processes = run.together(2);
    let follower = processes.pop().unwrap();
    eventually("no second trial", || run.records("out").len() == 2);
    drop(processes);
    let (code, said) = follower.end();
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains("rank 0 is gone"), "{said}");

    for process in run.together(2) {
        let (code, said) = process.end();
        assert!(matches!(code, Some(0 | 3)), "{said}");
    }
    let after = run.records("out");
    assert_eq!(after[0], before[0], "what was there stays");
    let batches: Vec<u32> = after.iter().map(|r| r.cell.trial.workload.batch).collect();
    assert_eq!(batches, [2, 4, 6], "each once");
}

#[test]
fn another_scenario_is_refused_on_both_sides() {
    let run = Run::new(0.05, "{ batch: [2], devices: [2] }");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let leader = run.start(Some((0, 2, port)), "out", &[]);
    let follower = run.start(Some((1, 2, port)), "nothing", &["--set", "seq_len=16"]);
    for process in [leader, follower] {
        let (code, said) = process.end();
        assert_eq!(code, Some(74));
        assert!(said.contains("another workload or another build"), "{said}");
    }
}
