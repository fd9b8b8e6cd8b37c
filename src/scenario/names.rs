//! One name for each field: aliases (Hugging Face's, llama-bench's) are turned into the field's own path in every source
//! before sources are merged, so that a child's `hidden_size` replaces its parent's `d_model`.

use super::axes;
use crate::yaml::{Entry, Node, Sources, Value, YamlError};

/// Renames what is known and leaves the rest for whoever reads it to refuse.
///
/// # Errors
/// A field that one map gives under two names.
pub(super) fn unify(root: &mut Node, s: &Sources) -> Result<(), YamlError> {
    for e in children(root) {
        match e.key.as_str() {
            "trial" => trial(&mut e.node, s)?,
            "sweep" => {
                for group in children(&mut e.node) {
                    sweep(&mut group.node, s)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn children(node: &mut Node) -> &mut [Entry] {
    match &mut node.value {
        Value::Map(entries) => entries,
        _ => &mut [],
    }
}

fn trial(node: &mut Node, s: &Sources) -> Result<(), YamlError> {
    rename(node, s, |key| axes::find(key).map(|a| a.path).filter(|p| axes::section_of(p).is_none()))?;
    for e in children(node).iter_mut().filter(|e| e.key == "model") {
        rename(&mut e.node, s, |key| axes::find(&format!("model.{key}")).and_then(|a| a.path.strip_prefix("model.")))?;
    }
    Ok(())
}

/// A map of axes, or a list of such maps.
fn sweep(node: &mut Node, s: &Sources) -> Result<(), YamlError> {
    if let Value::List(list) = &mut node.value {
        return list.iter_mut().try_for_each(|n| sweep(n, s));
    }
    rename(node, s, |key| axes::find(key).map(|a| a.path))
}

fn rename(node: &mut Node, s: &Sources, own: impl Fn(&str) -> Option<&'static str>) -> Result<(), YamlError> {
    let Value::Map(entries) = &mut node.value else { return Ok(()) };
    for i in 0..entries.len() {
        let Some(name) = own(&entries[i].key) else { continue };
        if entries[..i].iter().any(|e| e.key == name) {
            let message = format!("{name} is given twice, here as `{}`; keep one of the two", entries[i].key);
            return Err(s.fault(entries[i].place, message));
        }
        entries[i].key = name.to_string();
    }
    Ok(())
}
