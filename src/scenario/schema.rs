//! The JSON Schema of scenario files, for editors: made from the same tables that the reader uses.

use super::axes::{AXES, Axis, Kind, SECTIONS, section_of};
use super::base::BUILT_IN;
use super::engine::server::Largest;
use super::engine::{Each, Figure, Ready};
use super::learning::draft::Named;
use super::presets;
use super::settings::{DISTURBED, MOST_ROUNDS};
use crate::hardware::offer::Term;
use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A whole value may be a variable.
fn or_variable(kind: Value) -> Value {
    json!({"anyOf": [kind, {"type": "string", "pattern": r"\$\{.+\}"}]})
}

fn one(axis: &Axis) -> Value {
    or_variable(one_of(axis.kind))
}

fn above_zero() -> Value {
    json!({"type": "number", "exclusiveMinimum": 0})
}

fn text() -> Value {
    json!({"type": "string", "minLength": 1})
}

/// How many tokens, or how they are spread.
fn tokens() -> Value {
    let count = json!({"type": "integer", "minimum": 1});
    let range = json!({"type": "array", "items": count, "minItems": 2, "maxItems": 2});
    let normal = json!({"type": "array", "items": above_zero(), "minItems": 2, "maxItems": 2});
    json!({"anyOf": [count, closed(&["range"], &[("range", range)]), closed(&["normal"], &[("normal", normal)])]})
}

fn one_of(kind: Kind) -> Value {
    match kind {
        Kind::Count => json!({"type": "integer", "minimum": 1}),
        Kind::Whole => json!({"type": "integer", "minimum": 0}),
        Kind::Number => json!({"type": "number"}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Word(words) => json!({"enum": words}),
        Kind::Free => json!({"type": "string", "minLength": 1, "maxLength": 80}),
        Kind::Folder => json!({"type": "string", "minLength": 1}),
        Kind::Words => json!({"type": "array", "minItems": 1, "items": {"type": ["string", "integer"]}}),
        Kind::Variables => json!({"type": ["object", "null"], "additionalProperties": {"type": ["string", "integer"]}}),
        Kind::Reads => reads(),
        Kind::Tokens => tokens(),
        Kind::Amount => json!({"type": "number", "minimum": 1}),
        Kind::Files => json!({"anyOf": [text(), {"type": "array", "items": text(), "minItems": 1}]}),
        Kind::Tokenizer => json!({"anyOf": [text(), closed(&["bpe"], &[("bpe", one_of(Kind::Count))])]}),
        Kind::Duration => {
            json!({"anyOf": [above_zero(), {"type": "string", "pattern": r"^\s*[0-9.]+\s*(ms|s|min)\s*$"}]})
        }
        Kind::Every => json!({"anyOf": [
            one_of(Kind::Count),
            {"type": "string", "pattern": r"^\s*([0-9]+\s*steps?|[0-9.]+\s*(ms|s|min))\s*$"},
        ]}),
        Kind::Path => json!({"type": "string", "minLength": 1}),
        Kind::Address => json!({"type": "string", "pattern": "^https?://."}),
        Kind::Start => closed(
            &["command", "ready"],
            &[("command", one_of(Kind::Words)), ("ready", json!({"type": "string", "pattern": "^/"}))],
        ),
        Kind::Prefix => closed(
            &["share", "tokens"],
            &[
                ("share", json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1})),
                ("tokens", one_of(Kind::Count)),
            ],
        ),
        Kind::Text => json!({"enum": presets::all().iter().map(|p| p.name).collect::<Vec<_>>()}),
    }
}

/// How a program's output is read.
fn reads() -> Value {
    let path = json!({"type": "string", "pattern": r"^\$"});
    let mut fields: Vec<(&str, Value)> = Figure::WORDS.iter().map(|name| (*name, path.clone())).collect();
    fields.extend([("each", json!({"enum": Each::WORDS})), ("pattern", json!({"type": "string"}))]);
    json!({"anyOf": [{"enum": Ready::WORDS}, closed(&[], &fields)]})
}

/// A range stands for whole numbers: 16..256*2, 1..8+1, 16-256*2.
fn many(axis: &Axis) -> Value {
    let range = json!({"type": "string", "pattern": r"^\s*\d+\s*(\.\.|-)\s*\d+\s*([+*]\s*\d+)?\s*$"});
    let item = if matches!(axis.kind, Kind::Count | Kind::Whole | Kind::Tokens) {
        json!({"anyOf": [one(axis), range]})
    } else {
        one(axis)
    };
    json!({"description": axis.doc, "anyOf": [item, {"type": "array", "items": item, "minItems": 1}]})
}

