use super::*;
use crate::hardware::book::Book;
use crate::hardware::machine::Probe;
use crate::plan::{MachineFacts, Processes, plan};
use crate::projection::calibration::Calibration;
use crate::runner::measurement::{Figures, Stop};
use crate::runner::watch::Disturbance;
use crate::scenario::{LoadOptions, load};
use std::cell::RefCell;

/// A plan of eight cells (batch 1 to 8) in the file's order, with more of the scenario as given.
fn planned(more: &str) -> Plan {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.yaml");
    let text = format!(
        "version: 1\nname: t\ntrial: {{ model: {{ n_layers: 1, d_model: 64, n_heads: 4 }}, seq_len: 32 }}\n\
         sweep: {{ matrix: {{ batch: 1..8 }} }}\nmeasure: {{ order: file, rounds: 1, min_seconds: 1, max_seconds: 1 }}\n{more}"
    );
    std::fs::write(&path, text).unwrap();
    let facts = MachineFacts {
        gpus: Ok(Vec::new()),
        cores: 1,
        memory: Bytes(8 << 30),
        probe: Probe::assumed(1),
        calibration: Calibration::default(),
        book: Book::default(),
        usd_per_hour: Some(3.6),
        processes: Processes::ONE,
    };
    plan(&load(&path, &LoadOptions::default()).unwrap(), &facts).unwrap()
}

fn measurement(status: Status, seconds: f64) -> Measurement {
    let figures = Figures {
        step_seconds: vec![0.1; 10],
        first_token_seconds: vec![],
        launches: vec![],
        warmup_steps: 1,
        tokens_per_step: 32,
        stopped_by: Stop::Precision,
        precision_reached: Some(0.001),
        peak_rss_bytes: 2,
        baseline_rss_bytes: 1,
        peak_allocated_bytes: 1,
        device_memory: None,
        expert_loads: None,
        loss: None,
        checksum: 0,
        quantization_loss: None,
        steal_share: None,
        watts: None,
        telemetry: None,
        machine_rates: Vec::new(),
        disturbance: None,
        served: vec![],
        profile: None,
        learned: vec![],
        first_allocated_bytes: None,
    };
    let figures = (status == Status::Ok).then_some(figures);
    let reason = if status == Status::Ok { String::new() } else { "planted".into() };
    Measurement { status, reason, figures, predicted_memory: Default::default(), trial_seconds: seconds }
}

/// Everything that happened, in order: `run 3`, `journal 3`, `show 3`.
#[derive(Default)]
struct Log(RefCell<Vec<String>>);

impl Log {
    fn add(&self, what: &str, cell: u32) {
        self.0.borrow_mut().push(format!("{what} {cell}"));
    }

    fn cells(&self, what: &str) -> Vec<u32> {
        self.0.borrow().iter().filter_map(|l| l.strip_prefix(what)?.trim().parse().ok()).collect()
    }
}

struct Watching<'a>(&'a Log);

impl Display for Watching<'_> {
    fn begin(&mut self, _: &PlannedTrial, _: Seconds) {}
    fn progress(&mut self, _: Progress) {}
    fn again(&mut self, launches: usize) {
        self.0.add("again", launches as u32);
    }
    fn finished(&mut self, record: &Record) {
        self.0.add("show", record.cell_index);
    }
}

/// Sweeps with a measurer that answers `ending(cell)`; the cell of a cancelled trial raises the flag.
fn swept(plan: &Plan, journal: Vec<Record>, ending: &dyn Fn(u32) -> Measurement) -> (Outcome, Log) {
    let log = Log::default();
    let interrupted = AtomicBool::new(false);
    let mut stage = Stage {
        measure: &mut |trial, _, _| {
            log.add("run", trial.cell_index);
            let m = ending(trial.cell_index);
            interrupted.store(m.status == Status::Cancelled, Ordering::Relaxed);
            m
        },
        append: &mut |record| {
            log.add("journal", record.cell_index);
            Ok(())
        },
        display: &mut Watching(&log),
        now: &|| "2026-01-01T00:00:00Z".into(),
        interrupted: &interrupted,
        again: 2,
    };
    let outcome = sweep(plan, UsdPerHour::of(3.6), journal, &mut stage).unwrap();
    (outcome, log)
}

