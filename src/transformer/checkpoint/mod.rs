//! Weights that are read instead of made: a folder as Hugging Face's library saves a model, `config.json` and safetensors files.
//!
//! Everything that can be wrong with a folder is known from its headers: it is checked before anything of the model is allocated.
//! Numbers are read a few rows at a time, straight into the form that a backend keeps them in: neither a file nor a tensor of the
//! file is ever whole in memory, and a process's peak memory is not that of a mapped file. `written.rs` writes such files, of training
//! that is to go on later; what is in them is the ranks' to say.
//!
//! Deliberately absent: quantised files, PyTorch's pickles, anything fetched from elsewhere.

mod error;
pub(in crate::transformer) mod file;
mod folder;
pub(in crate::transformer) mod names;
mod numbers;
mod pieces;
pub(in crate::transformer) mod place;
pub(crate) mod written;

#[cfg(test)]
mod checkpoint_tests;

use super::error::SessionError;
use super::pass::model::Index;
use super::shape::hf_config::spec_from_hf_config;
use super::shape::{Family, Shape, ShapeSpec};
use super::{StoredWeights, Workload};
pub(crate) use error::CheckpointError;
use folder::Files;
use pieces::Piece;
use std::path::Path;

/// A folder that holds all of a model.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub weights: StoredWeights,
    pub family: Family,
    /// What `config.json` states.
    pub spec: ShapeSpec,
    pub shape: Shape,
    files: Files,
    /// Of every parameter, in the order of the index.
    pieces: Vec<Vec<Piece>>,
}

impl Checkpoint {
    /// Looks into a folder, and reads none of its numbers but a sample for the digest.
    ///
    /// # Errors
    /// A config that is not there or not of a model that is built in; a file that is missing, cut short or no safetensors file; a
    /// tensor that is missing, of another shape or format, or of no parameter.
    pub(crate) fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let config = folder::config(folder)?;
        let of_config = |message: String| CheckpointError::new(&folder.join(folder::CONFIG), message);
        let (family, spec) = spec_from_hf_config(&config).map_err(|e| of_config(e.to_string()))?;
        let shape = Shape::new(family, &spec).map_err(|e| of_config(e.to_string()))?;
        let files = Files::open(folder)?;
        let found = pieces::find(&shape, &Index::new(&shape), &files);
        let pieces = found.map_err(|message| CheckpointError::new(folder, message))?;
        let weights = StoredWeights { folder: folder.into(), digest: files.digest(&config)? };
        Ok(Self { weights, family, spec, shape, files, pieces })
    }

    /// The folder that a workload's weights are read from, if they are read.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`]; another content or model than the workload was made with.
    pub(in crate::transformer) fn of(workload: &Workload) -> Result<Option<Self>, SessionError> {
        let Some(weights) = &workload.weights_from else { return Ok(None) };
        let opened = Self::open(&weights.folder).map_err(|e| SessionError::Invalid(format!("weights_from: {e}")))?;
        let fault = |what: String| {
            Err(SessionError::Invalid(format!(
                "weights_from: {}: {what}; start the run again",
                weights.folder.display()
            )))
        };
        if opened.weights.digest != weights.digest {
            let (then, now) = (&weights.digest, &opened.weights.digest);
            return fault(format!("expected the content {then} that the scenario was read with, found {now}"));
        }
        if opened.shape != workload.shape {
            return fault("expected the model that the workload has, found another in config.json".into());
        }
        Ok(Some(opened))
    }
}
