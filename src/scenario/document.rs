//! The sources of a scenario put together: the file, the files it extends, options of the command line, and its variables.

use super::error::{Origin, ScenarioError};
use super::node::{Entry, Node, Place, Value};
use super::parse::{self, MAX_BYTES};
use super::{names, overrides, variables};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// Files that may extend one another.
const MAX_DEPTH: usize = 8;

/// Everything that a message may point into.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<(Origin, String)>);

impl Sources {
    /// One more source; its number.
    pub fn add(&mut self, origin: Origin, text: &str) -> u32 {
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
pub fn read(path: &Path, options: &[String]) -> Result<(Node, Sources), ScenarioError> {
    let mut sources = Sources::default();
    let mut root = file(path, &mut sources, &mut Vec::new())?;
    for text in options {
        root = overrides::apply(root, text, &mut sources)?;
    }
    variables::resolve(&mut root, &sources)?;
    Ok((root, sources))
}

/// At most [`MAX_BYTES`] of a file, whatever kind of file it is.
///
/// # Errors
/// As the system says; a file that is larger.
pub fn contents(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("larger than {} MiB", MAX_BYTES >> 20),
        ));
    }
    Ok(bytes)
}

fn file(path: &Path, sources: &mut Sources, above: &mut Vec<PathBuf>) -> Result<Node, ScenarioError> {
    let bytes = contents(path).map_err(|e| ScenarioError::unreadable(path, &e))?;
    let origin = Origin::File { path: path.into(), place: None };
    let text = String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        ScenarioError::new(origin.clone(), format!("not UTF-8 after byte {valid}; save it as UTF-8"), None)
    })?;
    let source = sources.add(origin, &text);
    let start = Place { source, line: 1, column: 1 };
    let mut own = parse::parse(&text, source).map_err(|(m, place)| sources.fault(place.or(Some(start)), m))?;
    if !matches!(own.value, Value::Map(_)) {
        let message = format!(
            "a scenario is a map of fields, and this is {}; begin with `version: 1`, or see `centime init`",
            own.value.kind()
        );
        return Err(sources.fault(own.place.or(Some(start)), message));
    }
    names::unify(&mut own, sources)?;
    let Some(parent) = extended(path, &mut own, sources, above)? else { return Ok(own) };
    let base = file(&parent, sources, above)?;
    Ok(merged(base, own))
}

/// Takes `extends` out of a scenario; the checked path of the file it names.
fn extended(
    path: &Path,
    own: &mut Node,
    sources: &Sources,
    above: &mut Vec<PathBuf>,
) -> Result<Option<PathBuf>, ScenarioError> {
    let Value::Map(entries) = &mut own.value else { return Ok(None) };
    let Some(at) = entries.iter().position(|e| e.key == "extends") else { return Ok(None) };
    let node = entries.remove(at).node;
    let fault = |message: String| Err(sources.fault(node.place, format!("extends: {message}")));
    let parent = match parent_path(path, &node.value) {
        Ok(parent) => parent,
        Err(message) => return fault(message),
    };
    above.push(path.to_path_buf());
    let shown = parent.display();
    if above.contains(&parent) {
        return fault(format!("{shown} comes back to itself; take one of the two out"));
    }
    if above.len() >= MAX_DEPTH {
        return fault(format!("over {MAX_DEPTH} scenarios extend one another; merge some"));
    }
    if !parent.is_file() {
        return fault(format!("{shown} is not there; give the name of a scenario in the same folder"));
    }
    Ok(Some(parent))
}

/// A plain file name beside the scenario: no folders, no way out, no link.
fn parent_path(path: &Path, value: &Value) -> Result<PathBuf, String> {
    let Value::Text(name) = value else {
        return Err("the name of a scenario in the same folder is wanted".into());
    };
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(n)), None) if n == name.as_str())
        && !name.contains('\\');
    let parent = path.parent().unwrap_or(Path::new("")).join(name);
    let link = std::fs::symlink_metadata(&parent).is_ok_and(|m| m.file_type().is_symlink());
    if !plain || link {
        return Err(format!("`{name}` leaves the scenario's folder; give the name of a file in the same folder"));
    }
    Ok(parent)
}

/// Maps merge key by key; anything else replaces.
pub fn merged(base: Node, own: Node) -> Node {
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
