//! One trial: a point of the sweep, checked and complete.

use super::engine::{Engine, Reads};
use super::learning::Learning;
use crate::transformer::collective::grid::{Parallel, Sharding};
use crate::transformer::levers::Levers;
use crate::transformer::{BackendKind, CacheFormat, Dtype, OptimizerKind, Phase, WeightFormat, Workload};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// What the scenario asks for; `auto` takes a GPU where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BackendChoice {
    Auto,
    Cpu,
    /// The oracle; slow by intent.
    Naive,
    Cuda,
}

crate::transformer::names!(BackendChoice { Auto => "auto", Cpu => "cpu", Naive => "naive", Cuda => "cuda" });

/// How the KV cache is stored, in the words of a scenario: the dtype goes by its own name too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheChoice {
    Dtype,
    Int8,
    F8,
    F32,
    Tf32,
    Bf16,
}

crate::transformer::names!(CacheChoice {
    Dtype => "dtype", Int8 => "int8", F8 => "f8", F32 => "f32", Tf32 => "tf32", Bf16 => "bf16",
});

impl CacheChoice {
    /// The format that it comes to beside this dtype.
    ///
    /// # Errors
    /// Another dtype's name.
    pub(crate) fn format(self, dtype: Dtype) -> Result<CacheFormat, String> {
        let named = match self {
            Self::Dtype => return Ok(CacheFormat::Dtype),
            Self::Int8 => return Ok(CacheFormat::Int8),
            Self::F8 => return Ok(CacheFormat::F8),
            Self::F32 => Dtype::F32,
            Self::Tf32 => Dtype::Tf32,
            Self::Bf16 => Dtype::Bf16,
        };
        if named == dtype {
            return Ok(CacheFormat::Dtype);
        }
        Err(format!(
            "expected {dtype}, which is the dtype, int8 or f8, found {self}; use one of these, or dtype: {self}"
        ))
    }
}

/// A complete trial. Two trials are the same exactly when their [`Trial::id`]s are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What the reader calls the model: a preset's name, or one made from family and sizes ("gpt2 6x384").
    pub model: String,
    /// What is computed.
    pub workload: Workload,
    /// Resolved: never `auto`.
    pub backend: BackendKind,
    /// Ranks; on the CPU each has `cores_per_device` cores.
    pub devices: u32,
    /// CPU cores of each rank.
    pub cores_per_device: u32,
    /// How the devices share the workload, where it is not by whole replicas alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<Parallel>,
    /// The program that runs it, where that is not the built-in transformer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// What it is to learn, where a training trial leads somewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<Learning>,
}

impl Trial {
    /// Twelve hexadecimal digits of SHA-256 over the canonical JSON of everything but the model's display name and where its weights lie:
    /// of weights that are read, the content counts.
    pub fn id(&self) -> String {
        let mut workload = self.workload.clone();
        workload.weights_from.iter_mut().for_each(|w| w.folder = PathBuf::new());
        let mut canonical = vec![
            serde_json::json!(1), // version of this form
            serde_json::json!(workload),
            serde_json::json!(self.backend.name()),
            serde_json::json!(self.devices),
            serde_json::json!(self.cores_per_device),
        ];
        // Whole replicas are not spelt out: trials keep the ids that they had before there was anything else.
        canonical.extend(self.parallel.map(|p| serde_json::json!(p)));
        canonical.extend(self.engine.as_ref().map(|e| serde_json::json!({ "engine": e })));
        let bare = self.learning.clone().map(|l| Learning { data: l.data.identity(), ..l });
        canonical.extend(bare.map(|l| serde_json::json!({ "learning": l })));
        let digest = Sha256::digest(serde_json::Value::Array(canonical).to_string().as_bytes());
        digest.iter().take(6).map(|b| format!("{b:02x}")).collect()
    }
}

impl Trial {
    /// Fields that the phase does not use, at fixed values: two trials that compute the same have the same id.
    pub fn canonical(mut self) -> Self {
        let mut parallel = self.parallel();
        let w = &mut self.workload;
        match w.phase {
            Phase::Train => (w.prompt_len, w.new_tokens) = (0, 0),
            Phase::Prefill => (w.seq_len, w.new_tokens) = (0, 0),
            Phase::Decode | Phase::Generate => w.seq_len = 0,
        }
        if w.phase != Phase::Train {
            w.optimizer = OptimizerKind::Adamw;
            w.dropout = 0.0;
            w.levers = Levers::default();
            self.learning = None;
        } else {
            w.weights = WeightFormat::Dtype;
            w.kv_cache = CacheFormat::Dtype;
            let decays = w.optimizer == OptimizerKind::Adamw;
            self.learning.iter_mut().filter(|_| !decays).for_each(|l| l.schedule.weight_decay = None);
        }
        if w.phase != Phase::Train || parallel.data == 1 {
            parallel.sharding = Sharding::None;
        }
        self.parallel = (parallel != Parallel::replicas(self.devices)).then_some(parallel);
        self
    }

    /// Whether the shape of the model is known: that of a program only where the scenario states it.
    pub(crate) fn states_model(&self) -> bool {
        self.engine.as_ref().is_none_or(|e| e.states_model)
    }

