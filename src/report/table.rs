//! The table of results for machines: one row for each requested trial, every field, every metric with its interval.

use super::facts::Facts;
use crate::cost::learning::curve;
use crate::cost::metric::{Metric, Quantity};
use crate::cost::metrics::METRICS;
use crate::results::record::Record;
use crate::results::table::{DataColumn, DataTable, Values};
use crate::runner::learning::learned::{Checkpoints, Point, checkpoints_in_words};
use crate::runner::measurement::{Figures, Stop};
use crate::runner::watch::Disturbance;
use crate::scenario::Value;
use crate::scenario::axes::{AXES, Axis, Kind};
use crate::transformer::Phase;
use crate::transformer::memory::MemoryParts;
use crate::transformer::shape::Shape;
use crate::transformer::shape::count::{self, CountOverflow};

/// Builds it. The columns are the same for every run.
pub(super) fn table(facts: &Facts) -> DataTable {
    let mut b = Builder { records: facts.records(), columns: Vec::new() };
    b.text("trial_id", |r| Some(r.trial_id.clone()));
    b.text("cell", |r| Some(r.cell.name()));
    b.integer("cell_index", |r| Some(r.cell_index.into()));
    b.integer("run_order", |r| Some(r.run_order.into()));
    b.text("status", |r| Some(r.measurement.status.name().into()));
    b.text("reason", |r| Some(r.measurement.reason.clone()).filter(|t| !t.is_empty()));
    AXES.iter().for_each(|axis| b.field(axis));
    b.count("parameters", count::parameters);
    b.count("active_parameters", count::active_parameters);
    b.experts();
    for metric in METRICS {
        b.metric(facts, metric);
    }
    type Part = (&'static str, fn(&MemoryParts) -> u64);
    let parts: [Part; 6] = [
        ("predicted_weights_bytes", |m| m.weights_bytes),
        ("predicted_gradients_bytes", |m| m.gradients_bytes),
        ("predicted_optimizer_bytes", |m| m.optimizer_bytes),
        ("predicted_activations_bytes", |m| m.activations_bytes),
        ("predicted_kv_cache_bytes", |m| m.kv_cache_bytes),
        ("predicted_workspace_bytes", |m| m.workspace_bytes),
    ];
    for (name, of) in parts {
        // Of another program nothing is predicted.
        b.integer(name, |r| {
            let bytes = of(&r.measurement.predicted_memory);
            i64::try_from(bytes).ok().filter(|_| r.cell.trial.engine.is_none())
        });
    }
    b.of_figures("seeds", |f| i64::try_from(f.learned.len()).ok().filter(|n| *n > 0));
    b.of_figures("seeds_that_reached_the_loss", |f| {
        let there = f.learned.iter().filter(|l| l.target.is_some()).count();
        i64::try_from(there).ok().filter(|_| !f.learned.is_empty())
    });
    b.checkpoints();
    b.disturbance();
    b.of_figures("warmup_steps", |f| Some(f.warmup_steps.into()));
    b.of_figures("tokens_per_step", |f| i64::try_from(f.tokens_per_step).ok());
    b.text("stopped_by", |r| Some(stop_name(r.measurement.figures.as_ref()?.stopped_by).into()));
    b.float("loss", |r| r.measurement.figures.as_ref()?.loss.filter(|l| l.is_finite()));
    b.float("quantization_loss_change", |r| r.measurement.figures.as_ref()?.quantization_loss.as_ref()?.change());
    b.text("quantization_loss_unknown", |r| {
        let loss = r.measurement.figures.as_ref()?.quantization_loss.as_ref();
        loss?.why_not().map(str::to_string)
    });
    b.of_figures("checksum", |f| Some(f.checksum.into()));
    b.float("trial_seconds", |r| Some(r.measurement.trial_seconds));
    b.text("started_at", |r| Some(r.started_at.clone()));
    let e = &facts.run.environment;
    b.text("hardware", |_| Some(e.price.hardware.clone()));
    b.float("usd_per_hour", |r| e.price.for_devices(r.cell.trial.devices).map(|p| p.get()));
    b.float("utilisation", |_| Some(e.price.utilisation.get()));
    b.text("machine", |_| Some(e.machine.fingerprint()));
    b.text("program_version", |_| Some(e.program_version.clone()));
    b.integer("schema_version", |r| Some(r.schema_version.into()));
    b.samples("step_seconds", |f| &f.step_seconds);
    b.samples("first_token_seconds", |f| &f.first_token_seconds);
    b.losses("loss_curve_tokens", |p| p.tokens as f64);
    b.losses("loss_curve_seconds", |p| p.seconds);
    b.losses("loss_curve_validation_loss", |p| p.loss);
    DataTable { columns: b.columns }
}

fn stop_name(stop: Stop) -> &'static str {
    match stop {
        Stop::Precision => "precision",
        Stop::MaxSeconds => "max_seconds",
        Stop::MaxSteps => "max_steps",
        Stop::Ended => "ended",
        Stop::Goal => "goal",
    }
}

