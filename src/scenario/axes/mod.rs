//! The fields of a trial: one table from which the YAML keys, the axes of a sweep, the JSON Schema and the columns follow.
//! A new field is one entry.

macro_rules! axis {
    ($path:literal, [$($alias:literal),*], $label:literal, $unit:literal, $kind:expr, $doc:literal, |$d:ident, $v:ident| $set:expr, |$t:ident| $get:expr) => {
        Axis {
            path: $path, aliases: &[$($alias),*], label: $label, unit: $unit, kind: $kind, doc: $doc,
            set: |$d, $v| { $set; Ok(()) },
            get: |$t| $get,
        }
    };
}

mod engine;
mod learning;
mod model;
mod table;

use super::draft::Draft;
use super::trial::Trial;
use crate::yaml::{Entry, Node, Value};
use engine::ENGINE;
use learning::LEARNING;
use model::MODEL;
use table::TRIAL;

/// Every field of a trial.
pub(crate) const AXES: &[Axis] = &joined::<SECOND, { ENGINE.len() }, { SECOND + ENGINE.len() }>(
    joined::<FIRST, { LEARNING.len() }, SECOND>(
        joined::<{ MODEL.len() }, { TRIAL.len() }, FIRST>(MODEL, TRIAL),
        LEARNING,
    ),
    ENGINE,
);

/// Fields of the model and of how it is run.
const FIRST: usize = MODEL.len() + TRIAL.len();
/// With those of what it is to learn.
const SECOND: usize = FIRST + LEARNING.len();

const fn joined<const A: usize, const B: usize, const N: usize>(first: [Axis; A], second: [Axis; B]) -> [Axis; N] {
    let mut all = [first[0]; N];
    let mut at = 1;
    while at < N {
        all[at] = if at < A { first[at] } else { second[at - A] };
        at += 1;
    }
    all
}

/// What the schema says of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Count,
    /// A whole number, 0 among them.
    Whole,
    Number,
    Flag,
    /// The name of a preset.
    Text,
    /// A name of the user's own.
    Free,
    /// The path of a folder.
    Folder,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A program and its arguments.
    Words,
    /// How a program's output is read.
    Reads,
    /// Variables of an environment.
    Variables,
    /// How many tokens: a number, or how they are spread.
    Tokens,
    /// A whole number that may be large: 20e6.
    Amount,
    /// Files, by a pattern or a list of them.
    Files,
    /// How text becomes tokens.
    Tokenizer,
    /// `500ms`, `2s`, or seconds.
    Duration,
    /// `200 steps`, a number of them, or a time.
    Every,
    /// The path of a file.
    Path,
    /// The address of a server.
    Address,
    /// How a server is started.
    Start,
    /// How prompts begin alike.
    Prefix,
}

/// One field of a trial.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    /// Path in the trial: `model.d_model`, `batch`.
    pub path: &'static str,
    /// Other names for the last part of the path: Hugging Face's, llama-bench's.
    pub aliases: &'static [&'static str],
    /// How tables and charts call it.
    pub label: &'static str,
    /// Unit in charts; empty for a pure number or a word.
    pub unit: &'static str,
    pub kind: Kind,
    /// Default and meaning, for the schema.
    pub doc: &'static str,
    pub set: fn(&mut Draft, &Value) -> Result<(), String>,
    /// What a finished trial has there; null where its phase does not use the field.
    pub(super) get: fn(&Trial) -> Value,
}

impl Axis {
    /// What a finished trial has there; null where its phase does not use the field, and where nothing is known of it: of a program's
    /// model only what the scenario states.
    pub(crate) fn of(&self, trial: &Trial) -> Value {
        let of_model =
            OF_MODEL.contains(&self.path) || (section_of(self.path) == Some("model") && self.path != "model.preset");
        // Where a tool of others measured, its file does not say.
        let of_machine = ["backend", "cores_per_device"].contains(&self.path);
        let unknown = (of_model && !trial.states_model()) || (of_machine && trial.is_imported());
        if unknown { Value::Null } else { (self.get)(trial) }
    }
}

