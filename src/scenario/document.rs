//! The sources of a scenario put together: the file, the files it extends, its variables, and options of the command line.

use super::error::{Origin, ScenarioError, did_you_mean};
use super::node::{self, Entry, Node, Place, Value};
use std::path::{Component, Path, PathBuf};

/// Files that may extend one another.
const MAX_DEPTH: usize = 8;

/// Everything that a message may point into.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<(Origin, String)>);

impl Sources {
    fn add(&mut self, origin: Origin, text: &str) -> u32 {
        self.0.push((origin, text.into()));
        self.0.len() as u32 - 1
    }

    /// A fault at a place; without one, of the scenario's own file.
    pub fn fault(&self, place: Option<Place>, message: impl Into<String>) -> ScenarioError {
        let index = place.map_or(0, |p| p.source as usize);
        match self.0.get(index) {
            Some((Origin::File { path, .. }, text)) => {
                ScenarioError::new(Origin::File { path: path.clone(), place }, message, Some(text))
            }
            Some((origin, _)) => ScenarioError::new(origin.clone(), message, None),
            None => ScenarioError::new(Origin::CommandLine("scenario".into()), message, None),
        }
    }

    /// The first file's folder: where relative paths of the scenario start.
    pub fn folder(&self) -> PathBuf {
        match self.0.first() {
            Some((Origin::File { path, .. }, _)) => path.parent().unwrap_or(Path::new("")).to_path_buf(),
            _ => PathBuf::new(),
        }
    }
}

/// Reads a scenario with everything it extends, applies the overrides, and puts variables in.
///
/// # Errors
/// A file that cannot be read or parsed; a parent outside the folder or in a circle; an override or variable at fault.
pub fn read(path: &Path, overrides: &[String]) -> Result<(Node, Sources), ScenarioError> {
    let mut sources = Sources::default();
    let mut root = file(path, &mut sources, &mut Vec::new())?;
    for text in overrides {
        let one = override_of(text, &mut sources)?;
        root = merged(root, one);
    }
    let variables = root.get("variables").map(|e| e.node.clone());
    let variables = match variables.as_ref().map(|n| &n.value) {
        None | Some(Value::Null) => &[][..],
        Some(Value::Map(entries)) => entries.as_slice(),
        Some(_) => {
            return Err(sources
                .fault(variables.as_ref().and_then(|n| n.place), "variables: a map of names to values is wanted"));
        }
    };
    substitute(&mut root, variables, &sources)?;
    if let Value::Map(entries) = &mut root.value {
        entries.retain(|e| e.key != "variables");
    }
    Ok((root, sources))
}

fn file(path: &Path, sources: &mut Sources, above: &mut Vec<PathBuf>) -> Result<Node, ScenarioError> {
    let unreadable = |e: std::io::Error| ScenarioError::unreadable(path, &e);
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    let origin = Origin::File { path: path.into(), place: None };
    if size > node::MAX_BYTES {
        let message = format!("{size} bytes are more than a scenario may have, {}", node::MAX_BYTES);
        return Err(ScenarioError::new(origin, message, None));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|e| {
        ScenarioError::new(origin.clone(), format!("not UTF-8 after byte {}", e.utf8_error().valid_up_to()), None)
    })?;
    let source = sources.add(origin, &text);
    let mut own = node::parse(&text, source)
        .map_err(|(message, place)| sources.fault(place.or(Some(Place { source, line: 1, column: 1 })), message))?;
    if !matches!(own.value, Value::Map(_)) {
        let message = format!("a scenario is a map of fields, and this is {}", own.value.kind());
        return Err(sources.fault(own.place.or(Some(Place { source, line: 1, column: 1 })), message));
    }
    let Some(extends) = own.get("extends").cloned() else { return Ok(own) };
    if let Value::Map(entries) = &mut own.value {
        entries.retain(|e| e.key != "extends");
    }
    let place = extends.node.place;
    let parent = parent_path(path, &extends.node).map_err(|m| sources.fault(place, m))?;
    above.push(path.to_path_buf());
    if above.contains(&parent) || above.len() >= MAX_DEPTH {
        return Err(sources.fault(
            place,
            format!("extends: {} extends itself, or the chain is over {MAX_DEPTH} long", parent.display()),
        ));
    }
    if !parent.is_file() {
        return Err(sources.fault(place, format!("extends: {} is not there", parent.display())));
    }
    let base = file(&parent, sources, above)?;
    Ok(merged(base, own))
}

/// A plain file name beside the scenario: no folders, no way out, no link.
fn parent_path(path: &Path, node: &Node) -> Result<PathBuf, String> {
    let Value::Text(name) = &node.value else {
        return Err("extends: the name of a scenario in the same folder is wanted".into());
    };
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) && !name.contains('\\');
    let parent = path.parent().unwrap_or(Path::new("")).join(name);
    let link = std::fs::symlink_metadata(&parent).is_ok_and(|m| m.file_type().is_symlink());
    if !plain || link {
        return Err(format!(
            "extends: `{name}` leaves the scenario's folder; give the name of a file in the same folder"
        ));
    }
    Ok(parent)
}