fn described(axis: &Axis) -> Value {
    let mut value = one(axis);
    value["description"] = json!(axis.doc);
    value
}

fn object(properties: Map<String, Value>) -> Value {
    // A section whose fields are all commented out is empty, and that is no fault.
    json!({"type": ["object", "null"], "properties": properties, "additionalProperties": false})
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
    let mut sections: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for axis in AXES {
        for name in names(axis, false) {
            match section_of(axis.path) {
                Some("model") if !name.contains('.') => drop(model.insert(name, described(axis))),
                Some("model") => {}
                Some(section) => {
                    let own = name.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'));
                    let fields = sections.entry(section).or_default();
                    own.into_iter().for_each(|own| drop(fields.insert(own.into(), described(axis))));
                }
                None => drop(outer.insert(name, described(axis))),
            }
        }
    }
    for (section, fields) in sections {
        let fields = object(fields);
        let value = match section {
            "engine" => json!({"anyOf": [{"const": BUILT_IN}, fields]}),
            "data" => json!({"anyOf": [{"enum": Named::WORDS}, fields]}),
            _ => fields,
        };
        outer.insert(section.into(), value);
    }
    model.insert("hf_config".into(), json!({"type": "string", "description": "path of a Hugging Face config.json"}));
    outer.insert("model".into(), object(model));
    object(outer)
}

fn axes(value: impl Fn(&Axis) -> Value) -> Value {
    let all = AXES.iter().flat_map(|a| names(a, true).into_iter().map(move |n| (n, a)));
    let mut axes = object(all.map(|(n, a)| (n, value(a))).collect());
    let text = json!({"type": ["string", "integer"]});
    axes["patternProperties"] =
        json!({r"^engine\.env\..": {"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]}});
    axes
}

fn partial() -> Value {
    let mut value = axes(described);
    for section in SECTIONS {
        value["properties"][section] = trial()["properties"][section].clone();
    }
    json!({"type": ["array", "null"], "items": value})
}

fn measure() -> Value {
    let above_zero = || json!({"type": "number", "exclusiveMinimum": 0});
    let share = || json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1});
    section(&[
        (
            "precision",
            json!({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}),
            "relative half width of the 95 % interval of the median step at which a trial stops; default 0.01",
        ),
        ("min_seconds", json!({"type": "number", "minimum": 0}), "measure at least this long; default 1"),
        ("max_seconds", above_zero(), "measure at most this long; default 10"),
        ("timeout_seconds", above_zero(), "a trial that takes longer is killed; default 600"),
        (
            "warmup",
            json!({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 0}]}),
            "steps before measuring, or auto: until the step time is stationary; default auto",
        ),
        (
            "rounds",
            json!({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MOST_ROUNDS}]}),
            "launches of each cell, all cells once a round, which share the cell's seconds; default auto: 3 where there is time",
        ),
        ("seed", json!({"type": "integer", "minimum": 0}), "of weights, inputs and the order; default 0"),
        ("order", json!({"enum": ["shuffled", "file"]}), "of execution; default shuffled"),
        ("ignore_memory", json!({"type": "boolean"}), "run trials that are predicted not to fit; default false"),
        (
            "disturbed",
            closed(&[], &DISTURBED.map(|key| (key, share()))),
            "shares of its time that a trial may lose to others (default lost: 0.02), and of the CPU time that others may use \
             beside it (default others: 0.1), before its row is called disturbed and measured again",
        ),
    ])
}

