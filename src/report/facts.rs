//! What every section asks: the run, its figures, and how its cells are told apart.

use crate::comparison::cheapest::{Cheapest, cheapest_of_run};
use crate::comparison::scaling::Series;
use crate::cost::evaluate::{Figured, evaluate};
use crate::cost::metric::{Estimate, Metric};
use crate::cost::metrics::USD_PER_MILLION;
use crate::hardware::book::Book;
use crate::results::record::Record;
use crate::results::run::Run;
use crate::runner::measurement::{Figures, Status};
use crate::scenario::Value;
use crate::scenario::axes::{AXES, Axis, label, said};

/// A run and everything that is computed from it once.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub run: &'a Run,
    pub book: &'a Book,
    figures: Vec<Figured>,
    /// Of each record the medians of its launches, in the order of rounds.
    rounds: Vec<Vec<f64>>,
    cheapest: Option<Cheapest>,
    /// Fields that differ among the cells, in the order of the scenario.
    pub varied: Vec<Varied>,
}

/// A field of the trial that differs among the cells.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Varied {
    pub path: String,
    pub label: String,
    pub unit: &'static str,
    /// Its values in the order in which they first appear.
    pub values: Vec<String>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(run: &'a Run, book: &'a Book) -> Self {
        let mut paths: Vec<&str> = run.environment.axes.iter().map(String::as_str).collect();
        for (path, _) in run.records.iter().flat_map(|r| &r.cell.coordinates) {
            if !paths.contains(&path.as_str()) {
                paths.push(path);
            }
        }
        // A field that some trials alone have tells them from the others, even if it is the same in all of them.
        let tells = |v: &Varied| match v.values.len() {
            0 => false,
            1 => run.records.iter().any(|r| value_of(r, &v.path).is_none()),
            _ => true,
        };
        let varied = paths.into_iter().map(|p| varied(run, p)).filter(tells).collect();
        let rounds = |r: &Record| r.measurement.figures.as_ref().map(Figures::medians_of_launches).unwrap_or_default();
        let rounds = run.records.iter().map(rounds).collect();
        let mut facts = Self { run, book, figures: evaluate(run, book), rounds, cheapest: None, varied };
        facts.cheapest = facts.cheapest_among(&(0..run.records.len()).collect::<Vec<_>>());
        facts
    }

    pub(super) fn records(&self) -> &'a [Record] {
        &self.run.records
    }

    /// Every metric of every record, for who computes from all of them.
    pub(super) fn figures(&self) -> &[Figured] {
        &self.figures
    }

    /// A metric of a record.
    pub(super) fn get(&self, record: usize, metric: &Metric) -> Option<Estimate> {
        self.figures.get(record)?.get(metric)
    }

    /// Whether any record has the metric.
    pub(super) fn any(&self, metric: &Metric) -> bool {
        self.figures.iter().any(|f| f.get(metric).is_some())
    }

    /// Indices of the records that were measured.
    pub(super) fn measured(&self) -> Vec<usize> {
        (0..self.run.records.len()).filter(|&i| self.run.records[i].measurement.figures.is_some()).collect()
    }

    /// The cheapest of some records of this run, and what cannot be told from it; indices are places in `members`.
    pub(super) fn cheapest_among(&self, members: &[usize]) -> Option<Cheapest> {
        let costs: Vec<Option<Estimate>> = members.iter().map(|&i| self.get(i, &USD_PER_MILLION)).collect();
        let rounds: Vec<Vec<f64>> = members.iter().map(|&i| self.rounds[i].clone()).collect();
        cheapest_of_run(&costs, &rounds, &self.run.environment.variation().spread)
    }

    /// The cheapest of all records.
    pub(super) fn cheapest(&self) -> Option<&Cheapest> {
        self.cheapest.as_ref()
    }

    /// Whether no figure is this machine's alone, so that there is no answer. The command that measures again.
    pub(super) fn busy(&self) -> Option<String> {
        let measured = self.measured();
        let command = self.run.environment.command_line();
        let fresh = if command.contains("--fresh") { "" } else { " --fresh" };
        let all = !measured.is_empty() && measured.iter().all(|&i| self.disturbed(i));
        all.then(|| format!("{command}{fresh}"))
    }

    /// Whether others took more of the trial's time than is allowed, as far as the system told.
    pub(super) fn disturbed(&self, record: usize) -> bool {
        let figures = self.run.records.get(record).and_then(|r| r.measurement.figures.as_ref());
        figures.is_some_and(|f| f.disturbed())
    }

    pub(super) fn counted(&self, status: Status) -> usize {
        self.run.records.iter().filter(|r| r.measurement.status == status).count()
    }

    /// "d_model 256, batch 4": by what differs among the cells, or the model where nothing does.
    pub(super) fn name(&self, record: usize) -> String {
        self.name_without(record, &[])
    }

    /// The same without some of the fields.
    pub(super) fn name_without(&self, record: usize, paths: &[&str]) -> String {
        let Some(r) = self.run.records.get(record) else { return String::new() };
        let parts: Vec<String> = self
            .varied
            .iter()
            .filter(|v| !paths.contains(&v.path.as_str()))
            .filter_map(|v| Some(said(&v.path, &value_of(r, &v.path)?)))
            .collect();
        if parts.is_empty() { r.cell.trial.model.clone() } else { parts.join(", ") }
    }

    /// A series of one device and several: by what it has in common, and how the devices share the work.
    pub(super) fn name_of_series(&self, series: &Series) -> String {
        let of_devices = [
            "devices",
            "parallel.data",
            "parallel.tensor",
            "parallel.pipeline",
            "parallel.expert",
            "parallel.sharding",
        ];
        let name = series.points.first().map_or(String::new(), |p| self.name_without(p.record, &of_devices));
        match series.way.to_string() {
            way if way.is_empty() => name,
            way => format!("{name}, {way}"),
        }
    }

    /// What a record has in a field.
    pub(super) fn value(&self, record: usize, path: &str) -> Option<String> {
        value_of(self.run.records.get(record)?, path)
    }
}

