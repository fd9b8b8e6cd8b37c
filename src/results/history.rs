//! The history of runs: a Parquet file to which every run adds its rows, by commit.

use super::error::ResultsError;
use super::table::{DataColumn, DataTable, Values};
use super::write::{read_columns, write_parquet};
use std::path::Path;

/// One trial of one run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub commit: String,
    /// Start of the run, RFC 3339, UTC.
    pub started_at: String,
    pub scenario: String,
    pub trial_id: String,
    pub cell: String,
    pub machine: String,
    pub program_version: String,
    pub tokens_per_second: Option<f64>,
    pub usd_per_million_tokens: Option<f64>,
    pub usd_low: Option<f64>,
    pub usd_high: Option<f64>,
    pub peak_memory_bytes: Option<f64>,
}

type TextOf = fn(&Entry) -> &String;
type NumberOf = fn(&Entry) -> Option<f64>;

const TEXTS: [(&str, TextOf); 7] = [
    ("commit", |e| &e.commit),
    ("started_at", |e| &e.started_at),
    ("scenario", |e| &e.scenario),
    ("trial_id", |e| &e.trial_id),
    ("cell", |e| &e.cell),
    ("machine", |e| &e.machine),
    ("program_version", |e| &e.program_version),
];
const NUMBERS: [(&str, NumberOf); 5] = [
    ("tokens_per_second", |e| e.tokens_per_second),
    ("usd_per_million_tokens", |e| e.usd_per_million_tokens),
    ("usd_per_million_tokens_low", |e| e.usd_low),
    ("usd_per_million_tokens_high", |e| e.usd_high),
    ("peak_memory_bytes", |e| e.peak_memory_bytes),
];

/// Adds rows to a history; rows of the same run (commit, start and trial) take the place of those that are there. The file is
/// whole at any moment. Returns how many rows it has then.
///
/// # Errors
/// A file that is damaged or no history; disk or permissions. What is there stays.
pub(crate) fn append(path: &Path, new: &[Entry]) -> Result<usize, ResultsError> {
    let mut all = read(path)?;
    let key = |e: &Entry| (e.commit.clone(), e.started_at.clone(), e.trial_id.clone());
    all.retain(|old| !new.iter().any(|n| key(n) == key(old)));
    all.extend_from_slice(new);
    let column = |name: &str, values: Values| DataColumn { name: name.into(), values };
    let mut columns: Vec<DataColumn> = TEXTS
        .iter()
        .map(|(name, of)| column(name, Values::Text(all.iter().map(|e| Some(of(e).clone())).collect())))
        .collect();
    columns.extend(NUMBERS.iter().map(|(name, of)| column(name, Values::Float(all.iter().map(of).collect()))));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(ResultsError::io(folder, "making the folder"))?;
    }
    write_parquet(path, &DataTable { columns })?;
    Ok(all.len())
}

/// Every row, in the order in which they were added; none where there is no file yet.
///
/// # Errors
/// A file that is damaged or no history.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>, ResultsError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let (texts, numbers) = read_columns(path, &TEXTS.map(|(n, _)| n), &NUMBERS.map(|(n, _)| n))?;
    let rows = texts.first().map_or(0, Vec::len);
    let text = |c: usize, r: usize| texts.get(c).and_then(|t| t.get(r)).cloned().flatten().unwrap_or_default();
    let number = |c: usize, r: usize| numbers.get(c).and_then(|n| n.get(r)).copied().flatten();
    let entry = |r: usize| Entry {
        commit: text(0, r),
        started_at: text(1, r),
        scenario: text(2, r),
        trial_id: text(3, r),
        cell: text(4, r),
        machine: text(5, r),
        program_version: text(6, r),
        tokens_per_second: number(0, r),
        usd_per_million_tokens: number(1, r),
        usd_low: number(2, r),
        usd_high: number(3, r),
        peak_memory_bytes: number(4, r),
    };
    Ok((0..rows).map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(commit: &str, cost: Option<f64>) -> Entry {
        Entry {
            commit: commit.into(),
            started_at: "2026-11-24T05:00:00Z".into(),
            scenario: "s".into(),
            trial_id: "t".into(),
            cell: "batch 1".into(),
            machine: "m".into(),
            program_version: "0.1.0".into(),
            tokens_per_second: Some(100.0),
            usd_per_million_tokens: cost,
            usd_low: None,
            usd_high: None,
            peak_memory_bytes: Some(1e6),
        }
    }

    #[test]
    fn runs_add_up_and_the_same_run_is_not_added_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a folder that is not there/history.parquet");
        assert_eq!(read(&path).unwrap(), []);
        assert_eq!(append(&path, &[entry("a", Some(1.0))]).unwrap(), 1);
        assert_eq!(append(&path, &[entry("b", None)]).unwrap(), 2);
        assert_eq!(append(&path, &[entry("a", Some(2.0))]).unwrap(), 2);
        assert_eq!(read(&path).unwrap(), [entry("b", None), entry("a", Some(2.0))]);
    }

    #[test]
    fn what_is_no_history_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.parquet");
        std::fs::write(&path, "not a history").unwrap();
        assert!(append(&path, &[entry("a", None)]).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "not a history");
    }
}
