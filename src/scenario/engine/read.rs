//! The section `engine` of a trial: from YAML's values to what they mean.

use super::json_path::JsonPath;
use super::server::ServerDraft;
use super::words::scalar;
use super::{Each, Figure, Reads, Ready, figure, one_speed, pattern};
use crate::scenario::values::word;
use crate::yaml::{Entry, Value, did_you_mean};
use std::collections::BTreeMap;

/// What is said of an engine so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EngineDraft {
    pub name: Option<String>,
    pub command: Option<Vec<String>>,
    pub env: BTreeMap<String, String>,
    pub reads: Option<Reads>,
    pub server: ServerDraft,
}

/// Variables of the environment.
///
/// # Errors
/// Something else than a map of names to texts.
pub(crate) fn variables(v: &Value) -> Result<BTreeMap<String, String>, String> {
    let one = |e: &Entry| {
        if e.key.is_empty() || e.key.contains(['=', '\0']) {
            return Err(format!("`{}` cannot name a variable", e.key));
        }
        Ok((e.key.clone(), scalar(&e.node.value).map_err(|m| format!("{}: {m}", e.key))?))
    };
    match v {
        Value::Map(entries) => entries.iter().map(one).collect(),
        Value::Null => Ok(BTreeMap::new()),
        other => Err(format!("expected a map of variables to values, found {}", other.kind())),
    }
}

/// A name of the user's own.
///
/// # Errors
/// Something else than text of a line.
pub(crate) fn name(v: &Value) -> Result<String, String> {
    let text = scalar(v)?;
    let fits = (1..=80).contains(&text.chars().count()) && !text.contains(char::is_control);
    fits.then_some(text).ok_or_else(|| "expected 1 to 80 characters of one line".into())
}

/// How output is read: one of the ready words, or a map.
///
/// # Errors
/// An unknown word or figure, a path or pattern that is none, not exactly one speed.
pub(crate) fn reads(v: &Value) -> Result<Reads, String> {
    let Value::Map(entries) = v else { return Ok(Reads::Ready(word::<Ready>(v)?)) };
    let (mut each, mut paths, mut found) = (Each::Launch, BTreeMap::new(), None);
    for e in entries {
        match e.key.as_str() {
            "each" => each = word::<Each>(&e.node.value)?,
            "pattern" => {
                let text = scalar(&e.node.value)?;
                pattern(&text)?;
                found = Some(text);
            }
            key => {
                let known = Figure::WORDS.iter().copied().chain(["each", "pattern"]);
                let figure = figure(key)
                    .map_err(|_| format!("`{key}` is no figure; {}", did_you_mean(key, known, std::iter::empty())))?;
                let path = scalar(&e.node.value)?;
                JsonPath::parse(&path)?;
                paths.insert(figure, path);
            }
        }
    }
    match found {
        Some(_) if !paths.is_empty() => Err("a pattern names its figures by its groups; keep pattern or paths".into()),
        Some(pattern) => Ok(Reads::Pattern { each, pattern }),
        None => {
            one_speed(&paths.keys().copied().collect::<Vec<_>>())?;
            Ok(Reads::Json { each, paths })
        }
    }
}
