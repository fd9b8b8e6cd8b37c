//! Records of what was imported: files of one configuration are launches of one cell.

use super::{Imported, Measured};
use crate::results::record::{Record, SCHEMA_VERSION};
use crate::runner::measurement::{Figures, Measurement, Status, Stop};
use crate::scenario::Cell;
use crate::scenario::engine::{Engine, Reads};
use crate::scenario::trial::Trial;
use crate::transformer::memory::MemoryParts;
use crate::transformer::shape::{Family, Shape, ShapeError, ShapeSpec};
use crate::transformer::{BackendKind, Dtype, OptimizerKind, WeightFormat, Workload};
use std::collections::{BTreeSet, HashMap};

/// Records of every measurement, and the fields in which the cells differ. `devices`: where a file does not tell.
///
/// # Errors
/// None in practice: the shape that stands for a model that is not known is one.
pub(crate) fn records(all: &[Imported], devices: u32, now: &str) -> Result<(Vec<Record>, Vec<String>), ShapeError> {
    let shape = Shape::new(Family::Gpt2, &ShapeSpec::default())?;
    let measured: Vec<(&Imported, &Measured)> =
        all.iter().flat_map(|i| i.measured.iter().map(move |m| (i, m))).collect();
    let axes = axes(&measured, devices);
    let mut seen: HashMap<String, (u32, u32)> = HashMap::new();
    let mut records = Vec::new();
    for (imported, m) in measured {
        let trial = trial(imported, m, devices, &shape);
        let id = trial.id();
        let next = u32::try_from(seen.len()).unwrap_or(u32::MAX);
        let (cell_index, rounds) = seen.entry(id.clone()).or_insert((next, 0));
        let coordinates = axes.iter().map(|path| (path.clone(), value(path, imported, m, devices))).collect();
        records.push(Record {
            schema_version: SCHEMA_VERSION,
            trial_id: id,
            cell_index: *cell_index,
            run_order: *cell_index,
            round: *rounds,
            again: 0,
            cell: Cell { trial, coordinates },
            measurement: measurement(m),
            started_at: now.into(),
        });
        *rounds += 1;
    }
    Ok((records, axes))
}

/// The fields in which measurements differ.
fn axes(all: &[(&Imported, &Measured)], devices: u32) -> Vec<String> {
    let fixed = ["engine.command", "model.preset", "phase", "batch", "prompt_len", "new_tokens", "devices"];
    let settings: BTreeSet<String> =
        all.iter().flat_map(|(_, m)| m.settings.keys().map(|k| format!("engine.env.{k}"))).collect();
    let differs = |path: &String| {
        let values: BTreeSet<String> = all.iter().map(|(i, m)| value(path, i, m, devices)).collect();
        values.len() > 1
    };
    fixed.into_iter().map(String::from).chain(settings).filter(differs).collect()
}

fn value(path: &str, imported: &Imported, m: &Measured, devices: u32) -> String {
    match path {
        "engine.command" => imported.tool.into(),
        "model.preset" => m.model.clone(),
        "phase" => m.phase.name().into(),
        "batch" => m.batch.to_string(),
        "prompt_len" => m.prompt_len.to_string(),
        "new_tokens" => m.new_tokens.to_string(),
        "devices" => m.devices.unwrap_or(devices).to_string(),
        other => {
            let name = other.strip_prefix("engine.env.").unwrap_or(other);
            m.settings.get(name).cloned().unwrap_or_default()
        }
    }
}

fn trial(imported: &Imported, m: &Measured, devices: u32, shape: &Shape) -> Trial {
    let engine = Engine {
        command: vec![imported.tool.into()],
        env: m.settings.clone(),
        // The name of the model sets trials apart: nothing else of it is known.
        reads: Reads::Imported { model: m.model.clone() },
        states_model: false,
        server: None,
    };
    let workload = Workload {
        shape: shape.clone(),
        phase: m.phase,
        batch: m.batch,
        seq_len: 0,
        prompt_len: m.prompt_len,
        new_tokens: m.new_tokens,
        dtype: Dtype::F32,
        weights: WeightFormat::Dtype,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.0,
        kv_cache: Default::default(),
        prefill_chunk: None,
        weights_from: None,
        levers: Default::default(),
    };
    Trial {
        model: m.model.clone(),
        workload,
        backend: BackendKind::Cpu,
        devices: m.devices.unwrap_or(devices),
        cores_per_device: 1,
        parallel: None,
        engine: Some(engine),
        learning: None,
    }
}

fn measurement(m: &Measured) -> Measurement {
    let steps: f64 = m.step_seconds.iter().sum();
    let figures = Figures {
        step_seconds: m.step_seconds.clone(),
        first_token_seconds: vec![],
        launches: vec![],
        warmup_steps: 0,
        tokens_per_step: m.tokens_per_step,
        stopped_by: Stop::Ended,
        precision_reached: None,
        peak_rss_bytes: m.peak_memory_bytes.unwrap_or(0),
        baseline_rss_bytes: 0,
        peak_allocated_bytes: 0,
        first_allocated_bytes: None,
        device_memory: None,
        expert_loads: None,
        loss: None,
        checksum: 0,
        quantization_loss: None,
        steal_share: None,
        watts: None,
        telemetry: None,
        disturbance: None,
        machine_rates: Vec::new(),
        served: m.served.clone().into_iter().collect(),
        profile: None,
        learned: vec![],
    };
    Measurement {
        status: Status::Ok,
        reason: String::new(),
        figures: Some(figures),
        predicted_memory: MemoryParts::default(),
        trial_seconds: m.seconds.filter(|s| s.is_finite() && *s > 0.0).unwrap_or(steps),
    }
}
