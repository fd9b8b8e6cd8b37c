//! The sources of a scenario put together: the file, the files it extends, options of the command line, and its variables.

use super::merge::merged;
use super::{names, overrides, variables};
use crate::yaml::{Node, Sources, Value, YamlError};
use std::path::{Component, Path, PathBuf};

/// What to do where there is no file.
const REMEDY: &str = "`centime init` writes one to start from";
/// Files that may extend one another.
const MAX_DEPTH: usize = 8;

/// Reads a scenario with everything it extends, applies the overrides, and puts variables in.
///
/// # Errors
/// A file that cannot be read or parsed; a parent outside the folder or in a circle; an override or variable at fault.
pub(super) fn read(path: &Path, options: &[String]) -> Result<(Node, Sources), YamlError> {
    let mut sources = Sources::default();
    let mut root = file(path, &mut sources, &mut Vec::new())?;
    for text in options {
        root = overrides::apply(root, text, &mut sources)?;
    }
    variables::resolve(&mut root, &sources)?;
    Ok((root, sources))
}

fn file(path: &Path, sources: &mut Sources, above: &mut Vec<PathBuf>) -> Result<Node, YamlError> {
    let mut own = sources.read(path, REMEDY)?;
    if !matches!(own.value, Value::Map(_)) {
        let message = format!(
            "expected a map of fields, found {}; begin with `version: 1`, or see `centime init`",
            own.value.kind()
        );
        return Err(sources.fault(own.place, message));
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
) -> Result<Option<PathBuf>, YamlError> {
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
        return Err("expected the name of a scenario in the same folder".into());
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