fn statuses(outcome: &Outcome) -> Vec<Status> {
    outcome.records.iter().map(|r| r.measurement.status).collect()
}

#[test]
fn every_cell_has_one_record_that_is_journalled_before_it_is_shown() {
    let (outcome, log) = swept(&planned(""), vec![], &|_| measurement(Status::Ok, 1.0));
    assert_eq!(outcome.records.iter().map(|r| r.cell_index).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    let expected: Vec<String> =
        (0..8).flat_map(|i| [format!("run {i}"), format!("journal {i}"), format!("show {i}")]).collect();
    assert_eq!(*log.0.borrow(), expected);
}

#[test]
fn one_failed_cell_does_not_stop_the_others() {
    let ending = |cell| measurement(if cell == 2 { Status::Crashed } else { Status::Ok }, 1.0);
    let (outcome, log) = swept(&planned(""), vec![], &ending);
    assert_eq!(log.cells("run").len(), 8);
    assert_eq!(outcome.records[2].measurement.status, Status::Crashed);
}

#[test]
fn what_is_journalled_is_never_run_again() {
    let plan = planned("");
    let (first, _) = swept(&plan, vec![], &|_| measurement(Status::Ok, 1.0));
    let kept: Vec<Record> = first.records.iter().filter(|r| r.cell_index % 2 == 0).cloned().collect();
    let (second, log) = swept(&plan, kept, &|_| measurement(Status::Timeout, 1.0));
    assert_eq!(log.cells("run"), [1, 3, 5, 7]);
    assert_eq!(log.cells("journal"), [1, 3, 5, 7]);
    assert_eq!(second.records[0], first.records[0]);
    assert_eq!(second.records.len(), 8);
}

#[test]
fn larger_cells_are_skipped_after_a_smaller_one_ran_out_of_memory() {
    let ending = |cell| measurement(if cell == 5 { Status::Oom } else { Status::Ok }, 1.0);
    let (outcome, log) = swept(&planned(""), vec![], &ending);
    assert_eq!(log.cells("run"), [0, 1, 2, 3, 4, 5]);
    assert_eq!(log.cells("journal").len(), 8, "skipped cells have their line too");
    let reason = &outcome.records[6].measurement.reason;
    assert!(reason.contains("a smaller trial ran out of memory (batch 6: predicted"), "{reason}");
    assert_eq!(outcome.records[7].measurement.status, Status::Skipped);
}

#[test]
fn a_resumed_run_remembers_what_ran_out_of_memory() {
    let plan = planned("");
    let (first, _) = swept(&plan, vec![], &|c| measurement(if c == 5 { Status::Oom } else { Status::Ok }, 1.0));
    let kept = first.records[..6].to_vec();
    let (_, log) = swept(&plan, kept, &|_| measurement(Status::Ok, 1.0));
    assert_eq!(log.cells("run"), [0; 0]);
}

#[test]
fn a_limit_that_binds_on_the_way_skips_the_rest_with_the_reason() {
    // Every trial is estimated at little over a second and takes 10: the third would end after 30 s.
    let (outcome, log) = swept(&planned("limits: { minutes: 0.45 }\n"), vec![], &|_| measurement(Status::Ok, 10.0));
    assert_eq!(log.cells("run"), [0, 1]);
    assert_eq!(statuses(&outcome)[2..], [Status::Skipped; 6]);
    let reason = &outcome.records[2].measurement.reason;
    assert!(reason.starts_with("limits.minutes: 0.450 would be exceeded: 20.0 s are spent"), "{reason}");
    // 3.6 USD an hour are a tenth of a cent a second.
    let (_, log) = swept(&planned("limits: { usd: 0.045 }\nprice: { usd_per_hour: 3.6 }\n"), vec![], &|_| {
        measurement(Status::Ok, 10.0)
    });
    assert_eq!(log.cells("run"), [0, 1, 2, 3]);
}

#[test]
fn a_skip_is_considered_again_and_journalled_once() {
    let (first, _) = swept(&planned("limits: { minutes: 0.45 }\n"), vec![], &|_| measurement(Status::Ok, 10.0));
    let (again, log) =
        swept(&planned("limits: { minutes: 0.45 }\n"), first.records.clone(), &|_| measurement(Status::Ok, 10.0));
    assert_eq!((log.cells("run").len(), log.cells("journal").len()), (0, 0));
    assert_eq!(statuses(&again), statuses(&first));
    let (more, log) = swept(&planned("limits: { minutes: 5 }\n"), first.records, &|_| measurement(Status::Ok, 10.0));
    assert_eq!(log.cells("run"), [2, 3, 4, 5, 6, 7]);
    assert_eq!(statuses(&more), [Status::Ok; 8]);
}

#[test]
fn an_interrupted_trial_is_shown_and_not_journalled() {
    let ending = |cell| measurement(if cell == 3 { Status::Cancelled } else { Status::Ok }, 1.0);
    let (outcome, log) = swept(&planned(""), vec![], &ending);
    assert!(outcome.interrupted);
    assert_eq!(log.cells("run"), [0, 1, 2, 3]);
    assert_eq!(log.cells("journal"), [0, 1, 2]);
    assert_eq!(statuses(&outcome)[3..], [Status::Cancelled; 5]);
    assert_eq!(outcome.records[4].measurement.reason, "not started: the run was interrupted");
}

#[test]
fn a_journal_that_cannot_be_written_stops_the_sweep_at_once() {
    let (plan, log) = (planned(""), Log::default());
    let full =
        || ResultsError::Io { path: "j".into(), action: "writing", source: std::io::ErrorKind::StorageFull.into() };
    let interrupted = AtomicBool::new(false);
    let mut stage = Stage {
        measure: &mut |trial, _, _| {
            log.add("run", trial.cell_index);
            measurement(Status::Ok, 1.0)
        },
        append: &mut |_| Err(full()),
        display: &mut Watching(&log),
        now: &String::new,
        interrupted: &interrupted,
        again: 2,
    };
    assert!(sweep(&plan, None, vec![], &mut stage).is_err());
    assert_eq!(*log.0.borrow(), ["run 0"]);
}

/// The same plan in three rounds.
fn in_rounds(more: &str) -> Plan {
    let plan = planned(more);
    let estimate = |t: &PlannedTrial| Seconds(3.0 * t.estimate.get());
    let trials = plan.trials.iter().map(|t| PlannedTrial { estimate: estimate(t), ..t.clone() }).collect();
    Plan { rounds: 3, trials, ..plan }
}

#[test]
fn all_cells_are_launched_once_a_round_and_a_cell_is_one_record() {
    let (outcome, log) = swept(&in_rounds(""), vec![], &|_| measurement(Status::Ok, 1.0));
    let ran = log.cells("run");
    for round in ran.chunks(8) {
        assert_eq!(round, (0..8).collect::<Vec<_>>());
    }
    assert_eq!((ran.len(), outcome.records.len()), (24, 8));
    let figures = outcome.records[3].measurement.figures.as_ref().unwrap();
    assert_eq!((figures.launches.as_slice(), figures.step_seconds.len()), (&[10, 10, 10][..], 30));
}

#[test]
fn a_cell_that_failed_has_no_further_launch_and_says_in_which_it_failed() {
    let launches = RefCell::new([0; 8]);
    let ending = |cell: u32| {
        launches.borrow_mut()[cell as usize] += 1;
        let failed = (cell == 2 && launches.borrow()[2] == 2) || cell == 5;
        measurement(if failed { Status::Crashed } else { Status::Ok }, 1.0)
    };
    let (outcome, _) = swept(&in_rounds(""), vec![], &ending);
    assert_eq!(*launches.borrow(), [3, 3, 2, 3, 3, 1, 3, 3]);
    assert_eq!(outcome.records[2].measurement.reason, "launch 2: planted");
    assert_eq!(outcome.records[5].measurement.reason, "planted");
}

#[test]
fn a_limit_that_binds_in_a_later_round_leaves_every_cell_with_fewer_launches() {
    let (outcome, log) = swept(&in_rounds("limits: { minutes: 2.01 }\n"), vec![], &|_| measurement(Status::Ok, 10.0));
    assert_eq!(log.cells("run").len(), 12);
    assert_eq!(statuses(&outcome), [Status::Ok; 8]);
    let launches = |i: usize| outcome.records[i].measurement.figures.as_ref().unwrap().launches.len();
    assert_eq!((launches(0), launches(7)), (2, 0), "a cell of one launch is as it always was");
}

#[test]
fn a_run_cut_short_in_a_later_round_goes_on_there() {
    let plan = in_rounds("");
    let count = RefCell::new(0);
    let journal = RefCell::new(Vec::new());
    let mut stage = Stage {
        measure: &mut |_, _, _| {
            *count.borrow_mut() += 1;
            measurement(if *count.borrow() == 12 { Status::Cancelled } else { Status::Ok }, 1.0)
        },
        append: &mut |record| {
            journal.borrow_mut().push(record.clone());
            Ok(())
        },
        display: &mut Watching(&Log::default()),
        now: &String::new,
        interrupted: &AtomicBool::new(false),
        again: 2,
    };
    let cut = sweep(&plan, None, vec![], &mut stage).unwrap();
    assert!(cut.interrupted && statuses(&cut) == [Status::Ok; 8], "what was measured counts: {:?}", statuses(&cut));
    assert_eq!(journal.borrow().len(), 11);
    let (all, log) = swept(&plan, journal.into_inner(), &|_| measurement(Status::Ok, 1.0));
    assert_eq!(log.cells("run").len(), 13);
    assert!(all.records.iter().all(|r| r.measurement.figures.as_ref().unwrap().launches.len() == 3));
}

/// A measurement that lost this share of its time.
fn lost(share: f64) -> Measurement {
    let mut m = measurement(Status::Ok, 1.0);
    let disturbance = Disturbance { waited: Some(share), ..Disturbance::default() };
    m.figures.as_mut().unwrap().disturbance = Some(disturbance);
    m
}

/// What each launch of a cell loses, in order: cell 1 is quiet the second time, 3 never, 5 is worse the second time.
fn disturbing(launches: &RefCell<[usize; 8]>) -> impl Fn(u32) -> Measurement + '_ {
    |cell| {
        let shares = match cell {
            1 => [0.5, 0.01, 0.0],
            3 => [0.3, 0.2, 0.25],
            5 => [0.1, 0.4, 0.0],
            _ => [0.0; 3],
        };
        let at = launches.borrow()[cell as usize];
        launches.borrow_mut()[cell as usize] += 1;
        lost(shares[at])
    }
}