struct Builder<'a> {
    records: &'a [Record],
    columns: Vec<DataColumn>,
}

impl Builder<'_> {
    fn push(&mut self, name: &str, values: Values) {
        self.columns.push(DataColumn { name: name.into(), values });
    }

    fn text(&mut self, name: &str, of: impl Fn(&Record) -> Option<String>) {
        let values = self.records.iter().map(of).collect();
        self.push(name, Values::Text(values));
    }

    fn integer(&mut self, name: &str, of: impl Fn(&Record) -> Option<i64>) {
        let values = self.records.iter().map(of).collect();
        self.push(name, Values::Integer(values));
    }

    fn float(&mut self, name: &str, of: impl Fn(&Record) -> Option<f64>) {
        let values = self.records.iter().map(of).collect();
        self.push(name, Values::Float(values));
    }

    fn of_figures(&mut self, name: &str, of: impl Fn(&Figures) -> Option<i64>) {
        self.integer(name, |r| r.measurement.figures.as_ref().and_then(&of));
    }

    fn samples(&mut self, name: &str, of: fn(&Figures) -> &Vec<f64>) {
        let one = |r: &Record| r.measurement.figures.as_ref().map(|f| of(f).clone());
        let values = self.records.iter().map(one).collect();
        self.push(name, Values::Floats(values));
    }

    /// A part of each point of the validation losses, over all launches.
    fn losses(&mut self, name: &str, of: fn(&Point) -> f64) {
        let one = |r: &Record| {
            let learned = &r.measurement.figures.as_ref()?.learned;
            (!learned.is_empty()).then(|| curve(learned).iter().map(of).collect())
        };
        let values = self.records.iter().map(one).collect();
        self.push(name, Values::Floats(values));
    }

    /// Over all launches: how many checkpoints, what the last had, and how often work was lost.
    fn checkpoints(&mut self) {
        type Count = (&'static str, fn(&Checkpoints) -> u64, fn(u64, u64) -> u64);
        const COUNTS: [Count; 5] = [
            ("checkpoints", |c| c.made, u64::saturating_add),
            ("failed_checkpoints", |c| c.failed, u64::saturating_add),
            ("checkpoint_bytes", |c| c.bytes, u64::max),
            ("resumed", |c| c.resumed, u64::saturating_add),
            ("lost_steps", |c| c.lost_steps, u64::saturating_add),
        ];
        for (name, of, with) in COUNTS {
            self.of_figures(name, |f| {
                let all = f.learned.iter().filter_map(|l| l.checkpoints.as_ref());
                i64::try_from(all.map(of).reduce(with)?).ok()
            });
        }
        self.text("checkpoints_said", |r| checkpoints_in_words(&r.measurement.figures.as_ref()?.learned));
    }

    /// Whether others disturbed the trial, by what, and everything that the watch saw.
    fn disturbance(&mut self) {
        fn told(r: &Record) -> Option<&Disturbance> {
            r.measurement.figures.as_ref()?.disturbance.as_ref()
        }
        type Share = (&'static str, fn(&Disturbance) -> Option<f64>);
        const SHARES: [Share; 9] = [
            ("waited_share", |d| d.waited),
            ("quota_share", |d| d.throttled),
            ("stolen_share", |d| d.stolen),
            ("hot_share", |d| d.hot),
            ("memory_stall_share", |d| d.memory),
            ("cpu_pressure_share", |d| d.cpu_pressure),
            ("memory_pressure_share", |d| d.memory_pressure),
            ("io_pressure_share", |d| d.io_pressure),
            ("clock_mhz", |d| d.clock_mhz),
        ];
        type Count = (&'static str, fn(&Disturbance) -> Option<u64>);
        const COUNTS: [Count; 4] = [
            ("disturbed_steps", |d| d.disturbed_steps),
            ("preemptions", |d| d.preemptions),
            ("major_faults", |d| d.major_faults),
            ("numa_misses", |d| d.numa_misses),
        ];
        let disturbed = self.records.iter().map(|r| told(r)?.disturbed()).collect();
        self.push("disturbed", Values::Flag(disturbed));
        self.text("disturbed_by", |r| told(r).map(Disturbance::in_words).filter(|t| !t.is_empty()));
        self.integer("other_gpu_processes", |r| told(r).and_then(|d| d.on_its_gpus).map(i64::from));
        for (name, of) in SHARES {
            self.float(name, |r| told(r).and_then(of));
        }
        for (name, of) in COUNTS {
            self.integer(name, |r| i64::try_from(told(r).and_then(of)?).ok());
        }
    }

    /// What is counted of a model, where that is known.
    fn count(&mut self, name: &str, of: fn(&Shape) -> Result<u64, CountOverflow>) {
        self.integer(name, |r| {
            let trial = Some(&r.cell.trial).filter(|t| t.states_model())?;
            i64::try_from(of(&trial.workload.shape).ok()?).ok()
        });
    }

    /// Experts that a step's tokens are expected to go to and went to, in a layer, and how full the fullest was.
    fn experts(&mut self) {
        self.float("expected_distinct_experts", |r| {
            let w = &r.cell.trial.workload;
            // Those of a pass: of `generate`, a step of decoding.
            let tokens = if w.phase == Phase::Generate { u64::from(w.batch) } else { w.tokens_per_step() };
            let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
            w.shape.experts.map(|_| count::distinct_experts(&w.shape, tokens))
        });
        let loads = |r: &Record| r.measurement.figures.as_ref()?.expert_loads;
        self.float("distinct_experts", |r| Some(loads(r)?.distinct));
        self.float("fullest_expert_over_mean", |r| Some(loads(r)?.fullest_over_mean));
    }

    /// A field of the trial, under its path.
    fn field(&mut self, axis: &Axis) {
        let name = if axis.path == "model.preset" { "model" } else { axis.path };
        let get = |r: &Record| axis.of(&r.cell.trial);
        match axis.kind {
            Kind::Count | Kind::Whole | Kind::Tokens | Kind::Amount => self.integer(name, |r| match get(r) {
                Value::Integer(i) => Some(i),
                _ => None,
            }),
            Kind::Number | Kind::Duration => self.float(name, |r| match get(r) {
                Value::Float(x) => Some(x),
                Value::Integer(i) => Some(i as f64),
                _ => None,
            }),
            Kind::Flag => {
                let one = |r: &Record| match get(r) {
                    Value::Bool(b) => Some(b),
                    _ => None,
                };
                let values = self.records.iter().map(one).collect();
                self.push(name, Values::Flag(values));
            }
            _ => self.text(name, |r| match get(r) {
                Value::Text(t) => Some(t),
                _ => None,
            }),
        }
    }

    /// A metric; with `_low` and `_high` unless it is an exact count.
    fn metric(&mut self, facts: &Facts, metric: &Metric) {
        let all: Vec<_> = (0..self.records.len()).map(|i| facts.get(i, metric)).collect();
        let column = |of: fn(&crate::cost::metric::Estimate) -> Option<f64>| {
            Values::Float(all.iter().map(|e| e.as_ref().and_then(of)).collect())
        };
        self.push(metric.name, column(|e| Some(e.value)));
        if !matches!(metric.quantity, Quantity::Count | Quantity::Bytes) {
            self.push(&format!("{}_low", metric.name), column(|e| e.low));
            self.push(&format!("{}_high", metric.name), column(|e| e.high));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use std::collections::HashSet;

    #[test]
    fn every_trial_has_a_row_and_every_column_a_name_of_its_own() {
        let run = fixture::sweep();
        let t = table(&Facts::of(&run, fixture::book()));
        let names: HashSet<&str> = t.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names.len(), t.columns.len());
        assert!(t.columns.iter().all(|c| c.len() == 12));
        for wanted in
            ["model", "model.d_model", "batch", "usd_per_million_tokens_low", "peak_memory_bytes", "step_seconds"]
        {
            assert!(names.contains(wanted), "{wanted}");
        }
    }
}