/// Maps merge key by key; anything else replaces.
fn merged(base: Node, own: Node) -> Node {
    match (base.value, own.value) {
        (Value::Map(mut entries), Value::Map(new)) => {
            for e in new {
                match entries.iter_mut().find(|b| b.key == e.key) {
                    Some(b) => {
                        let old = std::mem::replace(&mut b.node, Node { place: None, value: Value::Null });
                        *b = Entry { key: e.key, place: e.place, node: merged(old, e.node) };
                    }
                    None => entries.push(e),
                }
            }
            Node { place: own.place.or(base.place), value: Value::Map(entries) }
        }
        (_, value) => Node { place: own.place, value },
    }
}

/// `path=value`, the value in YAML; a path outside the top level starts in the trial.
fn override_of(text: &str, sources: &mut Sources) -> Result<Node, ScenarioError> {
    let source = sources.add(Origin::CommandLine(format!("--set {text}")), text);
    let place = Some(Place { source, line: 1, column: 1 });
    let Some((path, value)) = text.split_once('=') else {
        return Err(sources.fault(place, "a path and a value are wanted: --set batch=8"));
    };
    let mut value = node::parse(value, source).map_err(|(m, _)| sources.fault(place, m))?;
    place_all(&mut value, place);
    let path = path.trim();
    let parts: Vec<&str> = match path.split_once('.') {
        Some(("sweep", rest)) => match rest.split_once('.') {
            Some((group, axis)) => vec!["sweep", group, axis],
            None => vec!["sweep", rest],
        },
        Some((section @ ("measure" | "price" | "limits" | "variables"), rest)) => vec![section, rest],
        Some(("trial", rest)) => return override_of_trial(rest, value, place, sources),
        None if ["name", "description"].contains(&path) => vec![path],
        _ => return override_of_trial(path, value, place, sources),
    };
    Ok(nested(&parts, value, place))
}

fn override_of_trial(path: &str, value: Node, place: Option<Place>, sources: &Sources) -> Result<Node, ScenarioError> {
    if path == "model.hf_config" {
        return Ok(nested(&["trial", "model", "hf_config"], value, place));
    }
    let Some(axis) = super::axes::find(path) else {
        let names = super::axes::AXES.iter().map(|a| a.path);
        return Err(sources.fault(place, format!("no field `{path}`; {}", did_you_mean(path, names))));
    };
    let mut parts = vec!["trial"];
    parts.extend(axis.path.split('.'));
    Ok(nested(&parts, value, place))
}

fn nested(parts: &[&str], value: Node, place: Option<Place>) -> Node {
    parts
        .iter()
        .rev()
        .fold(value, |node, key| Node { place, value: Value::Map(vec![Entry { key: (*key).into(), place, node }]) })
}

fn place_all(node: &mut Node, place: Option<Place>) {
    node.place = place;
    match &mut node.value {
        Value::List(list) => list.iter_mut().for_each(|n| place_all(n, place)),
        Value::Map(entries) => entries.iter_mut().for_each(|e| {
            e.place = place;
            place_all(&mut e.node, place);
        }),
        _ => {}
    }
}

/// `${name}` becomes the variable's value: as it is where the whole scalar is one variable, as text otherwise.
fn substitute(node: &mut Node, variables: &[Entry], sources: &Sources) -> Result<(), ScenarioError> {
    let place = node.place;
    match &mut node.value {
        Value::List(list) => list.iter_mut().try_for_each(|n| substitute(n, variables, sources)),
        Value::Map(entries) => entries
            .iter_mut()
            .filter(|e| e.key != "variables")
            .try_for_each(|e| substitute(&mut e.node, variables, sources)),
        Value::Text(text) if text.contains("${") => {
            let known = |name: &str| {
                variables.iter().find(|e| e.key == name).map(|e| &e.node.value).ok_or_else(|| {
                    let names = variables.iter().map(|e| e.key.as_str());
                    sources.fault(place, format!("no variable `{name}`; {}", did_you_mean(name, names)))
                })
            };
            let whole = text.strip_prefix("${").and_then(|t| t.strip_suffix('}')).filter(|t| !t.contains("${"));
            if let Some(name) = whole {
                node.value = known(name)?.clone();
                return Ok(());
            }
            let mut out = String::new();
            let mut rest = text.as_str();
            while let Some(start) = rest.find("${") {
                let Some(end) = rest[start..].find('}') else { break };
                out.push_str(&rest[..start]);
                out.push_str(&known(&rest[start + 2..start + end])?.to_string());
                rest = &rest[start + end + 1..];
            }
            out.push_str(rest);
            node.value = Value::Text(out);
            Ok(())
        }
        _ => Ok(()),
    }
}
