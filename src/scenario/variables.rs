//! `variables:` and their use, `${name}`, anywhere a scalar stands.

use crate::yaml::{Entry, MAX_BYTES, MAX_NODES, Node, Sources, Value, YamlError, did_you_mean};

/// Puts the variables in and takes their section out. Variables may not be made of variables.
///
/// # Errors
/// A name that is not defined; a `${` without its `}`; a list or map in the middle of a text; values that multiply beyond
/// what a scenario may hold.
pub(super) fn resolve(root: &mut Node, sources: &Sources) -> Result<(), YamlError> {
    let Value::Map(entries) = &mut root.value else { return Ok(()) };
    let section = entries.iter().position(|e| e.key == "variables").map(|at| entries.remove(at));
    let known = match section.as_ref().map(|e| &e.node.value) {
        None | Some(Value::Null) => &[][..],
        Some(Value::Map(known)) => known.as_slice(),
        Some(other) => {
            let place = section.as_ref().and_then(|e| e.node.place);
            let message = format!("variables: expected a map of names to values, found {}", other.kind());
            return Err(sources.fault(place, message));
        }
    };
    Substitution { known, sources, nodes: 0, bytes: 0 }.node(root)
}

struct Substitution<'a> {
    known: &'a [Entry],
    sources: &'a Sources,
    /// What has been put in so far: a list of lists of variables multiplies as aliases do.
    nodes: usize,
    bytes: usize,
}

impl Substitution<'_> {
    fn node(&mut self, node: &mut Node) -> Result<(), YamlError> {
        match &mut node.value {
            Value::List(list) => list.iter_mut().try_for_each(|n| self.node(n)),
            Value::Map(entries) => entries.iter_mut().try_for_each(|e| self.node(&mut e.node)),
            Value::Text(text) if text.contains("${") => {
                let text = std::mem::take(text);
                node.value = self.value(&text, node)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// As it is where the whole scalar is one variable, as text otherwise.
    fn value(&mut self, text: &str, at: &Node) -> Result<Value, YamlError> {
        if let Some(name) = text.strip_prefix("${").and_then(|t| t.strip_suffix('}')).filter(|t| !t.contains('}')) {
            let value = self.lookup(name, at)?.clone();
            self.spend(&value, at)?;
            return Ok(value);
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let Some(length) = rest[start..].find('}') else {
                return Err(self.sources.fault(at.place, format!("`{text}`: a `${{` without its `}}`; close it")));
            };
            let name = &rest[start + 2..start + length];
            let value = self.lookup(name, at)?.clone();
            if matches!(value, Value::List(_) | Value::Map(_)) {
                let message = format!("variable `{name}` is {}, and cannot be part of a text", value.kind());
                return Err(self.sources.fault(at.place, message));
            }
            self.spend(&value, at)?;
            out.push_str(&rest[..start]);
            out.push_str(&value.to_string());
            rest = &rest[start + length + 1..];
        }
        out.push_str(rest);
        Ok(Value::Text(out))
    }

    fn lookup(&self, name: &str, at: &Node) -> Result<&Value, YamlError> {
        self.known.iter().find(|e| e.key == name).map(|e| &e.node.value).ok_or_else(|| {
            let names = self.known.iter().map(|e| e.key.as_str());
            let hint = did_you_mean(name, names, std::iter::empty());
            self.sources.fault(at.place, format!("no variable `{name}`; {hint}"))
        })
    }

    fn spend(&mut self, value: &Value, at: &Node) -> Result<(), YamlError> {
        let (nodes, bytes) = size(value);
        self.nodes += nodes;
        self.bytes += bytes;
        if self.nodes <= MAX_NODES && self.bytes <= MAX_BYTES as usize {
            return Ok(());
        }
        let message = format!(
            "variables expand to more than a scenario may hold, {MAX_NODES} values and {MAX_BYTES} bytes; use fewer"
        );
        Err(self.sources.fault(at.place, message))
    }
}

/// Values and bytes of text.
fn size(value: &Value) -> (usize, usize) {
    let add = |(a, b): (usize, usize), (c, d): (usize, usize)| (a + c, b + d);
    match value {
        Value::List(list) => list.iter().map(|n| size(&n.value)).fold((1, 0), add),
        Value::Map(entries) => entries.iter().map(|e| size(&e.node.value)).fold((1, 0), add),
        Value::Text(text) => (1, text.len()),
        _ => (1, 0),
    }
}
