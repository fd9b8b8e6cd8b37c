//! The files of a folder: which belong to the model, what tensors they hold together, and what sets their content apart.

use super::CheckpointError;
use super::file::{Stated, TensorFile};
use crate::yaml;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

pub(super) const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";
const WHOLE: &str = "model.safetensors";

/// Tensors and bytes of each that the digest takes a sample of at most.
const SAMPLED: usize = 1024;
const SAMPLE: u64 = 64;

/// The text of the folder's config.
///
/// # Errors
/// A folder without one.
pub(super) fn config(folder: &Path) -> Result<String, CheckpointError> {
    let bytes = yaml::contents(&folder.join(CONFIG)).map_err(|e| {
        let what = if e.kind() == std::io::ErrorKind::NotFound {
            "found none".into()
        } else {
            format!("it cannot be read: {e}")
        };
        let remedy = "give the folder that save_pretrained wrote, or a snapshot of the hub";
        CheckpointError::new(folder, format!("expected a {CONFIG}, {what}; {remedy}"))
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A tensor and the file that it is in.
#[derive(Debug)]
pub(super) struct Tensor {
    pub file: usize,
    pub stated: Stated,
}

/// Open files, and their tensors by name.
#[derive(Debug)]
pub(super) struct Files {
    pub files: Vec<TensorFile>,
    pub tensors: BTreeMap<String, Tensor>,
}

/// Which file each tensor is in.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Files {
    /// Opens the files that the index names, or the one file.
    ///
    /// # Errors
    /// No file; a file or tensor of the index that is not there; a tensor twice.
    pub(super) fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let index = index(folder)?;
        let mut names: Vec<String> = match &index {
            Some(index) => index.weight_map.values().cloned().collect(),
            None => vec![only_file(folder)?],
        };
        names.sort_unstable();
        names.dedup();
        let mut all = Self { files: Vec::new(), tensors: BTreeMap::new() };
        for name in names {
            all.add(folder, &name, index.is_some())?;
        }
        for (tensor, file) in index.iter().flat_map(|i| &i.weight_map) {
            let there = all.tensors.get(tensor).is_some_and(|t| all.files[t.file].path == folder.join(file));
            if !there {
                let message =
                    format!("expected tensor {tensor} in {file}, found none there; fetch index and files again");
                return Err(CheckpointError::new(&folder.join(INDEX), message));
            }
        }
        Ok(all)
    }

    fn add(&mut self, folder: &Path, name: &str, of_index: bool) -> Result<(), CheckpointError> {
        let path = folder.join(name);
        // A name, not a way to somewhere else.
        if Path::new(name).file_name() != Some(name.as_ref()) {
            let message = format!("expected the names of files beside it, found `{name}`; correct it");
            return Err(CheckpointError::new(&folder.join(INDEX), message));
        }
        if of_index && !path.exists() {
            let message = format!("expected the file {name}, found none beside it; fetch the missing file");
            return Err(CheckpointError::new(&folder.join(INDEX), message));
        }
        let (file, tensors) = TensorFile::open(&path)?;
        for (name, stated) in tensors {
            let tensor = Tensor { file: self.files.len(), stated };
            if let Some(first) = self.tensors.insert(name.clone(), tensor) {
                let other = self.files[first.file].path.display();
                let message =
                    format!("expected each tensor once, found {name} here and in {other}; keep one of the two");
                return Err(CheckpointError::new(&path, message));
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// Twelve hexadecimal digits for the content of a folder with this config.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn digest(&self, config: &str) -> Result<String, CheckpointError> {
        let mut digest = Sha256::new();
        // With its length, so that nothing of one part can pass for the next.
        let mut add = |part: &[u8]| {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        };
        add(config.as_bytes());
        for file in &self.files {
            add(file.path.file_name().unwrap_or_default().as_encoded_bytes());
            add(&file.bytes.to_le_bytes());
            add(&file.header);
        }
        // Two models of one kind differ in their numbers alone.
        for tensor in self.tensors.values().step_by(self.tensors.len().div_ceil(SAMPLED).max(1)) {
            let file = &self.files[tensor.file];
            let sample = file.sample(&tensor.stated, SAMPLE);
            add(&sample.map_err(|e| CheckpointError::new(&file.path, format!("cannot be read: {e}")))?);
        }
        Ok(digest.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect())
    }
}

fn index(folder: &Path) -> Result<Option<ShardIndex>, CheckpointError> {
    let path = folder.join(INDEX);
    let fault = |message: String| CheckpointError::new(&path, message);
    match std::fs::read(&path) {
        Ok(text) => {
            let index: ShardIndex = serde_json::from_slice(&text)
                .map_err(|e| fault(format!("expected a weight_map of tensors to files, found what is none: {e}")))?;
            Ok(Some(index))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(fault(format!("cannot be read: {e}"))),
    }
}

/// The file of a folder without an index.
fn only_file(folder: &Path) -> Result<String, CheckpointError> {
    let fault = |message: String| CheckpointError::new(folder, message);
    let entries = std::fs::read_dir(folder).map_err(|e| fault(format!("cannot be read: {e}")))?;
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|n| n.ends_with(".safetensors")).collect();
    names.sort_unstable();
    match names.as_slice() {
        _ if names.iter().any(|n| n == WHOLE) => Ok(WHOLE.into()),
        [one] => Ok(one.clone()),
        [] => Err(fault(format!("expected {WHOLE}, found no safetensors file; save the model with save_pretrained"))),
        [first, second, ..] => {
            Err(fault(format!("expected {INDEX} beside several files, found none with {first} and {second}; fetch it")))
        }
    }
}
