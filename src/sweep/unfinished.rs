//! Launches that were ended before they had learnt what they were to: their checkpoints in the run's folder, which the next launch of
//! the same trial and round goes on from.

use crate::results::ResultsError;
use crate::results::record::Record;
use crate::runner::learning::checkpoints;
use crate::runner::measurement::{Measurement, Status};
use std::path::{Path, PathBuf};

/// The folder of all launches' checkpoints in that of the run.
const FOLDER: &str = "checkpoints";

/// Where a launch has its checkpoints.
pub(crate) fn folder_of(run: &Path, trial_id: &str, round: u32) -> PathBuf {
    run.join(FOLDER).join(format!("{trial_id}-launch-{}", round + 1))
}

/// Whether a launch ended from outside, or by running out of something: what it had learnt is still good.
fn cut_short(status: Status) -> bool {
    matches!(status, Status::Crashed | Status::Oom | Status::Timeout | Status::Cancelled)
}

/// The step that a launch which ended so will go on from, if it does.
fn goes_on_from(run: &Path, (trial_id, round): (&str, u32), status: Status) -> Option<u64> {
    checkpoints::last_step(&folder_of(run, trial_id, round)).filter(|_| cut_short(status))
}

/// The same of a record.
fn is_unfinished(run: &Path, record: &Record) -> bool {
    goes_on_from(run, (&record.trial_id, record.round), record.measurement.status).is_some()
}

/// Records of a journal but for those of launches that are to go on.
pub(super) fn without(run: &Path, mut records: Vec<Record>) -> Vec<Record> {
    records.retain(|r| !is_unfinished(run, r));
    records
}

/// Says of a launch that failed that it will go on, where it will.
pub(crate) fn note(run: &Path, launch: (&str, u32), m: &mut Measurement) {
    if let Some(step) = goes_on_from(run, launch, m.status) {
        m.reason += &format!("; started again it goes on from its checkpoint of step {step}");
    }
}

/// Removes the checkpoints of a launch that has learnt what it can, once it has its record. What cannot be removed only takes room.
pub(crate) fn ended(run: &Path, record: &Record) {
    if matches!(record.measurement.status, Status::Ok | Status::Diverged) {
        let _ = std::fs::remove_dir_all(folder_of(run, &record.trial_id, record.round));
        // Only where it is empty.
        let _ = std::fs::remove_dir(run.join(FOLDER));
    }
}

/// Moves the checkpoints of another run aside, to `checkpoints-<n>.old`; nothing is ever deleted.
///
/// # Errors
/// Disk or permissions.
pub(super) fn set_aside(run: &Path) -> Result<Option<PathBuf>, ResultsError> {
    let path = run.join(FOLDER);
    if !path.exists() {
        return Ok(None);
    }
    let free = (1..).map(|n| run.join(format!("{FOLDER}-{n}.old"))).find(|p| !p.exists());
    let Some(aside) = free else { return Ok(None) };
    std::fs::rename(&path, &aside).map_err(ResultsError::io(&path, "moving aside"))?;
    Ok(Some(aside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_launch_that_was_cut_short_keeps_its_checkpoints_and_any_other_loses_them() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        let mut record = fixture::heads().records.remove(0);
        let own = folder_of(run, &record.trial_id, record.round);
        let make = || std::fs::create_dir_all(own.join("step-000000200")).unwrap();
        make();
        for status in [Status::Crashed, Status::Oom, Status::Timeout] {
            (record.measurement.status, record.measurement.reason) = (status, "killed".into());
            note(run, (&record.trial_id, record.round), &mut record.measurement);
            assert_eq!(record.measurement.reason, "killed; started again it goes on from its checkpoint of step 200");
            assert!(without(run, vec![record.clone()]).is_empty());
            ended(run, &record);
            assert!(own.exists());
        }
        for status in [Status::Invalid, Status::Skipped] {
            record.measurement.status = status;
            assert_eq!(without(run, vec![record.clone()]).len(), 1);
            ended(run, &record);
            assert!(own.exists(), "they may be another's");
        }
        for status in [Status::Ok, Status::Diverged] {
            make();
            record.measurement.status = status;
            assert_eq!(without(run, vec![record.clone()]).len(), 1);
            ended(run, &record);
            assert!(!run.join(FOLDER).exists(), "{status:?}");
        }
        // Without a checkpoint there is nothing to go on from.
        std::fs::create_dir_all(&own).unwrap();
        (record.measurement.status, record.measurement.reason) = (Status::Crashed, "killed".into());
        note(run, (&record.trial_id, record.round), &mut record.measurement);
        assert_eq!((without(run, vec![record.clone()]).len(), record.measurement.reason.as_str()), (1, "killed"));
    }

    #[test]
    fn those_of_another_run_are_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        for n in 1..3 {
            std::fs::create_dir_all(folder_of(folder.path(), "ab", 0)).unwrap();
            set_aside(folder.path()).unwrap();
            assert!(folder.path().join(format!("checkpoints-{n}.old/ab-launch-1")).exists());
        }
        set_aside(folder.path()).unwrap();
        assert!(!folder.path().join(FOLDER).exists());
    }
}