fn axis(path: &str) -> Option<&'static Axis> {
    AXES.iter().find(|a| a.path == path)
}

fn varied(run: &Run, path: &str) -> Varied {
    let mut values: Vec<String> = Vec::new();
    for value in run.records.iter().filter_map(|r| value_of(r, path)) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    let known = axis(path);
    Varied { path: path.into(), label: label(path).into(), unit: known.map_or("", |a| a.unit), values }
}

/// What the trial has there, or what the scenario set it to where the trial has no such field.
fn value_of(record: &Record, path: &str) -> Option<String> {
    let set = || record.cell.coordinates.iter().find(|(p, _)| p == path).map(|(_, v)| v.clone());
    match axis(path).map(|a| a.of(&record.cell.trial)) {
        Some(Value::Null) | None => set(),
        Some(value) => Some(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn cells_are_named_by_what_differs_among_them() {
        let run = fixture::sweep();
        let facts = Facts::of(&run, fixture::book());
        assert_eq!(
            facts.varied.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(),
            ["model.d_model", "batch", "devices"]
        );
        assert_eq!(facts.varied[1].values, ["1", "4", "8"]);
        assert_eq!(facts.name(2), "d_model 256, batch 4, devices 1");
        assert_eq!(facts.name_without(2, &["batch"]), "d_model 256, devices 1");
    }

    #[test]
    fn what_only_some_trials_have_is_part_of_their_name() {
        let mut run = fixture::sweep();
        let clipped = ("schedule.clip".to_string(), "1".to_string());
        run.records[2].cell.coordinates.push(clipped);
        let facts = Facts::of(&run, fixture::book());
        assert_eq!(facts.name(2), "d_model 256, batch 4, devices 1, clip 1");
        assert_eq!(facts.name(1), "d_model 256, batch 1, devices 2");
    }

    #[test]
    fn a_run_of_one_cell_is_named_by_its_model() {
        let mut run = fixture::sweep();
        run.records.truncate(1);
        let facts = Facts::of(&run, fixture::book());
        assert!(facts.varied.is_empty());
        assert_eq!(facts.name(0), "gpt2 6x256");
    }
}
