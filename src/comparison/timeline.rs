//! A figure over commits, with the points from which it has another level.

use crate::results::history::Entry;
use crate::stats::change_points::change_points;

/// A cell's figures over its runs on one machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub cell: String,
    pub machine: String,
    /// In the order of the runs.
    pub points: Vec<Point>,
}

/// One run's figures of a cell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    /// Place of its run among all runs of the history.
    pub run: usize,
    pub tokens_per_second: Option<f64>,
    pub usd_per_million_tokens: Option<f64>,
    pub interval: Option<(f64, f64)>,
    pub peak_memory_bytes: Option<f64>,
}

/// A change of level.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub cell: String,
    pub figure: &'static str,
    /// Place of the first run on the new level.
    pub run: usize,
    /// Median after it over median before it, up to the neighbouring changes.
    pub ratio: f64,
}

/// Runs by their start, as (commit, start).
pub(crate) fn runs(entries: &[Entry]) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for e in entries {
        let key = (e.commit.clone(), e.started_at.clone());
        if !all.contains(&key) {
            all.push(key);
        }
    }
    all.sort_by(|a, b| a.1.cmp(&b.1));
    all
}

/// A line for each scenario's cell and machine.
pub(crate) fn lines(entries: &[Entry]) -> Vec<Line> {
    let runs = runs(entries);
    let mut all: Vec<(String, Line)> = Vec::new();
    for e in entries {
        let key = format!("{} {} {}", e.scenario, e.trial_id, e.machine);
        let run = runs.iter().position(|r| r.0 == e.commit && r.1 == e.started_at).unwrap_or(0);
        let point = Point {
            run,
            tokens_per_second: e.tokens_per_second,
            usd_per_million_tokens: e.usd_per_million_tokens,
            interval: e.usd_low.zip(e.usd_high),
            peak_memory_bytes: e.peak_memory_bytes,
        };
        match all.iter_mut().find(|(k, _)| *k == key) {
            Some((_, line)) => line.points.push(point),
            None => {
                let line = Line { cell: e.cell.clone(), machine: e.machine.clone(), points: vec![point] };
                all.push((key, line));
            }
        }
    }
    all.iter_mut().for_each(|(_, l)| l.points.sort_by_key(|p| p.run));
    all.into_iter().map(|(_, l)| l).collect()
}

/// Error rate of one series: at this level a series without a change shows one in a hundred histories.
const ALPHA: f64 = 0.01;

/// Where a figure of a line changes its level for good.
pub(crate) fn changes(line: &Line, figure: &'static str, of: impl Fn(&Point) -> Option<f64>) -> Vec<Change> {
    let known: Vec<(usize, f64)> =
        line.points.iter().filter_map(|p| Some((p.run, of(p).filter(|v| *v > 0.0)?))).collect();
    let values: Vec<f64> = known.iter().map(|k| k.1.ln()).collect();
    let found = change_points(&values, ALPHA);
    let median = |from: usize, to: usize| {
        let mut part = values[from..to].to_vec();
        part.sort_by(f64::total_cmp);
        part[part.len() / 2]
    };
    let change = |(i, &at): (usize, &usize)| {
        let before = if i == 0 { 0 } else { found[i - 1] };
        let after = found.get(i + 1).copied().unwrap_or(values.len());
        let ratio = (median(at, after) - median(before, at)).exp();
        Change { cell: line.cell.clone(), figure, run: known[at].0, ratio }
    };
    found.iter().enumerate().map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(i: usize, rate: f64) -> Entry {
        Entry {
            commit: format!("c{i}"),
            started_at: format!("2026-11-{:02}T00:00:00Z", i + 1),
            scenario: "s".into(),
            trial_id: "t".into(),
            cell: "batch 1".into(),
            machine: "m".into(),
            program_version: String::new(),
            tokens_per_second: Some(rate),
            usd_per_million_tokens: None,
            usd_low: None,
            usd_high: None,
            peak_memory_bytes: None,
        }
    }

    #[test]
    fn a_change_is_found_at_its_commit_with_its_size() {
        let wiggle = |i: usize| 1.0 + ((i * 7) % 5) as f64 * 1e-3;
        let mut all: Vec<Entry> = (0..24).map(|i| entry(i, if i < 14 { 100.0 } else { 80.0 } * wiggle(i))).collect();
        all.reverse();
        let lines = lines(&all);
        assert_eq!((lines.len(), lines[0].points.len(), lines[0].points[0].run), (1, 24, 0));
        let found = changes(&lines[0], "tokens_per_second", |p| p.tokens_per_second);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].run, (found[0].ratio * 100.0).round()), (14, 80.0));
        assert_eq!(runs(&all)[14].0, "c14");
        assert!(changes(&lines[0], "cost", |p| p.usd_per_million_tokens).is_empty());
    }
}
