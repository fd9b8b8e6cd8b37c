//! The axes of a sweep as the file states them: what is crossed, what moves together, and partial trials.

use crate::scenario::axes::{self, AXES, Field, Kind};
use crate::scenario::draft::Draft;
use crate::scenario::ranges;
use crate::yaml::{Entry, Node, Place, Sources, Value, YamlError, did_you_mean};

/// One value of an axis and where it is written.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub field: Field,
    /// As its axis takes it.
    value: Value,
    shown: String,
    pub place: Option<Place>,
}

impl Setting {
    fn new(field: &Field, value: Value, place: Option<Place>, s: &Sources) -> Result<Self, YamlError> {
        let shown = shown(&value);
        let setting = Self { field: field.clone(), value: field.value(value), shown, place };
        setting.apply(&mut Draft::default()).map_err(|m| s.fault(place, m))?;
        Ok(setting)
    }

    /// Sets the field.
    ///
    /// # Errors
    /// The path, and why its value is none.
    pub(crate) fn apply(&self, draft: &mut Draft) -> Result<(), String> {
        (self.field.axis.set)(draft, &self.value).map_err(|m| format!("{}: {m}", self.field.path))
    }

    /// Path and value as text.
    pub(super) fn coordinate(&self) -> (String, String) {
        (self.field.path.clone(), self.shown.clone())
    }
}

