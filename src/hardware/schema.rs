//! The JSON Schema of price books and catalogs of devices, for editors.

use super::device::NumberFormat;
use super::offer::Term;
use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};

/// The schema (draft 2020-12).
pub fn schema() -> Schema {
    let list = |item: Value| json!({"type": ["array", "null"], "items": item});
    let rate = object(
        &["usd", "date", "source"],
        vec![("usd", above_zero("USD for one unit")), ("date", date("of the rate")), ("source", text("of the rate"))],
    );
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Centime price book",
        "type": "object",
        "required": ["version"],
        "additionalProperties": false,
        "properties": {
            "version": {"const": 1, "description": "of this form"},
            "devices": list(device()),
            "offers": list(offer()),
            "apis": list(api()),
            "rates": {"type": "object", "additionalProperties": rate, "description": "currencies of offers, by code"},
        }
    })
}

type Field = (&'static str, Value);

fn object(required: &[&str], fields: Vec<Field>) -> Value {
    let properties: Map<String, Value> = fields.into_iter().map(|(name, kind)| (name.to_string(), kind)).collect();
    json!({"type": "object", "required": required, "additionalProperties": false, "properties": properties})
}

fn text(doc: &str) -> Value {
    json!({"type": ["string", "integer"], "description": doc})
}

fn texts(doc: &str) -> Value {
    json!({"type": ["array", "null"], "items": {"type": ["string", "integer"]}, "description": doc})
}

fn above_zero(doc: &str) -> Value {
    json!({"type": "number", "exclusiveMinimum": 0, "description": doc})
}

fn whole(doc: &str) -> Value {
    json!({"type": "integer", "minimum": 1, "description": doc})
}

fn flag(doc: &str) -> Value {
    json!({"type": "boolean", "description": doc})
}

fn hourly(doc: &str) -> Value {
    json!({"type": "number", "minimum": 1e-9, "maximum": 1e9, "description": doc})
}

fn date(doc: &str) -> Value {
    json!({
        "anyOf": [{"type": "string", "pattern": r"^\d{4}(-\d{2}(-\d{2})?)?$"}, {"type": "integer"}],
        "description": doc,
    })
}

fn device() -> Value {
    let rates = |doc: &str| {
        let mut all =
            object(&[], NumberFormat::ALL.map(|f| (f.name(), above_zero("TFLOP/s (TOP/s for int8)"))).to_vec());
        all["description"] = json!(doc);
        all
    };
    let link = object(
        &["gb_per_second"],
        vec![("name", text("")), ("gb_per_second", above_zero("one direction")), ("devices", whole("that it joins"))],
    );
    object(
        &["name", "kind", "source"],
        vec![
            ("name", text("by which it is addressed")),
            ("title", text("in full")),
            ("vendor", text("")),
            ("kind", json!({"enum": ["gpu", "tpu", "accelerator", "cpu", "soc"]})),
            ("architecture", text("")),
            ("aliases", texts("what people call it")),
            ("seen_as", texts("what drivers and operating systems call it")),
            ("tflops", rates("dense peaks of the datasheet")),
            ("achieved_tflops", rates("what a tuned matrix product reaches")),
            ("cores", whole("")),
            ("memory_gb", above_zero("powers of 1000")),
            ("memory_gb_per_second", above_zero("")),
            ("link", link),
            ("pcie", text("")),
            ("tdp_watts", above_zero("")),
            ("released", date("")),
            ("unverified", texts("fields that no source at hand confirms")),
            ("source", text("where the figures come from")),
            ("notes", text("")),
        ],
    )
}

fn offer() -> Value {
    let owned = object(
        &["capex_usd"],
        ["capex_usd", "lifetime_years", "lifetime_hours", "watts", "pue", "usd_per_kwh", "opex_usd_per_hour"]
            .map(|name| (name, json!({"type": "number", "minimum": 0})))
            .to_vec(),
    );
    let mut offer = object(
        &["provider", "instance", "from", "source"],
        vec![
            ("provider", text("")),
            ("instance", text("what the provider calls it")),
            ("device", text("name of the accelerator in the catalog")),
            ("devices", whole("how many are in it; they are rented together")),
            ("cpu", text("name of the processor in the catalog")),
            ("vcpus", whole("")),
            ("usd_per_hour", hourly("for the whole of it")),
            ("per_hour", hourly("the same in `currency`")),
            ("currency", text("code of a rate under `rates`")),
            ("owned", owned),
            ("term", json!({"enum": Term::ALL.map(Term::name)})),
            ("region", text("")),
            ("from", date("first seen")),
            ("until", date("last seen")),
            ("approximate", flag("the source does not date it exactly")),
            ("source", text("where the price comes from")),
            ("notes", text("")),
        ],
    );
    let ways = ["usd_per_hour", "per_hour", "owned"].map(|way| json!({"required": [way]}));
    offer["oneOf"] = json!(ways);
    offer
}

fn api() -> Value {
    object(
        &["provider", "model", "usd_per_million_input", "usd_per_million_output", "date", "source"],
        vec![
            ("provider", text("")),
            ("model", text("")),
            ("usd_per_million_input", hourly("USD for 1e6 input tokens")),
            ("usd_per_million_output", hourly("USD for 1e6 output tokens")),
            ("date", date("when it was seen")),
            ("approximate", flag("the source does not date it exactly")),
            ("unverified", flag("no source at hand confirms the price")),
            ("source", text("where the price comes from")),
            ("notes", text("")),
        ],
    )
}
