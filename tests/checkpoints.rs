//! A training that is killed and started again, as a user meets it: the same losses to the bit, and a row that says what it cost.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "shared with the tests of other files")]
mod run_support;

use centime::{Figures, Record, Status, load_run};
use run_support::{children_of, signal};
use rustix::process::Signal;
use serde_json::Value;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A training of 600 steps of some milliseconds.
fn scenario(more: &str) -> TempDir {
    let text = format!(
        "version: 1\nname: t\n\
         trial: {{ data: synthetic, model: {{ n_layers: 2, d_model: 64, n_heads: 2 }}, batch: 8, seq_len: 32, backend: cpu, \
         schedule: {{ rate: 1e-2, warmup: 5, clip: 1.0 }}, accumulate: 2, until: {{ tokens: 153600 }}, \
         eval: {{ every: 10, tokens: 1024 }}, {more} }}\n\
         price: {{ usd_per_hour: 0.36 }}\n"
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.yaml"), text).unwrap();
    folder
}

fn command(folder: &Path, out: &str, fault: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
    command.args(["run", "s.yaml", "--no-probe", "--once", "--no-history", "--out", out]).current_dir(folder);
    command.env("XDG_RUNTIME_DIR", folder).env("XDG_CACHE_HOME", folder).env("NO_COLOR", "1");
    command.env("CENTIME_FAULT", fault).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finished(folder: &Path, out: &str) -> Output {
    let output = command(folder, out, "").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn record(folder: &Path, out: &str) -> Record {
    load_run(&folder.join(out)).unwrap().records.remove(0)
}

fn figures(folder: &Path, out: &str) -> Figures {
    let m = record(folder, out).measurement;
    m.figures.unwrap_or_else(|| panic!("{}", m.reason))
}

fn row(folder: &Path, out: &str) -> Value {
    let text = std::fs::read_to_string(folder.join(out).join("results.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["rows"][0].clone()
}

/// Every loss that a training tells of, to the bit, and the step it is of.
fn losses(f: &Figures) -> Vec<(u64, u64)> {
    let l = &f.learned[0];
    l.curve.iter().chain(&l.evaluations).map(|p| (p.step, p.loss.to_bits())).collect()
}

/// The checkpoints that a run's only launch has.
fn steps(folder: &Path, out: &str) -> Vec<PathBuf> {
    let launches = std::fs::read_dir(folder.join(out).join("checkpoints")).into_iter().flatten().flatten();
    let inside = launches.flat_map(|l| std::fs::read_dir(l.path()).into_iter().flatten().flatten());
    let mut all: Vec<PathBuf> = inside
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("step-")) && p.extension().is_none())
        .collect();
    all.sort();
    all
}

/// Waits until a run has made a checkpoint of a later step than `after`, and some steps beyond it.
fn wait_for_later(run: &mut Child, folder: &Path, out: &str, after: Option<&PathBuf>) {
    let began = Instant::now();
    while steps(folder, out).last() <= after {
        assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint");
        assert!(run.try_wait().unwrap().is_none(), "the training ended before it was killed");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(20));
}

/// Starts a run and waits until it has made a checkpoint of a later step than `after`; whom to kill.
fn until_later(folder: &Path, out: &str, after: Option<&PathBuf>) -> Child {
    let mut run = command(folder, out, "").spawn().unwrap();
    wait_for_later(&mut run, folder, out, after);
    run
}

fn killed_and_gone_on_with(devices: &str) {
    let plain = scenario(devices);
    finished(plain.path(), "plain");
    let expected = figures(plain.path(), "plain");
    assert!(expected.learned[0].checkpoints.is_none());
    let folder = scenario(&format!("{devices}, checkpoint: {{ every: 40 steps }}"));
    let mut last = None;
    for _ in 0..2 {
        let mut run = until_later(folder.path(), "out", last.as_ref());
        signal(run.id(), Signal::KILL);
        run.wait().unwrap();
        last = steps(folder.path(), "out").pop();
    }
    let output = finished(folder.path(), "out");
    let found = figures(folder.path(), "out");
    assert_eq!(losses(&found), losses(&expected), "{devices}");
    assert_eq!((found.checksum, found.loss), (expected.checksum, expected.loss));
    assert_eq!(found.step_seconds.len(), 599, "every step of every process, but for the first");
    let own = found.learned[0].checkpoints.clone().unwrap();
    assert!(own.resumed == 2 && own.made >= 12 && own.failed == 0 && own.said.is_empty(), "{own:?}");
    let row = row(folder.path(), "out");
    let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} in {row}"));
    assert_eq!((number("checkpoints"), number("resumed")), (own.made as f64, 2.0));
    assert_eq!((number("failed_checkpoints"), number("lost_steps")), (0.0, own.lost_steps as f64));
    assert!(number("checkpoint_seconds") > 0.0 && number("checkpoint_bytes") > 1e5, "{row}");
    for (usd, seconds) in [("usd_checkpoints", "checkpoint_seconds"), ("usd_lost", "lost_seconds")] {
        assert!((number(usd) - number(seconds) * 0.36 / 3600.0).abs() < 1e-12, "{row}");
    }
    assert_eq!(row["checkpoint.every"], "40 steps");
    assert!(row["checkpoints_said"].as_str().unwrap().starts_with("ended 2 times and gone on with, "), "{row}");
    let report = std::fs::read_to_string(folder.path().join("out/report.md")).unwrap();
    assert!(report.contains("ended 2 times and gone on with") && report.contains("lost work"), "{report}");
    assert!(!folder.path().join("out/checkpoints").exists(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_killed_run_goes_on_with_the_same_losses_to_the_bit() {
    killed_and_gone_on_with("devices: 1");
}

#[test]
fn so_do_two_devices_that_share_gradients_and_moments() {
    killed_and_gone_on_with("devices: 2, parallel: { sharding: gradients }");
}

#[test]
fn a_trial_that_crashed_says_so_and_goes_on_when_the_run_is_started_again() {
    let folder = scenario("checkpoint: { every: 40 }");
    let mut run = until_later(folder.path(), "out", None);
    for child in children_of(run.id()) {
        signal(child, Signal::KILL);
    }
    assert_eq!(run.wait().unwrap().code(), Some(3));
    let m = record(folder.path(), "out").measurement;
    assert_eq!(m.status, Status::Crashed);
    assert!(m.reason.contains("SIGKILL") && m.reason.contains("goes on from its checkpoint of step "), "{}", m.reason);
    finished(folder.path(), "out");
    let m = record(folder.path(), "out").measurement;
    assert_eq!((m.status, m.figures.unwrap().learned[0].checkpoints.clone().unwrap().resumed), (Status::Ok, 1));
    assert!(!folder.path().join("out/checkpoints").exists());
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let folder = scenario("checkpoint: { every: 30 }");
    let first = {
        let mut run = until_later(folder.path(), "out", None);
        signal(run.id(), Signal::KILL);
        run.wait().unwrap();
        steps(folder.path(), "out").pop()
    };
    let mut run = until_later(folder.path(), "out", first.as_ref());
    signal(run.id(), Signal::KILL);
    run.wait().unwrap();
    let there = steps(folder.path(), "out");
    let [.., before, last] = &there[..] else { panic!("{there:?}") };
    let file = last.join("state-0-0.safetensors");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    finished(folder.path(), "out");
    let said = figures(folder.path(), "out").learned[0].checkpoints.clone().unwrap().said;
    let before: u64 = before.file_name().unwrap().to_str().unwrap()[5..].parse().unwrap();
    assert!(said.len() == 1 && said[0].ends_with(&format!("it went on from step {before}")), "{said:?}");
    assert!(said[0].contains("was damaged (state-0-0.safetensors: expected "), "{said:?}");
    let plain = scenario("devices: 1");
    finished(plain.path(), "plain");
    assert_eq!(losses(&figures(folder.path(), "out")), losses(&figures(plain.path(), "plain")));
}

#[test]
fn a_full_disk_is_said_in_the_row_and_stops_nothing() {
    let folder = scenario("checkpoint: { every: 100 }");
    let output = command(folder.path(), "out", "full:2").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let own = figures(folder.path(), "out").learned[0].checkpoints.clone().unwrap();
    assert_eq!((own.made, own.failed), (1, 4));
    assert!(
        own.said[0].starts_with("4 of 5 checkpoints could not be written (")
            && own.said[0].contains("no storage space"),
        "{own:?}"
    );
    let row = row(folder.path(), "out");
    assert_eq!((&row["failed_checkpoints"], &row["status"]), (&Value::from(4), &Value::from("ok")));
    assert!(stderr.contains("4 of 5 checkpoints could not be written"), "{stderr}");
}

#[test]
fn a_checkpoint_of_another_seed_is_refused_and_a_fresh_run_moves_all_aside() {
    let folder = scenario("checkpoint: { every: 40 }");
    let mut run = until_later(folder.path(), "out", None);
    signal(run.id(), Signal::KILL);
    run.wait().unwrap();
    // The journal of the other run is gone, and its checkpoints are not.
    std::fs::remove_file(folder.path().join("out/journal.jsonl")).unwrap();
    let output = command(folder.path(), "out", "").args(["--set", "measure.seed=7"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let m = record(folder.path(), "out").measurement;
    assert_eq!(m.status, Status::Invalid);
    assert!(m.reason.contains("a checkpoint of another trial or launch: seed: expected 7, found 0"), "{}", m.reason);
    assert!(!steps(folder.path(), "out").is_empty(), "it is left as it was");
    let output = command(folder.path(), "out", "").args(["--set", "measure.seed=7", "--fresh"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("its checkpoints as out/checkpoints-1.old"), "{stderr}");
    assert!(folder.path().join("out/checkpoints-1.old").exists() && !folder.path().join("out/checkpoints").exists());
}

/// The processes of a run on two ranks, rank 0 first.
fn together(folder: &Path) -> [Child; 2] {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    [("0", "out"), ("1", "nothing")].map(|(rank, out)| {
        let mut command = command(folder, out, "");
        command.env("RANK", rank).env("LOCAL_RANK", rank).env("LOCAL_WORLD_SIZE", "2").env("WORLD_SIZE", "2");
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", &port).spawn().unwrap()
    })
}

#[test]
fn two_processes_go_on_together() {
    let devices = "devices: 2, parallel: { sharding: optimizer }";
    let plain = scenario(devices);
    finished(plain.path(), "plain");
    let folder = scenario(&format!("{devices}, checkpoint: {{ every: 40 steps }}"));
    let [mut leader, mut follower] = together(folder.path());
    wait_for_later(&mut leader, folder.path(), "out", None);
    let there = steps(folder.path(), "out");
    let files = std::fs::read_dir(there.last().unwrap()).unwrap().count();
    assert_eq!(files, 3, "a file of each process, and the manifest");
    signal(leader.id(), Signal::KILL);
    assert_eq!(follower.wait().unwrap().code(), Some(74));
    leader.wait().unwrap();
    for run in together(folder.path()) {
        let output = run.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let found = figures(folder.path(), "out");
    assert_eq!(losses(&found), losses(&figures(plain.path(), "plain")));
    assert_eq!(found.learned[0].checkpoints.as_ref().unwrap().resumed, 1);
    assert!(!folder.path().join("nothing").exists(), "only rank 0 writes");
}
