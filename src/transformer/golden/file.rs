//! Golden files: weights, inputs, logits, loss, gradients, optimizer steps and greedy tokens made by another framework, in one
//! safetensors file whose metadata say how.

use super::super::OptimizerKind;
use super::super::backend::Update;
use super::super::checkpoint::names::{LATENT_AND_ROTATED, ROTATED};
use super::super::shape::hf_config::shape_from_hf_config;
use super::super::shape::{Family, Shape, ShapeSpec};
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Why a golden file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GoldenError {
    #[error("{path}: {source}; give the path of a safetensors file")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: not a safetensors file: {message}")]
    Format { path: PathBuf, message: String },
    #[error("{path}: {message}")]
    Content { path: PathBuf, message: String },
    #[error(transparent)]
    Session(#[from] super::super::error::SessionError),
}

/// A tensor as f32 with its dimensions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub dimensions: Vec<usize>,
    pub values: Vec<f32>,
}

/// The tensors of a file in memory.
#[derive(Clone, Debug)]
pub(crate) struct Tensors {
    pub path: PathBuf,
    pub floats: BTreeMap<String, Tensor>,
    /// Token lists: dimensions, values.
    pub integers: BTreeMap<String, (Vec<usize>, Vec<i64>)>,
    metadata: HashMap<String, String>,
}

/// A golden file in memory.
#[derive(Clone, Debug)]
pub(crate) struct Golden {
    pub tensors: Tensors,
    pub shape: Shape,
    /// The optimizers that the file has steps of, by the name it uses (`sgd_momentum`), with their constants.
    pub optimizers: Vec<(String, Update)>,
}

impl Golden {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that is not there, is not safetensors, or whose metadata state no shape.
    pub(crate) fn open(path: &Path) -> Result<Self, GoldenError> {
        let mut tensors = Tensors::open(path)?;
        let shape = shape(&tensors.metadata).map_err(|message| tensors.fault(message))?;
        if let Some(latent) = shape.latent {
            take_apart(&mut tensors.floats, latent.kv_rank as usize);
        }
        let optimizers = optimizers(&tensors.metadata);
        Ok(Self { tensors, shape, optimizers })
    }

    /// A fault of this file's content.
    pub(crate) fn fault(&self, message: impl Into<String>) -> GoldenError {
        self.tensors.fault(message)
    }
}

impl Tensors {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that is not there, or is not safetensors.
    pub(crate) fn open(path: &Path) -> Result<Self, GoldenError> {
        let bytes = std::fs::read(path).map_err(|source| GoldenError::Io { path: path.into(), source })?;
        let format =
            |e: safetensors::SafeTensorError| GoldenError::Format { path: path.into(), message: e.to_string() };
        let (_, head) = SafeTensors::read_metadata(&bytes).map_err(format)?;
        let metadata = head.metadata().clone().unwrap_or_default();
        let tensors = SafeTensors::deserialize(&bytes).map_err(format)?;
        let content = |message: String| GoldenError::Content { path: path.into(), message };
        let (mut floats, mut integers) = (BTreeMap::new(), BTreeMap::new());
        for (name, view) in tensors.iter() {
            let (dimensions, data) = (view.shape().to_vec(), view.data());
            match view.dtype() {
                Dtype::I64 => integers.insert(name.into(), (dimensions, each(data, i64::from_le_bytes))).map(drop),
                Dtype::I32 => integers
                    .insert(name.into(), (dimensions, each(data, |b| i64::from(i32::from_le_bytes(b)))))
                    .map(drop),
                dtype => {
                    let values = floats_of(dtype, data).ok_or_else(|| {
                        content(format!("tensor {name} has dtype {dtype:?}; f32, f64, f16 or bf16 is read"))
                    })?;
                    floats.insert(name.into(), Tensor { dimensions, values }).map(drop)
                }
            };
        }
        Ok(Self { path: path.into(), floats, integers, metadata })
    }

    /// A fault of this file's content.
    pub(crate) fn fault(&self, message: impl Into<String>) -> GoldenError {
        GoldenError::Content { path: self.path.clone(), message: message.into() }
    }

    /// A token list as `[rows, columns]` of u32; what is below zero (Hugging Face's -100) becomes the ignored target.
    pub(crate) fn tokens(&self, name: &str) -> Option<(usize, usize, Vec<u32>)> {
        let (dimensions, values) = self.integers.get(name)?;
        let [rows, columns] = dimensions.as_slice() else { return None };
        let id = |v: &i64| u32::try_from(*v).unwrap_or(super::super::backend::IGNORED_TARGET);
        Some((*rows, *columns, values.iter().map(id).collect()))
    }
}

