//! Folders of weights that a scenario names: looked into once each, however many cells read them.

use crate::transformer::StoredWeights;
use crate::transformer::checkpoint::Checkpoint;
use crate::transformer::shape::{Family, Shape, ShapeSpec};
use crate::yaml::Sources;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What a Hugging Face config says of a model, and what the model is called.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub name: String,
    pub family: Family,
    pub spec: ShapeSpec,
}

/// What is in a folder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Folder {
    pub weights: StoredWeights,
    /// Of the model that it holds.
    pub config: Config,
    pub shape: Shape,
}

/// The folders that have been looked into, by what the scenario calls them.
#[derive(Debug, Default)]
pub(super) struct Folders(BTreeMap<String, Folder>);

impl Folders {
    /// The folder of this name, a path relative to the scenario's folder.
    ///
    /// # Errors
    /// What is wrong with the folder.
    pub(super) fn look(&mut self, name: &str, s: &Sources) -> Result<Folder, String> {
        if let Some(known) = self.0.get(name) {
            return Ok(known.clone());
        }
        let opened = Checkpoint::open(&s.folder().join(name)).map_err(|e| e.to_string())?;
        let folder = Folder::of(opened, name);
        self.0.insert(name.into(), folder.clone());
        Ok(folder)
    }
}

impl Folder {
    fn of(opened: Checkpoint, name: &str) -> Self {
        let last = opened.weights.folder.file_name().map(|n| n.to_string_lossy().into_owned());
        let name = last.unwrap_or_else(|| name.to_string());
        let config = Config { name, family: opened.family, spec: opened.spec };
        Self { weights: opened.weights, config, shape: opened.shape }
    }

    /// What of a model said beside it is not the folder's: the field, and why that cannot be.
    pub(super) fn contradiction(&self, said: &Shape) -> Option<(String, String)> {
        let [Ok(Value::Object(said)), Ok(Value::Object(own))] = [said, &self.shape].map(serde_json::to_value) else {
            return None;
        };
        let differs = |key: &&String| said.get(*key) != own.get(*key);
        let key = own.keys().chain(said.keys()).find(differs)?;
        let shown = |all: &Map<String, Value>| all.get(key).map_or("none".to_string(), Value::to_string);
        let field = match key.as_str() {
            "rope" => "rope_theta",
            "experts" => "n_experts",
            "own_parts" => "family",
            field => field,
        };
        let folder = self.weights.folder.display();
        let (expected, found) = (shown(&own), shown(&said));
        let message = format!(
            "expected {expected}, which {folder} has, found {found}; leave it out, or name another folder in weights_from"
        );
        Some((field.into(), message))
    }
}
