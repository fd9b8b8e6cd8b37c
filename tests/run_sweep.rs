//! `centime run` as a user meets it: exit codes, messages, resuming, locks, interrupts.
#![cfg(target_os = "linux")]

mod run_support;

use centime::{Status, load_run};
use run_support::{CELLS, Sweep, assert_complete, children_of, eventually, ids, signal, status_of};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::process::Output;
use std::time::{Duration, Instant};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
}

#[test]
fn a_sweep_runs_and_is_shown_again_without_measuring() {
    let sweep = Sweep::new("");
    let first = sweep.run(&[]);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    assert!(stderr(&first).contains("[8/8] batch 8: "), "{}", stderr(&first));
    assert!(stderr(&first).contains("these figures are not measurements"));
    let records = sweep.journal();
    assert_complete(&records);
    let again = sweep.run(&[]);
    assert_eq!(again.status.code(), Some(0));
    assert!(stderr(&again).contains("resuming: 8 of 8 trials are there"), "{}", stderr(&again));
    assert_eq!(sweep.journal(), records);
    assert_eq!(again.stdout, first.stdout);
    let run = load_run(&sweep.out()).unwrap();
    assert_eq!(run.environment.requested_cells as usize, CELLS);
    assert_eq!(ids(&run.records), run.environment.trial_ids);
}

#[test]
fn a_half_finished_run_says_that_it_goes_on_and_does() {
    let sweep = Sweep::new("");
    let part = sweep.run(&["--set", "sweep.matrix.batch=[1,2,3]"]);
    assert_eq!(part.status.code(), Some(0), "{}", stderr(&part));
    let before = sweep.journal();
    let rest = sweep.run(&[]);
    assert!(stderr(&rest).contains("resuming: 3 of 8 trials are there"), "{}", stderr(&rest));
    assert_eq!(sweep.journal()[..3], before[..]);
    assert_complete(&sweep.journal());
    // A scenario that shrinks again, and in another order, shows what it asks for, and measures nothing.
    let fewer = sweep.run(&["--set", "sweep.matrix.batch=[5,2]"]);
    assert!(stderr(&fewer).contains("resuming: 2 of 2 trials are there"), "{}", stderr(&fewer));
    assert_eq!(sweep.journal().len(), CELLS);
    let run = load_run(&sweep.out()).unwrap();
    let batches: Vec<_> = run.records.iter().map(|r| (r.cell_index, r.cell.trial.workload.batch)).collect();
    assert_eq!(batches, [(0, 5), (1, 2)]);
}

/// Journal lines are launches; a cell is one row of all of them, also where the run was cut short between two rounds.
#[test]
fn in_rounds_every_cell_is_launched_once_a_round_and_a_cut_run_goes_on_at_its_launch() {
    let sweep = Sweep::new("");
    let rounds = ["--set", "measure.rounds=3", "--set", "measure.order=shuffled"];
    let first = sweep.run(&rounds);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    assert!(stderr(&first).contains("[24/24] batch "), "{}", stderr(&first));
    let journal = sweep.journal();
    for (round, launches) in journal.chunks(CELLS).enumerate() {
        assert!(launches.iter().all(|r| r.round as usize == round), "rounds one after the other");
        assert_eq!(launches.iter().map(|r| r.cell_index).collect::<std::collections::BTreeSet<_>>().len(), CELLS);
    }
    let order = |round: usize| journal[round * CELLS..][..CELLS].iter().map(|r| r.cell_index).collect::<Vec<_>>();
    assert_ne!(order(0), order(1), "each round has an order of its own");
    let path = sweep.out().join("journal.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let cut: String = text.lines().take(1 + CELLS + 3).map(|l| format!("{l}\n")).collect();
    std::fs::write(&path, cut).unwrap();
    let rest = sweep.run(&rounds);
    assert!(stderr(&rest).contains("resuming: 11 of 24 launches are there"), "{}", stderr(&rest));
    assert_eq!(sweep.journal().len(), 3 * CELLS);
    let run = load_run(&sweep.out()).unwrap();
    assert_complete(&run.records);
    assert!(run.records.iter().all(|r| r.measurement.figures.as_ref().unwrap().launches.len() == 3));
    let spread = run.environment.variation.unwrap();
    assert!(spread.spread.run > 0.0 && spread.runs == 0, "faults are no history: {spread:?}");
}

#[test]
fn a_torn_line_costs_its_own_trial_and_no_other() {
    let sweep = Sweep::new("");
    sweep.run(&["--set", "sweep.matrix.batch=[1,2,3]"]);
    let path = sweep.out().join("journal.jsonl");
    let text = std::fs::read(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 100]).unwrap();
    let output = sweep.run(&[]);
    assert_eq!(output.status.code(), Some(0));
    let said = stderr(&output);
    assert!(said.contains("resuming: 2 of 8") && said.contains("the last line was torn"), "{said}");
    assert_complete(&sweep.journal());
}