    /// Whether another tool measured it, and its file was read.
    pub fn is_imported(&self) -> bool {
        self.engine.as_ref().is_some_and(|e| matches!(e.reads, Reads::Imported { .. }))
    }

    /// How the devices share the workload.
    pub fn parallel(&self) -> Parallel {
        self.parallel.unwrap_or(Parallel::replicas(self.devices))
    }

    /// Share of a training step for which the stages of a pipeline wait for one another, if all take as long; 0 of another program, whose
    /// schedule is not known.
    pub(crate) fn bubble(&self) -> f64 {
        let ours = self.engine.is_none() && self.workload.phase == Phase::Train;
        if ours { self.parallel().bubble(self.workload.levers.accumulate) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::draft::Draft;

    #[test]
    fn trials_of_whole_replicas_keep_the_ids_that_old_journals_have() {
        // As printed by the build before `parallel` was there.
        let of = |draft: Draft| draft.finish(|| false).unwrap().id();
        assert_eq!(of(Draft { batch: 4, devices: Some(2), ..Draft::default() }), "68787bbc6960");
        assert_eq!(of(Draft { phase: Phase::Decode, ..Draft::default() }), "137f9fab3121");
        let said = Draft { batch: 4, data: Some(2), tensor: Some(1), ..Draft::default() };
        assert_eq!(of(said), "68787bbc6960");
        let old = r#"{"model":"m","backend":"cpu","devices":2,"cores_per_device":1,"workload":"#;
        let workload = serde_json::to_string(&Draft::default().finish(|| false).unwrap().workload).unwrap();
        let old: Trial = serde_json::from_str(&format!("{old}{workload}}}")).unwrap();
        assert_eq!(old.parallel(), Parallel::replicas(2));
    }

    #[test]
    fn how_a_step_is_carried_out_is_a_part_of_the_trial_where_it_is_not_the_usual_way() {
        let of = |phase, levers| Draft { phase, batch: 4, levers, ..Draft::default() }.finish(|| false).unwrap();
        let usual = of(Phase::Train, Levers::default());
        assert!(!serde_json::to_string(&usual).unwrap().contains("levers"));
        let parts = Levers { accumulate: 2, ..Levers::default() };
        let other = of(Phase::Train, parts);
        assert_ne!(usual.id(), other.id());
        assert_eq!(serde_json::from_str::<Trial>(&serde_json::to_string(&other).unwrap()).unwrap(), other);
        assert_eq!(of(Phase::Decode, parts).id(), of(Phase::Decode, Levers::default()).id());
    }

    #[test]
    fn the_cache_in_the_dtype_is_said_by_its_name_too_and_makes_no_other_trial() {
        let of = |phase, dtype, kv_cache| Draft { phase, dtype, kv_cache, ..Draft::default() }.finish(|| false);
        let id = |kv_cache| of(Phase::Decode, Dtype::Bf16, kv_cache).unwrap().id();
        let all = [CacheChoice::Dtype, CacheChoice::Bf16, CacheChoice::Int8, CacheChoice::F8].map(id);
        assert!(all[0] == all[1] && all[1] != all[2] && all[2] != all[3] && all[1] != all[3], "{all:?}");
        assert_eq!(of(Phase::Decode, Dtype::F32, CacheChoice::Dtype).unwrap().id(), "137f9fab3121");
        let train = |kv_cache| of(Phase::Train, Dtype::F32, kv_cache).unwrap().id();
        assert_eq!(train(CacheChoice::Int8), train(CacheChoice::F32));
        let int8 = of(Phase::Decode, Dtype::F32, CacheChoice::Int8).unwrap();
        assert_eq!(serde_json::from_str::<Trial>(&serde_json::to_string(&int8).unwrap()).unwrap(), int8);
        let (field, message) = of(Phase::Decode, Dtype::F32, CacheChoice::Bf16).unwrap_err();
        assert_eq!(field, "kv_cache");
        assert_eq!(
            message,
            "expected f32, which is the dtype, int8 or f8, found bf16; use one of these, or dtype: bf16"
        );
    }

    #[test]
    fn what_makes_no_difference_makes_no_other_trial() {
        let tensor = |phase, data, sharding| {
            Draft { phase, data: Some(data), tensor: Some(2), sharding, batch: 4, ..Draft::default() }
                .finish(|| false)
                .unwrap()
        };
        let whole = tensor(Phase::Train, 2, Sharding::None);
        assert_eq!((whole.devices, whole.parallel().tensor), (4, 2));
        assert_ne!(whole.id(), tensor(Phase::Train, 2, Sharding::Optimizer).id());
        assert_eq!(tensor(Phase::Train, 1, Sharding::None).id(), tensor(Phase::Train, 1, Sharding::Optimizer).id());
        assert_eq!(tensor(Phase::Decode, 2, Sharding::None).id(), tensor(Phase::Decode, 2, Sharding::Optimizer).id());
        let staged = |pipeline| {
            Draft { pipeline: Some(pipeline), data: Some(2), batch: 4, ..Draft::default() }.finish(|| false).unwrap()
        };
        assert_eq!((staged(2).devices, staged(2).parallel().pipeline), (4, 2));
        assert_ne!(staged(2).id(), staged(1).id());
        assert_eq!(staged(1).id(), "68787bbc6960", "of a build that knew no stages");
    }
}
