//! A trial in the making: what has been said so far, and the checks that make it a [`Trial`].

use super::engine::read::EngineDraft;
use super::learning::draft::LearningDraft;
use super::presets;
use super::trial::{BackendChoice, CacheChoice, Trial};
use super::weights::{Config, Folder};
use crate::transformer::collective::grid::{Parallel, Sharding};
use crate::transformer::levers::Levers;
use crate::transformer::shape::{Family, Shape, ShapeError, ShapeSpec};
use crate::transformer::{BackendKind, Dtype, OptimizerKind, Phase, WeightFormat, Workload};
use std::borrow::Cow;

/// What has been said of a trial, over the defaults.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draft {
    pub family: Option<Family>,
    pub preset: Option<String>,
    /// Read from a Hugging Face config.
    pub config: Option<Config>,
    pub spec: ShapeSpec,
    pub phase: Phase,
    pub batch: u32,
    pub seq_len: u32,
    pub prompt_len: u32,
    pub new_tokens: u32,
    pub dtype: Dtype,
    pub weights: WeightFormat,
    pub kv_cache: CacheChoice,
    pub backend: BackendChoice,
    /// The product of data, tensor and pipeline; whichever of the first two is not said follows from the others, or is 1.
    pub devices: Option<u32>,
    pub data: Option<u32>,
    pub tensor: Option<u32>,
    pub pipeline: Option<u32>,
    /// Replicas that experts are spread over: as many as there are, where nothing is said of them.
    pub expert: Option<u32>,
    pub sharding: Sharding,
    pub cores_per_device: u32,
    pub optimizer: OptimizerKind,
    pub dropout: f32,
    pub prefill_chunk: Option<u32>,
    /// A folder of weights, by its path from the scenario's folder.
    pub weights_from: Option<String>,
    /// How a training step is carried out.
    pub levers: Levers,
    /// What is in it, once it has been looked into.
    pub folder: Option<Folder>,
    pub engine: EngineDraft,
    pub learning: LearningDraft,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            family: None,
            preset: None,
            config: None,
            spec: ShapeSpec::default(),
            phase: Phase::Train,
            batch: 1,
            seq_len: 256,
            prompt_len: 128,
            new_tokens: 32,
            dtype: Dtype::F32,
            weights: WeightFormat::Dtype,
            kv_cache: CacheChoice::Dtype,
            backend: BackendChoice::Auto,
            devices: None,
            data: None,
            tensor: None,
            pipeline: None,
            expert: None,
            sharding: Sharding::None,
            // A device of the CPU is one core unless the scenario says more: one device and two are then a real
            // comparison on every machine, and no figure depends on how many cores happen to be there.
            cores_per_device: 1,
            optimizer: OptimizerKind::Adamw,
            dropout: 0.0,
            prefill_chunk: None,
            weights_from: None,
            levers: Levers::default(),
            folder: None,
            engine: EngineDraft::default(),
            learning: LearningDraft::default(),
        }
    }
}