#[test]
fn another_runs_journal_is_kept_aside_and_the_difference_is_said() {
    let sweep = Sweep::new("");
    sweep.run(&["--set", "sweep.matrix.batch=[1,2]"]);
    let old = std::fs::read(sweep.out().join("journal.jsonl")).unwrap();
    let output = sweep.run(&["--set", "measure.precision=0.3"]);
    let said = stderr(&output);
    assert!(said.contains("starting a new run, because the one in"), "{said}");
    assert!(said.contains("measure: {\"precision\":0.2"), "{said}");
    assert!(!said.contains("resuming"), "{said}");
    assert_eq!(std::fs::read(sweep.out().join("journal-1.old.jsonl")).unwrap(), old);
    assert_complete(&sweep.journal());
    let fresh = sweep.run(&["--fresh", "--set", "measure.precision=0.3"]);
    assert!(stderr(&fresh).contains("starting afresh; the old journal is kept as"), "{}", stderr(&fresh));
    assert!(sweep.out().join("journal-2.old.jsonl").exists());
}

#[test]
fn failed_trials_are_rows_and_larger_ones_are_skipped_after_an_oom() {
    let sweep = Sweep::new("batch=3/segfault;batch=4/lost:2;batch=5/exit:7;batch=6/oom:64");
    let output = sweep.run(&[]);
    assert_fails(&output, 3, &["4 of 8 trials failed: 1 oom, 3 crashed"]);
    let records = sweep.journal();
    assert_complete(&records);
    let statuses: Vec<Status> = records.iter().map(|r| r.measurement.status).collect();
    use Status::{Crashed, Ok, Oom, Skipped};
    assert_eq!(statuses, [Ok, Ok, Crashed, Crashed, Crashed, Oom, Skipped, Skipped]);
    assert!(records[7].measurement.reason.contains("a smaller trial ran out of memory (batch 6"));
}

#[test]
fn ctrl_c_and_term_keep_what_is_finished_and_go_on_later() {
    for how in [Signal::INT, Signal::TERM] {
        let sweep = Sweep::new("batch=4/hang");
        let parent = sweep.start();
        eventually("three trials finish", || sweep.journal().len() == 3);
        eventually("the fourth runs", || children_of(parent.id()).len() == 1);
        signal(parent.id(), how);
        let output = parent.wait_with_output().unwrap();
        assert_fails(&output, 130, &["interrupted: 3 of 8 trials are kept; the same command goes on from there"]);
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(shown.contains("cancelled"), "{shown}");
        assert_eq!(sweep.journal().len(), 3, "an interrupted trial is not journalled as finished");
    }
}

#[test]
fn a_second_ctrl_c_ends_the_program_at_once() {
    let sweep = Sweep::new("hang");
    // The probe takes two seconds that the first signal does not cut short.
    let mut parent = sweep.probing_command().spawn().unwrap();
    let mut lines = BufReader::new(parent.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().any(|l| l.unwrap().contains("probing this machine")));
    let began = Instant::now();
    signal(parent.id(), Signal::INT);
    std::thread::sleep(Duration::from_millis(100));
    assert!(parent.try_wait().unwrap().is_none(), "the first one only asks");
    signal(parent.id(), Signal::INT);
    assert_eq!(parent.wait().unwrap().code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// The sweep's run as another machine that shares the folder would start it.
fn elsewhere_command(sweep: &Sweep) -> std::process::Command {
    let mut command = sweep.command(&[]);
    let machine = sweep.out().with_file_name("another-machine");
    std::fs::create_dir_all(&machine).unwrap();
    command.env("XDG_RUNTIME_DIR", machine);
    command
}

#[test]
fn a_second_run_into_one_folder_or_on_one_machine_is_told_who_is_there() {
    let sweep = Sweep::new("hang");
    let mut first = sweep.start();
    eventually("the first run is under way", || children_of(first.id()).len() == 1);
    let holder = format!("process {}", first.id());
    assert_fails(&elsewhere_command(&sweep).output().unwrap(), 75, &[".lock", &holder, "use another --out"]);
    let elsewhere = sweep.probing_command().output().unwrap();
    assert_fails(&elsewhere, 75, &["centime-measuring.lock", &holder, "would measure each other"]);
    signal(first.id(), Signal::KILL);
    first.wait().unwrap();
    assert!(status_of(first.id()).is_none());
}

#[test]
fn a_folder_that_cannot_be_made_is_an_io_error_that_names_it() {
    let sweep = Sweep::new("");
    let file = sweep.out().with_file_name("file");
    std::fs::write(&file, "").unwrap();
    let below = sweep.probing_command().arg("--out").arg(file.join("out")).output().unwrap();
    assert_fails(&below, 74, &["file/out", "choose another with --out"]);
    let system = sweep.probing_command().args(["--out", "/proc/centime"]).output().unwrap();
    assert_fails(&system, 74, &["/proc/centime"]);
}

#[test]
fn bad_usage_is_exit_code_2_with_the_remedy() {
    let sweep = Sweep::new("");
    for price in ["0", "-1", "NaN", "inf", "free"] {
        assert_fails(&sweep.run(&["--price", price]), 2, &["--price", "a positive number of USD an hour"]);
    }
    assert_fails(&sweep.run(&["--set", "trial.batch=0"]), 2, &["batch"]);
    assert!(!sweep.out().exists(), "nothing was begun");
}

#[test]
fn a_dry_run_prints_the_plan_and_begins_nothing() {
    let sweep = Sweep::new("");
    let output = sweep.run(&["--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("8 trials"));
    assert!(!sweep.out().exists());
}

#[test]
fn a_quiet_run_says_nothing_but_what_matters() {
    let sweep = Sweep::new("");
    let output = sweep.run(&["--quiet", "--format", "csv"]);
    assert_eq!(stderr(&output).lines().count(), 1, "the warning about faults alone: {}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end().lines().count(), 1 + CELLS);
}
