//! The keys of a Hugging Face config, by their kinds.

use super::hf_keys;
use super::{Activation, Family, ShapeError, ShapeSpec};
use serde_json::Value;

/// Why a config gives no shape.
#[derive(Debug, thiserror::Error)]
pub enum HfConfigError {
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Unsupported(String),
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

/// A config's object.
#[derive(Clone, Copy)]
pub(super) struct Config<'a>(pub &'a Value);

/// An error of a key that cannot be built.
pub(super) fn not_built_in(what: impl Into<String>) -> HfConfigError {
    HfConfigError::Unsupported(what.into())
}

impl<'a> Config<'a> {
    /// # Errors
    /// A key that may change the model and is not read, by its name.
    pub(super) fn only_known(self, family: Family) -> Result<(), HfConfigError> {
        let keys = self.0.as_object().into_iter().flatten();
        let unknown = keys.filter(|(_, v)| !hf_keys::off(v)).find(|(key, _)| !hf_keys::known(family, key));
        match unknown {
            None => Ok(()),
            Some((key, value)) => Err(not_built_in(format!(
                "{key}: expected a key whose meaning is built in, found {}; take it out of the config if it changes neither sizes nor \
                 attention",
                hf_keys::shortened(value)
            ))),
        }
    }

    /// A size by the first of its names that is there.
    pub(super) fn size_of(self, names: &[&str]) -> Result<Option<u32>, HfConfigError> {
        names.iter().find_map(|name| self.size(name).transpose()).transpose()
    }

    pub(super) fn size(self, name: &str) -> Result<Option<u32>, HfConfigError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_u64().and_then(|v| u32::try_from(v).ok()) {
                Some(v) => Ok(Some(v)),
                None => Err(not_built_in(format!("{name}: {v} is not a whole number below 2^32"))),
            },
        }
    }

    /// A size that no default may stand in for: the models of a type differ too much.
    pub(super) fn stated(self, names: &[&str]) -> Result<u32, HfConfigError> {
        self.size_of(names)?.ok_or_else(|| not_built_in(format!("{}: missing from the config", names[0])))
    }

    pub(super) fn flag(self, name: &str) -> Option<bool> {
        self.0.get(name).and_then(Value::as_bool)
    }

    pub(super) fn number(self, name: &str) -> Option<f32> {
        self.0.get(name).and_then(Value::as_f64).map(|v| v as f32)
    }

    pub(super) fn word(self, name: &str) -> Option<&'a str> {
        self.0.get(name).and_then(Value::as_str)
    }

    pub(super) fn object(self, name: &str) -> Option<Self> {
        self.0.get(name).filter(|v| v.is_object()).map(Config)
    }

    pub(super) fn list(self, name: &str) -> Option<&'a Vec<Value>> {
        self.0.get(name).and_then(Value::as_array)
    }

    /// # Errors
    /// Of the flags one that is set otherwise than is built in, by its name.
    pub(super) fn only(self, flags: &[(&str, bool)]) -> Result<(), HfConfigError> {
        match flags.iter().find(|(name, built_in)| self.flag(name).is_some_and(|set| set != *built_in)) {
            Some((name, built_in)) => {
                Err(not_built_in(format!("{name}: expected {built_in}, found {}, which is not built in", !built_in)))
            }
            None => Ok(()),
        }
    }

    /// The function of an ungated feed-forward layer.
    pub(super) fn activation(self, name: &str, usual: &str) -> Result<Activation, HfConfigError> {
        match self.word(name).unwrap_or(usual) {
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "gelu" => Ok(Activation::GeluErf),
            "relu" => Ok(Activation::Relu),
            other => Err(not_built_in(format!("{name} `{other}` is not built in; gelu_new, gelu and relu are"))),
        }
    }
}

/// The sizes that most configs name alike.
pub(super) fn sizes(c: Config) -> Result<ShapeSpec, HfConfigError> {
    Ok(ShapeSpec {
        n_layers: Some(c.stated(&["num_hidden_layers"])?),
        d_model: Some(c.stated(&["hidden_size"])?),
        n_heads: Some(c.stated(&["num_attention_heads"])?),
        n_kv_heads: c.size("num_key_value_heads")?,
        head_dim: c.size("head_dim")?,
        d_ff: Some(c.stated(&["intermediate_size"])?),
        vocab_size: Some(c.stated(&["vocab_size"])?),
        context: c.size("max_position_embeddings")?,
        tied_embeddings: Some(c.flag("tie_word_embeddings").unwrap_or(false)),
        ..ShapeSpec::default()
    })
}