/// Of the tensors that hold rows of two parameters: the first so many stay, the others get a name of their own.
fn take_apart(floats: &mut BTreeMap<String, Tensor>, rows: usize) {
    let names = floats.keys().filter(|name| name.ends_with(LATENT_AND_ROTATED));
    for name in names.cloned().collect::<Vec<_>>() {
        let Some(Tensor { dimensions, values }) = floats.get_mut(&name) else { continue };
        let &mut [all, columns] = dimensions.as_mut_slice() else { continue };
        if all <= rows || values.len() != all * columns {
            continue;
        }
        let rest = Tensor { dimensions: vec![all - rows, columns], values: values.split_off(rows * columns) };
        dimensions[0] = rows;
        floats.insert(name + ROTATED, rest);
    }
}

fn each<const W: usize, T>(data: &[u8], read: impl Fn([u8; W]) -> T) -> Vec<T> {
    let (chunks, _) = data.as_chunks::<W>();
    chunks.iter().map(|c| read(*c)).collect()
}

fn floats_of(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => each(data, f32::from_le_bytes),
        Dtype::F64 => each(data, |b| f64::from_le_bytes(b) as f32),
        Dtype::F16 => each(data, |b| half::f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(data, |b| half::bf16::from_le_bytes(b).to_f32()),
        _ => return None,
    })
}

/// `config` is a Hugging Face config; `shape` the block's sizes.
fn shape(metadata: &HashMap<String, String>) -> Result<Shape, String> {
    if let Some(config) = metadata.get("config") {
        return shape_from_hf_config(config).map_err(|e| format!("metadata `config`: {e}"));
    }
    let text = metadata.get("shape").ok_or("the metadata have neither `config` (Hugging Face) nor `shape` (block)")?;
    let json: serde_json::Value = serde_json::from_str(text).map_err(|e| format!("metadata `shape`: {e}"))?;
    let size = |names: &[&str]| {
        let value = names.iter().find_map(|n| json.get(n)).and_then(serde_json::Value::as_u64);
        value.and_then(|v| u32::try_from(v).ok())
    };
    let spec = ShapeSpec {
        vocab_size: size(&["vocab", "vocab_size"]),
        d_model: size(&["d_model"]),
        n_heads: size(&["n_heads", "num_heads"]),
        d_ff: size(&["d_ff"]),
        n_layers: size(&["n_layers"]),
        context: size(&["context", "seq_len"]),
        ..ShapeSpec::default()
    };
    Shape::new(Family::Block, &spec).map_err(|e| format!("metadata `shape`: {e}"))
}

/// The constants are prose in the metadata ("lr 1e-3, betas 0.9 0.95, eps 1e-8"): a name, then its numbers.
fn optimizers(metadata: &HashMap<String, String>) -> Vec<(String, Update)> {
    let mut found = Vec::new();
    if let Some(list) = metadata.get("optimizers")
        && let Ok(map) = serde_json::from_str::<BTreeMap<String, String>>(list)
    {
        for (name, text) in map {
            let kind = name.split('_').next().unwrap_or_default().parse::<OptimizerKind>();
            if let Ok(kind) = kind {
                found.push((name, constants(kind, &text)));
            }
        }
    }
    if let Some(text) = metadata.get("adam") {
        let mut update = constants(OptimizerKind::Adam, text);
        update.eps_before_correction = true;
        found.push(("adam".into(), update));
    }
    found
}

fn constants(kind: OptimizerKind, text: &str) -> Update {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c == ',' || c == ':').filter(|w| !w.is_empty()).collect();
    let after = |names: &[&str], skip: usize| {
        let at = words.iter().position(|w| names.contains(w))?;
        words.get(at + 1 + skip)?.parse::<f32>().ok()
    };
    let usual = Update { weight_decay: 0.0, ..Update::new(kind) };
    Update {
        learning_rate: after(&["lr", "learning_rate"], 0).unwrap_or(usual.learning_rate),
        beta1: after(&["betas"], 0).or(after(&["beta_1", "beta1"], 0)).unwrap_or(usual.beta1),
        beta2: after(&["betas"], 1).or(after(&["beta_2", "beta2"], 0)).unwrap_or(usual.beta2),
        eps: after(&["eps", "epsilon"], 0).unwrap_or(usual.eps),
        weight_decay: after(&["weight_decay"], 0).unwrap_or(0.0),
        momentum: after(&["momentum"], 0).unwrap_or(0.0),
        ..usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_read_from_prose() {
        let u =
            constants(OptimizerKind::Adamw, "lr 1e-3, betas 0.9 0.95, eps 1e-8, weight_decay 0.1 on every parameter");
        assert_eq!((u.learning_rate, u.beta1, u.beta2, u.eps, u.weight_decay), (1e-3, 0.9, 0.95, 1e-8, 0.1));
        let k = constants(
            OptimizerKind::Adam,
            "Keras defaults: lr 1e-3, beta_1 0.9, beta_2 0.999, epsilon 1e-7 (Keras form)",
        );
        assert_eq!((k.learning_rate, k.beta1, k.beta2, k.eps), (1e-3, 0.9, 0.999, 1e-7));
    }
}