fn share_lost(outcome: &Outcome, cell: usize) -> f64 {
    outcome.records[cell].measurement.figures.as_ref().unwrap().disturbance.as_ref().unwrap().waited.unwrap()
}

#[test]
fn disturbed_launches_are_made_again_at_the_end_and_the_quietest_counts() {
    let launches = RefCell::new([0; 8]);
    let (outcome, log) = swept(&planned(""), vec![], &disturbing(&launches));
    // A half of what the sweep took is time for four more launches.
    assert_eq!(log.cells("run")[8..], [1, 3, 5, 3]);
    assert_eq!(log.cells("again"), [3, 2], "first three, then the two of them that were disturbed again");
    assert_eq!([1, 3, 5].map(|i| share_lost(&outcome, i)), [0.01, 0.2, 0.1]);
    assert_eq!(log.cells("journal").len(), 12, "which of two counts is on disk");
}

#[test]
fn launches_are_made_again_only_within_the_limits_and_never_of_a_finished_run() {
    let launches = RefCell::new([0; 8]);
    let slow = disturbing(&launches);
    let slow = |cell| Measurement { trial_seconds: 10.0, ..slow(cell) };
    // 8 launches of 10 s, and time for one more.
    let (outcome, log) = swept(&planned("limits: { minutes: 1.52 }\n"), vec![], &slow);
    assert_eq!(log.cells("run")[8..], [1]);
    assert_eq!(share_lost(&outcome, 3), 0.3, "what stays disturbed is kept");
    let (again, log) = swept(&planned(""), outcome.records.clone(), &disturbing(&launches));
    assert_eq!(log.cells("run"), [0; 0]);
    assert_eq!(share_lost(&again, 3), 0.3);
}

#[test]
fn a_launch_made_again_that_fails_is_not_hidden() {
    let launches = RefCell::new(0);
    let ending = |cell| {
        *launches.borrow_mut() += 1;
        if cell == 2 && *launches.borrow() <= 8 {
            lost(0.5)
        } else {
            measurement(if cell == 2 { Status::Crashed } else { Status::Ok }, 1.0)
        }
    };
    let (outcome, _) = swept(&planned(""), vec![], &ending);
    assert_eq!(outcome.records[2].measurement.status, Status::Crashed);
}