fn price() -> Value {
    let above_zero = || json!({"type": "number", "exclusiveMinimum": 0});
    let text = || json!({"type": ["string", "integer"]});
    let hourly = || json!({"anyOf": [{"type": "number", "minimum": 1e-9, "maximum": 1e9}, {"type": "null"}]});
    let date = json!({"anyOf": [{"type": "string", "pattern": r"^\d{4}(-\d{2}(-\d{2})?)?$"}, {"type": "integer"}]});
    let currency = closed(&["code", "usd", "source"], &[("code", text()), ("usd", above_zero()), ("source", text())]);
    let owned = closed(
        &["capex_usd"],
        &["capex_usd", "lifetime_years", "lifetime_hours", "watts", "pue", "usd_per_kwh", "opex_usd_per_hour"]
            .map(|key| (key, json!({"type": "number", "minimum": 0}))),
    );
    let energy = closed(
        &["usd_per_kwh"],
        &[("usd_per_kwh", above_zero()), ("pue", json!({"type": "number", "minimum": 1})), ("watts", above_zero())],
    );
    let tokens = || json!({"type": "integer", "minimum": 0});
    let case = closed(&[], &[("input", tokens()), ("output", tokens())]);
    section(&[
        ("hardware", text(), "an instance or device of the price book, or a name of your own; default local"),
        (
            "usd_per_hour",
            hourly(),
            "for everything that a trial occupies (or for `devices`); without a price costs are n/a",
        ),
        ("per_hour", hourly(), "the same in another currency, which `currency` names"),
        ("currency", currency, "of per_hour: code, USD for one unit, and where that rate comes from"),
        ("owned", owned, "bought hardware: purchase over lifetime, power, running costs"),
        (
            "devices",
            json!({"type": "integer", "minimum": 1}),
            "how many the price pays for, rented together: whole instances",
        ),
        ("book", text(), "a price book of your own, beside this file; its entries go before the program's"),
        ("provider", text(), "whose offer of the price book"),
        ("region", text(), "where"),
        ("term", json!({"enum": Term::ALL.map(Term::name)}), "under which conditions; default on-demand"),
        ("on", date, "the price of that day instead of the latest"),
        ("source", json!({"type": ["string", "integer", "null"]}), "what the price stands for and where it comes from"),
        (
            "utilisation",
            json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
            "share of the paid time in which tokens are produced; default 1",
        ),
        ("energy", energy, "what power costs; watts where it cannot be measured and the catalog has no TDP"),
        (
            "use_cases",
            json!({"type": "object", "additionalProperties": case}),
            "requests to price: name: { input, output } tokens",
        ),
        ("training_tokens", json!({"type": "number", "minimum": 1}), "tokens to train on: days and USD follow"),
    ])
}

/// A map of these fields alone.
fn closed(required: &[&str], fields: &[(&str, Value)]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|(name, kind)| ((*name).to_string(), kind.clone())).collect();
    json!({"type": "object", "required": required, "additionalProperties": false, "properties": properties})
}

fn limits() -> Value {
    let above_zero = || json!({"type": "number", "exclusiveMinimum": 0});
    section(&[
        ("minutes", above_zero(), "estimated time of the whole sweep"),
        ("usd", above_zero(), "estimated money of the whole sweep; wants price.usd_per_hour"),
        ("cells", json!({"type": "integer", "minimum": 1}), "trials of the whole sweep"),
    ])
}

fn search() -> Value {
    section(&[
        (
            "largest",
            json!({"enum": Largest::WORDS}),
            "the load to find the largest of; its own value is where the search begins",
        ),
        (
            "while",
            json!({"const": "slo"}),
            "what has to hold: that slo.share of the requests keep to the bounds of slo",
        ),
        (
            "within",
            json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
            "how far apart the largest load that held and the smallest that did not may be, relative; default 0.05",
        ),
    ])
}

fn section(fields: &[(&str, Value, &str)]) -> Value {
    let described = |(name, kind, doc): &(&str, Value, &str)| {
        let mut value = or_variable(kind.clone());
        value["description"] = json!(doc);
        ((*name).to_string(), value)
    };
    object(fields.iter().map(described).collect())
}

/// Every cell with each of some seeds.
fn repeat() -> Value {
    let seed = json!({"type": "integer", "minimum": 0});
    let seeds =
        json!({"anyOf": [seed, {"type": "array", "items": seed, "uniqueItems": true, "maxItems": MOST_ROUNDS}]});
    section(&[(
        "seed",
        seeds,
        "seeds of weights, text and dropout: a launch of every cell with each, figures over all of them",
    )])
}

/// The schema (draft 2020-12).
pub fn schema() -> Schema {
    let name = or_variable(
        json!({"type": ["string", "integer"], "pattern": "^[A-Za-z0-9_-]([A-Za-z0-9_.-]{0,78}[A-Za-z0-9_-])?$"}),
    );
    let mut top = json!({
        "version": {"const": 1, "description": "of this form"},
        "name": name,
        "description": {"type": ["string", "integer", "null"], "description": "why this sweep exists; shown in the report"},
        "extends": {"type": "string", "description": "another scenario in the same folder; maps merge, lists replace"},
        "variables": {"type": ["object", "null"], "description": "values for ${name}, anywhere a value stands"},
        "trial": trial(),
        "sweep": {
            "type": ["object", "null"],
            "additionalProperties": false,
            "properties": {
                "matrix": axes(many),
                "zip": {"type": ["array", "null"], "items": axes(many)},
                "include": partial(),
                "exclude": partial(),
                "repeat": repeat()
            }
        },
        "measure": measure(),
        "price": price(),
        "limits": limits(),
        "search": search()
    });
    top["name"]["description"] = json!("names the report's folder; default the file's name");
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Centime scenario",
        "type": "object",
        // A scenario that extends another has what that one has.
        "anyOf": [{"required": ["version"]}, {"required": ["extends"]}],
        "additionalProperties": false,
        "properties": top
    })
}
