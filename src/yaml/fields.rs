//! Reading a map field by field: what is unknown is refused with the nearest name.

use super::error::{YamlError, did_you_mean};
use super::node::{Entry, Node, Value};
use super::sources::Sources;

/// The entries of a map whose keys are all among `known`; nothing for an absent or empty section. `aliases` are further names
/// that a typing error may have been meant as.
///
/// # Errors
/// Something else than a map, an unknown key, or a key that is there twice.
pub(crate) fn entries<'a>(
    section: &str,
    node: Option<&'a Node>,
    known: &[&str],
    aliases: &[&str],
    s: &Sources,
) -> Result<&'a [Entry], YamlError> {
    let Some(node) = node else { return Ok(&[]) };
    let entries = match &node.value {
        Value::Map(entries) => entries,
        Value::Null => return Ok(&[]),
        other => return Err(s.fault(node.place, format!("{section}: expected a map, found {}", other.kind()))),
    };
    for e in entries {
        if !known.contains(&e.key.as_str()) {
            let hint = did_you_mean(&e.key, known.iter().copied(), aliases.iter().copied());
            return Err(s.fault(e.place, format!("unknown field `{}` in {section}; {hint}", e.key)));
        }
    }
    Ok(entries)
}

/// A finite number within `allowed`, or a message that says what is.
///
/// # Errors
/// Anything else.
pub(crate) fn number(
    e: &Entry,
    section: &str,
    allowed: impl Fn(f64) -> bool,
    wanted: &str,
    s: &Sources,
) -> Result<f64, YamlError> {
    let x = match &e.node.value {
        Value::Integer(i) => *i as f64,
        Value::Float(x) => *x,
        other => {
            let message = format!("{section}{}: expected {wanted}, found {}", e.key, shown(other));
            return Err(s.fault(e.node.place, message));
        }
    };
    if x.is_finite() && allowed(x) {
        Ok(x)
    } else {
        Err(s.fault(e.node.place, format!("{section}{}: expected {wanted}, found {}", e.key, shown(&e.node.value))))
    }
}

/// A whole number of at least `least`.
///
/// # Errors
/// Anything else.
pub(crate) fn whole(e: &Entry, section: &str, least: i64, s: &Sources) -> Result<u64, YamlError> {
    match &e.node.value {
        Value::Integer(i) if *i >= least => Ok(*i as u64),
        other => {
            let message =
                format!("{section}{}: expected a whole number from {least} up, found {}", e.key, shown(other));
            Err(s.fault(e.node.place, message))
        }
    }
}

/// Text; a whole number is taken as it is written.
///
/// # Errors
/// A list, a map, or what YAML reads as something else than text and would be printed differently (1.10 as 1.1).
pub(crate) fn text(e: &Entry, section: &str, s: &Sources) -> Result<String, YamlError> {
    match &e.node.value {
        Value::Text(text) => Ok(text.clone()),
        Value::Integer(i) => Ok(i.to_string()),
        Value::Null => Ok(String::new()),
        other => {
            let quotes = if matches!(other, Value::List(_) | Value::Map(_)) { "" } else { "; put it in quotes" };
            let message = format!("{section}{}: expected text, found {}{quotes}", e.key, other.kind());
            Err(s.fault(e.node.place, message))
        }
    }
}

/// True or false.
///
/// # Errors
/// Anything else.
pub(crate) fn flag(e: &Entry, section: &str, s: &Sources) -> Result<bool, YamlError> {
    match e.node.value {
        Value::Bool(b) => Ok(b),
        ref other => {
            Err(s.fault(e.node.place, format!("{section}{}: expected true or false, found {}", e.key, shown(other))))
        }
    }
}

fn shown(v: &Value) -> String {
    match v {
        Value::Text(t) => format!("`{t}`"),
        Value::Float(x) if x.is_nan() => "not a number".into(),
        other => other.to_string(),
    }
}
