//! `--set path=value`: fields of the trial, of the sweep and of the settings, from the command line.

use super::axes::{AXES, Field};
use super::merge::merged;
use super::{TOP, names};
use crate::yaml::{Entry, Node, Origin, Place, Sources, Value, YamlError, did_you_mean, parse};

/// Sections whose fields are addressed as `section.field`.
const SECTIONS: &[&str] = &["measure", "price", "limits", "search", "variables"];

/// Puts one override over the scenario.
///
/// # Errors
/// Text without `=`, a value that is no YAML, a path that names no field, or a field of the trial that the sweep varies.
pub(super) fn apply(root: Node, text: &str, sources: &mut Sources) -> Result<Node, YamlError> {
    let source = sources.add(Origin::CommandLine(format!("--set {text}")), text);
    let place = Some(Place { source, line: 1, column: 1 });
    let Some((path, value)) = text.split_once('=') else {
        return Err(sources.fault(place, "expected a path and a value: --set batch=8"));
    };
    let mut value = parse::parse(value, source).map_err(|(m, _)| sources.fault(place, m))?;
    stand_at(&mut value, place);
    let path = path.trim();
    let parts = parts(path).ok_or_else(|| sources.fault(place, unknown(path)))?;
    if let [_, field @ ..] = parts.as_slice()
        && parts[0] == "trial"
    {
        let field = field.join(".");
        if sweeps(&root, &field) {
            let message =
                format!("the sweep varies {field}; write --set sweep.matrix.{field}=... to change its values");
            return Err(sources.fault(place, message));
        }
    }
    let mut over = parts
        .iter()
        .rev()
        .fold(value, |node, key| Node { place, value: Value::Map(vec![Entry { key: key.clone(), place, node }]) });
    names::unify(&mut over, sources)?;
    Ok(merged(root, over))
}

/// The keys from the top of the scenario down to the field; a path that begins with no section begins in the trial.
fn parts(path: &str) -> Option<Vec<String>> {
    let of = |parts: &[&str]| Some(parts.iter().map(|p| (*p).to_string()).collect());
    match path.split_once('.') {
        Some(("sweep", rest)) => match rest.split_once('.') {
            Some((group, axis)) => of(&["sweep", group, axis]),
            None => of(&["sweep", rest]),
        },
        Some(("trial", rest)) => field(rest),
        Some(("measure", rest)) if let Some(bound) = rest.strip_prefix("disturbed.") => {
            of(&["measure", "disturbed", bound])
        }
        Some((section, rest)) if SECTIONS.contains(&section) => of(&[section, rest]),
        None if ["name", "description"].contains(&path) => of(&[path]),
        _ => field(path),
    }
}

fn field(path: &str) -> Option<Vec<String>> {
    let own = if path == "model.hf_config" { path.to_string() } else { Field::named(path)?.path };
    // A variable's name may hold anything.
    Some(std::iter::once("trial").chain(own.splitn(3, '.')).map(str::to_string).collect())
}

fn unknown(path: &str) -> String {
    if TOP.contains(&path) {
        return format!("`{path}` is a section; name one of its fields: --set {path}.field=value");
    }
    let aliases = AXES.iter().flat_map(|a| a.aliases.iter().copied());
    let hint = did_you_mean(path, AXES.iter().map(|a| a.path), aliases);
    format!("no field `{path}`; {hint}")
}

/// Whether matrix or zip sets the field in every cell, so that the base's value counts for nothing.
fn sweeps(root: &Node, field: &str) -> bool {
    let Some(sweep) = root.get("sweep") else { return false };
    let matrix = sweep.node.get("matrix").is_some_and(|m| m.node.get(field).is_some());
    let zip = match sweep.node.get("zip").map(|z| &z.node.value) {
        Some(Value::List(groups)) => groups.iter().any(|g| g.get(field).is_some()),
        _ => false,
    };
    matrix || zip
}

/// Whatever is wrong with an option's value is wrong with the option.
fn stand_at(node: &mut Node, place: Option<Place>) {
    node.place = place;
    match &mut node.value {
        Value::List(list) => list.iter_mut().for_each(|n| stand_at(n, place)),
        Value::Map(entries) => entries.iter_mut().for_each(|e| {
            e.place = place;
            stand_at(&mut e.node, place);
        }),
        _ => {}
    }
}