/// A value as names of cells have it; a command by its words, how its output is read by its parts.
fn shown(value: &Value) -> String {
    match value {
        Value::List(words) => words.iter().map(|w| w.value.to_string()).collect::<Vec<_>>().join(" "),
        Value::Map(parts) => {
            parts.iter().map(|e| format!("{}: {}", e.key, shown(&e.node.value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// Axes that move together: the settings of each position.
pub(super) type Group = Vec<Vec<Setting>>;

fn field_of(e: &Entry, s: &Sources) -> Result<Field, YamlError> {
    Field::named(&e.key).ok_or_else(|| {
        let aliases = AXES.iter().flat_map(|a| a.aliases.iter().copied());
        let hint = did_you_mean(&e.key, AXES.iter().map(|a| a.path), aliases);
        s.fault(e.place, format!("no field `{}` in a trial to sweep over; {hint}", e.key))
    })
}

/// The values of an axis: a list (with ranges in it), a range, or one value.
fn values(e: &Entry, field: &Field, s: &Sources) -> Result<Vec<Setting>, YamlError> {
    let nodes = match &e.node.value {
        Value::List(list) => list.as_slice(),
        _ => std::slice::from_ref(&e.node),
    };
    let mut out = Vec::new();
    for node in nodes {
        let range = match &node.value {
            Value::Text(t) if matches!(field.axis.kind, Kind::Count | Kind::Whole | Kind::Tokens) => {
                ranges::expand(t).map_err(|m| s.fault(node.place, format!("{}: {m}", field.path)))?
            }
            _ => None,
        };
        for value in range.map_or(vec![node.value.clone()], |r| r.into_iter().map(Value::Integer).collect()) {
            out.push(Setting::new(field, value, node.place, s)?);
        }
    }
    if out.is_empty() {
        let message = format!("{}: an axis without values sweeps nothing; give at least one", field.path);
        return Err(s.fault(e.node.place, message));
    }
    Ok(out)
}

/// The groups that cross one another, in the order of the file.
#[derive(Debug)]
pub(super) struct Axes<'a> {
    /// Swept axes and where they are named.
    pub seen: Vec<(String, Option<Place>)>,
    pub groups: Vec<Group>,
    sources: &'a Sources,
}

impl<'a> Axes<'a> {
    /// Nothing is swept yet.
    pub(super) fn new(sources: &'a Sources) -> Self {
        Self { seen: Vec::new(), groups: Vec::new(), sources }
    }

    fn note(&mut self, path: &str, place: Option<Place>) -> Result<(), YamlError> {
        if let Some((_, first)) = self.seen.iter().find(|(seen, _)| seen == path) {
            let at = first.map_or(String::new(), |p| format!(", first in line {}, column {}", p.line, p.column));
            return Err(self.sources.fault(place, format!("{path} is swept twice{at}; keep one of the two")));
        }
        self.seen.push((path.to_string(), place));
        Ok(())
    }

    /// Every axis a group of its own.
    ///
    /// # Errors
    /// No map, an unknown or repeated axis, a value that the field cannot have.
    pub(super) fn matrix(&mut self, node: &Node) -> Result<(), YamlError> {
        for e in map(node, "sweep.matrix", self.sources)? {
            let field = field_of(e, self.sources)?;
            self.note(&field.path, e.place)?;
            self.groups.push(values(e, &field, self.sources)?.into_iter().map(|v| vec![v]).collect());
        }
        Ok(())
    }

    /// All axes of the map one group.
    ///
    /// # Errors
    /// As for the matrix; axes of unequal length.
    pub(super) fn zip(&mut self, node: &Node) -> Result<(), YamlError> {
        let mut group: Group = Vec::new();
        let mut first: Option<String> = None;
        for e in map(node, "sweep.zip", self.sources)? {
            let field = field_of(e, self.sources)?;
            self.note(&field.path, e.place)?;
            let values = values(e, &field, self.sources)?;
            match &first {
                None => group = values.into_iter().map(|v| vec![v]).collect(),
                Some(name) if values.len() != group.len() => {
                    let (n, m) = (values.len(), group.len());
                    let message = format!(
                        "{} has {n} values and {name} has {m}; axes that move together have equally many",
                        field.path
                    );
                    return Err(self.sources.fault(e.place, message));
                }
                Some(_) => group.iter_mut().zip(values).for_each(|(g, v)| g.push(v)),
            }
            first = first.or(Some(field.path));
        }
        if !group.is_empty() {
            self.groups.push(group);
        }
        Ok(())
    }
}

/// A partial trial: settings of single values, flattened (`model: { d_model: 8 }` is `model.d_model: 8`).
///
/// # Errors
/// No map, an unknown or repeated field, a value that the field cannot have.
pub(super) fn partial(node: &Node, s: &Sources) -> Result<Vec<Setting>, YamlError> {
    let mut out: Vec<Setting> = Vec::new();
    let mut add = |e: &Entry, key: &str| {
        let field = field_of(&Entry { key: key.into(), ..e.clone() }, s)?;
        if out.iter().any(|o| o.field.path == field.path) {
            return Err(s.fault(e.place, format!("{} is given twice; keep one of the two", field.path)));
        }
        out.push(Setting::new(&field, e.node.value.clone(), e.node.place, s)?);
        Ok(())
    };
    for e in map(node, "a partial trial", s)? {
        // `data: synthetic` is a value.
        let named = e.key == "data" && matches!(e.node.value, Value::Text(_));
        if axes::SECTIONS.contains(&e.key.as_str()) && !named {
            map(&e.node, &e.key, s)?.iter().try_for_each(|inner| add(inner, &format!("{}.{}", e.key, inner.key)))?;
        } else {
            add(e, &e.key)?;
        }
    }
    if out.is_empty() {
        return Err(s.fault(node.place, "a partial trial without fields says nothing; give at least one"));
    }
    Ok(out)
}

fn map<'a>(node: &'a Node, section: &str, s: &Sources) -> Result<&'a [Entry], YamlError> {
    match &node.value {
        Value::Map(entries) => Ok(entries),
        Value::Null => Ok(&[]),
        other => {
            let message = format!("{section}: expected a map of fields to values, found {}", other.kind());
            Err(s.fault(node.place, message))
        }
    }
}

/// The items of a section that is a list.
///
/// # Errors
/// Something else than a list.
pub(super) fn list<'a>(e: &'a Entry, s: &Sources) -> Result<&'a [Node], YamlError> {
    match &e.node.value {
        Value::List(list) => Ok(list),
        Value::Null => Ok(&[]),
        other => Err(s.fault(e.node.place, format!("sweep.{}: expected a list, found {}", e.key, other.kind()))),
    }
}