/// Why a draft is no trial: the field's path and the message.
pub(super) type FieldFault = (Cow<'static, str>, String);

impl Draft {
    /// The model's name and its checked shape.
    ///
    /// # Errors
    /// The field at fault, what is wrong with it, and the remedy.
    pub(crate) fn shape(&self) -> Result<(String, Shape), FieldFault> {
        if let Some(folder) = &self.folder {
            return self.of_folder(folder);
        }
        let Some((name, family, known)) = self.known_model()? else {
            // Words are those of the data where the model does not say.
            let vocab_size = self.spec.vocab_size.or(self.learning.vocabulary().filter(|_| self.phase == Phase::Train));
            let spec = ShapeSpec { vocab_size, ..self.spec.clone() };
            let shape = Shape::new(self.family.unwrap_or(Family::Gpt2), &spec).map_err(of_shape)?;
            return Ok((format!("{} {}x{}", shape.family, shape.n_layers, shape.d_model), shape));
        };
        if self.family.is_some_and(|f| f != family) {
            return Err((
                "model.family".into(),
                format!("{name} is of the family {family}; leave family out, or use {family}"),
            ));
        }
        let shape = Shape::new(family, &over(known, &self.spec)).map_err(of_shape)?;
        if self.spec == ShapeSpec::default() {
            return Ok((name, shape));
        }
        Ok((format!("{name} {}x{}", shape.n_layers, shape.d_model), shape))
    }

    /// The model of a folder of weights. What is said of the model beside it has to be what the folder has.
    fn of_folder(&self, folder: &Folder) -> Result<(String, Shape), FieldFault> {
        let Config { name, family, spec } = &folder.config;
        let (_, family, known) = self.known_model()?.unwrap_or((String::new(), *family, spec.clone()));
        let said = Shape::new(self.family.unwrap_or(family), &over(known, &self.spec)).map_err(of_shape)?;
        match folder.contradiction(&said) {
            Some((field, message)) => Err((format!("model.{field}").into(), message)),
            None => Ok((name.clone(), said)),
        }
    }

    /// The preset or config that sizes are given over.
    fn known_model(&self) -> Result<Option<(String, Family, ShapeSpec)>, FieldFault> {
        match (&self.preset, &self.config) {
            (Some(_), Some(c)) => Err((
                "model.preset".into(),
                format!("hf_config names a model already, {}; keep one of the two", c.name),
            )),
            (None, Some(c)) => Ok(Some((c.name.clone(), c.family, c.spec.clone()))),
            (Some(name), None) => {
                let preset = presets::all().into_iter().find(|p| p.name == *name);
                let preset = preset.ok_or(("model.preset".into(), format!("`{name}` is unknown")))?;
                Ok(Some((name.clone(), preset.family, preset.spec)))
            }
            (None, None) => Ok(None),
        }
    }

    /// Whether anything is said of the model.
    pub(crate) fn states_model(&self) -> bool {
        let sizes = self.family.is_some() || self.spec != ShapeSpec::default();
        sizes || self.preset.is_some() || self.config.is_some() || self.weights_from.is_some()
    }

    /// The checked trial, as the built-in transformer would run it; `auto` becomes CUDA where there is a GPU.
    ///
    /// # Errors
    /// The field at fault, what is wrong with it, and the remedy.
    pub(crate) fn finish(&self, cuda_present: fn() -> bool) -> Result<Trial, FieldFault> {
        let (model, shape) = self.shape()?;
        let served = self.engine.server.endpoint.is_some();
        let workload = Workload {
            shape,
            // Training is what is meant where nothing is said, and no server trains.
            phase: if served && self.phase == Phase::Train { Phase::Generate } else { self.phase },
            batch: self.batch,
            seq_len: self.seq_len,
            prompt_len: self.prompt_len,
            new_tokens: self.new_tokens,
            dtype: self.dtype,
            weights: self.weights,
            kv_cache: self.kv_cache.format(self.dtype).map_err(|message| ("kv_cache".into(), message))?,
            optimizer: self.optimizer,
            dropout: self.dropout,
            prefill_chunk: self.prefill_chunk,
            weights_from: self.folder.as_ref().map(|f| f.weights.clone()),
            levers: self.levers,
        };
        let parallel = self.parallel()?;
        // What another program can do, that program knows.
        if self.engine.command.is_none() && !served {
            workload.check(&parallel).map_err(|e| (e.field.into(), e.message))?;
        }
        let learning = self.learning.finish(&workload).map_err(|(field, message)| (field.into(), message))?;
        let backend = match self.backend {
            BackendChoice::Cpu => BackendKind::Cpu,
            BackendChoice::Naive => BackendKind::Naive,
            BackendChoice::Cuda => BackendKind::Cuda,
            BackendChoice::Auto if cuda_present() => BackendKind::Cuda,
            BackendChoice::Auto => BackendKind::Cpu,
        };
        let devices = parallel.ranks().unwrap_or(u32::MAX);
        let cores_per_device = self.cores_per_device;
        let trial = Trial {
            model,
            workload,
            backend,
            devices,
            cores_per_device,
            parallel: Some(parallel),
            engine: None,
            learning,
        };
        Ok(trial.canonical())
    }

    /// How many devices there are and how they share the workload.
    ///
    /// # Errors
    /// Numbers that do not make a product.
    pub(crate) fn parallel(&self) -> Result<Parallel, FieldFault> {
        let (sharding, pipeline, expert) = (self.sharding, self.pipeline.unwrap_or(1), self.expert.unwrap_or(1));
        let quotient = |field: &'static str, by: u32, devices: u32| match devices.checked_div(by) {
            Some(other) if other * by == devices => Ok(other),
            _ => {
                let part = if self.devices == Some(devices) { "" } else { " of each stage" };
                let message =
                    format!("{by} does not divide devices = {devices}{part}; leave devices out, or use a divisor");
                Err((field.into(), message))
            }
        };
        let of_stage = match (self.devices, self.pipeline) {
            (Some(devices), Some(stages)) => Some(quotient("parallel.pipeline", stages, devices)?),
            (devices, _) => devices,
        };
        let (data, tensor) = match (of_stage, self.data, self.tensor) {
            (Some(d), None, None) => (d, 1),
            (Some(d), Some(data), None) => (data, quotient("parallel.data", data, d)?),
            (Some(d), None, Some(tensor)) => (quotient("parallel.tensor", tensor, d)?, tensor),
            (_, data, tensor) => (data.unwrap_or(expert.max(1)), tensor.unwrap_or(1)),
        };
        let parallel = Parallel { data, tensor, pipeline, expert, sharding };
        match (parallel.ranks(), self.devices) {
            (None, _) => Err((
                "parallel.data".into(),
                format!("{data} x {tensor} x {pipeline} devices cannot be counted; use smaller numbers"),
            )),
            (Some(product), Some(devices)) if product != devices => {
                let (stages, all) = match self.pipeline {
                    Some(_) => (format!(", parallel.pipeline = {pipeline}"), "four"),
                    None => (String::new(), "three"),
                };
                let message = format!(
                    "{devices} is not the product of parallel.data = {data} and parallel.tensor = {tensor}{stages}; use {product}, or \
                     leave one of the {all} out"
                );
                Err(("devices".into(), message))
            }
            _ => Ok(parallel),
        }
    }
}