/// A field's value as every table and message names it: "d_model 256", or "adamw" where the word says what it is.
pub(crate) fn said(path: &str, value: &str) -> String {
    match AXES.iter().find(|a| a.path == path) {
        // `none` and `dtype` say nothing by themselves.
        Some(Axis { kind: Kind::Word(words), .. }) if !words.contains(&"none") && !words.contains(&"dtype") => {
            value.into()
        }
        _ => format!("{} {value}", label(path)),
    }
}

/// How tables and charts call a field; a program's variable by its own name.
pub(crate) fn label(path: &str) -> &str {
    let known = AXES.iter().find(|a| a.path == path).map(|a| a.label);
    known.or_else(|| path.strip_prefix(ENVIRONMENT)).unwrap_or(path)
}

/// Fields beside the section `model` that say how a model is trained or kept.
const OF_MODEL: &[&str] = &[
    "dtype",
    "weights",
    "kv_cache",
    "optimizer",
    "dropout",
    "parallel.sharding",
    "accumulate",
    "recompute",
    "schedule.clip",
];

/// Sections of a trial, whose fields are written below them: `model.d_model`.
pub(crate) const SECTIONS: &[&str] =
    &["model", "parallel", "data", "schedule", "until", "eval", "checkpoint", "engine", "load", "slo"];

/// What the paths of an engine's variables begin with.
const ENVIRONMENT: &str = "engine.env.";

/// A field that can be set by itself: one of the table, or one of a program's variables.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub axis: &'static Axis,
    /// Its own: `batch`, `engine.env.OMP_NUM_THREADS`.
    pub path: String,
    variable: bool,
}

impl Field {
    /// The field that a path names: as [`find`] does, or by a variable's name.
    pub(crate) fn named(path: &str) -> Option<Self> {
        let variable = path.strip_prefix(ENVIRONMENT).filter(|name| !name.is_empty());
        let axis = if variable.is_some() { find("engine.env") } else { find(path) }?;
        let path = if variable.is_some() { path } else { axis.path }.to_string();
        Some(Self { axis, path, variable: variable.is_some() })
    }

    /// Its value as its axis takes it: that of a variable is a map of one.
    pub(crate) fn value(&self, value: Value) -> Value {
        if !self.variable {
            return value;
        }
        let key = self.path.strip_prefix(ENVIRONMENT).unwrap_or(&self.path).to_string();
        Value::Map(vec![Entry { key, place: None, node: Node { place: None, value } }])
    }
}

/// The section of a field; none for those of the trial itself.
pub(crate) fn section_of(path: &str) -> Option<&str> {
    path.split_once('.').map(|(section, _)| section)
}

/// The field that a path names, by its own name or an alias, with or without `model.`.
pub(crate) fn find(path: &str) -> Option<&'static Axis> {
    let bare = path.strip_prefix("model.").unwrap_or(path);
    AXES.iter().find(|a| a.path == path).or_else(|| {
        AXES.iter().find(|a| {
            let in_model = a.path.starts_with("model.");
            (in_model || !path.starts_with("model."))
                && (a.aliases.contains(&bare) || (in_model && &a.path[6..] == bare))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_named_by_its_label_or_by_itself() {
        assert_eq!(said("model.n_heads", "4") + ", " + &said("optimizer", "adamw"), "heads 4, adamw");
        assert_eq!(said("engine.env.MODE", "fast"), "MODE fast");
        assert_eq!(said("parallel.sharding", "none") + ", " + &said("weights", "int8"), "sharding none, weights int8");
        assert_eq!(said("kv_cache", "f8") + ", " + &said("kv_cache", "dtype"), "KV cache f8, KV cache dtype");
    }

    #[test]
    fn aliases_find_their_field_and_paths_are_distinct() {
        assert_eq!(find("hidden_size").unwrap().path, "model.d_model");
        assert_eq!(find("model.num_attention_heads").unwrap().path, "model.n_heads");
        assert_eq!(find("isl").unwrap().path, "prompt_len");
        assert_eq!(find("d_model").unwrap().path, "model.d_model");
        assert!(find("model.batch").is_none());
        let mut names: Vec<&str> = AXES.iter().flat_map(|a| a.aliases.iter().copied().chain([a.path])).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
