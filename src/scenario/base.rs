//! The trial that the sweep varies, as its section says, and where each of its fields stands.

use super::axes::{self, AXES, SECTIONS, section_of};
use super::draft::Draft;
use super::weights::Config;
use crate::transformer::shape::hf_config::spec_from_hf_config;
use crate::yaml::{self, Entry, Node, Place, Sources, Value, YamlError, fields};
use std::path::Path;

/// The engine of a trial that names no other: Centime's own transformer.
pub(crate) const BUILT_IN: &str = "built-in";

/// The trial before anything is swept.
#[derive(Debug)]
pub(super) struct Base {
    pub draft: Draft,
    /// Where fields are given, by path; what a later fault is pointed at.
    places: Vec<(&'static str, Option<Place>)>,
    /// Where the section begins, or the scenario where there is none.
    start: Option<Place>,
}

impl Base {
    /// Where a field is given.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        self.places.iter().find(|(p, _)| *p == path).and_then(|(_, place)| *place)
    }

    /// Where a field of the same section of the trial is given, or else where the trial begins.
    pub(super) fn near(&self, path: &str) -> Option<Place> {
        let own = section_of(path);
        let beside = self.places.iter().find(|(p, _)| own.is_some() && section_of(p) == own);
        beside.and_then(|(_, place)| *place).or(self.start)
    }
}

/// Reads the section `trial`.
///
/// # Errors
/// An unknown field, a value that a field cannot have, a Hugging Face config that cannot be used.
pub(super) fn read(root: &Node, s: &Sources) -> Result<Base, YamlError> {
    let section = root.get("trial");
    let start = section.map_or(root.place, |e| e.place);
    let mut base = Base { draft: Draft::default(), places: Vec::new(), start };
    let outer = || AXES.iter().filter(|a| section_of(a.path).is_none());
    let own: Vec<&str> = outer().map(|a| a.path).chain(SECTIONS.iter().copied()).collect();
    let aliases: Vec<&str> = outer().flat_map(|a| a.aliases).copied().collect();
    for e in fields::entries("trial", section.map(|e| &e.node), &own, &aliases, s)? {
        if e.key == "engine" && e.node.value == Value::Text(BUILT_IN.into()) {
            base.places.push(("engine", e.node.place));
        } else if e.key == "data" && matches!(e.node.value, Value::Text(_)) {
            base.set("data.source", &e.node, s)?;
        } else if SECTIONS.contains(&e.key.as_str()) {
            let inner = || AXES.iter().filter(|a| section_of(a.path) == Some(&e.key));
            let mut own: Vec<&str> = inner().map(|a| &a.path[e.key.len() + 1..]).collect();
            own.extend((e.key == "model").then_some("hf_config"));
            let aliases: Vec<&str> = inner().flat_map(|a| a.aliases).copied().collect();
            for m in fields::entries(&format!("trial.{}", e.key), Some(&e.node), &own, &aliases, s)? {
                base.of_section(&e.key, m, s)?;
            }
        } else {
            base.set(&e.key, &e.node, s)?;
        }
    }
    Ok(base)
}

impl Base {
    fn of_section(&mut self, section: &str, e: &Entry, s: &Sources) -> Result<(), YamlError> {
        if section == "model" && e.key == "hf_config" {
            let config = hf_config(&fields::text(e, "model.", s)?, s);
            self.draft.config = Some(config.map_err(|m| s.fault(e.node.place, format!("model.hf_config: {m}")))?);
            self.places.push(("model.hf_config", e.node.place));
            return Ok(());
        }
        self.set(&format!("{section}.{}", e.key), &e.node, s)
    }

    fn set(&mut self, path: &str, node: &Node, s: &Sources) -> Result<(), YamlError> {
        let Some(axis) = axes::find(path) else { return Err(s.fault(node.place, format!("no field `{path}`"))) };
        (axis.set)(&mut self.draft, &node.value).map_err(|m| s.fault(node.place, format!("{}: {m}", axis.path)))?;
        self.places.push((axis.path, node.place));
        Ok(())
    }
}

/// A Hugging Face config, its path relative to the scenario's folder.
fn hf_config(name: &str, s: &Sources) -> Result<Config, String> {
    let path = s.folder().join(name);
    let shown = path.display();
    let bytes = yaml::contents(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("{shown} is not there; the path starts in the scenario's folder"),
        _ => format!("{shown} cannot be read: {e}"),
    })?;
    let (family, spec) = spec_from_hf_config(&String::from_utf8_lossy(&bytes)).map_err(|e| format!("{shown}: {e}"))?;
    Ok(Config { name: config_name(&path), family, spec })
}

/// The file's name, or its folder's where the file has the name that all of them have.
fn config_name(path: &Path) -> String {
    let text = |n: Option<&std::ffi::OsStr>| n.map(|n| n.to_string_lossy().into_owned());
    let stem = text(path.file_stem()).unwrap_or_default();
    let folder = path.parent().and_then(|p| text(p.file_name()));
    match folder {
        Some(folder) if stem == "config" => folder,
        _ => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_called_after_its_file_or_folder() {
        assert_eq!(config_name(Path::new("models/Llama-3-8B/config.json")), "Llama-3-8B");
        assert_eq!(config_name(Path::new("models/tiny.json")), "tiny");
        assert_eq!(config_name(Path::new("config.json")), "config");
    }
}