/// A fault of the shape under the path of its field.
fn of_shape(e: ShapeError) -> FieldFault {
    (format!("model.{}", e.field).into(), e.message)
}

/// The base with every field that is stated over it.
fn over(base: ShapeSpec, own: &ShapeSpec) -> ShapeSpec {
    ShapeSpec {
        n_layers: own.n_layers.or(base.n_layers),
        d_model: own.d_model.or(base.d_model),
        n_heads: own.n_heads.or(base.n_heads),
        n_kv_heads: own.n_kv_heads.or(base.n_kv_heads),
        head_dim: own.head_dim.or(base.head_dim),
        d_ff: own.d_ff.or(base.d_ff),
        vocab_size: own.vocab_size.or(base.vocab_size),
        context: own.context.or(base.context),
        window: own.window.or(base.window),
        tied_embeddings: own.tied_embeddings.or(base.tied_embeddings),
        qkv_bias: own.qkv_bias.or(base.qkv_bias),
        attn_out_bias: own.attn_out_bias.or(base.attn_out_bias),
        mlp_bias: own.mlp_bias.or(base.mlp_bias),
        activation: own.activation.or(base.activation),
        norm: own.norm.or(base.norm),
        norm_eps: own.norm_eps.or(base.norm_eps),
        rope_theta: own.rope_theta.or(base.rope_theta),
        rope_scaling: own.rope_scaling.clone().or(base.rope_scaling),
        n_experts: own.n_experts.or(base.n_experts),
        experts_per_token: own.experts_per_token.or(base.experts_per_token),
        normalised_experts: own.normalised_experts.or(base.normalised_experts),
        n_shared_experts: own.n_shared_experts.or(base.n_shared_experts),
        d_ff_expert: own.d_ff_expert.or(base.d_ff_expert),
        first_dense_layers: own.first_dense_layers.or(base.first_dense_layers),
        routing: own.routing.or(base.routing),
        latent: own.latent.over(base.latent),
        parts: own.parts.clone().or(base.parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_does_not_divide_is_refused_with_one_that_does() {
        let d = Draft { batch: 3, devices: Some(2), ..Draft::default() };
        assert_eq!(
            d.finish(|| false).unwrap_err(),
            ("batch".into(), "3 sequences do not divide among devices = 2; use 4, or exclude the pair".into())
        );
        let d = Draft { batch: u32::MAX, devices: Some(2), ..Draft::default() };
        assert!(d.finish(|| false).unwrap_err().1.contains("use 4294967296,"));
    }

    #[test]
    fn devices_are_the_product_of_how_they_share_the_work() {
        let of = |devices, data, tensor| {
            let d = Draft { batch: 8, devices, data, tensor, ..Draft::default() };
            d.parallel().map(|p| (p.data, p.tensor))
        };
        assert_eq!(of(None, None, None), Ok((1, 1)));
        assert_eq!(of(Some(4), None, None), Ok((4, 1)));
        assert_eq!(of(None, Some(2), Some(4)), Ok((2, 4)));
        assert_eq!(of(Some(8), Some(2), None), Ok((2, 4)));
        assert_eq!(of(Some(8), None, Some(4)), Ok((2, 4)));
        assert_eq!(of(Some(8), Some(2), Some(4)), Ok((2, 4)));
        assert_eq!(
            of(Some(6), Some(2), Some(4)).unwrap_err(),
            (
                "devices".into(),
                "6 is not the product of parallel.data = 2 and parallel.tensor = 4; use 8, or leave one of the three out"
                    .into()
            )
        );
        assert_eq!(of(Some(6), None, Some(4)).unwrap_err().0, "parallel.tensor");
        assert_eq!(of(None, Some(u32::MAX), Some(2)).unwrap_err().0, "parallel.data");
        let of = |devices, data, pipeline| {
            let d = Draft { batch: 8, devices, data, pipeline: Some(pipeline), ..Draft::default() };
            d.parallel().map(|p| (p.data, p.tensor, p.pipeline))
        };
        assert_eq!(of(None, None, 2), Ok((1, 1, 2)));
        assert_eq!(of(Some(4), None, 2), Ok((2, 1, 2)));
        assert_eq!(of(Some(4), Some(2), 2), Ok((2, 1, 2)));
        assert_eq!(of(None, Some(2), 3), Ok((2, 1, 3)));
        let refused = of(Some(3), None, 2).unwrap_err();
        assert_eq!(refused.0, "parallel.pipeline");
        assert_eq!(refused.1, "2 does not divide devices = 3; leave devices out, or use a divisor");
        let refused = of(Some(6), Some(2), 2).unwrap_err();
        assert_eq!(refused.1, "2 does not divide devices = 3 of each stage; leave devices out, or use a divisor");
        // Experts are spread over replicas: over all of them where their number is not said.
        let of = |devices, data, expert| {
            let d = Draft { batch: 8, devices, data, expert: Some(expert), ..Draft::default() };
            d.parallel().map(|p| (p.data, p.expert, p.ranks()))
        };
        assert_eq!(of(None, None, 4), Ok((4, 4, Some(4))));
        assert_eq!(of(Some(8), None, 4), Ok((8, 4, Some(8))));
        assert_eq!(of(None, Some(6), 2), Ok((6, 2, Some(6))));
        let spread = Draft { batch: 6, expert: Some(2), data: Some(3), ..Draft::default() };
        let mixture = Draft { family: Some(Family::Mixtral), ..spread.clone() };
        assert_eq!(mixture.finish(|| false).unwrap_err().0, "parallel.expert");
        assert!(spread.finish(|| false).unwrap_err().1.contains("found none in family gpt2"));
        let heads = Draft { tensor: Some(5), ..Draft::default() };
        assert_eq!(
            heads.finish(|| false).unwrap_err(),
            (
                "parallel.tensor".into(),
                "5 does not divide model.n_heads = 12; what divides all of this model: 1, 2, 3, 4, 6, 12".into()
            )
        );
    }

    #[test]
    fn sizes_beside_a_preset_or_config_override_it_and_show_in_the_name() {
        let spec = ShapeSpec { n_layers: Some(2), ..ShapeSpec::default() };
        let d = Draft { preset: Some("gpt2".into()), spec: spec.clone(), ..Draft::default() };
        let trial = d.finish(|| false).unwrap();
        assert_eq!(trial.model, "gpt2 2x768");
        assert_eq!((trial.workload.shape.n_layers, trial.workload.shape.vocab_size), (2, 50257));
        let config = Config {
            name: "tiny".into(),
            family: Family::Llama,
            spec: ShapeSpec { n_layers: Some(3), d_model: Some(64), n_heads: Some(4), ..ShapeSpec::default() },
        };
        let d = Draft { config: Some(config), spec, ..Draft::default() };
        assert_eq!(d.finish(|| false).unwrap().model, "tiny 2x64");
        let both = Draft { preset: Some("gpt2".into()), ..d };
        assert_eq!(both.finish(|| false).unwrap_err().0, "model.preset");
    }

    #[test]
    fn what_a_family_cannot_do_is_refused() {
        let of = |family, phase| Draft { family: Some(family), phase, ..Draft::default() }.finish(|| false);
        assert_eq!(of(Family::Block, Phase::Decode).unwrap_err().0, "phase");
        assert_eq!(of(Family::Block, Phase::Generate).unwrap_err().0, "phase");
        assert!(of(Family::Block, Phase::Prefill).is_ok());
        let long = Draft { seq_len: 1025, ..Draft::default() };
        assert_eq!(long.finish(|| false).unwrap_err().0, "seq_len");
        let through = Draft { phase: Phase::Decode, prompt_len: 1000, new_tokens: 25, ..Draft::default() };
        assert_eq!(
            through.finish(|| false).unwrap_err(),
            (
                "prompt_len".into(),
                "1025 tokens (with new_tokens = 25) exceed the 1024 learned positions; shorten, or raise model.context"
                    .into()
            )
        );
    }
}
