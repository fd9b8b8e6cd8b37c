//! The JSON Schema of scenario files, for editors: made from the same tables that the reader uses.

use super::axes::{AXES, Axis, Kind};
use super::presets;
use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};

/// A whole value may be a variable.
fn or_variable(kind: Value) -> Value {
    json!({"anyOf": [kind, {"type": "string", "pattern": r"\$\{.+\}"}]})
}

fn one(axis: &Axis) -> Value {
    let kind = match axis.kind {
        Kind::Count => json!({"type": "integer", "minimum": 1}),
        Kind::Number => json!({"type": "number"}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Word(words) => json!({"enum": words}),
        Kind::Text => json!({"enum": presets::all().iter().map(|p| p.name).collect::<Vec<_>>()}),
    };
    or_variable(kind)
}

/// A range stands for whole numbers: 16..256*2, 1..8+1, 16-256*2.
fn many(axis: &Axis) -> Value {
    let range = json!({"type": "string", "pattern": r"^\s*\d+\s*(\.\.|-)\s*\d+\s*([+*]\s*\d+)?\s*$"});
    let item = if axis.kind == Kind::Count { json!({"anyOf": [one(axis), range]}) } else { one(axis) };
    json!({"description": axis.doc, "anyOf": [item, {"type": "array", "items": item, "minItems": 1}]})
}

fn described(axis: &Axis) -> Value {
    let mut value = one(axis);
    value["description"] = json!(axis.doc);
    value
}

fn object(properties: Map<String, Value>) -> Value {
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// Every name of an axis: its path and aliases; in a sweep also without `model.`.
fn names(axis: &Axis, swept: bool) -> Vec<String> {
    let bare = axis.path.strip_prefix("model.");
    let mut all: Vec<String> = std::iter::once(axis.path).chain(bare).map(str::to_string).collect();
    for alias in axis.aliases {
        all.push((*alias).to_string());
        if bare.is_some() && swept {
            all.push(format!("model.{alias}"));
        }
    }
    all
}

fn trial() -> Value {
    let (mut outer, mut model) = (Map::new(), Map::new());
    for axis in AXES {
        for name in names(axis, false) {
            match axis.path.strip_prefix("model.") {
                Some(_) if !name.contains('.') => drop(model.insert(name, described(axis))),
                None => drop(outer.insert(name, described(axis))),
                _ => {}
            }
        }
    }
    model.insert("hf_config".into(), json!({"type": "string", "description": "path of a Hugging Face config.json"}));
    outer.insert("model".into(), object(model));
    object(outer)
}

fn axes(value: impl Fn(&Axis) -> Value) -> Value {
    let all = AXES.iter().flat_map(|a| names(a, true).into_iter().map(move |n| (n, a)));
    object(all.map(|(n, a)| (n, value(a))).collect())
}

fn partial() -> Value {
    let mut value = axes(described);
    value["properties"]["model"] = trial()["properties"]["model"].clone();
    json!({"type": "array", "items": value})
}

/// The schema (draft 2020-12).
pub fn schema() -> Schema {
    let positive = or_variable(json!({"type": "number", "exclusiveMinimum": 0}));
    let share = or_variable(json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}));
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Centime scenario",
        "type": "object",
        "required": ["version"],
        "additionalProperties": false,
        "properties": {
            "version": {"const": 1},
            "name": {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,79}$", "description": "names the report's folder; default the file's name"},
            "description": {"type": "string", "description": "why this sweep exists; shown in the report"},
            "extends": {"type": "string", "description": "another scenario in the same folder; maps merge, lists replace"},
            "variables": {"type": "object", "description": "values for ${name}"},
            "trial": trial(),
            "sweep": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "matrix": axes(many),
                    "zip": {"type": "array", "items": axes(many)},
                    "include": partial(),
                    "exclude": partial()
                }
            },
            "measure": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "precision": or_variable(json!({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5})),
                    "min_seconds": or_variable(json!({"type": "number", "minimum": 0})),
                    "max_seconds": positive,
                    "timeout_seconds": positive,
                    "warmup": {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 0}]},
                    "seed": or_variable(json!({"type": "integer", "minimum": 0})),
                    "order": {"enum": ["shuffled", "file"]},
                    "ignore_memory": {"type": "boolean"}
                }
            },
            "price": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "hardware": {"type": "string"},
                    "usd_per_hour": {"anyOf": [positive, {"type": "null"}]},
                    "source": {"type": "string"},
                    "utilisation": share
                }
            },
            "limits": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "minutes": positive,
                    "usd": positive,
                    "cells": {"type": "integer", "minimum": 1}
                }
            }
        }
    })
}
